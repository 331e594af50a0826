r"""Shared-init linear path and norm-bound growth (nagarajan2019uniform).

Two networks trained from one initialisation on different samples of the data can be joined by a straight line of low
loss. The same paper looks at the distance from that initialisation: it grows with the number of training examples, and
so do the generalisation bounds that are made of norms and distances, while the test error falls. A bound that grows
where the error falls explains nothing.

Notation: Z the initialisation, W_k the weight matrices of d layers, m the number of training examples, gamma the
margin, ||.||_2 the spectral and ||.||_F the Frobenius norm.

Departures: constant factors of the bound (norm of the inputs, depth, width) are left out, since they are the same for
every m; the margin is a constant, which the caller's training must reach.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.core.paths import LossCurve, interpolate, loss_along
from reference_impls.core.state_dict import StateDict, norm, task_vector


@dataclass(frozen=True)
class NormGrowth:
    """One entry for each of s training-set sizes, and one line.

    Attributes:
        sizes: numbers of training examples m; shape (s,).
        distances: Euclidean distance from the initialisation; shape (s,).
        spectral_products: product of the spectral norms of the weight matrices; shape (s,).
        bounds: the norm-based bound up to constants; shape (s,).
        test_losses: loss of each trained network; shape (s,).
        line: loss between two networks of the largest size, trained from one initialisation on different samples.
    """

    sizes: Tensor
    distances: Tensor
    spectral_products: Tensor
    bounds: Tensor
    test_losses: Tensor
    line: LossCurve


def norm_growth_path(
    base: StateDict,
    fit_fn: Callable[[StateDict, int, torch.Generator], StateDict],
    loss_fn: Callable[[StateDict], Tensor],
    *,
    sizes: Sequence[int] = (64, 256, 1024),
    margin: float = 1.0,
    num_points: int = 11,
    generator: torch.Generator | None = None,
) -> NormGrowth:
    r"""Train from one initialisation on samples of growing size; report distances, bounds, losses and a line.

    $$
    \mathrm{bound}(m) \propto \frac{1}{\gamma \sqrt m}\ \prod_{k=1}^d \lVert W_k \rVert_2\
    \sqrt{\sum_{k=1}^d \frac{\lVert W_k - Z_k \rVert_F^2}{\lVert W_k \rVert_2^2}}
    $$

    Args:
        base: $Z$, the initialisation that all runs start from.
        fit_fn: called as `fit_fn(model, size, generator)`: draws a sample of `size` examples with the generator, trains
            on it from the given model, and returns the trained model.
        loss_fn: test loss or test error, state dict to scalar.
        sizes: $m$, increasing, >= 1. Default (64, 256, 1024): a toy's.
        margin: $\gamma > 0$, by which the training classifies its examples. Default 1: a factor that all sizes share.
        num_points: evenly spaced positions on the line, ends included. Default 11: a choice here.
        generator: source of the samples and of the noise of training. Default None: a fresh generator with seed 0.

    Returns:
        A `NormGrowth`.

    Raises:
        ValueError: sizes that do not increase, a margin of 0 or less.

    Example:
        One weight, initially 1, which training moves to 1 + m. The bound is (1 + m) / sqrt(m) * m / (1 + m) = sqrt(m).

        >>> fit = lambda model, size, generator: {"w": model["w"] + size}
        >>> result = norm_growth_path({"w": torch.ones(1, 1)}, fit, lambda model: model["w"].sum(), sizes=(4, 9))
        >>> result.distances.tolist(), result.bounds.tolist()
        ([4.0, 9.0], [2.0, 3.0])

    References:
        nagarajan2019uniform, the section on how norm-based bounds grow.
    """
    if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
        raise ValueError(f"sizes are {tuple(sizes)}; they must increase and be at least 1")
    if margin <= 0:
        raise ValueError(f"margin is {margin}; it must be positive")
    generator = torch.Generator().manual_seed(0) if generator is None else generator

    models = [fit_fn(base, size, generator) for size in sizes]
    other = fit_fn(base, sizes[-1], generator)  # another sample of the largest size
    products, bounds = zip(*(_bound(model, base, size, margin) for model, size in zip(models, sizes)))
    with torch.no_grad():
        losses = torch.tensor([float(loss_fn(model)) for model in models], dtype=torch.float64)
    return NormGrowth(
        sizes=torch.tensor(list(sizes)),
        distances=torch.stack([norm(task_vector(model, base)) for model in models]),
        spectral_products=torch.stack(products),
        bounds=torch.stack(bounds),
        test_losses=losses,
        line=loss_along(lambda t: interpolate(models[-1], other, t), loss_fn, num_points),
    )


def _bound(model: StateDict, base: StateDict, size: int, margin: float) -> tuple[Tensor, Tensor]:
    """Product of spectral norms, and the bound; a kernel counts as the matrix (out, everything else)."""
    product, ratios = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for key, tau in task_vector(model, base).items():
        if tau.ndim >= 2 and tau.numel():
            spectral = torch.linalg.matrix_norm(model[key].detach().double().flatten(1), ord=2).cpu().clamp(min=1e-12)
            product = product * spectral
            ratios = ratios + tau.double().square().sum().cpu() / spectral.square()
    return product, product * ratios.sqrt() / (margin * size**0.5)
