r"""FairReprogram (zhang2022fairness).

A frozen classifier that treats groups differently is made fairer by what is attached to its inputs: one trigger, the same for
every input, a border around an image or a patch in it. It is trained in a game with a discriminator that tries to read the
protected attribute from the classifier's outputs: the trigger keeps the classifier accurate and the discriminator in the dark. A
trigger that shows strong evidence of one group to every input leaves little for the input's own evidence to add.

Notation: x an input, y its label, z its group; m(x; delta) the input with the trigger delta; f the frozen classifier, d the
discriminator; lambda the weight of fairness.

Departures: as in the authors' code for images, trigger pixels are the tanh of free parameters, and the discriminator is a
perceptron with one hidden layer; the text variant (appended tokens) is left out. The discriminator takes one step for each step
of the trigger.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def fairness_reprogramming(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    *,
    mask: Tensor,
    place: Literal["add", "replace"] = "replace",
    criterion: Literal["demographic parity", "equalized odds"] = "demographic parity",
    fairness_weight: float = 0.5,
    project: bool = False,
    num_steps: int = 300,
    lr: float = 0.05,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Train a trigger that makes a frozen classifier fairer.

    $$
    \min_\delta \max_d\ \mathbb{E}\Big[\mathrm{CE}\big(f(m(x; \delta)), y\big)
    \ -\ \lambda\, \mathrm{CE}\big(d(f(m(x; \delta))), z\big)\Big]
    $$

    and for equalised odds the discriminator also sees the label, $d(f(m(x; \delta)), y)$.

    Args:
        network: f, maps inputs (n, ...) to logits (n, classes).
        batches: triples (inputs, targets, groups); groups are whole numbers from 0.
        mask: 1 where the trigger stands and 0 elsewhere, of one input's shape.
        place: "replace" puts the trigger in the place of the masked pixels (the patch), "add" adds it to them (the
            border, where inputs are zero). Default "replace": the patch.
        criterion: "demographic parity" (predictions independent of groups) or "equalized odds" (given the label).
            Default "demographic parity": the first of the paper's two.
        fairness_weight: $\lambda \ge 0$. Default 0.5: the authors' code.
        project: True also removes from the gradient of the classifier's loss its component along the discriminator's gradient,
            as the authors' code for images does. Default False: the min-max problem of the paper.
        num_steps: steps of trigger and discriminator (Adam). Default 300: for toys.
        lr: step size of both. Default 0.05: for toys (the authors' discriminator's).
        generator: draws the discriminator's initial parameters; the trigger starts at zero. Default None: a generator with seed
            0.
        progress: called with step and the classifier's loss.

    Returns:
        A network from inputs to the frozen classifier's logits on the triggered inputs; `trigger()` gives the trigger.

    Raises:
        ValueError: no data, a mask of another shape, an unknown option, a negative weight.

    Example:
        The classifier says max(own, group cue). Only a cue of 1 gives group 1 away, and a trigger in the third place can drown
        it.

        >>> class Largest(nn.Module):
        ...     def forward(self, x):
        ...         return torch.stack([torch.zeros(len(x)), 4 * x.amax(dim=1) - 2], 1)
        >>> x = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]] * 20)
        >>> y, z = torch.tensor([0, 0] * 20), torch.tensor([0, 1] * 20)
        >>> options = {"mask": torch.tensor([0.0, 0.0, 1.0]), "fairness_weight": 30.0}
        >>> fair = fairness_reprogramming(Largest(), [(x, y, z)], **options)
        >>> [round(gap, 1) for gap in (fair(x)[0, 1] - fair(x)[1, 1]).abs().reshape(1).tolist()], fair.trigger()[2] > 0.9
        ([0.0], tensor(True))

    References:
        zhang2022fairness, the reprogram, the min-max problem, the triggers.
    """
    data = list(batches)
    if not data:
        raise ValueError("received no batches; at least one is needed")
    if mask.shape != data[0][0].shape[1:]:
        raise ValueError(f"the mask has shape {tuple(mask.shape)}, an input {tuple(data[0][0].shape[1:])}; one shape is needed")
    if place not in ("add", "replace") or criterion not in ("demographic parity", "equalized odds") or fairness_weight < 0:
        raise ValueError(
            f"place is {place!r} (add, replace), criterion {criterion!r} (demographic parity, equalized odds), "
            f"fairness_weight {fairness_weight} (>= 0)"
        )
    generator, device = generator or torch.Generator().manual_seed(0), data[0][0].device
    model = FairReprogram(network, mask.to(device), place).to(device)
    with torch.no_grad():
        classes = model(data[0][0]).shape[1]
    groups = int(max(z.max() for _, _, z in data)) + 1
    sizes = (classes * (1 + (criterion == "equalized odds")), 16, groups)
    draw = lambda a, b: (torch.randn(b, a, generator=generator) / a**0.5).to(device).requires_grad_(True)  # noqa: E731
    weights = [draw(a, b) for a, b in zip(sizes, sizes[1:])]
    biases = [torch.zeros(b, device=device, requires_grad=True) for b in sizes[1:]]

    def guess(logits: Tensor, targets: Tensor) -> Tensor:
        """The discriminator: logits of the group."""
        seen = [logits] if criterion == "demographic parity" else [logits, F.one_hot(targets, classes).to(logits.dtype)]
        return F.linear(F.linear(torch.cat(seen, dim=1), weights[0], biases[0]).relu(), weights[1], biases[1])

    step_d = torch.optim.Adam([*weights, *biases], lr=lr)
    step_t = torch.optim.Adam([model.delta], lr=lr)
    for step in range(num_steps):
        inputs, targets, group = data[step % len(data)]
        step_d.zero_grad()
        F.cross_entropy(guess(model(inputs).detach(), targets), group).backward()
        step_d.step()

        logits = model(inputs)
        loss = F.cross_entropy(logits, targets)
        (useful,) = torch.autograd.grad(loss, model.delta, retain_graph=True)
        (telling,) = torch.autograd.grad(F.cross_entropy(guess(logits, targets), group), model.delta)
        model.delta.grad = combine_gradients(useful, telling, fairness_weight, project)
        step_t.step()
        if progress is not None:
            progress(step, loss.item())
    return model


class FairReprogram(nn.Module):
    """A trigger in front of a frozen classifier."""

    def __init__(self, network: nn.Module, mask: Tensor, place: str) -> None:
        super().__init__()
        self.source = copy.deepcopy(network).requires_grad_(False).eval()
        self.place = place
        self.register_buffer("mask", mask.clone())
        self.delta = nn.Parameter(torch.zeros_like(mask))

    def trigger(self) -> Tensor:
        return self.mask * self.delta.tanh()

    def forward(self, inputs: Tensor) -> Tensor:
        kept = inputs * (1 - self.mask) if self.place == "replace" else inputs
        return self.source(kept + self.trigger())


def combine_gradients(useful: Tensor, telling: Tensor, fairness_weight: float, project: bool) -> Tensor:
    """The trigger's gradient from that of the classifier's loss and that of the discriminator's.

    Example:
        >>> combine_gradients(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 0.0]), 0.5, False)
        tensor([2., 1.])
        >>> combine_gradients(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 0.0]), 0.5, True)
        tensor([-1.,  1.])
    """
    if project:
        unit = telling / telling.norm().clamp_min(1e-12)
        useful = useful - (useful * unit).sum() * unit
    return useful - fairness_weight * telling
