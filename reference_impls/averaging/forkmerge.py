r"""ForkMerge (jiang2023forkmerge).

An auxiliary task helps the target task at one time of the training and hurts at another. Fork the model into branches
that train with different sets of tasks, merge them after a while with the shares that score best on target validation
data, and go on from there: an auxiliary task that hurts gets a share of zero.

Notation: theta the shared model, theta_b the branches, Lambda their shares (not negative, sum 1), L_v the target
validation loss.

Departures: branches are the target alone and the target with each one of the other tasks; the paper also prunes tasks
beforehand. Every branch takes full batches, so that a run is deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from reference_impls.core.descent import descend, outputs
from reference_impls.core.state_dict import StateDict, Vector, linear_combination, to_state_dict, to_vector


def forkmerge(
    base: StateDict,
    network: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    loss_fn: Callable[[StateDict], Tensor],
    *,
    num_rounds: int = 3,
    num_steps: int = 10,
    lr: float = 1e-3,
    grid: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    progress: Callable[[int, float], None] | None = None,
) -> StateDict:
    r"""Train branches with different auxiliary tasks and merge them by target validation, over and over.

    $$
    \theta \leftarrow \sum_b \Lambda_b\,\theta_b, \qquad
    \Lambda = \arg\min_{\Lambda \ge 0,\ \sum_b \Lambda_b = 1} L_v\Big(\sum_b \Lambda_b\,\theta_b\Big)
    $$

    Args:
        base: $\theta$ at the start.
        network: maps inputs to logits (batch, classes), in evaluation mode.
        batches: one batch (inputs, targets) a task, first the target task, then the auxiliary ones.
        loss_fn: $L_v$, target validation loss of a state dict.
        num_rounds: forks and merges, >= 0. Default 3: for small models.
        num_steps: steps of Adam a branch between them, >= 0. Default 10: for small models.
        lr: step size. Default 0.001: for small models.
        grid: candidates for the share of a branch relative to the mean share before it, not negative. Default 0 to 1 in
            fifths: not confirmed in the paper.
        progress: called after each merge with the round and the validation loss.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no batches, a negative number of rounds or steps, an empty grid or negative candidates.

    Example:
        Without rounds the base comes back.

        >>> batches = [(torch.ones(1, 1), torch.tensor([0]))]
        >>> base, loss_fn = {"weight": torch.ones(2, 1)}, lambda model: model["weight"].sum()
        >>> forkmerge(base, nn.Linear(1, 2, bias=False), batches, loss_fn, num_rounds=0)
        {'weight': tensor([[1.],
                [1.]])}

    References:
        jiang2023forkmerge, the merging step and its greedy search.
    """
    if not batches:
        raise ValueError("received no batches; at least that of the target task is needed")
    if num_rounds < 0:
        raise ValueError(f"num_rounds is {num_rounds}; it is at least 0")
    if not grid or min(grid) < 0:
        raise ValueError(f"grid is {list(grid)}; one or more numbers of at least 0 are needed")
    theta = to_vector(base)
    validate = lambda vector: float(loss_fn(to_state_dict(vector, like=base)))  # noqa: E731
    for number in range(num_rounds):
        branches = [_branch(network, base, theta, batches, task, num_steps, lr) for task in range(len(batches))]
        with torch.no_grad():
            theta = merge_branches(branches, validate, grid=grid)
        if progress is not None:
            progress(number, validate(theta))
    return to_state_dict(theta, like=base)


def merge_branches(branches: Sequence[Vector], validate: Callable[[Vector], float], *, grid: Sequence[float]) -> Vector:
    r"""Merge branches greedily, best first: each gets the share that lowers the validation loss most, or none.

    Args:
        branches: $\theta_b$.
        validate: validation loss of a vector.
        grid: candidates, relative to the mean share of the branches before.

    Returns:
        The merged vector; its loss is never above that of the best branch.

    Example:
        The loss is least at 3. Branch 2 comes first, then 6 with share 1/3 of it: (1 * 2 + 0.5 * 6) / 1.5 = 3.33.

        >>> branches = [{"w": torch.tensor([6.0])}, {"w": torch.tensor([2.0])}]
        >>> merge_branches(branches, lambda v: abs(v["w"].item() - 3), grid=(0.0, 0.5, 1.0))["w"]
        tensor([3.3333])
    """
    ranked = sorted(branches, key=validate)
    mix = lambda shares: linear_combination(ranked[: len(shares)], [s / sum(shares) for s in shares])  # noqa: E731
    shares, best = [1.0], validate(ranked[0])
    for branch in range(1, len(ranked)):
        scale = sum(shares) / branch
        losses = {share: validate(mix([*shares, share * scale])) for share in grid}
        share = min(losses, key=losses.get)
        if losses[share] < best:
            best = losses[share]
            shares.append(share * scale)
        else:
            shares.append(0.0)
    return mix(shares)


def _branch(
    network: nn.Module,
    base: StateDict,
    theta: Vector,
    batches: Sequence[tuple[Tensor, Tensor]],
    auxiliary: int,
    num_steps: int,
    lr: float,
) -> Vector:
    """Train on the target task and, unless it is the target itself, one auxiliary task."""
    chosen = [batches[0]] if auxiliary == 0 else [batches[0], batches[auxiliary]]

    def loss(vector: Vector, step: int) -> Tensor:
        losses = [nn.functional.cross_entropy(outputs(network, vector, x, like=base), y) for x, y in chosen]
        return sum(losses) / len(losses)

    return descend(loss, theta, num_steps=num_steps, lr=lr)
