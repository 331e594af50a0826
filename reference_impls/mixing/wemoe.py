r"""WEMoE, weight-ensembling mixture of experts (tang2024wemoe).

A merged model has one set of weights for all inputs, but different inputs want different mixtures of the tasks. WEMoE
merges most of a network by task arithmetic and keeps the parts where the tasks differ most, the MLPs, apart: each MLP
holds the base weights and the task vectors as a dictionary, and a small router, looking at the input, says how much of
each task vector to add. The router is the only thing that is trained, on unlabelled test data, so that predictions
become certain.

Notation: theta_0 the base model, tau_t the task vector of model t, D_tau the dictionary of a module's task vectors
(one a column), r the router, h_1..h_N the tokens that enter the module, lambda the scaling coefficient.

Departures: any named submodules can be upscaled, the paper takes the MLP of every transformer block; each batch holds
examples of all tasks, where the paper adds up one batch for each task; one head serves all tasks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from reference_impls.core.state_dict import StateDict, linear_combination, task_vector, to_state_dict, to_vector


def wemoe(
    network: nn.Module,
    base: StateDict,
    finetuned: Sequence[StateDict],
    batches: Iterable[tuple[Tensor, Tensor]],
    modules: Sequence[str],
    *,
    scaling_coef: float = 0.3,
    router_layers: int = 2,
    num_steps: int = 1000,
    lr: float = 1e-4,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Merge a network by task arithmetic, with input-dependent mixtures in the named modules.

    $$
    \theta(h) = \theta_0 + D_\tau\, \bar r(h), \qquad \bar r(h) = \frac1N \sum_{k=1}^N r(h_k), \qquad
    r(h) = W_2\, \mathrm{ReLU}(W_1 h + b_1) + b_2
    $$

    Args:
        network: the architecture $f$; its own parameters are neither used nor changed.
        base: $\theta_0$, the pre-trained model.
        finetuned: $\theta_1 \dots \theta_n$, n >= 1.
        batches: (inputs, targets) of all tasks, cycled through; targets are not used.
        modules: names of the submodules to upscale, each a function of one tensor (batch, ..., width).
        scaling_coef: $\lambda$ of the merged rest and initial output of every router. Default 0.3: the authors' code.
        router_layers: 2 for the router above, 1 for $r(h) = W_2 h + b_2$, 0 for $r = b_2$, which is layer-wise merging
            with learned coefficients. Default 2: the authors' code.
        num_steps: steps of Adam on the routers; 0 leaves them as they start. Default 1000: the authors' code.
        lr: learning rate, annealed to 0 along a cosine. Default 1e-4: the configurations of
            the authors' runs.
        generator: source of the routers' initial weights. Default None: a fresh generator with seed 0.
        progress: called with the step and its loss. Default None.

    Returns:
        A network in evaluation mode whose named modules are `WeightEnsembling` modules.

    Raises:
        ValueError: no models, models of different structure, a module that does not exist, an unknown number of router
            layers.

    Example:
        One weight, 1 in the base; task vectors 2 and -1. A router that says 0.5 to both makes 1 + 0.5 * 2 - 0.5 * 1 =
        1.5 of it.

        >>> layer = nn.Sequential(nn.Linear(1, 1, bias=False))
        >>> base, models = {"0.weight": torch.ones(1, 1)}, [{"0.weight": torch.tensor([[v]])} for v in (3.0, 0.0)]
        >>> moe = wemoe(layer, base, models, [], ["0"], scaling_coef=0.5, router_layers=0, num_steps=0)
        >>> moe(torch.tensor([[10.0]])).item()
        15.0

    References:
        tang2024wemoe, the weight-ensembling module and its training; authors' code.
    """
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    if router_layers not in (0, 1, 2):
        raise ValueError(f"router_layers is {router_layers}; it is 0, 1 or 2")
    generator = torch.Generator().manual_seed(0) if generator is None else generator

    # 1. task arithmetic for everything
    taus = [task_vector(model, base) for model in finetuned]
    merged = linear_combination([to_vector(base), *taus], [1.0] + [scaling_coef] * len(taus))
    model = copy.deepcopy(network).eval().requires_grad_(False)
    model.load_state_dict(to_state_dict(merged, like=base))

    # 2. the named modules get their base weights back, with a dictionary of task vectors and a router
    parts = dict(model.named_modules())
    for name in modules:
        if not name or name not in parts:
            raise ValueError(f"there is no module {name!r}; the network has {', '.join(n for n in parts if n)}")
        below = [key for key in to_vector(base) if key.startswith(name + ".")]
        weights = {key[len(name) + 1 :]: base[key].detach().clone() for key in below}
        columns = {key[len(name) + 1 :]: torch.stack([tau[key] for tau in taus]).to(base[key].dtype) for key in below}
        router = Router(base[below[0]].shape[-1], len(taus), scaling_coef, router_layers, generator).to(
            base[below[0]].device
        )
        model.set_submodule(name, WeightEnsembling(parts[name], weights, columns, router))

    # 3. train the routers: little entropy in the predictions
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(num_steps, 1))
    data = [inputs for inputs, _ in batches] if num_steps else []
    for step in range(num_steps):
        log_p = model(data[step % len(data)]).log_softmax(dim=-1)
        loss = -(log_p.exp() * log_p).sum(dim=-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step, loss.item())
    return model.requires_grad_(False)


class Router(nn.Module):
    """Says, token by token, how much of each task vector to add: (batch, ..., width) -> (batch, ..., n)."""

    def __init__(self, width: int, count: int, start: float, layers: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = nn.ParameterList()
        if layers == 2:
            self.hidden.extend([0.01 * torch.randn(width, width, generator=generator), torch.zeros(width)])
        self.weight = nn.Parameter(0.01 * torch.randn(count, width, generator=generator)) if layers else None
        self.bias = nn.Parameter(torch.full((count,), start))

    def forward(self, h: Tensor) -> Tensor:
        for weight, bias in zip(self.hidden[::2], self.hidden[1::2]):
            h = torch.relu(h @ weight.T + bias)
        return self.bias.expand(*h.shape[:-1], -1) if self.weight is None else h @ self.weight.T + self.bias


class WeightEnsembling(nn.Module):
    """A module whose weights are, for each input anew, the base weights plus a mixture of task vectors."""

    def __init__(self, module: nn.Module, base: dict[str, Tensor], taus: dict[str, Tensor], router: Router) -> None:
        super().__init__()
        module.load_state_dict(base, strict=False)
        self.module, self.router = module, router
        self.names = list(taus)
        for i, name in enumerate(self.names):
            self.register_buffer(f"tau_{i}", taus[name])  # (n, ...)

    def mixture(self, h: Tensor) -> Tensor:
        """The router's output, averaged over the tokens of each input: (batch, n)."""
        r = self.router(h)
        return r.flatten(1, -2).mean(dim=1) if r.ndim > 2 else r

    def forward(self, h: Tensor) -> Tensor:
        base = self.module.state_dict()
        taus = {name: getattr(self, f"tau_{i}") for i, name in enumerate(self.names)}

        def one(r: Tensor, x: Tensor) -> Tensor:  # (n,), (..., width)
            weights = {name: base[name] + torch.tensordot(r, tau, dims=1) for name, tau in taus.items()}
            return functional_call(self.module, weights, (x.unsqueeze(0),)).squeeze(0)

        return vmap(one)(self.mixture(h), h)
