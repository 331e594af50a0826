"""Methods that permute units, on files: a small file says which axes of which tensors share a permutation.

Such a file stands for a `PermutationSpec`. Under `axes`, the name of a tensor has one permutation or null for each axis; a `*`
stands for what is between two dots, or a part of it, and in a permutation's name for what it stood for in the tensor's:

    axes:
      model.layers.*.mlp.gate_proj.weight: [mlp.*, null]
      model.layers.*.mlp.up_proj.weight: [mlp.*, null]
      model.layers.*.mlp.down_proj.weight: [null, mlp.*]

Tensors that no entry names are left alone. How many units a permutation has is read from the shapes; where a unit owns several
neighbours on an axis, as an attention head does, it stands under `units`. `blocks` lists permutations that move the same blocks
(heads whose units change places, too), `buffers` tensors that are permuted but have no say in the matching (running statistics).

Two of the methods return permutations and no model. On files the step follows that the papers take with them: the interpolation
between model A and model B in the order of A's units.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reference_impls.checkpoints.config import MAX_TEXT, read_yaml
from reference_impls.checkpoints.errors import CheckpointError, quoted
from reference_impls.checkpoints.files import Checkpoint, read_bytes
from reference_impls.checkpoints.methods import function
from reference_impls.checkpoints.recipe import Recipe
from reference_impls.core.paths import interpolate
from reference_impls.core.permutation import PermutationSpec, apply_permutation
from reference_impls.core.state_dict import StateDict

SECTIONS = ("axes", "units", "blocks", "buffers")
MAX_ENTRIES = 1_000  # of a section; with stars a few are enough for any model

Patterns = Mapping[str, Any]  # what a file says: plain data that goes into recipes and model cards
Row = Sequence[str | None]


def align(method: str, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> StateDict:
    r"""Call a method that permutes units, and return a model in any case.

    Args:
        method: its name.
        inputs: its models, by the names of its arguments, and its generator.
        options: its other arguments, with the patterns of a file as `spec`. Where it returns permutations also `t` in [0, 1]: the
            model is then $(1 - t)\,\theta_A + t\,\pi(\theta_B)$. Default 0.5: the midpoint, where the papers look.

    Raises:
        ValueError: t out of range, and what the method refuses.
    """
    options = dict(options)
    a = inputs["model_a"] if "model_a" in inputs else inputs["models"][0]
    spec = spec_of(options.pop("spec"), {name: tensor.shape for name, tensor in a.items()})
    if "model_a" not in inputs:
        return function(method)(**inputs, spec=spec, **options)
    t = options.pop("t", 0.5)
    if not 0 <= t <= 1:
        raise ValueError(f"t is {t}; it goes from model A at 0 to model B at 1")
    permutations = function(method)(**inputs, spec=spec, **options)
    return interpolate(a, apply_permutation(spec, permutations, inputs["model_b"]), t)


# --- the file -----------------------------------------------------------------------------------------------------


def read_patterns(file: Path, model: Checkpoint) -> Patterns:
    """Return what a file says, compared with a model's names and shapes.

    Raises:
        CheckpointError: with the file and the entry in it that can't be used.
    """
    text = read_bytes(file, MAX_TEXT)
    try:
        patterns = parse_patterns(text.decode("utf-8"))
        check_patterns(patterns, model)
    except UnicodeDecodeError:
        raise CheckpointError(f"{file}: is no UTF-8 text") from None
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    return patterns


def parse_patterns(text: str) -> Patterns:
    """Return what the text of a file says, in YAML or JSON.

    Raises:
        CheckpointError: something in it is unknown, missing or of another kind.

    Example:
        >>> parse_patterns('axes: {"layers.*.up": [mlp.*, null], "layers.*.down": [null, mlp.*]}')
        {'axes': {'layers.*.up': ['mlp.*', None], 'layers.*.down': [None, 'mlp.*']}}
    """
    top = read_yaml(text, "the file")
    if not isinstance(top, dict):
        raise CheckpointError(f"the file holds {quoted(top)}; sections are needed: {', '.join(SECTIONS)}")
    for section, entries in top.items():
        if section not in SECTIONS:
            raise CheckpointError(f"{quoted(section)} is no section; there are {', '.join(SECTIONS)}")
        kind, what = (dict, "names with values") if section in ("axes", "units") else (list, "a list")
        if not isinstance(entries, kind):
            raise CheckpointError(f"{section} is {quoted(entries)}; {what} is needed")
        if len(entries) > MAX_ENTRIES:
            raise CheckpointError(
                f"{section} has {len(entries)} entries; at most {MAX_ENTRIES} are read, with stars few are needed"
            )
    if not top.get("axes"):
        raise CheckpointError("axes is missing; it says which axes of which tensors share a permutation")
    for pattern, row in top["axes"].items():
        _check_row(pattern, row)
    for pattern, count in top.get("units", {}).items():
        _check_name(pattern, f"units, {quoted(pattern)}")
        _check_count(count, f"units, {quoted(pattern)}")
    for number, entry in enumerate(top.get("blocks", ())):
        _check_block(entry, f"blocks[{number}]")
    for number, pattern in enumerate(top.get("buffers", ())):
        _check_name(pattern, f"buffers[{number}]")
    return top


def _check_row(pattern: str, row: Any) -> None:
    where = f"axes, {quoted(pattern)}"
    _check_name(pattern, where)
    if not isinstance(row, list):
        raise CheckpointError(f"{where}: is {quoted(row)}; a list with a permutation's name or null for each axis is needed")
    for name in row:
        if name is None:
            continue
        _check_name(name, where)
        if name.count("*") > pattern.count("*"):
            raise CheckpointError(f"{where}: {quoted(name)} has more stars than the tensor's name has to fill them with")


def _check_block(entry: Any, where: str) -> None:
    if not isinstance(entry, dict) or set(entry) != {"permutations", "count"}:
        raise CheckpointError(f"{where} is {quoted(entry)}; permutations and count are needed")
    names = entry["permutations"]
    if not isinstance(names, list) or not names:
        raise CheckpointError(f"{where}.permutations is {quoted(names)}; a list of names is needed")
    for name in names:
        _check_name(name, f"{where}.permutations")
    if len({name.count("*") for name in names}) > 1:
        raise CheckpointError(f"{where}.permutations is {quoted(names)}; all need the same number of stars")
    _check_count(entry["count"], f"{where}.count")


def _check_name(name: Any, where: str) -> None:
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{where}: {quoted(name)} is no name; numbers, true and false that are names stand in quotes")
    if any(part.count("*") > 1 for part in name.split(".")):
        raise CheckpointError(f"{where}: {quoted(name)} has two stars that no dot parts")


def _check_count(count: Any, where: str) -> None:
    if type(count) is not int or count < 1:
        raise CheckpointError(f"{where}: is {quoted(count)}; a whole number of 1 or more is needed")


# --- the spec -----------------------------------------------------------------------------------------------------


def spec_of(patterns: Patterns, shapes: Mapping[str, Sequence[int]]) -> PermutationSpec:
    """Return the spec of a model.

    Args:
        patterns: what a file says.
        shapes: of the model's tensors, by name and in the model's order.

    Raises:
        CheckpointError: two entries for one tensor, another number of axes than the tensor has, or sizes that disagree.

    Example:
        >>> patterns = parse_patterns('axes: {"layers.*.up": [mlp.*, null], "layers.*.down": [null, mlp.*]}')
        >>> spec = spec_of(patterns, {"layers.0.up": (8, 3), "layers.0.down": (3, 8), "norm": (3,)})
        >>> spec.axes
        {'layers.0.up': ('mlp.0', None), 'layers.0.down': (None, 'mlp.0'), 'norm': (None,)}
        >>> spec.sizes
        {'mlp.0': 8}
    """
    rows = _rows(patterns, shapes)
    axes: dict[str, tuple[str | None, ...]] = {}
    sizes: dict[str, int] = {}
    repeats: dict[tuple[str, int], int] = {}
    first: dict[str, str | None] = {}  # where the size of a permutation is from, None if the file says it
    for name, shape in shapes.items():
        pattern, row = rows.get(name, ("", [None] * len(shape)))
        where = f"axes, {quoted(pattern)}"
        if len(row) != len(shape):
            raise CheckpointError(f"{where}: describes {len(row)} axes; {quoted(name)} has shape {list(shape)}")
        axes[name] = tuple(row)
        for axis, permutation in enumerate(row):
            if permutation is None:
                continue
            entries, place = shape[axis], f"axis {axis} of {quoted(name)}"
            if entries == 0:
                raise CheckpointError(f"{where}: {place} has no entries that {quoted(permutation)} could permute")
            if permutation not in sizes:
                count = _units(patterns, permutation)
                sizes[permutation], first[permutation] = (entries, place) if count is None else (count, None)
            size, origin = sizes[permutation], first[permutation]
            if origin is not None and entries != size:
                raise CheckpointError(f"{where}: {quoted(permutation)} has {entries} units on {place}, but {size} on {origin}")
            if entries % size:
                raise CheckpointError(
                    f"{where}: {place} has {entries} entries, which {size} units of {quoted(permutation)} can't share"
                )
            if entries > size:
                repeats[name, axis] = entries // size
    buffers = {name for pattern in patterns.get("buffers", ()) for name, _ in _fits(pattern, shapes)}
    return PermutationSpec(axes, sizes, repeats, buffers=frozenset(buffers), blocks=_blocks(patterns, sizes))


def check_patterns(patterns: Patterns, model: Checkpoint) -> None:
    """Refuse patterns that don't describe a model: as `spec_of`, what fits nothing, and what can't be permuted.

    Raises:
        CheckpointError: with the entry.
    """
    rows = _rows(patterns, model)
    used = {pattern for pattern, _ in rows.values()}
    for pattern in patterns["axes"]:
        if pattern not in used:
            raise CheckpointError(f"axes, {quoted(pattern)}: fits no tensor of {model.path}")
    for name, (pattern, row) in rows.items():
        if any(row) and not model[name].dtype.is_floating_point:
            what = f"{quoted(name)} is {model[name].dtype}, which is copied from the first model"
            raise CheckpointError(f"axes, {quoted(pattern)}: {what}; only floating-point tensors are permuted")
    spec = spec_of(patterns, {name: entry.shape for name, entry in model.items()})
    if not spec.sizes:
        raise CheckpointError("axes names no permutation; without one there is nothing to align")
    for pattern in patterns.get("units", ()):
        if not any(_fits(pattern, spec.sizes)):
            raise CheckpointError(f"units, {quoted(pattern)}: fits no permutation; axes has {_some(spec.sizes)}")
    for number, entry in enumerate(patterns.get("blocks", ())):
        if not any(_fits(entry["permutations"][0], spec.sizes)):
            raise CheckpointError(f"blocks[{number}]: fits no permutation; axes has {_some(spec.sizes)}")
    for number, pattern in enumerate(patterns.get("buffers", ())):
        if not any(_fits(pattern, model)):
            raise CheckpointError(f"buffers[{number}]: {quoted(pattern)} fits no tensor of {model.path}")
    weights = {permutation for name, row in spec.axes.items() if name not in spec.buffers for permutation in row}
    if alone := [permutation for permutation in spec.sizes if permutation not in weights]:
        raise CheckpointError(f"buffers: {quoted(alone[0])} acts on buffers only; at least one weight must tell its units apart")


def check_ties(file: Path, patterns: Patterns, recipe: Recipe) -> None:
    """Refuse a spec that permutes tied tensors in different ways, as they are one.

    Raises:
        CheckpointError: with both names.
    """
    rows = _rows(patterns, recipe.checkpoints[0])
    for name, owner in recipe.ties.items():
        both = [list(rows[which][1]) if which in rows else None for which in (name, owner)]
        if both[0] != both[1] and any(any(row or ()) for row in both):
            what = " and ".join(f"{quoted(which)} has {row or 'no entry'}" for which, row in zip((name, owner), both))
            raise CheckpointError(f"{file}: axes: {what}; the two are tied and need the same axes")


def spec_of_recipe(recipe: Recipe) -> PermutationSpec | None:
    """Return the spec that the method of a recipe gets, None where it takes none."""
    tasks = [task for task in recipe.tasks if "spec" in task.options and recipe.like(task).dtype.is_floating_point]
    return spec_of(tasks[0].options["spec"], {task.name: recipe.like(task).shape for task in tasks}) if tasks else None


def _rows(patterns: Patterns, names: Iterable[str]) -> dict[str, tuple[str, Row]]:
    """Return for every tensor that an entry names the entry and its permutations, stars filled."""
    found: dict[str, tuple[str, Row]] = {}
    for pattern, row in patterns["axes"].items():
        for name, stars in _fits(pattern, names):
            if name in found:
                other = quoted(found[name][0])
                raise CheckpointError(f"axes, {quoted(pattern)}: {quoted(name)} is described by {other} too; one entry is needed")
            found[name] = (pattern, [None if p is None else _filled(p, stars) for p in row])
    return found


def _fits(pattern: str, names: Iterable[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the names that a pattern fits, with what its stars stand for."""
    if "*" not in pattern:
        if pattern in names:
            yield pattern, ()
        return
    expression = re.compile("([^.]+)".join(map(re.escape, pattern.split("*"))))
    for name in names:
        if match := expression.fullmatch(name):
            yield name, match.groups()


