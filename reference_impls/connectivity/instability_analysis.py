r"""Instability analysis (frankle2020linear).

Is the outcome of training decided, up to a linearly connected region, by step k? Train one network to step k, make two
copies, train both to the end under different noise (order of the examples, augmentation), and look at the straight
line between the two results. If the error hardly rises on it, training was stable to the noise from step k on.
Repeated for several k this tells when in training the basin is chosen.

Notation: W_k the network at step k, T the last step, A^{s to t}(W, u) training from step s to t under the noise u, E
the error, alpha the position on the line between W_T^1 and W_T^2.

Departures: an optimiser's own state (momentum) is carried over the split only if `train_fn` does so. The paper's error
is the test error; any scalar function serves. One pair of runs for each k; the paper repeats with several
initialisations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.core.paths import interpolate, loss_along
from reference_impls.core.state_dict import StateDict


@dataclass(frozen=True)
class Instability:
    """What instability analysis measured, one row for each split step.

    Attributes:
        split_steps: the steps k; shape (s,).
        instability: the error barrier of the pair that split at k; shape (s,).
        stable: whether the instability is below `tol`; shape (s,), bool.
        ts: positions alpha on the line; shape (m,).
        losses: errors along each line; shape (s, m).
    """

    split_steps: Tensor
    instability: Tensor
    stable: Tensor
    ts: Tensor
    losses: Tensor


def instability_analysis(
    base: StateDict,
    train_fn: Callable[[StateDict, int, int, torch.Generator], StateDict],
    loss_fn: Callable[[StateDict], Tensor],
    *,
    split_steps: Sequence[int] = (0,),
    num_steps: int = 1000,
    num_points: int = 30,
    tol: float = 0.02,
    generator: torch.Generator | None = None,
) -> Instability:
    r"""Measure the error barrier between two runs that share their first k steps, for each k.

    $$
    W_T^i = A^{k \to T}(W_k, u_i), \qquad
    \mathrm{instability}_k = \sup_{\alpha \in [0, 1]} E\big(\alpha W_T^1 + (1 - \alpha) W_T^2\big)
    - \tfrac12 \big(E(W_T^1) + E(W_T^2)\big)
    $$

    Args:
        base: $W_0$, the network at step 0 (a random initialisation, or a pre-trained model).
        train_fn: $A$; called as `train_fn(model, start, stop, generator)`, returns the model trained from step `start`
            to step `stop`, all noise drawn from the generator.
        loss_fn: $E$, state dict to scalar; the paper's is the test error, in [0, 1].
        split_steps: $k$, increasing, each in [0, num_steps]. Default (0,): the split at initialisation.
        num_steps: $T$, steps of a whole training. Default 1000: a toy's length; the paper's are those of its networks.
        num_points: evenly spaced values of $\alpha$, ends included. Default 30: the paper's evaluation.
        tol: an instability below this counts as stable. Default 0.02 (2 % error): the paper's criterion.
        generator: source of the noise of all runs. Default None: a fresh generator with seed 0.

    Returns:
        An `Instability`: one barrier and one error curve for each k.

    Raises:
        ValueError: split steps that do not increase or lie outside [0, num_steps], fewer than 2 points.

    Example:
        Two wells at -1 and 1, loss (w^2 - 1)^2. Training rolls from 0 to the side that its noise says at step 0, and
        stays where it is afterwards. Split at 0, the runs can end on both sides, with the hill of height 1 between
        them.

        >>> def roll(model, start, stop, generator):
        ...     side = float(torch.randint(2, (), generator=generator)) * 2 - 1
        ...     return {"w": torch.tensor([side])} if start == 0 and stop > 0 else dict(model)
        >>> loss = lambda model: (model["w"] ** 2 - 1).square().sum()
        >>> generator = torch.Generator().manual_seed(2)
        >>> result = instability_analysis(
        ...     {"w": torch.zeros(1)}, roll, loss, split_steps=(0, 1), num_steps=2, num_points=5, generator=generator)
        >>> result.instability
        tensor([1., 0.], dtype=torch.float64)

    References:
        frankle2020linear, Algorithm 1.
    """
    steps = list(split_steps)
    if not steps or steps != sorted(set(steps)) or steps[0] < 0 or steps[-1] > num_steps:
        raise ValueError(f"split_steps are {steps}; they must increase and lie in [0, {num_steps}]")
    generator = torch.Generator().manual_seed(0) if generator is None else generator

    shared, reached, curves = base, 0, []
    for k in steps:
        shared = train_fn(shared, reached, k, generator) if k > reached else shared  # W_k, one trajectory for all k
        reached = k
        first, second = (train_fn(shared, k, num_steps, _noise(generator)) for _ in range(2))
        curves.append(loss_along(lambda t, a=first, b=second: interpolate(a, b, t), loss_fn, num_points))

    losses = torch.stack([curve.losses for curve in curves])  # (s, m)
    barriers = losses.max(dim=1).values - (losses[:, 0] + losses[:, -1]) / 2
    return Instability(torch.tensor(steps), barriers, barriers < tol, curves[0].ts, losses)


def _noise(generator: torch.Generator) -> torch.Generator:
    """Draw u: a generator of its own for one copy's run."""
    return torch.Generator().manual_seed(int(torch.randint(2**31, (), generator=generator)))
