r"""Learned soup (wortsman2022soups).

Instead of choosing which models to average, learn how much of each to take: the mixing coefficients are trained by
gradient descent on the held-out loss of the mixed model, together with one temperature for its outputs.

Notation: theta_i the models, alpha_i their coefficients (positive, sum 1), beta the temperature, f the network, l the
cross-entropy.

Departures: the batches are visited in a fixed order. The temperature only serves the training; the result is the mixed
model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from reference_impls.core.descent import descend, outputs
from reference_impls.core.state_dict import StateDict, Vector, check_same_structure, to_state_dict, to_vector


def learned_soup(
    models: Sequence[StateDict],
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    level: Literal["model", "layer"] = "model",
    num_steps: int = 100,
    lr: float = 0.05,
    progress: Callable[[int, float], None] | None = None,
) -> StateDict:
    r"""Average models with coefficients learnt on held-out data.

    $$
    \min_{\alpha, \beta} \sum_{(x, y)} \ell\Big(\beta\, f\big(x;\, \textstyle\sum_i \alpha_i \theta_i\big),\, y\Big),
    \qquad \alpha = \mathrm{softmax}(a)
    $$

    Args:
        models: $\theta_1 \dots \theta_n$, n >= 1.
        network: f, maps inputs to logits (batch, classes), in evaluation mode; its own parameters are not used.
        batches: held-out (inputs, targets), one a step in turn.
        level: "model" learns one coefficient a model, "layer" one a model and tensor (Appendix I, "by layer").
            Default "model": one a model.
        num_steps: steps of Adam, >= 0. Default 100: for small models; the authors' code takes five passes over the
            data.
        lr: step size. Default 0.05: the authors' code.
        progress: called with the step and the loss.

    Returns:
        A new state dict, structured as the first model.

    Raises:
        ValueError: no models, models of another structure, no batches, an unknown level, a negative number of steps.

    Example:
        Without steps all coefficients are equal.

        >>> models = [{"weight": torch.tensor([[x], [0.0]])} for x in (1.0, 3.0)]
        >>> learned_soup(models, nn.Linear(1, 2, bias=False), [(torch.ones(1, 1), torch.tensor([0]))], num_steps=0)
        {'weight': tensor([[2.],
                [0.]])}

    References:
        wortsman2022soups, Appendix I.
    """
    check_same_structure(*models)
    if level not in ("model", "layer"):
        raise ValueError(f"level is {level!r}; it is model or layer")
    data = list(batches)
    if not data:
        raise ValueError("received no batches; at least one is needed")
    thetas = [to_vector(model) for model in models]
    device = data[0][0].device
    rows = len(thetas[0]) if level == "layer" else 1
    start = {"a": torch.zeros(rows, len(models), device=device), "beta": torch.ones((), device=device)}

    def loss(parameters: Vector, step: int) -> Tensor:
        inputs, targets = data[step % len(data)]
        theta = _mix(thetas, parameters["a"].softmax(dim=1))
        logits = parameters["beta"] * outputs(network, theta, inputs, like=models[0])
        return nn.functional.cross_entropy(logits, targets)

    learnt = descend(loss, start, num_steps=num_steps, lr=lr, progress=progress)
    return to_state_dict(_mix(thetas, learnt["a"].softmax(dim=1)), like=models[0])


def _mix(thetas: Sequence[Vector], alpha: Tensor) -> Vector:
    """sum_i alpha_i theta_i, with coefficients (layers, models) or (1, models)."""
    per_layer = alpha.expand(len(thetas[0]), len(thetas))
    return {key: sum(a.to(t[key]) * t[key] for a, t in zip(per_layer[i], thetas)) for i, key in enumerate(thetas[0])}
