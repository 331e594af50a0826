r"""SOKA-Net, self-coordinated knowledge amalgamation (luo2020collaboration).

Teachers of different tasks are amalgamated into a student with shared stages and one head for each task, without
labels. The tasks work together and compete, by turns. In the competition only the heads learn, each from its teacher.
In the collaboration only the shared stages learn, towards the teachers' features, mixed by learned coefficients, and a
little from the tasks. After both, the weights of the tasks move so that each pulls at the shared stages with the
strength that its progress asks for: a task that lags behind gets more.

Notation: F_m^l the features of teacher m after stage l, S^l the student's; c_m^l >= 0 coefficients that sum to 1 over
the teachers; L_m the squared error between head m's output and its teacher's, w_m its weight; W the last shared stage's
first parameter, G_m the norm of w_m dL_m/dW, G-bar the mean of these; r_m the loss L_m relative to its first value,
over the mean of that over the tasks.

Departures: the equations are those of a reproduction by the authors' laboratory (KamalEngine), as the paper's own could
not be confirmed in detail; there the coefficients are free numbers, here they are positive and sum to 1, so that
vanishing features are no solution. Features are compared after every shared stage, and have the same widths in all
networks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def soka_net(
    networks: Sequence[nn.Sequential],
    student: nn.Sequential,
    heads: Sequence[nn.Module],
    batches: Iterable[Tensor | tuple[Tensor, ...]],
    *,
    asymmetry: float = 1.5,
    task_share: float = 0.05,
    balance: bool = True,
    warmup_steps: int = 50,
    num_steps: int = 200,
    lr: float = 3e-3,
    weight_lr: float = 0.025,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> MultiTask:
    r"""Train a student of several tasks by turns of competition and collaboration.

    $$
    \text{heads: } \min \sum_m w_m L_m, \qquad
    \text{shared stages, } c\text{: }
    \min \sum_l \Big\| S^l - \sum_m c_m^l F_m^l \Big\|^2 + \gamma \sum_m w_m L_m, \qquad
    w\text{: } \min \sum_m \big| G_m - \bar G\, r_m^\alpha \big|
    $$

    Norms are means over entries. In the last problem $\bar G$ and $r$ are constants, and w is rescaled to the number of
    tasks.

    Args:
        networks: the teachers, each a `Sequential` of the student's stages (of the same widths) and a head.
        student: the shared stages, a `Sequential`.
        heads: of the student, one for each teacher, of the same outputs as the teacher's head.
        batches: inputs x, or tuples of which the first element is x; labels are never looked at.
        asymmetry: $\alpha \geq 0$, how much a task that lags is favoured; 0 asks for equal strengths. Default 1.5: the
            reproduction.
        task_share: $\gamma \geq 0$, share of the tasks' losses in the collaboration. Default 0.05: the reproduction.
        balance: False keeps all weights at 1. Default True: the paper.
        warmup_steps: steps of all stages and heads on the sum of the tasks' losses at the start. Default 50: for toys;
            3000 in the reproduction.
        num_steps: turns of competition and collaboration, one optimiser step (Adam) each. Default 200: for toys.
        lr: step size. Default 3e-3: for toys.
        weight_lr: step size (Adam) of w. Default 0.025: for toys.
        generator: unused, as nothing is drawn; here for a common interface.
        progress: called with step and the loss of the collaboration (in the warm-up, of the tasks).

    Returns:
        The student with its heads, in evaluation mode; it gives a list of outputs, one for each task. `out.weights` are
        the last w.

    Raises:
        ValueError: no teachers or batches, another number of heads or stages, other widths of features or outputs.

    Example:
        Two tasks that pull with strengths 3 and 1, one as far as the other: both are to pull with 2.

        >>> strength_error(torch.tensor([3.0, 1.0]), torch.tensor([0.5, 0.5]), 1.5).item()
        2.0

    References:
        luo2020collaboration, the sections on the collaboration step and on the competition step.
    """
    inputs = [batch if isinstance(batch, Tensor) else batch[0] for batch in batches]
    if not networks or not inputs or len(networks) != len(heads):
        given = f"{len(networks)} teachers, {len(heads)} heads and {len(inputs)} batches"
        raise ValueError(f"received {given}; a head for each teacher and one batch are needed")
    if any(len(network) != len(student) + 1 for network in networks):
        counts = [len(network) for network in networks]
        raise ValueError(f"the teachers have {counts} stages; {len(student)} shared ones and a head are needed")
    teachers = [copy.deepcopy(network).eval() for network in networks]
    out = MultiTask(student, heads).train()
    with torch.no_grad():  # the teachers never change: computed once
        features = [[_stages(teacher[:-1], x) for teacher in teachers] for x in inputs]  # [batch][teacher][stage]
        told = [[teacher[-1](f[-1]) for teacher, f in zip(teachers, row)] for row in features]
        shapes = [[t.shape for t in _stages(copy.deepcopy(student).eval(), inputs[0])]] * len(teachers)
        own = [o.shape for o in copy.deepcopy(out).eval()(inputs[0])]
    if [[f.shape for f in row] for row in features[0]] != shapes or [t.shape for t in told[0]] != own:
        raise ValueError("the features of the student's stages and its outputs must have the teachers' shapes")

    logits = nn.Parameter(torch.zeros(len(student), len(teachers), device=inputs[0].device))  # c = softmax
    weights = nn.Parameter(torch.ones(len(teachers), device=inputs[0].device))
    everything = torch.optim.Adam(out.parameters(), lr=lr)
    compete = torch.optim.Adam(out.heads.parameters(), lr=lr)
    collaborate = torch.optim.Adam([*out.shared.parameters(), logits], lr=lr)
    weigh = torch.optim.Adam([weights], lr=weight_lr)
    last = next(out.shared[-1].parameters())  # W
    first_losses = None
    for step in range(warmup_steps + num_steps):
        x, fs, target = (part[step % len(inputs)] for part in (inputs, features, told))
        losses = task_losses(out(x), target)
        first_losses = losses.detach() if first_losses is None else first_losses
        loss = (weights.detach() * losses).sum()
        if step < warmup_steps:
            _step(everything, loss)
        else:
            _step(compete, loss)  # competition: the heads, each by its own teacher
            own_features = _stages(out.shared, x)
            losses = task_losses([head(own_features[-1]) for head in out.heads], target)
            hint = sum(
                F.mse_loss(s, sum(c * f[l] for c, f in zip(logits[l].softmax(dim=0), fs)))
                for l, s in enumerate(own_features)
            )
            loss = hint + task_share * (weights.detach() * losses).sum()
            _step(collaborate, loss)  # collaboration: the shared stages and the coefficients
            if balance:  # the weights, by the strengths of the tasks' pulls at the last shared stage
                losses = task_losses(out(x), target)
                pulls = torch.stack([torch.autograd.grad(l, last, retain_graph=True)[0].norm() for l in losses])
                _step(weigh, strength_error(weights * pulls, losses.detach() / first_losses, asymmetry))
                with torch.no_grad():
                    weights.clamp_(min=1e-3)
                    weights.mul_(len(weights) / weights.sum())
        if progress is not None:
            progress(step, loss.item())
    out.weights.copy_(weights.detach())
    return out.eval()


class MultiTask(nn.Module):
    """Shared stages and one head for each task."""

    def __init__(self, shared: nn.Sequential, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.shared = copy.deepcopy(shared)
        self.heads = nn.ModuleList(copy.deepcopy(head) for head in heads)
        self.register_buffer("weights", torch.ones(len(heads), device=next(shared.parameters()).device))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = self.shared(x)
        return [head(features) for head in self.heads]


def task_losses(outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """The mean squared error of each task."""
    return torch.stack([F.mse_loss(o, t) for o, t in zip(outputs, targets)])


def strength_error(strengths: Tensor, ratios: Tensor, asymmetry: float) -> Tensor:
    """How far the tasks' gradient norms are from their mean times the relative loss to a power, in sum."""
    wanted = strengths.mean().detach() * (ratios / ratios.mean().clamp_min(1e-12)) ** asymmetry
    return (strengths - wanted).abs().sum()


def _stages(network: nn.Sequential, x: Tensor) -> list[Tensor]:
    """The output of every stage."""
    outputs = []
    for stage in network:
        x = stage(x)
        outputs.append(x)
    return outputs


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step on the optimiser's own parameters; gradients of the others are dropped with the next step."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)):
        p.grad = gradient
    optimizer.step()
