r"""Branch-Train-MiX (sukhbaatar2024btx).

One seed model is copied, and each copy is trained on its own domain, in parallel and without any communication.
Afterwards the copies are put together again: their feed-forward modules become the experts of a mixture, all other
parameters are averaged, and a router, which is new, sends every token to a few experts. A short training of the whole
on all domains teaches the router and lets the parts settle.

Notation: theta_0 the seed, theta_1..n the domain models, FF_i the feed-forward module of expert i, W the router, k the
number of experts a token visits, g their weights, u_i the share of tokens that visit expert i, p_i its mean
probability, alpha the weight of the balance.

Departures: the copies come trained; this starts at the mix.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from reference_impls.core.state_dict import (
    StateDict,
    check_same_structure,
    linear_combination,
    to_state_dict,
    to_vector,
)


def branch_train_mix(
    network: nn.Module,
    base: StateDict,
    finetuned: Sequence[StateDict],
    batches: Iterable[tuple[Tensor, Tensor]],
    modules: Sequence[str],
    *,
    top_k: int = 2,
    balance_coef: float = 0.01,
    include_base: bool = True,
    num_steps: int = 100,
    lr: float = 1e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Mix the feed-forward modules of domain models as experts, average the rest, and train the whole.

    $$
    \mathrm{FF}(x) = \sum_{i \in \mathrm{top}_k(W x)} g_i(W x)\, \mathrm{FF}_i(x), \quad
    g = \mathrm{softmax}(\mathrm{top}_k(W x)), \qquad
    L = L_{\mathrm{task}} + \alpha \sum_{\text{modules}} N \sum_{i=1}^N u_i\, p_i
    $$

    Args:
        network: the architecture; its own parameters are neither used nor changed.
        base: $\theta_0$, the seed model.
        finetuned: $\theta_1 \dots \theta_n$, trained from the seed on one domain each, n >= 1.
        batches: (inputs, targets) of all domains, one a step, cycled through.
        modules: names of the feed-forward modules, each a function of one tensor (..., width).
        top_k: $k$, experts for each token, in [1, N]. Default 2: the paper's experiments.
        balance_coef: $\alpha$ of the load balance, >= 0. Default 0.01: the paper's experiments.
        include_base: whether the seed's modules are an expert too, N = n + 1. Default True: the paper's experiments.
        num_steps: steps of Adam on all parameters; 0 only mixes. Default 100: a toy's.
        lr: learning rate. Default 0.001: a toy's.
        generator: source of the routers' initial weights. Default None: a fresh generator with seed 0.
        progress: called with the step and its loss. Default None.

    Returns:
        A network in evaluation mode whose named modules are `Experts`.

    Raises:
        ValueError: no models, models of different structure, a module that does not exist, top_k out of range, no
            batches to train on.

    Example:
        Experts that multiply by 2 and by 4, two for each token: an undecided router takes their mean.

        >>> net = nn.Sequential(nn.Linear(1, 1, bias=False))
        >>> models = [{"0.weight": torch.tensor([[2.0]])}, {"0.weight": torch.tensor([[4.0]])}]
        >>> mixed = branch_train_mix(net, models[0], models, [], ["0"], include_base=False, num_steps=0)
        >>> _ = nn.init.zeros_(mixed[0].router.weight)
        >>> mixed(torch.tensor([[1.0]])).item()
        3.0

    References:
        sukhbaatar2024btx, the section on the method: branch, train, mix, fine-tune the mixture.
    """
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    check_same_structure(base, *finetuned)
    members = [*([base] if include_base else []), *finetuned]
    if not 1 <= top_k <= len(members):
        raise ValueError(f"top_k is {top_k}; it must lie in [1, {len(members)}], the number of experts")
    generator = torch.Generator().manual_seed(0) if generator is None else generator

    # 1. average everything, then replace the named modules by mixtures of the members' own
    averaged = linear_combination([to_vector(member) for member in members], [1 / len(members)] * len(members))
    model = copy.deepcopy(network)
    model.load_state_dict(to_state_dict(averaged, like=base))
    parts = dict(model.named_modules())
    for name in modules:
        if not name or name not in parts:
            raise ValueError(f"there is no module {name!r}; the network has {', '.join(n for n in parts if n)}")
        experts = []
        for member in members:
            expert = copy.deepcopy(parts[name])
            expert.load_state_dict({key[len(name) + 1 :]: t for key, t in member.items() if key.startswith(name + ".")})
            experts.append(expert)
        width = next(p.shape[-1] for p in parts[name].parameters() if p.ndim > 1)
        model.set_submodule(name, Experts(experts, width, top_k, generator))

    # 2. train all of it
    data = list(batches) if num_steps else []
    if num_steps and not data:
        raise ValueError("received no batches; the mixture needs data to train its routers")
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    mixtures = [module for module in model.modules() if isinstance(module, Experts)]
    for step in range(num_steps):
        inputs, targets = data[step % len(data)]
        outputs = model(inputs)
        loss = nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())
        loss = loss + balance_coef * sum(mixture.balance for mixture in mixtures)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    return model.eval().requires_grad_(False)


class Experts(nn.Module):
    """A mixture of modules: every token visits the `top_k` that its router scores highest.

    Attributes:
        experts: the modules.
        router: linear map from a token to one score for each expert.
        balance: N sum_i u_i p_i of the last batch; 1 if all experts get alike, N if one gets all.
    """

    def __init__(self, experts: Sequence[nn.Module], width: int, top_k: int, generator: torch.Generator) -> None:
        super().__init__()
        self.experts, self.top_k = nn.ModuleList(experts), top_k
        like = next(experts[0].parameters())
        self.router = nn.utils.skip_init(
            nn.Linear, width, len(experts), bias=False, device=like.device, dtype=like.dtype
        )
        with torch.no_grad():
            self.router.weight.copy_(torch.randn(len(experts), width, generator=generator) / width**0.5)
        self.balance = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        scores = self.router(x)  # (..., N)
        best, chosen = scores.topk(self.top_k, dim=-1)
        gates = torch.zeros_like(scores).scatter(-1, chosen, best.softmax(dim=-1))  # zero for all others
        visited = (gates > 0).to(x.dtype).flatten(0, -2).mean(dim=0) / self.top_k  # u, sums to 1
        self.balance = len(self.experts) * (visited * scores.softmax(dim=-1).flatten(0, -2).mean(dim=0)).sum()
        return sum(gates[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))
