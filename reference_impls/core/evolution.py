r"""Search without gradients: CMA-ES for one objective, Pareto dominance and NSGA-III for several.

All objectives are minimised. Points are rows of a tensor (points, dimensions), drawn on the CPU in float64, so that a
seed gives the same search everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log

import torch
from torch import Tensor


def cma_es(
    objective: Callable[[Tensor], float],
    start: Tensor,
    *,
    sigma: float = 1 / 6,
    low: float | None = None,
    high: float | None = None,
    population: int | None = None,
    num_evaluations: int = 1000,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[Tensor, float]:
    r"""Covariance matrix adaptation: sample around a mean, move it towards the better half, learn the shape of good steps.

    $$ x_i \sim \mathcal N(m, \sigma^2 C), \qquad m \leftarrow \sum_{i \le \mu} w_i\, x_{i:\lambda} $$

    with the rank-one and rank-mu updates of C and cumulative adaptation of sigma, constants as in the tutorial.

    Args:
        objective: of a point (d,), minimised.
        start: first mean m, (d,).
        sigma: first step size.
        low: least value of a coordinate; points are cut to the box before they are evaluated. Default None: no bound.
        high: largest value of a coordinate.
        population: points a generation. Default None: 4 + floor(3 ln d).
        num_evaluations: of the objective, at most (whole generations).
        generator: source of the points. Default None: a fresh one with seed 0.
        progress: called with the number of evaluations and the best value so far.

    Returns:
        The best point evaluated and its value.

    Example:
        >>> x, value = cma_es(lambda x: float((x - torch.tensor([0.2, 0.7])).square().sum()), torch.tensor([0.5, 0.5]))
        >>> [round(v, 3) for v in x.tolist()]
        [0.2, 0.7]

    References: Hansen, The CMA Evolution Strategy: A Tutorial, arXiv:1604.00772.
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    m = start.detach().cpu().double().clone()
    d = len(m)
    size = 4 + int(3 * log(d)) if population is None else population
    mu = size // 2
    w = torch.tensor([log((size + 1) / 2) - log(i) for i in range(1, mu + 1)], dtype=torch.float64)
    w = w / w.sum()
    mu_eff = float(1 / w.square().sum())
    c_sigma = (mu_eff + 2) / (d + mu_eff + 5)
    d_sigma = 1 + 2 * max(0.0, ((mu_eff - 1) / (d + 1)) ** 0.5 - 1) + c_sigma
    c_c = (4 + mu_eff / d) / (d + 4 + 2 * mu_eff / d)
    c_1 = 2 / ((d + 1.3) ** 2 + mu_eff)
    c_mu = min(1 - c_1, 2 * (mu_eff - 2 + 1 / mu_eff) / ((d + 2) ** 2 + mu_eff))
    expected = d**0.5 * (1 - 1 / (4 * d) + 1 / (21 * d**2))  # mean norm of a standard normal vector

    C, p_sigma, p_c = torch.eye(d, dtype=torch.float64), torch.zeros_like(m), torch.zeros_like(m)
    box = lambda x: x if low is None and high is None else x.clamp(low, high)  # noqa: E731
    best, best_value = box(m).clone(), float("inf")
    for done in range(size, num_evaluations + 1, size):
        values, axes = torch.linalg.eigh(C)
        roots = values.clamp(min=1e-20).sqrt()
        z = torch.randn(size, d, generator=generator, dtype=torch.float64)
        points = box(m + sigma * (z @ axes * roots) @ axes.T)  # by the symmetric root, the same for every choice of axes
        results = torch.tensor([float(objective(x)) for x in points], dtype=torch.float64)
        order = results.argsort(stable=True)
        if results[order[0]] < best_value:
            best, best_value = points[order[0]].clone(), float(results[order[0]])
        y = (points[order[:mu]] - m) / sigma  # the steps that were good
        step = w @ y
        m = m + sigma * step
        p_sigma = (1 - c_sigma) * p_sigma + (c_sigma * (2 - c_sigma) * mu_eff) ** 0.5 * axes @ ((axes.T @ step) / roots)
        long_path = p_sigma.norm() / (1 - (1 - c_sigma) ** (2 * done / size)) ** 0.5 >= (1.4 + 2 / (d + 1)) * expected
        p_c = (1 - c_c) * p_c + (0.0 if long_path else (c_c * (2 - c_c) * mu_eff) ** 0.5) * step
        C = (1 - c_1 - c_mu + (c_1 * c_c * (2 - c_c) if long_path else 0.0)) * C
        C = C + c_1 * torch.outer(p_c, p_c) + c_mu * (y.T * w) @ y
        sigma = sigma * float(((c_sigma / d_sigma) * (p_sigma.norm() / expected - 1)).exp())
        if progress is not None:
            progress(done, best_value)
    return best, best_value


