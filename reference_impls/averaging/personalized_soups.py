r"""Personalized Soups (jang2023personalized).

People want different things of a model: short or long answers, plain or expert ones. Training a model for every
combination of preferences is hopeless. Train one policy a single preference instead, each from the same base, and mix
the weights of those that a user selects when they are asked for.

Notation: pi_k the policy trained for preference k, r_k its reward, w_k the user's weights, beta the strength of the
pull to the base policy.

Departures: the paper trains low-rank adapters with PPO on sampled text. Here all weights are trained and the
expectation over the actions is exact, which is the same objective without the noise of sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.core.descent import descend, outputs
from reference_impls.core.state_dict import StateDict, Vector, to_state_dict, to_vector


def personalized_soups(
    base: StateDict,
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    rewards: Sequence[Tensor],
    *,
    weights: Sequence[float] | None = None,
    kl_coef: float = 0.1,
    num_steps: int = 50,
    lr: float = 1e-2,
    progress: Callable[[int, float], None] | None = None,
) -> StateDict:
    r"""Train one policy a preference and mix them with the weights of a user.

    $$
    \theta = \frac{\sum_k w_k\,\theta_k}{\sum_k w_k}, \qquad
    \theta_k \approx \arg\max_\theta\; \mathbb{E}_{x,\, a \sim \pi_\theta(\cdot \mid x)}\big[r_k(x, a)\big]
    - \beta\,\mathrm{KL}\big(\pi_\theta \,\|\, \pi_{\theta_0}\big)
    $$

    Args:
        base: $\theta_0$, the policy before preferences.
        network: maps inputs to logits (batch, actions), in evaluation mode.
        batches: (inputs, targets); the inputs of all batches together are the states x, the targets are not used.
        rewards: $r_1 \dots r_K$, K >= 1, for each preference a tensor (inputs, actions), in any unit.
        weights: $w_1 \dots w_K$, not negative; zero leaves a preference out. Default None: all equal (the paper).
        kl_coef: $\beta$ >= 0, in the unit of the reward. Default 0.1: for small policies.
        num_steps: steps of Adam a policy, >= 0. Default 50: for small policies.
        lr: step size. Default 0.01: for small policies.
        progress: called with the step (of all policies in turn) and the negative objective.

    Returns:
        A new state dict, structured as `base`; `preference_policies` returns the policies, to be mixed on the fly.

    Raises:
        ValueError: no rewards, rewards of another shape, another number of weights, no positive weight, a negative
            kl_coef.

    Example:
        Without steps all policies are the base.

        >>> base = {"weight": torch.tensor([[1.0], [2.0]])}
        >>> network, batches = nn.Linear(1, 2, bias=False), [(torch.ones(3, 1), torch.zeros(3))]
        >>> personalized_soups(base, network, batches, [torch.ones(3, 2)], num_steps=0)
        {'weight': tensor([[1.],
                [2.]])}

    References:
        jang2023personalized, the merging step of Personalized Soups.
    """
    w = [1.0] * len(rewards) if weights is None else [float(x) for x in weights]
    if len(w) != len(rewards):
        raise ValueError(f"received {len(rewards)} rewards and {len(w)} weights; one weight per reward is needed")
    if w and (min(w) < 0 or sum(w) == 0):
        raise ValueError(f"weights are {w}; none may be negative and one has to be positive")
    policies = preference_policies(
        base, network, batches, rewards, kl_coef=kl_coef, num_steps=num_steps, lr=lr, progress=progress
    )
    return uniform_soup(policies, weights=w)


def preference_policies(
    base: StateDict,
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    rewards: Sequence[Tensor],
    *,
    kl_coef: float = 0.1,
    num_steps: int = 50,
    lr: float = 1e-2,
    progress: Callable[[int, float], None] | None = None,
) -> list[dict[str, Tensor]]:
    """Train one policy from the base for each reward; all arguments as in `personalized_soups`.

    Returns:
        The state dicts of the policies, in the order of the rewards.
    """
    inputs = torch.cat([x for x, _ in batches])
    if not rewards:
        raise ValueError("received no rewards; at least one is needed")
    if kl_coef < 0:
        raise ValueError(f"kl_coef is {kl_coef}; it is at least 0")
    theta_0 = to_vector(base)
    with torch.no_grad():
        log_base = outputs(network, theta_0, inputs, like=base).log_softmax(-1)  # (inputs, actions)
    policies = []
    for k, table in enumerate(rewards):
        if table.shape != log_base.shape:
            need = f"(inputs, actions) = {tuple(log_base.shape)}"
            raise ValueError(f"reward {k + 1} has shape {tuple(table.shape)}; {need} is needed")

        def loss(theta: Vector, step: int, table: Tensor = table) -> Tensor:
            log_pi = outputs(network, theta, inputs, like=base).log_softmax(-1)
            return -(log_pi.exp() * (table - kl_coef * (log_pi - log_base))).sum(-1).mean()

        report = None if progress is None else lambda step, value, first=k * num_steps: progress(first + step, value)
        policies.append(to_state_dict(descend(loss, theta_0, num_steps=num_steps, lr=lr, progress=report), like=base))
    return policies
