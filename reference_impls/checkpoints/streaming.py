"""The engine: carries out a recipe with the reference functions, tensor by tensor."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

import reference_impls
from reference_impls.checkpoints.recipe import Recipe, Task


def run(
    recipe: Recipe,
    output: Any,
    *,
    tasks: Sequence[Task] | None = None,
    threads: int = 1,
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> None:
    """Compute the tensors of a recipe and write them to `output` (`write(name, start, block)`, `finish(name)`).

    Args:
        recipe: what to do.
        output: an open `writing.Output`.
        tasks: those of the recipe that are to be done, e.g. what an earlier run left. Default None: all.
        threads: how many tensors are worked on at once.
        device: where the numbers are computed.
        progress: called with the number of entries that have been written since the last call.
    """
    for task in recipe.tasks if tasks is None else tasks:
        merged = _merge(recipe, task, device)
        output.write(task.name, 0, merged.reshape(-1).to(task.dtype).cpu())
        output.finish(task.name)
        if progress is not None:
            progress(merged.numel())


def _merge(recipe: Recipe, task: Task, device: str) -> torch.Tensor:
    def read(source):
        return recipe.checkpoints[source.checkpoint].tensor(source.tensor).to(device)

    if not recipe.like(task).dtype.is_floating_point or task.method == "passthrough":
        return read(task.base or task.models[0]) * task.options.get("scale", 1)
    method = getattr(reference_impls, task.method)
    parameters = inspect.signature(method).parameters
    models = [{task.name: read(source)} for source in task.models]
    inputs: dict[str, Any] = {"base": {task.name: read(task.base)}} if task.base is not None else {}
    if "model_a" in parameters:
        inputs |= {"model_a": models[0], "model_b": models[1]}
    else:
        inputs["finetuned" if "finetuned" in parameters else "models"] = models
    if "generator" in parameters:
        inputs["generator"] = torch.Generator().manual_seed(recipe.seed)
    return method(**inputs, **task.options)[task.name]
