"""From a configuration, or from a method and its options, to a recipe: every tensor of the output with what goes into it.

Layers are read from the names of the tensors (`model.layers.7.mlp.up_proj.weight` is in layer 7), so that models of any
architecture can be merged. A gradient runs over the layers of a stack; what lies outside of it, embedding and head, takes its
first value.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from reference_impls.checkpoints.aligning import align
from reference_impls.checkpoints.checks import common_ties
from reference_impls.checkpoints.config import Config, Input, Setting, Settings, Slice
from reference_impls.checkpoints.errors import CheckpointError, quoted
from reference_impls.checkpoints.files import Checkpoint
from reference_impls.checkpoints.mergekit import METHODS, REQUIRED, Call
from reference_impls.checkpoints.methods import function
from reference_impls.checkpoints.recipe import Recipe, Source, Task

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")
_BEFORE = re.compile(r"embed(?!_out)|embd|wte|wpe|shared|rotary|relative_pe")  # what of a model stands before its layers
DEPTH = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")  # what config.json calls the number of layers


@dataclass(frozen=True)
class Place:
    """Where a tensor is in a stack of layers: what stands before and after the number in its name, and the number."""

    stack: str
    layer: int
    rest: str

    def name(self, layer: int) -> str:
        return f"{self.stack}{layer}{self.rest}"


def place(name: str) -> Place | None:
    """Return where a tensor is in a stack of layers, None outside of any.

    Example:
        >>> place("model.layers.7.mlp.weight")
        Place(stack='model.layers.', layer=7, rest='.mlp.weight')
        >>> place("lm_head.weight")
    """
    match = _LAYER.search(name)
    return Place(name[: match.start(1)], int(match[1]), name[match.end(1) :]) if match else None


def depths(names: Sequence[str]) -> dict[str, int]:
    """Return how many layers each stack has."""
    found: dict[str, int] = {}
    for name in names:
        if where := place(name):
            found[where.stack] = max(found.get(where.stack, 0), where.layer + 1)
    return found


# --- a method and its options -------------------------------------------------------------------------------------


def apply(
    method: str,
    checkpoints: Sequence[Checkpoint],
    options: Mapping[str, Any],
    *,
    has_base: bool,
    dtype: str | None = None,
    seed: int = 0,
) -> Recipe:
    """Return the recipe of one call of a reference function for all tensors.

    Args:
        method: its name.
        checkpoints: the models, after the base where there is one.
        options: keyword arguments of the function.
        has_base: whether the first checkpoint is the base.
        dtype: of the output. Default None: as stored in the first checkpoint.
        seed: of methods with random masks.
    """
    models = len(checkpoints) - has_base
    try_options(method, options, models, has_base)
    ties = common_ties(checkpoints)
    tasks = []
    for name in checkpoints[0]:
        if name not in ties:
            sources = [Source(number, name) for number in range(len(checkpoints))]
            base = sources[0] if has_base else None
            tasks.append(Task(name, method, base, tuple(sources[has_base:]), options, _dtype(checkpoints[0], name, dtype)))
    return Recipe(tuple(checkpoints), tuple(tasks), ties, seed)


def try_options(method: str, options: Mapping[str, Any], models: int, has_base: bool) -> None:
    """Call a method on numbers of its own, so that what it refuses is refused before a file is read.

    Raises:
        CheckpointError: with the method's own words.
    """
    if method == "passthrough":
        return
    called, options = function(method), {key: value for key, value in options.items() if key != "task"}
    w = torch.tensor([[0.5, -1.0, 2.0, 0.25], [1.5, 0.75, -0.5, 1.0]])
    tried = [{"w": w + 0.1 * i * w.flip(0)} for i in range(models)]
    given = inputs(called, {"w": w} if has_base else None, tried)
    try:
        if "spec" in options:
            align(method, given, {**options, "spec": {"axes": {"w": ["units", None]}}})
        else:
            called(**given, **options)
    except (ValueError, ImportError) as error:  # a package that solves assignments may be missing
        raise CheckpointError(f"{method}: {error}") from None


def inputs(called: Callable[..., Any], base: Any, models: Sequence[Any]) -> dict[str, Any]:
    """Return the arguments of a reference function that are models, by the names that it has for them."""
    names = inspect.signature(called).parameters
    given = {} if base is None else {"base": base}
    if "model_a" in names:
        return given | {"model_a": models[0], "model_b": models[1]}
    return given | {"finetuned" if "finetuned" in names else "models": models}


def _dtype(checkpoint: Checkpoint, tensor: str, dtype: str | None) -> torch.dtype:
    """Of the output: as stored, unless another is asked for; what isn't floating-point keeps its own."""
    stored = checkpoint[tensor].dtype
    return getattr(torch, dtype) if dtype is not None and stored.is_floating_point else stored


# --- a configuration ----------------------------------------------------------------------------------------------


def expand(config: Config, checkpoints: Mapping[str, Checkpoint], *, seed: int = 0) -> Recipe:
    """Return the recipe of a configuration; `checkpoints` holds every model that it names.

    Raises:
        CheckpointError: a value is missing for a tensor or impossible, or a tensor or layer doesn't exist.
    """
    models = config.models()
    expansion = _Expansion(config, checkpoints)
    inputs = tuple(checkpoints[model] for model in models)
    if config.slices[0].inputs[0].layers is not None:
        return Recipe(inputs, tuple(expansion.sliced()), {}, seed)
    tasks = expansion.whole()  # before the ties, for which a few bytes of tensors that look alike are read
    ties = common_ties(inputs)
    return Recipe(inputs, tuple(task for task in tasks if task.name not in ties), ties, seed)


