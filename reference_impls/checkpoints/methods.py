"""Which methods run on checkpoints, and how much of a model each has to see: data, compared with the catalog by a test.

There are four ways to run a reference function on files:

- "entries": entry by entry, in one pass;
- "numbers": a few numbers of each tensor first (inner products, thresholds, sums), then entry by entry;
- "matrix": one tensor at a time, whole in memory;
- "model": the whole model in memory, because the method can't be cut.

Methods on LoRA adapters run by another command, `combine`.

Where `joint` holds for its options, a method of the first two ways looks at all tensors before it writes one: it runs over the
files several times, with memory for a few blocks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal

import reference_impls
from reference_impls.checkpoints.errors import CheckpointError

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Streaming:
    """How a method runs on files.

    Attributes:
        way: "entries", "numbers", "matrix" or "model", see above.
        joint: tells by the options, defaults included, whether a number belongs to the whole model.
        module: the method in whose module the function stands, where it isn't named as its module.
        note: what a user should know.
    """

    way: Literal["entries", "numbers", "matrix", "model"]
    joint: Callable[[Options], bool] = lambda options: False
    module: str | None = None
    note: str = ""


def _whole_scope(options: Options) -> bool:
    return options["scope"] == "model"


def _majority(options: Options) -> bool:
    return options["zero_sum"] == "majority"


def _trims(density: Any) -> bool:
    return min([density] if isinstance(density, (int, float)) else density) < 1


_SPEC = "needs `spec`, a file that says which axes of which tensors share a permutation"

METHODS: dict[str, Streaming] = {
    # alignment
    "c2m3": Streaming("model", note=_SPEC),
    "frank_wolfe_matching": Streaming("model", note=f"{_SPEC}; writes the model at `t` from A to B in A's units"),
    "gamf": Streaming("model", note=_SPEC),
    "weight_matching": Streaming("model", note=f"{_SPEC}; writes the model at `t` from A to B in A's units"),
    # averaging
    "block_merge": Streaming("entries", lambda options: True, note="needs the names of all tensors"),
    "fused_base": Streaming("entries"),
    "geometric_median": Streaming("numbers", _whole_scope),
    "karcher_mean": Streaming("numbers", _whole_scope),
    "model_stock": Streaming("numbers", _whole_scope),
    "multislerp": Streaming("numbers"),
    "nearswap": Streaming("entries"),
    "nuslerp": Streaming("numbers", _whole_scope),
    "slerp": Streaming("numbers", _whole_scope),
    "uniform_soup": Streaming("entries"),
    "varm": Streaming("numbers"),
    # mixing
    "passthrough": Streaming("entries", note="one tensor copied; its option here is `scale`, a factor"),
    # task vectors
    "arcee_fusion": Streaming("numbers"),
    "breadcrumbs": Streaming("numbers", lambda o: o["merge"] == "ties" and _majority(o)),
    "consensus_merging": Streaming("entries", lambda o: o["merge"] == "ties"),
    "dare": Streaming("numbers", lambda o: o["merge"] == "ties" and (_trims(o["ties_density"]) or _majority(o))),
    "della": Streaming("numbers", lambda o: o["merge"] == "elect" and _majority(o)),
    "emr_merging": Streaming("numbers", lambda o: True, note="writes the model of one task, the option `task`"),
    "expo": Streaming("entries"),
    "iso_c": Streaming("matrix"),
    "iso_cts": Streaming("matrix", module="iso_c"),
    "knots": Streaming("model", note="TIES ranks the entries of all layers in the shared bases"),
    "magmax": Streaming("entries"),
    "modality_arithmetic": Streaming("entries"),
    "naive_mc": Streaming("entries", note="a tensor that one model has alone is copied"),
    "pcb_merging": Streaming("model", note="scores are scaled and ranked over all tensors"),
    "ram": Streaming("entries"),
    "ram_plus": Streaming("numbers", _whole_scope, module="ram"),
    "sce": Streaming("numbers"),
    "tall_masks": Streaming("entries", lambda o: o["merge"] == "ties", note="writes the model of one task, the option `task`"),
    "task_arithmetic": Streaming("entries"),
    "ties_merging": Streaming("numbers", lambda o: (o["trim"] == "global" and _trims(o["density"])) or _majority(o)),
    "tsv_merging": Streaming("matrix"),
}

COMBINED: dict[str, tuple[str, ...]] = {  # methods that take adapters, and the ways of `combine` that call them
    "lora_lego": ("lego",),
    "pem_composition": ("cat", "svd", "linear", "magnitude_prune"),
}

ELSEWHERE: dict[str, str] = {  # methods without data or training that have no way on files, and why
    "logit_ensemble": "it combines predictions, not weights",
}


def streaming(method: str) -> Streaming:
    """Return how a method runs on files.

    Raises:
        CheckpointError: it doesn't, with the reason.
    """
    if method in METHODS:
        return METHODS[method]
    if method in COMBINED:
        ways = " or ".join(f"`combine --how {way}`" for way in COMBINED[method])
        raise CheckpointError(f"{method} takes LoRA adapters, not models: use {ways}")
    known = method in reference_impls.methods()
    why = ELSEWHERE.get(method, "it needs data, gradients, training or a network" if known else "there is no such method")
    raise CheckpointError(f"{method} can't run on checkpoints: {why}")


@cache
def function(method: str) -> Callable[..., Any]:
    """Return the reference function."""
    paths = reference_impls.methods()
    return getattr(import_module(paths[streaming(method).module or method]), method)


def is_joint(method: str, options: Options) -> bool:
    """Whether a number that belongs to the whole model is needed before the first entry can be written."""
    return streaming(method).way == "model" or streaming(method).joint({**_defaults(method), **options})


@cache
def _defaults(method: str) -> Options:
    return {name: parameter.default for name, parameter in inspect.signature(function(method)).parameters.items()}
