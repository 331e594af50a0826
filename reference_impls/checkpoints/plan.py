"""`python -m reference_impls plan ...`: what `merge` would do with the same arguments, without reading a weight."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from reference_impls.checkpoints.aligning import spec_of_recipe
from reference_impls.checkpoints.card import differences_of, printable, settings_of
from reference_impls.checkpoints.mergekit import NO_EFFECT
from reference_impls.checkpoints.methods import is_joint, streaming
from reference_impls.checkpoints.recipe import Task
from reference_impls.checkpoints.request import Request, add_arguments, understand
from reference_impls.checkpoints.streaming import KEEP
from reference_impls.checkpoints.writing import layout
from reference_impls.core.blocks import BLOCK
from reference_impls.core.selection import GROUPS, MANY

MOST = 10  # lines of one kind
PROCESS = 12_000_000  # bytes that a forked process doesn't share, as measured


def add_parser(commands: Any, argv: Sequence[str] = ()) -> None:
    parser = commands.add_parser("plan", help="say what merge would do with the same arguments")
    add_arguments(parser, argv)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    print(printable(describe(understand(args), args.shard_size, args.workers), keep="\n"))
    return 0


def describe(request: Request, shard_size: int, workers: int) -> str:
    """Return the plan as text."""
    recipe, tensors = request.recipe, request.tensors
    shards = layout(tensors, shard_size)
    lines = []
    for model, checkpoint in zip(request.models, recipe.checkpoints):
        role = "base" if request.base and checkpoint is request.lead else "model"
        size = sum(entry.stop - entry.start for entry in checkpoint.values())
        held = f"{_count(len(checkpoint), 'tensor')}, {_size(size)} in {_count(len(checkpoint.files), 'file')}"
        lines.append(f"{role:8}{model}: {held}")
    dtypes = ", ".join(sorted({str(dtype).removeprefix("torch.") for dtype, _ in tensors.values()}))
    size = sum(shard.size for shard in shards)
    lines.append(f"output  {_count(len(tensors), 'tensor')}, {_size(size)} in {_count(len(shards), 'file')}, {dtypes}")
    if len(shards) > 1:
        lines += _some([f"{shard.name}: {_count(len(shard.starts), 'tensor')}, {_size(shard.size)}" for shard in shards])
    if recipe.ties:
        lines += ["tied", *_some([f"{name} = {owner}" for name, owner in recipe.ties.items()])]
    settings = settings_of(request)
    lines += ["method", *_some([f"{_count(count, 'tensor')}: {call}" for call, count in settings])]
    if spec := spec_of_recipe(recipe):
        places = Counter(name for axes in spec.axes.values() for name in axes)
        permuted = [f"{name}: {_count(n, 'unit')} in {_count(places[name], 'place')}" for name, n in spec.sizes.items()]
        lines += ["permuted", *_some(permuted)]
    lines += ["passes", *(f"  {text}" for text in dict.fromkeys(_passes(task) for task in recipe.tasks))]
    bound = "at least" if {"matrix", "model"} & {streaming(task.method).way for task in recipe.tasks} else "up to"
    lines.append(f"memory  {bound} {_size(_memory(request, workers))} beside what torch takes ({_count(workers, 'worker')})")
    if copied := [task.name for task in recipe.tasks if not task.dtype.is_floating_point]:
        lines += ["copied from the first model, being no floating-point numbers", *_some(copied)]
    if differences := differences_of(request):
        lines += [f"differs from mergekit 0.1.5 (variant {request.config.variant})", *(f"  {text}" for text in differences)]
    if notes := notes_on(request):
        lines += ["note", *(f"  {note}" for note in notes)]
    return "\n".join(lines)


def _passes(task: Task) -> str:
    """How often a tensor's inputs are read."""
    how = {
        "entries": "read once, in blocks",
        "numbers": "read in blocks, for numbers of a whole tensor first and then for its entries",
        "matrix": "read once, a whole tensor at a time",
        "model": "the whole model at once",
    }[streaming(task.method).way]
    joint = is_joint(task.method, task.options)
    return f"{task.method}: {how}{', all tensors before the first is written' if joint else ''}"


def _memory(request: Request, workers: int) -> int:
    """Bytes for a few blocks a worker, what is kept because it is needed twice, counters, and tensors that must be whole."""
    few, kept, largest, model = 0, 0, 0, 0
    for task in request.recipe.tasks:
        inputs = 4 * (len(task.models) + 2)  # the result and a step before it too, in float32
        size = inputs * request.recipe.like(task).numel
        few = max(few, 2 * workers * inputs * BLOCK)
        match streaming(task.method).way:
            case "numbers" if is_joint(task.method, task.options):  # of magnitudes, perhaps: some tables a worker, and their sums
                kept = max(kept, 8 * MANY * (6 * workers + 2 * GROUPS))
            case "numbers":
                kept = max(kept, min(KEEP, workers * size))
            case "matrix":
                largest = max(largest, workers * size)  # and what a decomposition takes
            case "model":
                model += size
    if spec := spec_of_recipe(request.recipe):  # a matrix of float64 says how well the units of two models go together
        pairs = [8 * n * n for n in spec.sizes.values()]
        model += max(pairs) if request.method == "weight_matching" else sum(pairs) * (len(request.models) - 1)
    own = PROCESS * workers if workers > 1 else 0
    return few + own + kept + largest + model


def notes_on(request: Request) -> list[str]:
    """Return what a configuration says without effect."""
    config = request.config
    if config is None:
        return []
    names = {source.tensor for task in request.recipe.tasks for source in (task.base, *task.models) if source}
    names |= {task.name for task in request.recipe.tasks}
    scopes = [config.parameters] + [p for part in config.slices for p in (part.parameters, *(i.parameters for i in part.inputs))]
    notes = {}
    for settings in scopes:
        for key, setting in settings.items():
            if why := NO_EFFECT.get(key) or NO_EFFECT.get(f"{config.method}.{key}"):
                notes[f"{key} has no effect: {why}"] = None
            for wanted, _ in setting.conditions:
                if wanted not in (None, "*") and not any(wanted in name for name in names):
                    notes[f"{key}: the filter {wanted!r} fits no tensor"] = None
    return list(notes)


def _some(items: Sequence[str]) -> list[str]:
    """Indent items, and leave out all beyond the first few."""
    more = [f"  and {len(items) - MOST} more"] if len(items) > MOST else []
    return [f"  {item}" for item in items[:MOST]] + more


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _size(size: float) -> str:
    """A number of bytes in the unit that suits it.

    Example:
        >>> _size(999), _size(1_230_000), _size(5e9)
        ('999 B', '1.23 MB', '5.00 GB')
    """
    for unit, bytes_in_it in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= bytes_in_it:
            return f"{size / bytes_in_it:.2f} {unit}"
    return f"{size} B"
