r"""Checkpoint merging by Bayesian optimisation (liu2024checkpoint).

Two neighbouring checkpoints of one pre-training run can be mixed into a better one, but the best share is not known
beforehand and every trial costs an evaluation. A Gaussian process learns from the trials made how the score depends on
the share, and an acquisition function says which share to try next.

Notation: theta_{t-1} and theta_t the checkpoints, lambda the share of the later one, f its held-out score, [a, 1] the
search range, mu and sigma mean and standard deviation of the Gaussian process.

Departures: the paper leaves kernel and settings open in what could be confirmed; here a squared-exponential kernel of
given length on scores standardised to mean 0 and variance 1, and acquisitions maximised on a grid of 201 shares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.core.state_dict import StateDict

NOISE = 1e-4  # variance of the evaluation noise, of standardised scores
GRID = 201


def checkpoint_bayesopt(
    model_a: StateDict,
    model_b: StateDict,
    score: Callable[[StateDict], float],
    *,
    lower: float = 0.5,
    num_trials: int = 10,
    acquisition: Literal["hedge", "ei", "pi", "ucb"] = "hedge",
    length: float = 0.3,
    generator: torch.Generator | None = None,
) -> StateDict:
    r"""Mix two adjacent checkpoints with the share that a Bayesian optimiser finds.

    $$
    \theta = \lambda^*\,\theta_t + (1 - \lambda^*)\,\theta_{t-1}, \qquad
    \lambda^* = \arg\max_{\lambda \in [a, 1]} f\big(\lambda\,\theta_t + (1 - \lambda)\,\theta_{t-1}\big)
    $$

    Args:
        model_a: $\theta_{t-1}$, the earlier checkpoint.
        model_b: $\theta_t$, the later checkpoint.
        score: held-out score f of a state dict, higher is better.
        lower: a, the smallest share of the later checkpoint, in [0, 1). Default 0.5: not confirmed in the paper.
        num_trials: evaluations in all, the ends of the range included, >= 2. Default 10: a choice here.
        acquisition: "ei" expected improvement, "pi" probability of improvement, "ucb" upper confidence bound
            mu + 2 sigma, or "hedge": GP-Hedge, which draws one of the three by the success of their past proposals
            (the paper). Default "hedge": the paper.
        length: length scale of the kernel, as a fraction of the range, > 0. Default 0.3: a choice here.
        generator: source of the draws of "hedge". Default None: a new one with seed 0.

    Returns:
        A new state dict, structured as `model_b`, of the best share tried; `search_share` returns the share and all
        trials.

    Raises:
        ValueError: models of another structure, lower outside [0, 1), fewer than two trials, an unknown acquisition,
            a length that is not positive.

    Example:
        The score is best at 0.8 between 0 and 1, and the optimiser comes within 0.02 of it.

        >>> a, b = {"w": torch.tensor([0.0])}, {"w": torch.tensor([1.0])}
        >>> merged = checkpoint_bayesopt(a, b, lambda sd: -(sd["w"].item() - 0.8) ** 2)
        >>> abs(merged["w"].item() - 0.8) < 0.02
        True

    References:
        liu2024checkpoint, Algorithm 1.
    """
    mix = lambda share: uniform_soup([model_b, model_a], weights=[share, 1 - share])  # noqa: E731
    trials = search_share(
        lambda share: score(mix(share)),
        lower=lower, num_trials=num_trials, acquisition=acquisition, length=length, generator=generator,
    )  # fmt: skip
    return mix(max(trials, key=lambda trial: trial[1])[0])


def search_share(
    f: Callable[[float], float],
    *,
    lower: float = 0.5,
    num_trials: int = 10,
    acquisition: str = "hedge",
    length: float = 0.3,
    generator: torch.Generator | None = None,
) -> list[tuple[float, float]]:
    """Maximise a function of one share in [lower, 1] by Bayesian optimisation; all options as in `checkpoint_bayesopt`.

    Args:
        f: the function, higher is better.

    Returns:
        The trials (share, value) in the order they were made.
    """
    if not 0 <= lower < 1:
        raise ValueError(f"lower is {lower}; it is in [0, 1)")
    if num_trials < 2:
        raise ValueError(f"num_trials is {num_trials}; at least 2 are needed, the ends of the range")
    if acquisition not in ("hedge", "ei", "pi", "ucb"):
        raise ValueError(f"acquisition is {acquisition!r}; it is one of hedge, ei, pi, ucb")
    if not length > 0:
        raise ValueError(f"length is {length}; it is positive")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    grid = torch.linspace(lower, 1.0, GRID, dtype=torch.float64)
    trials = [(share, float(f(share))) for share in (lower, 1.0)]
    gains = torch.zeros(3, dtype=torch.float64)  # of ei, pi, ucb
    while len(trials) < num_trials:
        mean, deviation, best = _posterior(trials, grid, length * (1 - lower))
        proposals = _acquisitions(mean, deviation, best).argmax(dim=1)  # (3,), places on the grid
        if acquisition == "hedge":
            chosen = int(torch.multinomial(gains.softmax(dim=0), 1, generator=generator))
        else:
            chosen = ("ei", "pi", "ucb").index(acquisition)
        share = grid[proposals[chosen]].item()
        trials.append((share, float(f(share))))
        gains = gains + _posterior(trials, grid, length * (1 - lower))[0][proposals]
    return trials


def _posterior(trials: list[tuple[float, float]], grid: Tensor, length: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and standard deviation of the Gaussian process on the grid, and the best value, all standardised."""
    x, y = torch.tensor(trials, dtype=torch.float64).T
    y = (y - y.mean()) / (y.std(unbiased=False) + 1e-12)
    kernel = lambda a, b: torch.exp(-((a[:, None] - b[None, :]) ** 2) / (2 * length**2))  # noqa: E731
    inverse = torch.linalg.inv(kernel(x, x) + NOISE * torch.eye(len(x), dtype=torch.float64))
    cross = kernel(grid, x)
    variance = 1 - ((cross @ inverse) * cross).sum(dim=1)
    return cross @ inverse @ y, variance.clamp(min=1e-12).sqrt(), y.max()


def _acquisitions(mean: Tensor, deviation: Tensor, best: Tensor) -> Tensor:
    """Expected improvement, probability of improvement, upper confidence bound: (3, grid)."""
    z = (mean - best) / deviation
    density = torch.exp(-(z**2) / 2) / (2 * torch.pi) ** 0.5
    below = torch.special.ndtr(z)
    return torch.stack([deviation * (z * below + density), below, mean + 2 * deviation])
