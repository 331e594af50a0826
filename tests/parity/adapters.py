"""What an adapter returns, and how the adapter of a case is found.

An adapter is a function in one of the files `adapters_<group>.py`, named as the case without its number and variant:
`mergekit_ties` for `mergekit.ties.016.open`. It calls our implementation on the case's inputs and returns an `Outcome`. Numbers
that the case sets (weights, densities, drawn masks) are passed on; every other option stays at our default, or is named.
There are three verdicts:

- `same`: our defaults give the peer's values within the case's tolerance;
- `same with option`: they do with the named options, which are those that the peer's rule needs in general;
- `differs`: they do not, for the reason that the method's record states under `differs` with the topic named here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from reference_impls.core.state_dict import StateDict, Vector, task_vector
from tests.parity.load import Case


@dataclass(frozen=True)
class Outcome:
    """Our values for one case, and what the comparison is expected to show.

    Attributes:
        method: our method's id.
        ours: output name -> our value; a subset of the case's outputs where the rest is the peer's bookkeeping.
        option: what has to be set for the peer's values, empty for our defaults.
        differs: the topic of the record's entry, empty where the values agree.
        only_in: where they differ, the tensors that do; the others agree. Empty where the entry concerns all of them.
        at_least: for objectives that a search in random order maximises, the share of the peer's value that ours must reach.
    """

    method: str
    ours: dict[str, Any]
    option: str = ""
    differs: str = ""
    only_in: tuple[str, ...] = ()
    at_least: float = 0.0

    @property
    def verdict(self) -> str:
        if self.differs:
            return f"differs: {self.differs}"
        return f"same with {self.option}" if self.option else "same"


def outcome(case: Case) -> Outcome:
    """Run our implementation on a case."""
    return adapters()[case.adapter](case)


def adapters() -> dict[str, Callable[[Case], Outcome]]:
    """All adapters by name, from all the files of this folder."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("adapters_*.py")):
        found |= vars(import_module(f"tests.parity.{file.stem}"))
    return found


def named(**options: Any) -> str:
    """How options that are not our defaults are written down: those given, without the ones that are None.

    Example:
        >>> named(trim="tensor", elect=None, normalize=False)
        'trim="tensor", normalize=False'
    """
    shown = {key: value for key, value in options.items() if value is not None}
    return ", ".join(f'{key}="{value}"' if isinstance(value, str) else f"{key}={value}" for key, value in shown.items())


def zeros_like(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.new_zeros(v.shape) for k, v in tensors.items()}


def updates(case: Case) -> list[Vector]:
    return [task_vector(model, case.inputs["base"]) for model in case.inputs["models"]]


def plus(base: StateDict, tau: Vector) -> dict[str, Tensor]:
    return {k: base[k] + tau[k] for k in base}
