r"""MixDA, mixture of domain adapters (diao2023mixture).

Domain knowledge is put into small adapters that stand parallel to feed-forward modules of a frozen network. First each
adapter is trained on the text of its own domain, while on old data its output is kept small, so that the network still
does there what it did. Then the adapters are frozen as well. For a task with labels a gate is trained that mixes the
adapters token by token, together with one further adapter for the task.

Notation: FF a feed-forward module, A_i the adapter of domain i, x the input of the module (one token), g the gate, T
the task adapter.

Departures: the first stage minimises the network's own loss on the domain's (inputs, targets), for text the next or a
masked token; the preservation term is the mean square of the adapter's output on old inputs. The task adapter is a
residual bottleneck like the others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from reference_impls.core.state_dict import StateDict


def mixda(
    network: nn.Module,
    base: StateDict,
    task_batches: Sequence[Iterable[tuple[Tensor, Tensor]]],
    batches: Iterable[tuple[Tensor, Tensor]],
    modules: Sequence[str],
    *,
    old_batches: Iterable[tuple[Tensor, Tensor]] = (),
    preserve_coef: float = 0.5,
    bottleneck: int = 16,
    num_steps: int = 100,
    lr: float = 3e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Train one adapter for each domain, then a gate that mixes them and an adapter for the task.

    $$
    \text{stage 1:}\ \min_{A_i} L_{\mathrm{domain}\,i}\big(\mathrm{FF}(x) + A_i(x)\big) +
    \lambda\, \mathbb{E}_{\mathrm{old}} \lVert A_i(x) \rVert^2, \qquad
    \text{stage 2:}\ y = \mathrm{FF}(x) + \sum_i g_i(x)\, A_i(x), \quad y + T(y)
    $$

    Args:
        network: the architecture; its own parameters are neither used nor changed.
        base: the pre-trained weights, frozen throughout.
        task_batches: of each domain, its (inputs, targets), cycled through, n >= 1.
        batches: (inputs, targets) of the labelled task, cycled through.
        modules: names of the feed-forward modules, each a function of one tensor (..., width).
        old_batches: (inputs, targets) of the old domain; targets are not used. Default (): nothing to preserve.
        preserve_coef: $\lambda$ of the preservation on old data, >= 0. Default 0.5: a choice here.
        bottleneck: hidden width of an adapter, >= 1. Default 16: a toy's.
        num_steps: steps of Adam for each domain and for the task; 0 leaves the base model's function. Default 100: a
            toy's.
        lr: learning rate. Default 0.003: a toy's.
        generator: source of the adapters' and gates' initial weights. Default None: a fresh generator with seed 0.
        progress: called with the step, counted over all stages, and its loss. Default None.

    Returns:
        A network in evaluation mode whose named modules are `DomainMixture` modules.

    Raises:
        ValueError: no domains, a module that does not exist, a bottleneck below 1.

    Example:
        Adapters start with an output of zero, so before any training the network does what it did.

        >>> net = nn.Sequential(nn.Linear(1, 1, bias=False))
        >>> mixed = mixda(net, {"0.weight": torch.tensor([[3.0]])}, [[]], [], ["0"], num_steps=0)
        >>> mixed(torch.tensor([[2.0]])).item()
        6.0

    References:
        diao2023mixture, the two stages: domain adapters, mixture-of-adapters gate.
    """
    if not task_batches or bottleneck < 1:
        raise ValueError(
            f"received {len(task_batches)} domains and bottleneck={bottleneck}; at least one of each is needed"
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    model = copy.deepcopy(network).eval().requires_grad_(False)
    model.load_state_dict(base)
    parts = dict(model.named_modules())
    mixtures = []
    for name in modules:
        if not name or name not in parts:
            raise ValueError(f"there is no module {name!r}; the network has {', '.join(n for n in parts if n)}")
        mixtures.append(DomainMixture(parts[name], len(task_batches), bottleneck, generator))
        model.set_submodule(name, mixtures[-1])
    counted = 0

    def fit(parameters: list[nn.Parameter], data: list, old: list) -> None:
        nonlocal counted
        optimizer = torch.optim.Adam([p.requires_grad_() for p in parameters], lr=lr)
        for step in range(num_steps):
            inputs, targets = data[step % len(data)]
            outputs = model(inputs)
            loss = nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())
            if old:
                model(old[step % len(old)][0])
                loss = loss + preserve_coef * sum(m.adapted.square().mean() for m in mixtures) / len(mixtures)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if progress is not None:
                progress(counted, loss.item())
            counted += 1
        for parameter in parameters:
            parameter.requires_grad_(False)

    # stage 1: each domain for itself
    for i, domain in enumerate(task_batches if num_steps else []):
        for mixture in mixtures:
            mixture.only = i
        fit(
            [p for m in mixtures for p in m.adapters[i].parameters()],
            list(domain),
            list(old_batches) if preserve_coef else [],
        )

    # stage 2: adapters frozen; the gate and the task adapter learn the task
    for mixture in mixtures:
        mixture.only = None
    if num_steps:
        fit([p for m in mixtures for part in (m.gate, m.task) for p in part.parameters()], list(batches), [])
    return model


class Adapter(nn.Module):
    """A bottleneck of two layers, zero at the start."""

    def __init__(self, width: int, out: int, bottleneck: int, generator: torch.Generator, like: Tensor) -> None:
        super().__init__()
        self.down = nn.Parameter((torch.randn(bottleneck, width, generator=generator) / width**0.5).to(like))
        self.up = nn.Parameter(torch.zeros(out, bottleneck).to(like))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.down.T) @ self.up.T


class DomainMixture(nn.Module):
    """A frozen module, parallel to it a gated mixture of domain adapters, and after it a task adapter.

    Attributes:
        only: number of the one adapter that is on (stage 1); None: the gate mixes all of them (stage 2).
        adapted: what the adapters added to the last batch.
    """

    def __init__(self, module: nn.Module, count: int, bottleneck: int, generator: torch.Generator) -> None:
        super().__init__()
        matrices = [p for p in module.parameters() if p.ndim > 1]
        width, out, like = matrices[0].shape[-1], matrices[-1].shape[0], matrices[0]
        self.module, self.only = module, None
        self.adapters = nn.ModuleList(Adapter(width, out, bottleneck, generator, like) for _ in range(count))
        self.gate = nn.ParameterList([torch.zeros(count, width).to(like)])
        self.task = Adapter(out, out, bottleneck, generator, like)
        self.adapted = torch.zeros(())
        self.requires_grad_(False)

    def mixture(self, x: Tensor) -> Tensor:
        """The gate's weights of the adapters for each token: (..., adapters), rows sum to 1."""
        return (x @ self.gate[0].T).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        if self.only is not None:
            self.adapted = self.adapters[self.only](x)
            return self.module(x) + self.adapted
        g = self.mixture(x)
        self.adapted = sum(g[..., i : i + 1] * adapter(x) for i, adapter in enumerate(self.adapters))
        y = self.module(x) + self.adapted
        return y + self.task(y)
