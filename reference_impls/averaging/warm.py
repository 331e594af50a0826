r"""WARM, weight averaged reward models (rame2024warm).

A single reward model is easily fooled by the policy that is trained against it. Train several reward models on the same
preferences from one pre-trained model, but from different checkpoints of its supervised fine-tuning ("Baklava") and
with different hyper-parameters, and average their weights: the average keeps what they have in common and forgets the
preferences that each memorised, wrong labels among them.

Notation: theta_i the starting checkpoints, r(x) the reward of input x, (x+, x-) a preferred and a rejected answer,
sigma the logistic function.

Departures: the diversity is that of starting points, step sizes and data orders; dropout is left to the network. The
paper first fits the reward head alone on frozen features; here the head is part of the checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.core.descent import descend, outputs
from reference_impls.core.state_dict import StateDict, Vector, check_same_structure, to_state_dict, to_vector


def warm(
    models: Sequence[StateDict],
    network: nn.Module,
    preferences: tuple[Tensor, Tensor],
    *,
    lrs: Sequence[float] = (1e-3, 3e-4, 3e-3),
    num_steps: int = 100,
    batch_size: int = 32,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> StateDict:
    r"""Train reward models from several checkpoints and average their weights.

    $$
    \theta = \frac{1}{M} \sum_{i=1}^M \theta_i', \qquad
    \theta_i' \approx \arg\min_{\text{from } \theta_i}\;
    -\sum_{(x^+, x^-)} \log \sigma\big(r(x^+; \theta') - r(x^-; \theta')\big)
    $$

    Args:
        models: $\theta_1 \dots \theta_M$, M >= 1, checkpoints of one fine-tuning trajectory, one a reward model; the
            same checkpoint may stand several times.
        network: maps inputs to (batch,) or (batch, outputs), of which the first is the reward; in evaluation mode.
        preferences: preferred and rejected inputs, in pairs along the first dimension.
        lrs: step sizes of Adam, in turn. Default (1e-3, 3e-4, 3e-3): for small models; the paper varies them too.
        num_steps: steps a reward model, >= 0. Default 100: for small models.
        batch_size: pairs a step. Default 32: for small models.
        generator: source of the data orders. Default None: a new one with seed 0.
        progress: called with the step (of all models in turn) and the loss.

    Returns:
        A new state dict, structured as the first model; `reward_models` returns the members.

    Raises:
        ValueError: no models, models of another structure, no pairs or unequal numbers of both, no step sizes.

    Example:
        Without steps the result is the average of the checkpoints.

        >>> checkpoints = [{"weight": torch.tensor([[x]])} for x in (1.0, 2.0)]
        >>> warm(checkpoints, nn.Linear(1, 1, bias=False), (torch.ones(4, 1), torch.zeros(4, 1)), num_steps=0)
        {'weight': tensor([[1.5000]])}

    References:
        rame2024warm, Sec. 3 (WARM and Baklava).
    """
    return uniform_soup(
        reward_models(
            models, network, preferences, lrs=lrs, num_steps=num_steps, batch_size=batch_size,
            generator=generator, progress=progress,
        )
    )


def reward_models(
    models: Sequence[StateDict],
    network: nn.Module,
    preferences: tuple[Tensor, Tensor],
    *,
    lrs: Sequence[float] = (1e-3, 3e-4, 3e-3),
    num_steps: int = 100,
    batch_size: int = 32,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> list[dict[str, Tensor]]:
    """Train one reward model from each checkpoint; all arguments as in `warm`.

    Returns:
        The trained state dicts, in order.
    """
    check_same_structure(*models)
    preferred, rejected = preferences
    if len(preferred) != len(rejected) or len(preferred) == 0:
        counts = f"{len(preferred)} preferred and {len(rejected)} rejected"
        raise ValueError(f"received {counts} inputs; as many of both are needed")
    if not lrs:
        raise ValueError("received no step sizes; at least one is needed")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    trained = []
    for i, model in enumerate(models):
        passes = num_steps * batch_size // len(preferred) + 1
        orders = [torch.randperm(len(preferred), generator=generator) for _ in range(passes)]
        order = torch.cat(orders).to(preferred.device)

        def loss(theta: Vector, step: int, model: StateDict = model, order: Tensor = order) -> Tensor:
            index = order[step * batch_size : (step + 1) * batch_size]
            better, worse = (reward(network, theta, x[index], model) for x in (preferred, rejected))
            return -nn.functional.logsigmoid(better - worse).mean()

        report = None if progress is None else lambda step, value, first=i * num_steps: progress(first + step, value)
        theta = descend(loss, to_vector(model), num_steps=num_steps, lr=lrs[i % len(lrs)], progress=report)
        trained.append(to_state_dict(theta, like=model))
    return trained


def reward(network: nn.Module, theta: Vector, inputs: Tensor, like: StateDict) -> Tensor:
    """The first output of the network, (batch,)."""
    return outputs(network, theta, inputs, like).reshape(len(inputs), -1)[:, 0]