def _filled(name: str, stars: Sequence[str]) -> str:
    """Put in for a name's stars, in their order, what they stand for."""
    first, *rest = name.split("*")
    return first + "".join(star + part for star, part in zip(stars, rest))


def _units(patterns: Patterns, permutation: str) -> int | None:
    """How many units a permutation has, where the file says it."""
    found = [(pattern, count) for pattern, count in patterns.get("units", {}).items() if any(_fits(pattern, [permutation]))]
    if len(found) > 1:
        both = f"{quoted(found[0][0])} too"
        raise CheckpointError(f"units, {quoted(found[1][0])}: {quoted(permutation)} is described by {both}; one entry is needed")
    return found[0][1] if found else None


def _blocks(patterns: Patterns, sizes: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    found: dict[tuple[str, ...], int] = {}
    taken: set[str] = set()
    for number, entry in enumerate(patterns.get("blocks", ())):
        first, *others = entry["permutations"]
        for name, stars in _fits(first, sizes):
            names = (name, *(_filled(other, stars) for other in others))
            for member in names:
                if member not in sizes or sizes[member] % entry["count"]:
                    has = f"has {sizes[member]} units" if member in sizes else "is under no axis"
                    raise CheckpointError(f"blocks[{number}]: {quoted(member)} {has}; {entry['count']} equal blocks are needed")
                if member in taken:
                    raise CheckpointError(f"blocks[{number}]: {quoted(member)} is there twice; its blocks move in one way")
                taken.add(member)
            found[names] = entry["count"]
    return found


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(map(quoted, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