def non_dominated(values: Tensor) -> Tensor:
    """Which points no other point beats: none is at least as low in all objectives and lower in one.

    Args:
        values: objectives (points, objectives), minimised.

    Returns:
        Boolean (points,).

    Example:
        >>> non_dominated(torch.tensor([[0.0, 2.0], [1.0, 1.0], [1.0, 2.0], [2.0, 0.0]]))
        tensor([ True,  True, False,  True])
    """
    no_worse = (values[:, None] <= values[None]).all(dim=2)
    better = (values[:, None] < values[None]).any(dim=2)
    return ~(no_worse & better).any(dim=0)


def nsga3(
    objectives: Callable[[Tensor], Tensor],
    dimensions: int,
    *,
    low: float = 0.0,
    high: float = 1.0,
    population: int = 60,
    num_generations: int = 60,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """NSGA-III: a population that spreads along the whole Pareto front.

    Children come of simulated binary crossover and polynomial mutation. The best fronts survive; of the last one that fits
    in part, points near reference directions that have few points yet. Objectives are normalised by the least and largest
    values of the first front in place of the paper's intercepts.

    Args:
        objectives: of points (points, dimensions), all at once: values (points, objectives), minimised.
        dimensions: of a point.
        low: least value of a coordinate.
        high: largest value of a coordinate.
        population: number of points.
        num_generations: rounds.
        generator: Default None: a fresh one with seed 0.

    Returns:
        The points of the last population's Pareto front and their values.

    Example:
        Distances to 0 and to 1: every point between them is a compromise.

        >>> x, values = nsga3(lambda x: torch.cat([x.square(), (x - 1).square()], dim=1), 1, low=-2.0, high=2.0)
        >>> bool((x > -0.05).all() and (x < 1.05).all() and x.min() < 0.1 and x.max() > 0.9)
        True

    References: Deb and Jain, IEEE Transactions on Evolutionary Computation 18(4), 2014.
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    rand = lambda *shape: torch.rand(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    points = low + (high - low) * rand(population, dimensions)
    values = objectives(points).double()
    directions = rand(population, values.shape[1]).clamp(min=1e-9).log().neg()  # uniform on the simplex
    directions = torch.cat([torch.eye(values.shape[1], dtype=torch.float64), directions / directions.sum(1, keepdim=True)])
    for _ in range(num_generations):
        mates = points[torch.randperm(population, generator=generator)]
        u = rand(population, dimensions)
        beta = torch.where(u < 0.5, 2 * u, 1 / (2 - 2 * u)) ** (1 / 21)  # crossover, distribution index 20
        children = 0.5 * ((1 + beta) * points + (1 - beta) * mates)
        u = rand(population, dimensions)
        shift = torch.where(u < 0.5, (2 * u) ** (1 / 21) - 1, 1 - (2 - 2 * u) ** (1 / 21))  # mutation, index 20
        mutate = rand(population, dimensions) < 1 / dimensions
        children = torch.where(mutate, children + shift * (high - low), children).clamp(low, high)
        points, values = torch.cat([points, children]), torch.cat([values, objectives(children).double()])
        keep = _survivors(values, population, directions, generator)
        points, values = points[keep], values[keep]
    front = non_dominated(values)
    return points[front], values[front]


def _survivors(values: Tensor, count: int, directions: Tensor, generator: torch.Generator) -> Tensor:
    """Indices of the `count` points that live on."""
    chosen, rest = torch.empty(0, dtype=torch.int64), torch.arange(len(values))
    first = None
    while True:
        front = rest[non_dominated(values[rest])]
        first = front if first is None else first
        if len(chosen) + len(front) >= count:
            break
        chosen, rest = torch.cat([chosen, front]), rest[~torch.isin(rest, front)]
    ideal, nadir = values[first].amin(dim=0), values[first].amax(dim=0)
    scaled = (values - ideal) / (nadir - ideal).clamp(min=1e-12)
    unit = directions / directions.norm(dim=1, keepdim=True)
    along = scaled @ unit.T  # (points, directions)
    distance = (scaled.square().sum(dim=1, keepdim=True) - along.square()).clamp(min=0)
    nearest, niche = distance.min(dim=1)
    crowd = torch.bincount(niche[chosen], minlength=len(directions))
    candidates = front.tolist()
    while len(chosen) < count:
        niches = niche[candidates]
        least = niches[crowd[niches].argmin()]
        members = [i for i in candidates if niche[i] == least]
        pick = min(members, key=lambda i: float(nearest[i]))
        if crowd[least] > 0:
            pick = members[int(torch.randint(len(members), (), generator=generator))]
        chosen = torch.cat([chosen, torch.tensor([pick])])
        crowd[least] += 1
        candidates.remove(pick)
    return chosen
