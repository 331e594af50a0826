r"""Twin-Merging (lu2024twin).

What fine-tuned models know has a part that they share and a part that is each one's own. The shared part is what task
arithmetic makes of them; each model's difference from it is its exclusive knowledge, which keeps its effect when it is
compressed to a low rank. At inference a router looks at the input, says which task it probably belongs to, and adds so
much of each exclusive part to the shared model.

Notation: theta_0 the base model, theta_t the fine-tuned models, theta_s the shared expert, v_t the exclusive
knowledge, r its rank, R the router, w its weights, lambda the scaling coefficient.

Departures: the router reads the outputs of the shared expert, or what `features_fn` makes of the input; the paper's
reads the embedding of the last token. Its size and training are choices made here. Tensors that are no matrices are
not compressed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from reference_impls.core.lora import truncated_svd
from reference_impls.core.state_dict import StateDict, Vector, linear_combination, task_vector, to_state_dict, to_vector


def twin_merging(
    network: nn.Module,
    base: StateDict,
    finetuned: Sequence[StateDict],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    rank: int = 8,
    scaling_coef: float = 0.3,
    hidden: int = 32,
    num_steps: int = 300,
    lr: float = 1e-2,
    features_fn: Callable[[Tensor], Tensor] | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> TwinMerged:
    r"""Merge what the models share, compress what is each one's own, and add it back by the input.

    $$
    \theta_s = \theta_0 + \lambda \sum_t (\theta_t - \theta_0), \qquad v_t = \mathrm{SVD}_r(\theta_t - \theta_s), \qquad
    \theta(x) = \theta_s + \sum_t w_t(x)\, v_t, \quad w(x) = \mathrm{softmax}\, R(x)
    $$

    Args:
        network: the architecture $f$; its own parameters are neither used nor changed.
        base: $\theta_0$, the pre-trained model.
        finetuned: $\theta_1 \dots \theta_n$, n >= 1.
        batches: (inputs, numbers of the models that the inputs belong to), from 0; cycled through to train the router.
        rank: $r$ of the exclusive knowledge of every matrix, >= 1; a matrix of lower rank is kept whole. Default 8: a
            toy's.
        scaling_coef: $\lambda$ of the shared expert. Default 0.3: the usual coefficient of task arithmetic.
        hidden: width of the router's hidden layer. Default 32: a choice here.
        num_steps: steps of Adam on the router; 0 leaves it undecided. Default 300: a choice here.
        lr: learning rate. Default 0.01: a choice here.
        features_fn: what the router reads of the inputs; (batch, features). Default None: the shared expert's outputs.
        generator: source of the router's initial weights. Default None: a fresh generator with seed 0.
        progress: called with the step and its loss. Default None.

    Returns:
        A `TwinMerged` network.

    Raises:
        ValueError: no models, models of different structure, a rank below 1, task numbers that do not exist.

    Example:
        One weight, 0 in the base; 2 and 4 fine-tuned. Shared 0.5 * (2 + 4) = 3, exclusive -1 and 1. An undecided
        router adds half of each.

        >>> layer = nn.Linear(1, 1, bias=False)
        >>> models = [{"weight": torch.tensor([[2.0]])}, {"weight": torch.tensor([[4.0]])}]
        >>> twin = twin_merging(layer, {"weight": torch.zeros(1, 1)}, models, [], scaling_coef=0.5, num_steps=0)
        >>> twin(torch.tensor([[10.0]])).item()
        30.0

    References:
        lu2024twin, shared and exclusive knowledge and their dynamic merging.
    """
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    if rank < 1:
        raise ValueError(f"rank is {rank}; it must be at least 1")
    generator = torch.Generator().manual_seed(0) if generator is None else generator

    # 1. shared and exclusive knowledge
    taus = [task_vector(model, base) for model in finetuned]
    theta_s = linear_combination([to_vector(base), *taus], [1.0] + [scaling_coef] * len(taus))
    exclusive = [_compress({key: to_vector(m)[key] - theta_s[key] for key in theta_s}, rank) for m in finetuned]
    data = list(batches) if num_steps else []
    if any(int(tasks.max()) >= len(finetuned) for _, tasks in data):
        raise ValueError(
            f"the batches name models above {len(finetuned) - 1}; there are {len(finetuned)} fine-tuned models"
        )
    twin = TwinMerged(network, to_state_dict(theta_s, like=base), exclusive, features_fn)

    # 2. the router learns which task an input belongs to
    if num_steps:
        with torch.no_grad():
            features = [twin.features(inputs) for inputs, _ in data]
        twin.build_router(features[0].shape[-1], hidden, generator)
        optimizer = torch.optim.Adam(twin.router.parameters(), lr=lr)
        for step in range(num_steps):
            loss = nn.functional.cross_entropy(twin.router(features[step % len(data)]), data[step % len(data)][1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if progress is not None:
                progress(step, loss.item())
    return twin.requires_grad_(False)


def _compress(vector: Vector, rank: int) -> Vector:
    """The best approximation of rank r of every matrix; other tensors as they are."""
    out = {}
    for key, tensor in vector.items():
        if tensor.ndim == 2 and rank < min(tensor.shape):
            left, values, right = truncated_svd(tensor, rank)
            tensor = left * values @ right
        out[key] = tensor
    return out


class TwinMerged(nn.Module):
    """A network whose weights are the shared expert plus a mixture of exclusive knowledge, for each input anew.

    Attributes:
        shared: the state dict of the shared expert.
        router: features -> one logit for each model, or None: undecided.
    """

    def __init__(
        self,
        network: nn.Module,
        shared: StateDict,
        exclusive: Sequence[Vector],
        features_fn: Callable[[Tensor], Tensor] | None,
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.network.load_state_dict(shared)
        self.count, self.features_fn = len(exclusive), features_fn
        self.names = [name for name in self.network.state_dict() if name in exclusive[0]]
        for i, name in enumerate(self.names):
            dtype = shared[name].dtype
            self.register_buffer(f"exclusive_{i}", torch.stack([v[name] for v in exclusive]).to(dtype))  # (n, ...)
        self.router: nn.Module | None = None

    @property
    def shared(self) -> dict[str, Tensor]:
        return self.network.state_dict()

    def build_router(self, width: int, hidden: int, generator: torch.Generator) -> None:
        """Give it a router of two layers, drawn with the generator."""
        self.router = nn.Sequential(
            nn.utils.skip_init(nn.Linear, width, hidden), nn.ReLU(), nn.utils.skip_init(nn.Linear, hidden, self.count)
        ).to(next(self.buffers()).device)
        with torch.no_grad():
            for layer in self.router[::2]:
                weight = torch.randn(layer.weight.shape, generator=generator) / layer.weight.shape[1] ** 0.5
                layer.weight.copy_(weight)
                layer.bias.zero_()

    def features(self, inputs: Tensor) -> Tensor:
        """What the router reads."""
        return (self.network(inputs) if self.features_fn is None else self.features_fn(inputs)).flatten(1).float()

    def weights(self, inputs: Tensor) -> Tensor:
        """The router's weights of the models: (batch, n), rows sum to 1."""
        if self.router is None:
            return torch.full((len(inputs), self.count), 1 / self.count, device=inputs.device)
        return self.router(self.features(inputs)).softmax(dim=-1)

    def forward(self, inputs: Tensor) -> Tensor:
        shared = self.shared

        def one(w: Tensor, x: Tensor) -> Tensor:
            mixed = {
                n: shared[n] + torch.tensordot(w, getattr(self, f"exclusive_{i}"), dims=1)
                for i, n in enumerate(self.names)
            }
            return functional_call(self.network, mixed, (x.unsqueeze(0),)).squeeze(0)

        return vmap(one, chunk_size=64)(self.weights(inputs), inputs)
