r"""SPRO and ESPRO, simplexes of low loss (benton2021simplexes).

Trained networks are joined not only by curves but by volumes of low loss. SPRO adds connecting vertices, one after the
other: each vertex makes a simplex with every network and all the connectors before it, and is trained so that weights
drawn at random inside have a low loss, while a small reward for the volume keeps the simplexes from shrinking. ESPRO
does the same around one network; points drawn from its simplex are members of an ensemble.

Notation: w_k the networks (modes), theta_j the connectors, S(w, theta_0..theta_j) a simplex, K the complex of all
simplexes, V its volume, lambda the weight of the logarithm of the volume.

Departures: a vertex starts at the mean of the networks and the connectors so far, with a little noise so that no
simplex starts flat. The weight lambda is given as it is; the authors' code derives it from the volume of a random
simplex.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import factorial

import torch
from torch import Tensor

from reference_impls.core.paths import convex_combination, dress
from reference_impls.core.state_dict import (
    StateDict,
    Vector,
    flatten,
    linear_combination,
    norm,
    to_state_dict,
    to_vector,
)


@dataclass(frozen=True)
class Complex:
    """Simplexes that share their connectors.

    Attributes:
        modes: the networks, fixed.
        connectors: the trained vertices.
        log_volumes: natural logarithm of the complex's volume after each connector; shape (connectors,).
    """

    modes: tuple[StateDict, ...]
    connectors: tuple[StateDict, ...]
    log_volumes: Tensor

    def sample(self, generator: torch.Generator, mode: int | None = None) -> dict[str, Tensor]:
        """Draw a model uniformly from the simplex of a mode; None draws the mode too."""
        chosen = int(torch.randint(len(self.modes), (), generator=generator)) if mode is None else mode
        return convex_combination([self.modes[chosen], *self.connectors], _uniform(len(self.connectors) + 1, generator))


def spro(
    models: Sequence[StateDict],
    loss_fn: Callable[[StateDict], Tensor],
    *,
    num_connectors: int = 2,
    num_samples: int = 5,
    num_steps: int = 100,
    lr: float = 0.05,
    momentum: float = 0.9,
    volume_coef: float = 1e-8,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Complex:
    r"""Join networks by simplexes of low loss, one connecting vertex after the other.

    $$
    \min_{\theta_j}\ \frac1M \sum_{m=1}^M L(\phi_m) - \lambda \log V(\mathcal K), \qquad
    \phi_m \sim U\big(S(w_{k_m}, \theta_0, \dots, \theta_j)\big), \quad k_m \sim U\{0, \dots, K\}
    $$

    Args:
        models: $w_0 \dots w_K$, trained networks, stay fixed. One network alone gives ESPRO; see `espro`.
        loss_fn: $L$, differentiable, state dict to scalar.
        num_connectors: vertices to add, >= 1. Default 2: one more than a polygonal chain.
        num_samples: $M$, points for each step. Default 5: the authors' code.
        num_steps: steps for each vertex. Default 100: a toy's.
        lr: learning rate, annealed to 0 along a cosine for each vertex, as in the authors' code. Default 0.05: a toy's.
        momentum: of gradient descent, in [0, 1). Default 0.9: the authors' code.
        volume_coef: $\lambda$, >= 0. Default 1e-8: the floor in the authors' code.
        generator: source of the samples and of the noise. Default None: a fresh generator with seed 0.
        progress: called with the step, counted over all vertices, and its loss. Default None.

    Returns:
        A `Complex`.

    Raises:
        ValueError: no models, models of different structure, fewer than one connector or sample.

    Example:
        All minima lie on the circle of radius 1. The middle of the line between these two has a loss of 1/4, and the
        points of the two edges that meet in the new vertex have less.

        >>> circle = lambda model: (model["w"].square().sum() - 1).square()
        >>> ends = [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}]
        >>> joined = spro(ends, circle, num_connectors=1)
        >>> generator = torch.Generator().manual_seed(0)
        >>> bool(max(circle(joined.sample(generator)) for _ in range(20)) < 0.1)
        True

    References:
        benton2021simplexes, the procedures SPRO and ESPRO.
    """
    if not models:
        raise ValueError("received no models; at least one is needed")
    if num_connectors < 1 or num_samples < 1:
        raise ValueError(
            f"received num_connectors={num_connectors} and num_samples={num_samples}; at least one of each is needed"
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    convex_combination(models, [1 / len(models)] * len(models))  # one structure for all
    modes = [to_vector(model) for model in models]
    connectors: list[Vector] = []
    log_volumes = []

    for j in range(num_connectors):
        known = [*modes, *connectors]
        center = linear_combination(known, [1 / len(known)] * len(known))
        vertex = {key: value.requires_grad_() for key, value in _disturbed(center, generator).items()}
        optimizer = torch.optim.SGD(list(vertex.values()), lr=lr, momentum=momentum)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(num_steps, 1))
        for step in range(num_steps):
            loss = 0.0
            for _ in range(num_samples):
                mode = modes[int(torch.randint(len(modes), (), generator=generator))]
                corners = [mode, *connectors, vertex]
                phi = linear_combination(corners, _uniform(len(corners), generator))
                loss = loss + loss_fn(dress(phi, like=models[0])) / num_samples
            if volume_coef:
                loss = loss - volume_coef * _log_volume(modes, [*connectors, vertex])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if progress is not None:
                progress(j * num_steps + step, loss.item())
        connectors.append({key: value.detach() for key, value in vertex.items()})
        log_volumes.append(_log_volume(modes, connectors))

    dressed = tuple(to_state_dict(vector, like=models[0]) for vector in (*modes, *connectors))
    return Complex(dressed[: len(modes)], dressed[len(modes) :], torch.stack(log_volumes))


def espro(
    model: StateDict,
    loss_fn: Callable[[StateDict], Tensor],
    *,
    num_connectors: int = 3,
    num_steps: int = 100,
    lr: float = 0.05,
    volume_coef: float = 1e-8,
    generator: torch.Generator | None = None,
) -> Complex:
    """Find one simplex of low loss around a network, for an ensemble of points drawn from it; options as in `spro`.

    Example:
        >>> circle = lambda model: (model["w"].square().sum() - 1).square()
        >>> len(espro({"w": torch.tensor([1.0, 0.0])}, circle, num_connectors=1).connectors)
        1
    """
    options = {"num_connectors": num_connectors, "num_steps": num_steps, "lr": lr, "volume_coef": volume_coef}
    return spro([model], loss_fn, generator=generator, **options)


def _uniform(count: int, generator: torch.Generator) -> list[float]:
    """Barycentric coordinates of a uniform point of a simplex: exponential numbers over their sum."""
    exponential = -torch.rand(count, generator=generator, dtype=torch.float64).clamp(min=1e-300).log()
    return (exponential / exponential.sum()).tolist()


def _disturbed(center: Vector, generator: torch.Generator) -> Vector:
    """The centre with Gaussian noise of about a hundredth of its norm."""
    count = max(sum(value.numel() for value in center.values()), 1)
    scale = 0.01 * float(norm(center).clamp(min=1e-2)) / count**0.5
    noise = {key: torch.randn(value.shape, generator=generator).to(value) for key, value in center.items()}
    return {key: (value + scale * noise[key]).detach().clone() for key, value in center.items()}


def _log_volume(modes: Sequence[Vector], connectors: Sequence[Vector]) -> Tensor:
    """Logarithm of the summed volumes of the simplexes, sqrt(det of the edges' Gram matrix) / n!."""
    logs = []
    for mode in modes:
        edges = torch.stack([flatten(connector) - flatten(mode) for connector in connectors]).double()  # (n, d)
        gram = edges @ edges.T + 1e-12 * torch.eye(len(edges), dtype=torch.float64, device=edges.device)
        logs.append(torch.linalg.slogdet(gram).logabsdet / 2 - torch.log(torch.tensor(float(factorial(len(edges))))))
    return torch.logsumexp(torch.stack(logs), dim=0)
