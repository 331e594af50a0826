r"""PHATGOOSE, post-hoc adaptive tokenwise gating over an ocean of specialized experts (muqeeth2024phatgoose).

Low-rank adapters are trained by different people on different tasks, and nobody ever has all the data. After training
an adapter its owner freezes it and trains, on the same data, one gate vector for every adapted layer: a sigmoid of its
product with the layer's input says how far the adapter is switched on. The gates are then all that routing needs: at
inference each token, in each layer, goes to the adapters whose gate vectors are most similar to it.

Notation: W a layer of the base model, B_z A_z the adapter of expert z, v_z its gate vector, u the input of the layer
(one token), n its width, bars the standardisation to mean 0 and variance 1 over the entries, k the number of experts a
token visits.

Departures: gates are trained with Adam at a constant rate; the paper's schedule is left out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from reference_impls.core.state_dict import StateDict


def phatgoose(
    network: nn.Module,
    base: StateDict,
    adapters: Sequence[Mapping[str, tuple[Tensor, Tensor]]],
    task_batches: Sequence[Iterable[tuple[Tensor, Tensor]]],
    *,
    top_k: int = 2,
    scaling: float = 1.0,
    num_steps: int = 100,
    lr: float = 5e-3,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Train a gate for each adapter and layer on the adapter's own data; route tokens by similarity to the gates.

    $$
    \text{training:}\quad W u + \sigma(v_z^\top u)\, B_z A_z u, \qquad
    \text{inference:}\quad W u + \sum_{z \in \mathrm{top}_k} w_z\, B_z A_z u, \quad
    w = \mathrm{softmax}\big(\{\bar v_z^\top \bar u / \sqrt n\}_{z \in \mathrm{top}_k}\big)
    $$

    Args:
        network: the architecture, with `nn.Linear` layers where there are adapters; neither used nor changed otherwise.
        base: the weights that all adapters were trained on.
        adapters: of each expert: weight name -> (A (rank, inputs), B (outputs, rank)); all adapt the same layers, n >=
            1.
        task_batches: of each expert, its own (inputs, targets), cycled through.
        top_k: $k$, experts for each token, in [1, n]. Default 2: the paper's experiments.
        scaling: the adapters' own factor on B A. Default 1.0: B A as it is.
        num_steps: steps of Adam on each expert's gates, from zero vectors. Default 100: the authors'
            script.
        lr: learning rate. Default 0.005: the authors' configuration.
        progress: called with the step, counted over all experts, and its loss. Default None.

    Returns:
        A network in evaluation mode whose adapted layers are `GatedAdapters`.

    Raises:
        ValueError: no adapters, another number of data sets, adapters of different layers, a layer that is not linear,
            top_k out of range.

    Example:
        Gates along (1, -1) and (-1, 1): a token (3, 1) goes to the first expert, which adds the first entry; (1, 3) to
        the second.

        >>> net, base = nn.Sequential(nn.Linear(2, 1, bias=False)), {"0.weight": torch.zeros(1, 2)}
        >>> one, two = (torch.tensor([[1.0, 0.0]]), torch.ones(1, 1)), (torch.tensor([[0.0, 1.0]]), torch.ones(1, 1))
        >>> routed = phatgoose(net, base, [{"0.weight": one}, {"0.weight": two}], [[], []], top_k=1, num_steps=0)
        >>> routed[0].gates.data = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        >>> routed(torch.tensor([[3.0, 1.0], [1.0, 4.0]])).flatten().tolist()
        [3.0, 4.0]

    References:
        muqeeth2024phatgoose, the section on the method; authors' code for the training of the gates.
    """
    if not adapters or len(adapters) != len(task_batches):
        raise ValueError(
            f"received {len(adapters)} adapters and {len(task_batches)} data sets; one for each adapter is needed"
        )
    if not 1 <= top_k <= len(adapters):
        raise ValueError(f"top_k is {top_k}; it must lie in [1, {len(adapters)}], the number of adapters")
    if any(set(adapter) != set(adapters[0]) for adapter in adapters):
        raise ValueError("the adapters adapt different layers; all must have the same names")

    model = copy.deepcopy(network).eval().requires_grad_(False)
    model.load_state_dict(base)
    parts = dict(model.named_modules())
    layers = []
    for key in adapters[0]:
        name = key.removesuffix(".weight")
        if not isinstance(parts.get(name), nn.Linear):
            raise ValueError(f"{key!r} is not the weight of a linear layer of the network")
        layers.append(GatedAdapters(parts[name], [adapter[key] for adapter in adapters], scaling, top_k))
        model.set_submodule(name, layers[-1])

    # each expert alone: everything frozen but its own gate vectors
    for z, batches in enumerate(task_batches):
        data = list(batches) if num_steps else []
        gates = [torch.zeros_like(layer.gates[z], requires_grad=True) for layer in layers]
        optimizer = torch.optim.Adam(gates, lr=lr)
        for layer, gate in zip(layers, gates):
            layer.training_expert, layer.training_gate = z, gate
        for step in range(num_steps):
            inputs, targets = data[step % len(data)]
            outputs = model(inputs)
            loss = nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if progress is not None:
                progress(z * num_steps + step, loss.item())
        for layer, gate in zip(layers, gates):
            layer.gates[z] = gate.detach()
            layer.training_expert = layer.training_gate = None
    return model


class GatedAdapters(nn.Module):
    """A linear layer with several low-rank adapters, of which every token uses the `top_k` with the most similar gates.

    Attributes:
        gates: one vector for each expert; shape (experts, inputs).
    """

    def __init__(self, layer: nn.Linear, adapters: Sequence[tuple[Tensor, Tensor]], scaling: float, top_k: int) -> None:
        super().__init__()
        self.layer, self.scaling, self.top_k = layer, scaling, top_k
        self.register_buffer("A", torch.stack([A.detach().clone() for A, _ in adapters]))  # (z, rank, inputs)
        self.register_buffer("B", torch.stack([B.detach().clone() for _, B in adapters]))  # (z, outputs, rank)
        self.register_buffer("gates", torch.zeros(len(adapters), self.A.shape[2]).to(self.A))
        self.training_expert: int | None = None
        self.training_gate: Tensor | None = None

    def routing(self, u: Tensor) -> Tensor:
        """The weights of the experts for each token: (..., inputs) -> (..., experts), zero but for the best."""
        scores = _standardise(u) @ _standardise(self.gates).T
        best, chosen = scores.topk(self.top_k, dim=-1)
        return torch.zeros_like(scores).scatter(-1, chosen, (best / u.shape[-1] ** 0.5).softmax(dim=-1))

    def forward(self, u: Tensor) -> Tensor:
        if self.training_expert is not None:
            z = self.training_expert
            on = torch.sigmoid(u @ self.training_gate)[..., None]
            return self.layer(u) + self.scaling * on * (u @ self.A[z].T @ self.B[z].T)
        updates = torch.einsum("...i,zri,zor->...zo", u, self.A, self.B)  # (..., experts, outputs)
        return self.layer(u) + self.scaling * (self.routing(u)[..., None] * updates).sum(dim=-2)


def _standardise(x: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the last axis; a constant vector becomes 0."""
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / centred.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-6)
