r"""Deep-Align (navon2024equivariant).

Instead of solving a matching problem for every new pair of networks, Deep-Align learns to solve them: a network whose
inputs are the weights of other networks gives every hidden unit a feature vector, and two networks are aligned by
pairing the units with like features. It is built so that reordering a network's units reorders the features alike. Its
training needs no labels: permuting a network and adding noise makes pairs whose alignment is known, and for other pairs
the aligned weights should be close.

Notation: H_l the features of the units of layer l, one row per unit; W a weight matrix between layers; P_l the soft
alignment of layer l.

Departures: a small message-passing network over units in place of the paper's deep weight-space layers, equivariant
alike; the loss on the line between the aligned networks, which needs data, is left out. Matrices and vectors only
(perceptrons).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from reference_impls.core.permutation import PermutationSpec, apply_permutation, nearest_permutations, random_permutations
from reference_impls.core.permutation import transform
from reference_impls.core.state_dict import StateDict, Vector, check_same_structure, to_vector
from reference_impls.core.transport import log_sinkhorn


def deep_align(
    model_a: StateDict,
    model_b: StateDict,
    spec: PermutationSpec,
    models: Sequence[StateDict],
    *,
    num_steps: int = 200,
    lr: float = 1e-2,
    noise: float = 1.0,
    features: int = 32,
    rounds: int = 2,
    temperature: float = 0.1,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> dict[str, Tensor]:
    r"""Learn on some models to align networks by features of their units, and align model B to model A.

    $$
    H_l \leftarrow \tanh\Big(H_l A + \sum_{m} W_{lm} H_m B_{lm}\Big), \qquad
    P_l = S\big(H_l^A (H_l^B)^\top / \tau\big), \qquad
    \min\; -\!\sum_l \langle P_l^*, \log P_l \rangle + \lVert \theta_i - \pi_P(\theta_j) \rVert^2 / \lVert \theta_i \rVert^2
    $$

    Args:
        model_a: $\theta_A$, the model that stays as it is.
        model_b: $\theta_B$, the model whose units are to be reordered.
        spec: which permutation acts on which axis.
        models: $\theta_i$, the models to learn from, n >= 1; their tasks do not matter.
        num_steps: gradient steps, >= 0; 0 aligns by random equivariant features. Default 200; the paper trains on
            thousands of networks.
        lr: step size of Adam, > 0. Default 1e-2: a toy's.
        noise: standard deviation of the noise on a permuted copy, as a share of the tensor's own, >= 0. Default 1.0,
            which suits the toy zoo.
        features: length of a feature vector, >= 1. Default 32: a toy's.
        rounds: message-passing rounds, >= 1. Default 2: a toy's.
        temperature: $\tau$, > 0. Default 0.1: a toy's.
        generator: source of the initial weights, the permutations and the noise. Default None: seed 0.
        progress: called with step and loss.

    Returns:
        The permutations as index tensors by name.

    Raises:
        ValueError: no models, models of another structure than each other's or the spec's, tensors of more than two
        axes, an option out of range.

    Example:
        Features are equivariant, so a permuted copy is aligned even without any training.

        >>> spec = PermutationSpec({"first.weight": ("hidden", None), "second.weight": (None, "hidden")}, {"hidden": 2})
        >>> model_a = {"first.weight": torch.tensor([[1.0], [2.0]]), "second.weight": torch.tensor([[5.0, 6.0]])}
        >>> model_b = {"first.weight": torch.tensor([[2.0], [1.0]]), "second.weight": torch.tensor([[6.0, 5.0]])}
        >>> deep_align(model_a, model_b, spec, [model_a], num_steps=0)
        {'hidden': tensor([1, 0])}

    References:
        navon2024equivariant, the equivariant architecture, the losses, training without labels.
    """
    if num_steps < 0 or lr <= 0 or noise < 0 or features < 1 or rounds < 1 or temperature <= 0:
        given = f"num_steps is {num_steps}, lr {lr}, noise {noise}, features {features}, rounds {rounds}"
        raise ValueError(f"{given}, temperature {temperature}; needed are >= 0, > 0, >= 0, >= 1, >= 1 and > 0")
    if not models:
        raise ValueError("received no models; at least one to learn from is needed")
    check_same_structure(model_a, model_b, *models)
    spec.check(model_a)
    large = [key for key, axes in spec.axes.items() if len(axes) > 2 and any(axes)]
    if large or spec.repeats:
        raise ValueError(f"{large or list(spec.repeats)} are no plain matrices; Deep-Align takes perceptrons only")
    generator = generator or torch.Generator().manual_seed(0)

    device = next(iter(model_a.values())).device
    weights = _weights(spec, model_a, features, rounds, generator, device)
    optimizer = torch.optim.Adam([w for group in weights.values() for w in group], lr=lr)
    vectors = [to_vector(model) for model in models]
    for step in range(num_steps):
        i, j = (int(torch.randint(len(models), (), generator=generator)) for _ in range(2))
        drawn = random_permutations(spec, generator)  # the known alignment: unit k of the copy is unit drawn[k]
        copy = to_vector(apply_permutation(spec, drawn, models[i]))
        copy = {k: v + noise * v.std(correction=0) * torch.randn(v.shape, generator=generator).to(v) for k, v in copy.items()}
        h_i, h_j, h_copy = (_features(spec, v, weights, rounds) for v in (vectors[i], vectors[j], copy))
        log_p = {name: log_sinkhorn(h_copy[name] @ h_i[name].T / temperature, 10) for name in spec.sizes}
        known = -sum(log_p[name].gather(1, index.to(device)[:, None]).mean() for name, index in drawn.items()) / len(drawn)
        maps = {name: log_sinkhorn(h_i[name] @ h_j[name].T / temperature, 10).exp() for name in spec.sizes}
        apart = sum((vectors[i][k] - transform(spec, maps, k, v)).square().sum() for k, v in vectors[j].items())
        loss = known + apart / sum(v.square().sum() for v in vectors[i].values()).clamp(min=1e-12)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())

    with torch.no_grad():
        h_a, h_b = (_features(spec, to_vector(model), weights, rounds) for model in (model_a, model_b))
        similarities = {name: (h_a[name] @ h_b[name].T).double() for name in spec.sizes}
    return nearest_permutations(spec, similarities)


def _weights(
    spec: PermutationSpec, model: StateDict, features: int, rounds: int, generator: torch.Generator, device: torch.device
) -> dict[tuple[str, int], list[Tensor]]:
    """For every place of a permutation: an embedding of its fixed inputs, or one mixing matrix per round for its messages."""
    draw = lambda n: (torch.randn(n, features, generator=generator) / n**0.5).to(device).requires_grad_()  # noqa: E731
    out = {(name, r): [draw(features)] for name in spec.sizes for r in range(rounds)}  # A
    for name in spec.sizes:
        for key, axis in spec.places(name):
            if key in spec.buffers:
                continue
            other = spec.axes[key][1 - axis] if len(spec.axes[key]) == 2 else None
            fixed = 1 if model[key].dim() == 1 else model[key].shape[1 - axis]
            out[key, axis] = [draw(fixed)] if other is None else [draw(features) for _ in range(rounds)]  # E or B
    return out


def _features(spec: PermutationSpec, vector: Vector, weights: dict, rounds: int) -> dict[str, Tensor]:
    """H of every layer, rows of length one: equivariant to the order of units."""
    start: dict[str, Tensor] = {}
    neighbours: dict[str, list] = {name: [] for name in spec.sizes}
    for name in spec.sizes:
        parts = []
        for key, axis in spec.places(name):
            if key in spec.buffers or key not in vector:
                continue
            rows = vector[key].float().movedim(axis, 0).reshape(spec.sizes[name], -1)
            rows = rows / rows.square().mean().sqrt().clamp(min=1e-12)
            other = spec.axes[key][1 - axis] if len(spec.axes[key]) == 2 else None
            if other is None:
                parts.append(rows @ weights[key, axis][0])
            else:
                neighbours[name].append((other, rows / rows.shape[1] ** 0.5, weights[key, axis]))
        zero = torch.zeros(spec.sizes[name], weights[name, 0][0].shape[1], device=weights[name, 0][0].device)
        start[name] = sum(parts, zero)
    h = start
    for r in range(rounds):
        messages = {name: sum(rows @ h[other] @ b[r] for other, rows, b in neighbours[name]) for name in h}
        h = {name: start[name] + torch.tanh(h[name] @ weights[name, r][0] + messages[name]) for name in h}
    return {name: value / value.norm(dim=1, keepdim=True).clamp(min=1e-12) for name, value in h.items()}
