r"""Fast Geometric Ensembling (garipov2018loss).

Good networks lie on paths of low loss, so a nearly trained one can walk to others nearby at the cost of a few epochs.
The learning rate goes up and down in short cycles: where it is high the weights move away, where it is low they settle
in a region of low loss, and there a snapshot is taken. The snapshots answer together, by the mean of their predicted
probabilities.

Notation: alpha_1 > alpha_2 the largest and smallest learning rates, c the length of a cycle in steps, i the step, w_j
the snapshots.

Departures: snapshots keep the batch-normalisation statistics that they have when taken. One batch is one step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from reference_impls.core.state_dict import StateDict


def fast_geometric_ensembling(
    network: nn.Module,
    base: StateDict,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    num_snapshots: int = 5,
    cycle: int = 20,
    lr: float = 0.05,
    min_lr: float = 1e-4,
    momentum: float = 0.9,
    progress: Callable[[int, float], None] | None = None,
) -> SnapshotEnsemble:
    r"""Collect snapshots at the minima of a cyclical learning rate, starting from a nearly trained network.

    $$
    \alpha(i) = \begin{cases} (1 - 2 t_i)\, \alpha_1 + 2 t_i\, \alpha_2 & t_i \le \tfrac12 \\
    (2 - 2 t_i)\, \alpha_2 + (2 t_i - 1)\, \alpha_1 & t_i > \tfrac12 \end{cases}
    \qquad t_i = \frac1c \big(\mathrm{mod}(i - 1, c) + 1\big), \qquad
    p(y \mid x) = \frac1k \sum_{j=1}^k \mathrm{softmax} f_{w_j}(x)
    $$

    Args:
        network: the architecture $f$; its own parameters are neither used nor changed.
        base: the nearly trained weights to start from.
        batches: (inputs, targets), one a step, cycled through in the order given.
        num_snapshots: $k$, one a cycle, >= 1. Default 5: a toy's number.
        cycle: $c$, steps in a cycle, even and >= 2; the paper's cycles are 2 or 4 epochs. Default 20: a toy's.
        lr: $\alpha_1$. Default 0.05: the authors' code.
        min_lr: $\alpha_2$, in (0, lr]. Default 0.0001: the authors' code.
        momentum: of gradient descent, in [0, 1). Default 0.9: the authors' code.
        progress: called with the step and its loss. Default None.

    Returns:
        A `SnapshotEnsemble`: a network whose output is the log of the mean probabilities; `snapshots` are its state
        dicts.

    Raises:
        ValueError: no batches, no snapshots, an odd cycle, learning rates out of order.

    Example:
        In a cycle of 4 steps the learning rate is half way down, at its minimum, half way up and at its maximum.

        >>> [round(learning_rate(i, 4, 1.0, 0.0), 2) for i in (1, 2, 3, 4, 5)]
        [0.5, 0.0, 0.5, 1.0, 0.5]

    References:
        garipov2018loss, the section on fast geometric ensembling.
    """
    data = list(batches)
    if not data or num_snapshots < 1:
        raise ValueError(
            f"received {len(data)} batches and num_snapshots={num_snapshots}; at least one of each is needed"
        )
    if cycle < 2 or cycle % 2:
        raise ValueError(f"cycle is {cycle}; it must be even and at least 2")
    if not 0 < min_lr <= lr:
        raise ValueError(f"received lr={lr} and min_lr={min_lr}; 0 < min_lr <= lr is needed")

    model = copy.deepcopy(network)
    model.load_state_dict(base)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    snapshots: list[dict[str, Tensor]] = []
    step = 0
    while len(snapshots) < num_snapshots:
        inputs, targets = data[step % len(data)]
        step += 1
        optimizer.param_groups[0]["lr"] = learning_rate(step, cycle, lr, min_lr)
        outputs = model(inputs)
        loss = nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % cycle == cycle // 2:  # the learning rate is at its minimum
            snapshots.append({name: tensor.detach().clone() for name, tensor in model.state_dict().items()})
        if progress is not None:
            progress(step - 1, loss.item())
    return SnapshotEnsemble(network, snapshots)


def learning_rate(step: int, cycle: int, lr: float, min_lr: float) -> float:
    """The cyclical learning rate at a step counted from 1."""
    t = ((step - 1) % cycle + 1) / cycle
    return (1 - 2 * t) * lr + 2 * t * min_lr if t <= 0.5 else (2 - 2 * t) * min_lr + (2 * t - 1) * lr


class SnapshotEnsemble(nn.Module):
    """Answers with the log of the mean of its snapshots' probabilities.

    Attributes:
        snapshots: the state dicts, in the order taken.
    """

    def __init__(self, network: nn.Module, snapshots: Sequence[StateDict]) -> None:
        super().__init__()
        self.members = nn.ModuleList(copy.deepcopy(network).eval().requires_grad_(False) for _ in snapshots)
        for member, snapshot in zip(self.members, snapshots):
            member.load_state_dict(snapshot)

    @property
    def snapshots(self) -> tuple[dict[str, Tensor], ...]:
        return tuple(dict(member.state_dict()) for member in self.members)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.stack([member(inputs).softmax(dim=-1) for member in self.members]).mean(dim=0).log()
