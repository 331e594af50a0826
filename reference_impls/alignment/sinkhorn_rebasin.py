r"""Sinkhorn re-basin (pena2023sinkhorn).

A permutation cannot be trained, but a doubly stochastic matrix can: Sinkhorn's operator makes one out of any matrix of
free numbers by rescaling its rows and columns in turn until all sum to one. Sinkhorn re-basin trains one such matrix of
numbers per layer by gradient descent on whatever the permuted model should be good at (close to model A, a low loss
halfway or anywhere in between) and rounds to permutations at the end. The gradient comes from the conditions that the
result satisfies, not from the iterations that led to it.

Notation: X_l free numbers, P_l = S(X_l / tau) the doubly stochastic matrix of layer l, tau the temperature, theta_A,
theta_B the models, pi_P(theta_B) the second model transformed by all P_l.

Departures: starts from X = 0, all units alike; the optimiser is Adam. Attention heads, which the paper leaves open, get
one matrix of heads times one matrix of units for every pair of heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from reference_impls.core.permutation import PermutationSpec, nearest_permutations, transform
from reference_impls.core.state_dict import StateDict, Vector, check_same_structure, tied_to, to_vector
from reference_impls.core.transport import log_sinkhorn


def sinkhorn_rebasin(
    model_a: StateDict,
    model_b: StateDict,
    spec: PermutationSpec,
    *,
    objective: Literal["weights", "midpoint", "random point"] = "weights",
    loss_fn: Callable[[StateDict], Tensor] | None = None,
    num_steps: int = 40,
    lr: float = 0.1,
    temperature: float = 0.1,
    max_iter: int = 20,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> dict[str, Tensor]:
    r"""Find permutations of model B's units by gradient descent through Sinkhorn's operator.

    $$
    P_l = S(X_l / \tau), \qquad
    \min_X \lVert \theta_A - \pi_P(\theta_B) \rVert_2^2 \quad\text{or}\quad
    \min_X L\big((1 - t)\, \theta_A + t\, \pi_P(\theta_B)\big), \quad t = \tfrac12 \text{ or } t \sim U(0, 1)
    $$

    $$
    \nabla_{X/\tau} = P \odot (G - x \mathbf 1^\top - \mathbf 1 y^\top), \qquad
    \begin{pmatrix} I & P \\ P^\top & I \end{pmatrix} \begin{pmatrix} x \\ y \end{pmatrix}
    = \begin{pmatrix} (P \odot G) \mathbf 1 \\ (P \odot G)^\top \mathbf 1 \end{pmatrix}, \qquad G = \nabla_P
    $$

    Args:
        model_a: $\theta_A$, the model that stays as it is.
        model_b: $\theta_B$, the model whose units are to be reordered.
        spec: which permutation acts on which axis.
        objective: "weights" (needs no data), "midpoint" or "random point" on the line (need `loss_fn`).
            Default "weights": it needs no data.
        loss_fn: $L$, from a state dict to a scalar. Default None: enough for "weights".
        num_steps: gradient steps, >= 0. Default 40, which suffices on the toy zoo; the paper trains until convergence.
        lr: step size of Adam on $X$, > 0. Default 0.1: a choice here.
        temperature: $\tau$, > 0; the smaller, the closer $P$ is to a permutation. Default 0.1: a choice here.
        max_iter: rounds of row and column scaling, >= 1. Default 20: a choice here.
        generator: source of the random points on the line. Default None: seed 0.
        progress: called with step and objective.

    Returns:
        The permutations nearest to the $P_l$, as index tensors by name.

    Raises:
        ValueError: models of another structure than each other's or the spec's, an objective on the line without
        `loss_fn`, an unknown objective,
            num_steps, lr, temperature or max_iter out of range.

    Example:
        >>> spec = PermutationSpec({"first.weight": ("hidden", None), "second.weight": (None, "hidden")}, {"hidden": 2})
        >>> model_a = {"first.weight": torch.tensor([[1.0], [2.0]]), "second.weight": torch.tensor([[5.0, 6.0]])}
        >>> model_b = {"first.weight": torch.tensor([[2.0], [1.0]]), "second.weight": torch.tensor([[6.0, 5.0]])}
        >>> sinkhorn_rebasin(model_a, model_b, spec)
        {'hidden': tensor([1, 0])}

    References:
        pena2023sinkhorn, the operator, its implicit gradient and the three objectives.
    """
    if objective not in ("weights", "midpoint", "random point"):
        raise ValueError(f"objective is {objective!r}; it is one of weights, midpoint, random point")
    if objective != "weights" and loss_fn is None:
        raise ValueError(f"objective {objective!r} needs a loss_fn")
    if num_steps < 0 or lr <= 0 or temperature <= 0 or max_iter < 1:
        given = f"num_steps is {num_steps}, lr {lr}, temperature {temperature}, max_iter {max_iter}"
        raise ValueError(f"{given}; at least 0, above 0, above 0 and at least 1 are needed")
    check_same_structure(model_a, model_b)
    spec.check(model_a)
    generator = generator or torch.Generator().manual_seed(0)

    a, b = ({k: v.double() for k, v in to_vector(m).items()} for m in (model_a, model_b))
    free = _free_numbers(spec, next(iter(a.values())).device)
    optimizer = torch.optim.Adam([x for group in free.values() for x in group.values()], lr=lr)
    for step in range(num_steps):
        maps = _maps(spec, free, temperature, max_iter)
        moved = {key: transform(spec, maps, key, tensor) for key, tensor in b.items()}
        if objective == "weights":
            value = sum((a[key] - moved[key]).square().sum() for key in a if key not in spec.buffers)
        else:
            t = 0.5 if objective == "midpoint" else torch.rand((), generator=generator).item()
            value = loss_fn(_between(spec, model_a, a, moved, t))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if progress is not None:
            progress(step, value.item())

    with torch.no_grad():
        maps = _maps(spec, free, temperature, max_iter)
    return nearest_permutations(spec, maps)


class Sinkhorn(torch.autograd.Function):
    """Rows and columns of exp(M) scaled to sum to one, (..., n, n); its gradient by the implicit function theorem."""

    @staticmethod
    def forward(ctx: Any, m: Tensor, max_iter: int) -> Tensor:
        p = log_sinkhorn(m, max_iter).exp()
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (p,) = ctx.saved_tensors
        eye = torch.eye(p.shape[-1], dtype=p.dtype, device=p.device)
        rows, columns = (p * gradient).sum(-1, keepdim=True), (p * gradient).sum(-2)[..., None]
        # eliminate x; constants may be added to y and taken from x, which 1/n removes; the ridge is for P that are
        # permutations already
        system = eye - p.mT @ p + 1 / p.shape[-1] + 1e-9 * eye
        y = torch.linalg.solve(system, columns - p.mT @ rows)
        x = rows - p @ y
        return p * (gradient - x - y.mT), None


def _free_numbers(spec: PermutationSpec, device: torch.device) -> dict[tuple[str, ...], dict[str, Tensor]]:
    """X = 0 for every layer; for heads one matrix of heads ("") and for every pair of heads one of units."""
    zeros = lambda *shape: torch.zeros(shape, dtype=torch.float64, device=device, requires_grad=True)  # noqa: E731
    free = {}
    for names in spec.coordinates():
        count = spec.blocks.get(names, 1)
        free[names] = {name: zeros(count, count, spec.sizes[name] // count, spec.sizes[name] // count) for name in names}
        if count > 1:
            free[names][""] = zeros(count, count)
    return free


def _maps(spec: PermutationSpec, free: dict, temperature: float, max_iter: int) -> dict[str, Tensor]:
    """The doubly stochastic matrices of all layers."""
    out = {}
    for group in free.values():
        between = Sinkhorn.apply(group[""] / temperature, max_iter) if "" in group else 1.0
        for name, x in group.items():
            if name:
                within = Sinkhorn.apply(x / temperature, max_iter)  # (heads of A, heads of B, units, units)
                whole = within * between[..., None, None] if "" in group else within
                out[name] = whole.transpose(1, 2).reshape(spec.sizes[name], spec.sizes[name])
    return out


def _between(spec: PermutationSpec, like: StateDict, a: Vector, moved: Vector, t: float) -> dict[str, Tensor]:
    """The differentiable model at t on the line, dressed as `like`; running statistics move along, without a gradient."""
    ties, out = tied_to(like), {}
    for key, tensor in like.items():
        name = ties.get(key, key)
        if name in a:
            other = moved[name].detach() if name in spec.buffers else moved[name]
            tensor = ((1 - t) * a[name] + t * other).to(tensor.dtype)
        out[key] = tensor
    return out
