r"""MAP: model merging with amortised Pareto fronts (li2024map).

One merged model is one compromise between its tasks; which one is wanted depends on who asks. To find all good
compromises by evaluating merged models would take thousands of evaluations. MAP evaluates a few, fits to each task's
metric a quadratic function of the scaling coefficients - near the base that is what a Taylor expansion says - and
lets an evolutionary search find the Pareto front of these functions, which cost nothing. The nested variant merges in
pairs, and the Bayesian one evaluates where the fit is worst.

Notation: theta_0 the base model, tau_n the task vectors, c in [0, 1]^N the scaling coefficients, M_n(c) the metric of
task n (higher is better) of the model theta_0 + sum of c_n tau_n, and A_n, b_n, e_n its quadratic surrogate.

Departures: the Bayesian variant of the paper bins the front by angle; here the bins are the evaluated points'
neighbourhoods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.evolution import nsga3
from reference_impls.core.state_dict import StateDict, Vector, linear_combination, task_vector, to_state_dict, to_vector

Metric = Callable[[StateDict], float]


@dataclass(frozen=True)
class Quadratic:
    """The surrogate e + b^T c + c^T A c / 2 of one metric, with symmetric A (N, N), b (N,) and e ()."""

    A: Tensor
    b: Tensor
    e: Tensor

    def __call__(self, coefs: Tensor) -> Tensor:
        """Return the values at coefficients (..., N)."""
        return self.e + coefs @ self.b + 0.5 * ((coefs @ self.A) * coefs).sum(dim=-1)


@dataclass(frozen=True)
class ParetoFront:
    """Compromises between the tasks.

    Attributes:
        base: the base model.
        task_vectors: one per task.
        coefs: scaling coefficients of the front's points, (points, N).
        values: what the surrogates predict there, (points, N).
        surrogates: one per task.
    """

    base: StateDict
    task_vectors: tuple[Vector, ...]
    coefs: Tensor
    values: Tensor
    surrogates: tuple[Quadratic, ...]

    def model(self, point: int) -> StateDict:
        """Return the merged model of a point of the front."""
        return _merge(self.base, self.task_vectors, self.coefs[point])

    def choose(self, preference: Sequence[float]) -> int:
        """Return the point of the largest weighted sum of predicted metrics."""
        return int((self.values @ torch.tensor(preference, dtype=self.values.dtype)).argmax())


def map_pareto(
    base: StateDict,
    finetuned: Sequence[StateDict],
    metrics: Sequence[Metric],
    *,
    num_samples: int = 50,
    sampling: Literal["uniform", "bayesian"] = "uniform",
    population: int = 60,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> ParetoFront:
    r"""Fit a quadratic surrogate to every task's metric and find the Pareto front of the surrogates.

    $$
    \tilde M_n(c) = e_n + b_n^\top c + \tfrac12\, c^\top A_n c, \qquad
    \min_{A_n, b_n, e_n} \sum_{c \in \Omega} \big( M_n(\theta_0 + \textstyle\sum_k c_k \tau_k) - \tilde M_n(c) \big)^2, \qquad
    \operatorname{Pareto}_c\, (\tilde M_1, \dots, \tilde M_N)
    $$

    Args:
        base: $\theta_0$.
        finetuned: $\theta_1 \dots \theta_N$, N >= 1.
        metrics: $M_n$, one per task: a state dict to a number, higher is better (accuracy on validation data).
        num_samples: merged models evaluated, at least (N + 1)(N + 2) / 2, the unknowns of a surrogate. Default 50: ours.
        sampling: "uniform" draws all of $\Omega$ at once from $[0, 1]^N$; "bayesian" half of it, and then in four
            rounds more where the surrogates miss the metrics most. Default "uniform": the paper's plain variant.
        population: points of the evolutionary search. Default 60: ours.
        generator: source of the samples and of the search. Default None: a new one with seed 0.
        progress: called with the number of models evaluated and the mean of their metrics.

    Returns:
        A `ParetoFront`: `model(i)` is the merged model of its point i.

    Raises:
        ValueError: no models, another number of metrics, too few samples, an unknown option.

    Example:
        The metrics are quadratic in the coefficients, with their best at 1 and at 0: every c between is a compromise.

        >>> base, model = {"w": torch.tensor([0.0])}, {"w": torch.tensor([1.0])}
        >>> surrogate = map_pareto(base, [model], [lambda m: -float((m["w"] - 1) ** 2)], num_samples=5).surrogates[0]
        >>> [round(float(x), 3) for x in (surrogate.A, surrogate.b, surrogate.e)]  # -(c - 1)^2 = -1 + 2 c - 2 c^2 / 2
        [-2.0, 2.0, -1.0]

    References:
        li2024map, the quadratic surrogates and the nested and Bayesian variants.
    """
    N = len(finetuned)
    if not finetuned or len(metrics) != N:
        raise ValueError(f"received {N} fine-tuned models and {len(metrics)} metrics; one metric per model is needed")
    if sampling not in ("uniform", "bayesian"):
        raise ValueError(f"sampling is {sampling!r}; it is one of uniform, bayesian")
    first = num_samples if sampling == "uniform" else (num_samples + 1) // 2
    if first < (N + 1) * (N + 2) // 2:
        raise ValueError(f"num_samples is {num_samples}; {(N + 1) * (N + 2) // 2} samples at the start are needed for {N} tasks")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    rand = lambda n: torch.rand(n, N, generator=generator, dtype=torch.float64)  # noqa: E731
    task_vectors = tuple(task_vector(model, base) for model in finetuned)

    def evaluate(coefs: Tensor, done: int) -> Tensor:  # (n, N) -> (n, N)
        rows = []
        for c in coefs:
            model = _merge(base, task_vectors, c)
            rows.append([float(metric(model)) for metric in metrics])
            if progress is not None:
                progress(done + len(rows), sum(rows[-1]) / N)
        return torch.tensor(rows, dtype=torch.float64)

    coefs = rand(first)
    values = evaluate(coefs, 0)
    surrogates = _fit(coefs, values)
    while len(coefs) < num_samples:
        error = torch.stack([(s(coefs) - v).abs() / v.std().clamp(min=1e-12) for s, v in zip(surrogates, values.T)]).sum(dim=0)
        pool = rand(500)
        chance = torch.softmax(error, dim=0)[torch.cdist(pool, coefs).argmin(dim=1)]  # of the nearest evaluated point
        count = min(max(1, num_samples // 8), num_samples - len(coefs))
        new = pool[torch.multinomial(chance, count, generator=generator)]
        values = torch.cat([values, evaluate(new, len(coefs))])
        coefs = torch.cat([coefs, new])
        surrogates = _fit(coefs, values)

    predict = lambda c: -torch.stack([s(c) for s in surrogates], dim=1)  # noqa: E731
    front, negated = nsga3(predict, N, population=population, generator=generator)
    return ParetoFront(base, task_vectors, front, -negated, surrogates)


def nested_map(
    base: StateDict,
    finetuned: Sequence[StateDict],
    metrics: Sequence[Metric],
    *,
    preference: Sequence[float] | None = None,
    num_samples: int = 20,
    generator: torch.Generator | None = None,
) -> StateDict:
    r"""Merge in pairs: each round finds a front of two tasks or groups and keeps one of its models by preference.

    Two coefficients at a time need few samples however many tasks there are. `metrics` and `num_samples` (here for each
    pair) are those of `map_pareto`, a group's metric is the preferred mean of its members'; `preference` has one weight per
    task, by default equal.
    """
    weights = [1.0] * len(finetuned) if preference is None else list(preference)
    groups = list(zip(finetuned, metrics, weights, strict=True))
    while len(groups) > 1:
        (a, M_a, w_a), (b, M_b, w_b), *rest = groups
        front = map_pareto(base, [a, b], [M_a, M_b], num_samples=num_samples, generator=generator)
        mean = lambda m, f=M_a, g=M_b, u=w_a, v=w_b: (u * f(m) + v * g(m)) / (u + v)  # noqa: E731
        groups = [*rest, (front.model(front.choose([w_a, w_b])), mean, w_a + w_b)]
    return groups[0][0]


def _merge(base: StateDict, task_vectors: Sequence[Vector], coefs: Tensor) -> StateDict:
    theta = linear_combination([to_vector(base), *task_vectors], [1.0, *coefs.tolist()])
    return to_state_dict(theta, like=base)


def _fit(coefs: Tensor, values: Tensor) -> tuple[Quadratic, ...]:
    """Least squares over 1, c_i and c_i c_j."""
    N = coefs.shape[1]
    i, j = torch.triu_indices(N, N)
    design = torch.cat([torch.ones(len(coefs), 1, dtype=coefs.dtype), coefs, coefs[:, i] * coefs[:, j]], dim=1)
    solution = torch.linalg.lstsq(design, values, driver="gelsd").solution  # (unknowns, N)
    out = []
    for x in solution.T:
        A = torch.zeros(N, N, dtype=x.dtype)
        A[i, j] = x[1 + N :]
        out.append(Quadratic(A + A.T, x[1 : 1 + N], x[0]))  # c_i^2 has the coefficient A_ii / 2
    return tuple(out)
