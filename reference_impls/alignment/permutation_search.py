r"""Permutation search by simulated annealing (entezari2022role).

The conjecture says that, up to the order of their units, networks trained apart lie in one basin of the loss. To test
it without any clever matching, the order is searched for: exchange two units of one network, look at the barrier on the
line to the other network, keep the exchange if the barrier fell, and sometimes also if it rose, the more rarely the
later. What is found bounds the barrier from above.

Notation: theta_1, theta_2 the models, pi the permutation of the second, L the loss, B the barrier, tau the temperature.

Departures: the barrier is taken at the midpoint; each step changes one layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.core.permutation import PermutationSpec, apply_permutation, identity
from reference_impls.core.state_dict import StateDict, check_same_structure, linear_combination, to_state_dict, to_vector


@dataclass(frozen=True)
class PermutationSearch:
    """What the search found.

    Attributes:
        permutations: the best ones seen, index tensors by name, for model B.
        barrier: the barrier with them.
        start: the barrier without any permutation.
        accepted: share of the proposed exchanges that were kept, in [0, 1].
    """

    permutations: dict[str, Tensor]
    barrier: float
    start: float
    accepted: float


def permutation_search(
    model_a: StateDict,
    model_b: StateDict,
    spec: PermutationSpec,
    loss_fn: Callable[[StateDict], Tensor],
    *,
    num_steps: int = 1000,
    temperature: float = 0.1,
    final_temperature: float = 1e-4,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> PermutationSearch:
    r"""Search the orders of model B's units for the lowest loss barrier to model A.

    $$
    B(\pi) = L\Big(\tfrac12 \big(\theta_1 + \pi(\theta_2)\big)\Big) - \tfrac12 \big(L(\theta_1) + L(\theta_2)\big), \qquad
    \Pr[\pi \to \pi'] = \min\Big(1, \exp\frac{B(\pi) - B(\pi')}{\tau_k}\Big), \qquad
    \tau_k = \tau_0 \Big(\frac{\tau_K}{\tau_0}\Big)^{k / K}
    $$

    Args:
        model_a: $\theta_1$, the model that stays as it is.
        model_b: $\theta_2$, the model whose units are exchanged.
        spec: which permutation acts on which axis.
        loss_fn: $L$, from a state dict to a scalar.
        num_steps: $K$, exchanges proposed, >= 0. Default 1000; the paper gives it hours.
        temperature: $\tau_0$, in units of the loss, > 0. Default 0.1; the paper leaves it open.
        final_temperature: $\tau_K$, > 0. Default 1e-4; the paper leaves it open.
        generator: source of the proposals. Default None: seed 0.
        progress: called with step and barrier.

    Returns:
        A `PermutationSearch`: the permutations, the barriers with and without them, the share of exchanges kept.

    Raises:
        ValueError: models of another structure than each other's or the spec's, a negative num_steps, a temperature not above 0.

    Example:
        The loss is the distance of the average from model A; exchanging the two units of model B brings it to zero.

        >>> spec = PermutationSpec({"first.weight": ("hidden", None)}, {"hidden": 2})
        >>> model_a, model_b = {"first.weight": torch.tensor([[1.0], [2.0]])}, {"first.weight": torch.tensor([[2.0], [1.0]])}
        >>> loss_fn = lambda model: (model["first.weight"] - model_a["first.weight"]).square().sum()
        >>> found = permutation_search(model_a, model_b, spec, loss_fn, num_steps=5)
        >>> found.permutations, found.start, found.barrier
        ({'hidden': tensor([1, 0])}, -0.5, -1.0)

    References:
        entezari2022role, the search by simulated annealing.
    """
    if num_steps < 0 or temperature <= 0 or final_temperature <= 0:
        given = f"num_steps is {num_steps}, temperatures {temperature}, {final_temperature}"
        raise ValueError(f"{given}; at least 0 and above 0 are needed")
    check_same_structure(model_a, model_b)
    spec.check(model_a)
    generator = generator or torch.Generator().manual_seed(0)
    draw = lambda n: torch.randint(n, (), generator=generator).item()  # noqa: E731

    a = to_vector(model_a)
    with torch.no_grad():
        ends = (loss_fn(model_a).item() + loss_fn(model_b).item()) / 2

    def barrier(permutations: dict[str, Tensor]) -> float:
        b = to_vector(apply_permutation(spec, permutations, model_b))
        with torch.no_grad():
            return loss_fn(to_state_dict(linear_combination([a, b], [0.5, 0.5]), like=model_a)).item() - ends

    current = identity(spec, next(iter(a.values())).device)
    value = start = barrier(current)
    best, accepted = (value, current), 0
    movable = [names for names in spec.coordinates() if max(spec.sizes[name] for name in names) > 1]
    for step in range(num_steps if movable else 0):
        proposed = {**current, **_exchange(spec, current, movable[draw(len(movable))], draw)}
        new = barrier(proposed)
        tau = temperature * (final_temperature / temperature) ** (step / num_steps)
        if torch.rand((), generator=generator, dtype=torch.float64).log().item() < (value - new) / tau:
            current, value, accepted = proposed, new, accepted + 1
            if value < best[0]:
                best = (value, current)
        if progress is not None:
            progress(step, value)
    return PermutationSearch(best[1], best[0], start, accepted / max(num_steps, 1))


def _exchange(
    spec: PermutationSpec, current: dict[str, Tensor], names: tuple[str, ...], draw: Callable[[int], int]
) -> dict[str, Tensor]:
    """Exchange two units of one layer (of one head, where units come in heads), or two whole heads."""
    count = spec.blocks.get(names, 1)
    if count > 1 and draw(2):
        i = draw(count)
        j = (i + 1 + draw(count - 1)) % count
        order = torch.arange(count)
        order[[i, j]] = order[[j, i]]
        return {name: current[name].reshape(count, -1)[order].reshape(-1) for name in names}
    name = names[draw(len(names))]
    size = spec.sizes[name] // count
    i = draw(size)
    j = (i + 1 + draw(size - 1)) % size if size > 1 else i
    first = draw(count) * size
    moved = current[name].clone()
    moved[[first + i, first + j]] = moved[[first + j, first + i]]
    return {name: moved}
