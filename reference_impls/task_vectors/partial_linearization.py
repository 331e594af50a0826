r"""L-LoRA, partial linearization (tang2024partial).

Fine-tuning in the tangent space disentangles tasks, but to linearise a whole large network is costly. L-LoRA
linearises the adapters only: the network is expanded to first order in the parameters of LoRA modules around their
start, these are fine-tuned on every task from one common start, and what each has moved is added up as in task
arithmetic.

Notation: W_0 a weight of the base model, A (r, n) and B (m, r) its adapter with scaling s, phi = (A, B), phi_0 its
start, phi_t after fine-tuning on task t, tau_t = phi_t - phi_0, lambda the scaling coefficient.

Departures: none. Because B starts at zero, the derivative by A vanishes at the start: only B moves, and the update of
a weight is s Delta B A_0. The code below uses this instead of carrying A along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from reference_impls.core.lora import low_rank_update
from reference_impls.core.state_dict import StateDict, Vector, linear_combination
from reference_impls.task_vectors.tangent_task_arithmetic import linearized_outputs


@dataclass(frozen=True)
class PartiallyLinearizedModel:
    """A network with linearised adapters.

    Attributes:
        network: the architecture.
        base: the base model.
        start: A_0 by weight name; B_0 is zero.
        tau: Delta B by weight name.
        scaling: s.
        linearize: "network" or "layers".
    """

    network: nn.Module
    base: StateDict
    start: Vector
    tau: Vector
    scaling: float = 1.0
    linearize: str = "network"

    @property
    def adapter(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """The LoRA (A, B) by weight name that these parameters are; as such it may be merged into the base."""
        return {name: (self.start[name], B) for name, B in self.tau.items()}

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the outputs of the network with its linearised adapters."""
        moved = {name: low_rank_update(A, B, self.scaling) for name, (A, B) in self.adapter.items()}
        if self.linearize == "network":
            return linearized_outputs(self.network, self.base, moved, inputs)
        adapted = {name: self.base[name].detach() + change for name, change in moved.items()}
        return functional_call(self.network, {**self.base, **adapted}, (inputs,), tie_weights=False)


def partial_linearization(
    network: nn.Module,
    base: StateDict,
    task_batches: Sequence[Iterable[tuple[Tensor, Tensor]]],
    *,
    rank: int = 4,
    scaling: float = 1.0,
    scaling_coef: float = 1.0,
    linearize: Literal["network", "layers"] = "network",
    num_steps: int = 200,
    lr: float = 4e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> PartiallyLinearizedModel:
    r"""Fine-tune linearised adapters on every task, and add up what they have moved.

    $$
    f_{lin}(x; \phi) = f_{\theta_0}(x; \phi_0) + (\phi - \phi_0)^\top \nabla_\phi f_{\theta_0}(x; \phi_0), \qquad
    \phi = \phi_0 + \lambda \sum_t (\phi_t - \phi_0)
    $$

    Args:
        network: $f$ in evaluation mode, with linear layers; maps inputs to logits (batch, classes).
        base: $\theta_0$.
        task_batches: for every task its batches of (inputs, targets), gone through again and again.
        rank: $r$ of the adapters, >= 1. Default 4: a toy's.
        scaling: $s$ (alpha / r). Default 1.0: a toy's.
        scaling_coef: $\lambda$. Default 1.0: the sum itself; the paper picks it on held-out data.
        linearize: "network" expands the network's outputs in the adapters' parameters (the paper's equation); "layers" expands
            the output of each adapted layer by itself (the authors' code), after which the network is still nonlinear and the
            adapter is a LoRA with a frozen A. Default "network": the paper's equation.
        num_steps: optimiser steps per task, >= 0. Default 200: a toy's length.
        lr: step size of Adam. Default 4e-3: a toy's.
        generator: source of A_0, one for all tasks. Default None: a new one with seed 0.
        progress: called with the step, counted over all tasks, and its loss. Default None.

    Returns:
        A `PartiallyLinearizedModel`: call it with inputs.

    Raises:
        ValueError: no tasks, a task without batches, a rank below 1, a network without linear layers, an unknown option.

    Example:
        Without steps B is zero, and the outputs are those of the base.

        >>> network = nn.Linear(2, 2, bias=False)
        >>> x = torch.tensor([[3.0, 4.0]])
        >>> partial_linearization(network, {"weight": torch.eye(2)}, [[(x, torch.tensor([0]))]], rank=1, num_steps=0)(x)
        tensor([[3., 4.]])

    References:
        tang2024partial, the section on partial linearization.
    """
    if linearize not in ("network", "layers"):
        raise ValueError(f"linearize is {linearize!r}; it is one of network, layers")
    if rank < 1 or not task_batches:
        raise ValueError(f"received rank {rank} and {len(task_batches)} tasks; both are at least 1")
    names = [f"{name}.weight".lstrip(".") for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise ValueError("the network has no nn.Linear layer to adapt")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    draw = lambda n: torch.randn(rank, n, generator=generator) / n**0.5  # noqa: E731
    start = {name: draw(base[name].shape[1]).to(base[name]) for name in names}  # A_0, the same for all tasks

    task_vectors = []
    for number, batches in enumerate(task_batches):
        batches = list(batches)
        if not batches:
            raise ValueError("received a task without batches; at least one batch is needed")
        tau = {name: base[name].new_zeros(base[name].shape[0], rank).requires_grad_() for name in names}
        model = PartiallyLinearizedModel(network, base, start, tau, scaling, linearize)
        optimizer = torch.optim.Adam(tau.values(), lr=lr)
        for step in range(num_steps):
            inputs, targets = batches[step % len(batches)]
            loss = nn.functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if progress is not None:
                progress(number * num_steps + step, loss.item())
        task_vectors.append({name: t.detach() for name, t in tau.items()})
    total = linear_combination(task_vectors, [scaling_coef] * len(task_vectors))
    return PartiallyLinearizedModel(network, base, start, total, scaling, linearize)