class _Expansion:
    """A configuration with its models, from which tasks are made tensor by tensor."""

    def __init__(self, config: Config, checkpoints: Mapping[str, Checkpoint]) -> None:
        self.config, self.checkpoints = config, checkpoints
        self.order = {model: number for number, model in enumerate(config.models())}
        self.method = METHODS[config.method]
        self.calls: dict[str, Call] = {}

    def leading(self, part: Slice) -> int:
        """Which input gives the names, shapes and dtypes: the base, or the first."""
        base = part.base or self.config.base
        return next((i for i, given in enumerate(part.inputs) if given.model == base), 0)

    def whole(self) -> list[Task]:
        """The tasks of models that are merged as they are."""
        (part,) = self.config.slices
        names = list(self.checkpoints[part.inputs[self.leading(part)].model])
        layers = depths(names)
        tasks = []
        for name in names:
            where = place(name)
            t = _share(where.layer, layers[where.stack]) if where else 0.0
            tasks.append(self.task(name, part, [name] * len(part.inputs), t))
        return tasks

    def sliced(self) -> list[Task]:
        """The tasks of an output whose layers are put together one by one."""
        first, last = self.config.slices[0], self.config.slices[-1]
        model = self.checkpoints[first.inputs[self.leading(first)].model]
        stacks = list(depths(list(model)))
        if len(stacks) != 1:
            raise CheckpointError(f"{model.path}: has {len(stacks)} stacks of layers ({', '.join(stacks)}); slices need one")
        outside = [name for name in model if place(name) is None]
        tasks = [self.task(name, first, [name] * len(first.inputs), 0.0) for name in outside if _BEFORE.search(name)]
        number = 0
        for part in self.config.slices:
            for offset in range(part.length):
                tasks += self.layer(part, stacks[0], offset, number)
                number += 1
        return tasks + [self.task(name, last, [name] * len(last.inputs), 0.0) for name in outside if not _BEFORE.search(name)]

    def layer(self, part: Slice, stack: str, offset: int, number: int) -> list[Task]:
        """The tasks of one layer of the output, the one `offset` after the beginning of a slice."""
        lead = part.inputs[self.leading(part)]
        model, index = self.checkpoints[lead.model], lead.layers[0] + offset
        found = [where for where in map(place, model) if where and (where.stack, where.layer) == (stack, index)]
        if not found:
            depth = depths(list(model)).get(stack, 0)
            raise CheckpointError(f"{model.path}: has {depth} layers {stack}*; there is no layer {index}")
        names = [[where.name(given.layers[0] + offset) for given in part.inputs] for where in found]
        return [self.task(where.name(number), part, each, _share(offset, part.length)) for where, each in zip(found, names)]

    def task(self, name: str, part: Slice, names: Sequence[str], t: float) -> Task:
        """One tensor of the output, from the tensors `names` of the slice's inputs, at the place t in [0, 1] of its stack."""
        base = None if self.method.base == "none" else part.base or self.config.base
        sources = {}
        for given, tensor in zip(part.inputs, names):
            if tensor not in self.checkpoints[given.model]:
                path = self.checkpoints[given.model].path
                raise CheckpointError(f"{path}: lacks tensor {quoted(tensor)}, which the output needs")
            sources[given.model] = Source(self.order[given.model], tensor)
        models = [(given, tensor) for given, tensor in zip(part.inputs, names) if given.model != base]
        method, options = self._call(name, part, models, base is not None, t)
        lead = part.inputs[self.leading(part)].model
        dtype = _dtype(self.checkpoints[lead], sources[lead].tensor, self.config.dtype)
        root = sources.pop(base, None)
        if self.method.base == "first":
            return Task(name, method, None, (root, *sources.values()), options, dtype)
        return Task(name, method, root, tuple(sources.values()), options, dtype)

    def _call(self, name: str, part: Slice, models: Sequence[tuple[Input, str]], based: bool, t: float) -> Call:
        """The reference function and its options for one tensor."""
        values: dict[str, Any] = {}
        general = (part.parameters, self.config.parameters)
        for key, parameter in self.method.parameters.items():
            if parameter.each:
                found = [_value(key, (given.parameters, *general), tensor, t) for given, tensor in models]
            else:
                found = [_value(key, general, name, t)]
            found = [parameter.default if value is None else value for value in found]
            if REQUIRED in found:
                which = f" for {quoted(models[found.index(REQUIRED)][0].model)}" if parameter.each else ""
                raise CheckpointError(f"{key} is missing{which} (tensor {quoted(name)}); {self.config.method} needs it")
            if parameter.kind is int and found[0] != int(found[0]):
                raise CheckpointError(f"{key} is {found[0]} for tensor {quoted(name)}; it is a whole number")
            values[key] = found if parameter.each else parameter.kind(found[0])
        known = repr(values)
        if known not in self.calls:
            try:
                first = self.method.base == "first"
                self.calls[known] = self.method.call(values, self.config.variant)
                try_options(*self.calls[known], len(models) + first, based and not first)
            except ValueError as error:
                raise CheckpointError(f"{self.config.method}, tensor {quoted(name)}: {error}") from None
        return self.calls[known]


def _share(number: int, count: int) -> float:
    """Where in [0, 1] a layer is among `count`; a layer by itself is at the end, as in mergekit."""
    return number / (count - 1) if count > 1 else 1.0


def _value(key: str, scopes: Sequence[Settings], tensor: str, t: float) -> Any:
    """The value that the nearest scope has for a tensor."""
    for settings in scopes:
        setting: Setting | None = settings.get(key)
        if setting is not None and (value := setting.at(tensor, t)) is not None:
            return value
    return None
