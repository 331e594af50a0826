"""A merge as plain data: what goes into each tensor of the output, and by which method.

The command line and the configuration reader write recipes, the engine (`streaming.py`) carries them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from reference_impls.checkpoints.files import Checkpoint, Entry


class Source(NamedTuple):
    """One tensor of one checkpoint of the recipe."""

    checkpoint: int
    tensor: str


@dataclass(frozen=True)
class Task:
    """One tensor of the output.

    Attributes:
        name: in the output.
        method: name of a reference function ("ties_merging", "ram_plus"); those that work on files are in `methods.METHODS`.
        base: the base model's tensor, where the method has a base (`base` of the reference function).
        models: the models' tensors, in the order of `models` or `finetuned` of the reference function; `model_a` is the first and
            `model_b` the second.
        options: keyword arguments of the reference function; tensors of one recipe may differ in them.
        dtype: of the output. What isn't floating-point is copied from the base, or from the first model, in its own dtype.
    """

    name: str
    method: str
    base: Source | None
    models: tuple[Source, ...]
    options: Mapping[str, object]
    dtype: torch.dtype


@dataclass(frozen=True)
class Recipe:
    """All tensors of the output, in its order.

    Attributes:
        checkpoints: the inputs, by number.
        tasks: one a tensor.
        ties: name in the output -> earlier name that it shares its memory with in the base; such a name needs no task.
        seed: of the generator that methods with random masks get.
    """

    checkpoints: tuple[Checkpoint, ...]
    tasks: tuple[Task, ...]
    ties: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0

    def entry(self, source: Source) -> Entry:
        return self.checkpoints[source.checkpoint][source.tensor]

    def like(self, task: Task) -> Entry:
        """The entry that gives the output its shape, and its values where they are no floating-point numbers."""
        return self.entry(task.base or task.models[0])
