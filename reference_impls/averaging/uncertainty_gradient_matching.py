r"""Uncertainty-based gradient matching (daheim2024ugm).

Merging goes wrong where the gradients of the tasks at the merged model no longer match those at the models themselves.
To first order the mismatch is undone by weighing every parameter's movement with the curvature of its own task and of
the pre-training, and dividing by the curvature of all of them together.

Notation: theta_0 the base model, theta_t the fine-tuned models, H_0 and H_t diagonal Hessians (in practice Fisher
information) of the pre-training and of the tasks, alpha_t the weights, delta a constant added to H_0.

Departures: none. The Hessians are inputs; the paper estimates them by squared gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from reference_impls.core.state_dict import StateDict, task_vector, to_state_dict, to_vector


def uncertainty_gradient_matching(
    base: StateDict,
    finetuned: Sequence[StateDict],
    base_fisher: StateDict,
    fishers: Sequence[StateDict],
    *,
    weights: Sequence[float] | None = None,
    delta: float = 0.0,
) -> StateDict:
    r"""Merge with every task vector preconditioned by the curvature that it and the base model have.

    $$
    \theta = \theta_0 + \sum_t \alpha_t\, \bar H^{-1} (H_0 + H_t)(\theta_t - \theta_0), \qquad
    \bar H = H_0 + \sum_t \alpha_t H_t
    $$

    Args:
        base: $\theta_0$, the pre-trained model.
        finetuned: $\theta_1 \dots \theta_n$, n >= 1.
        base_fisher: $H_0$, non-negative, by parameter name; what has no entry (buffers) is merged by task arithmetic.
        fishers: $H_1 \dots H_n$, one a model, non-negative. They and `base_fisher` have to be sums or means of the
            same kind, for only their ratios count.
        weights: $\alpha_1 \dots \alpha_n$, not negative. Default None: all 1, as in task arithmetic.
        delta: added to $H_0$ in every entry, >= 0, in the unit of H; a large one gives task arithmetic. Default 0.0:
            the authors' code.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, another number of Fishers or weights, a missing or
            negative entry, a negative weight or delta.

    Example:
        Two task vectors of 1 with curvature 3 and 1 beside 1 of the base: (1 + 3) / 5 + (1 + 1) / 5 = 1.2, where
        task arithmetic gives 2.

        >>> base, models = {"w": torch.zeros(1)}, [{"w": torch.ones(1)}, {"w": torch.ones(1)}]
        >>> fishers = [{"w": torch.tensor([3.0])}, {"w": torch.tensor([1.0])}]
        >>> uncertainty_gradient_matching(base, models, {"w": torch.ones(1)}, fishers)
        {'w': tensor([1.2000])}

    References:
        daheim2024ugm, the equation of the merged parameters.
    """
    alphas = [1.0] * len(finetuned) if weights is None else [float(w) for w in weights]
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    if not len(alphas) == len(fishers) == len(finetuned):
        counts = f"{len(finetuned)} models, {len(fishers)} Fishers, {len(alphas)} weights"
        raise ValueError(f"received {counts}; one of each per model is needed")
    if min(alphas) < 0 or delta < 0:
        raise ValueError(f"weights are {alphas} and delta is {delta}; none may be negative")
    taus = [task_vector(model, base) for model in finetuned]
    theta_0 = to_vector(base)
    for name, fisher in (("base_fisher", base_fisher), *((f"Fisher {t}", f) for t, f in enumerate(fishers, start=1))):
        _check(name, fisher, theta_0, base_fisher)

    merged = {}
    for key, start in theta_0.items():
        if key not in base_fisher:
            merged[key] = start + sum(alpha * tau[key] for alpha, tau in zip(alphas, taus))
            continue
        h_0 = base_fisher[key].double() + delta
        h = [fisher[key].double() for fisher in fishers]
        total = h_0 + sum(alpha * h_t for alpha, h_t in zip(alphas, h))
        numerator = sum(alpha * (h_0 + h_t) * tau[key] for alpha, h_t, tau in zip(alphas, h, taus))
        merged[key] = start + numerator / torch.where(total > 0, total, 1)  # no curvature at all: the base stays
    return to_state_dict(merged, like=base)


def _check(name: str, fisher: StateDict, theta_0: StateDict, base_fisher: StateDict) -> None:
    for key, tensor in theta_0.items():
        if (key in fisher) != (key in base_fisher):
            raise ValueError(f"{name} and base_fisher do not cover the same tensors: {key!r}")
        if key in fisher and fisher[key].shape != tensor.shape:
            shapes = tuple(tensor.shape), tuple(fisher[key].shape)
            raise ValueError(f"{key!r} has shape {shapes[0]} in the models and {shapes[1]} in {name}")
        if key in fisher and (fisher[key] < 0).any():
            raise ValueError(f"{key!r} of {name} has negative values")
