import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.evolution import non_dominated
from reference_impls.task_vectors.map_pareto import nested_map


def seeded(seed):
    return torch.Generator().manual_seed(seed)


BASE, MODELS = {"w": torch.zeros(2)}, [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}]


def nearness(x, y):
    """The metric whose best coefficients are (x, y): -(c_1 - x)^2 - (c_2 - y)^2."""
    return lambda model: -float((model["w"] - torch.tensor([x, y])).square().sum())


METRICS = [nearness(0.8, 0.2), nearness(0.2, 0.6)]


def hypervolume(values):
    """Area between (0, 0) and the points (points, 2), higher is better."""
    front = values[non_dominated(-values)]
    area, reached = 0.0, 0.0
    for x, y in sorted(front.tolist(), reverse=True):
        area, reached = area + x * max(0.0, y - reached), max(reached, y)
    return area


@pytest.mark.parametrize("sampling", ["uniform", "bayesian"])
def test_quadratic_metrics_are_fitted_exactly(sampling):
    # -(c_1 - 0.8)^2 - (c_2 - 0.2)^2 = -0.68 + 1.6 c_1 + 0.4 c_2 - c_1^2 - c_2^2, so A = -2 I
    one = ri.map_pareto(BASE, MODELS, METRICS, num_samples=14, sampling=sampling).surrogates[0]
    assert torch.allclose(one.A, -2 * torch.eye(2, dtype=torch.float64), atol=1e-4)
    assert one.b.tolist() == pytest.approx([1.6, 0.4], abs=1e-4) and one.e.item() == pytest.approx(-0.68, abs=1e-4)


def test_the_front_is_the_line_between_the_two_best_points():
    front = ri.map_pareto(BASE, MODELS, METRICS, num_samples=10)
    # the line from (0.8, 0.2) to (0.2, 0.6) is 2 c_1 + 3 c_2 = 2.2
    assert (2 * front.coefs[:, 0] + 3 * front.coefs[:, 1] - 2.2).abs().max() < 0.25
    assert front.coefs[:, 0].min() < 0.3 and front.coefs[:, 0].max() > 0.7
    best = front.coefs[front.choose([1.0, 1.0])]  # halfway
    assert best.tolist() == pytest.approx([0.5, 0.4], abs=0.06)
    assert torch.allclose(front.model(3)["w"].double(), front.coefs[3], atol=1e-6)


def test_one_evaluation_per_sample_and_metric():
    calls = []
    count = lambda model: calls.append(0) or float(model["w"].sum())  # noqa: E731
    ri.map_pareto(BASE, MODELS, [count, count], num_samples=16)
    assert len(calls) == 32


def test_the_nested_variant_follows_the_preference():
    far = lambda **o: nested_map(BASE, MODELS, METRICS, num_samples=10, **o)["w"].tolist()  # noqa: E731
    assert far(preference=[1.0, 0.0]) == pytest.approx([0.8, 0.2], abs=0.06)
    assert far(preference=[0.0, 1.0]) == pytest.approx([0.2, 0.6], abs=0.06)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_front_holds_more_than_the_models_evaluated_for_it_and_than_one_coefficient(seed):
    family = toy_zoo.multitask("mlp", seed, num_tasks=2)
    metric = lambda task: lambda model: toy_zoo.accuracy(family.network, model, task.val)  # noqa: E731
    right = lambda model: [toy_zoo.accuracy(family.network, model, task.test) for task in family.tasks]  # noqa: E731
    test = lambda models: torch.tensor([right(model) for model in models])  # noqa: E731
    args = family.base, family.finetuned, [metric(t) for t in family.tasks]
    front = ri.map_pareto(*args, num_samples=20, generator=seeded(seed))
    found = hypervolume(test([front.model(i) for i in range(len(front.coefs))]))

    samples = torch.rand(20, 2, generator=seeded(seed), dtype=torch.float64)  # what the search has evaluated
    merge = lambda c: ri.task_arithmetic(family.base, family.finetuned, weights=c.tolist())  # noqa: E731
    evaluated = hypervolume(test([merge(c) for c in samples]))
    line = hypervolume(test([merge(torch.full((2,), a / 19)) for a in range(20)]))
    assert found > evaluated + 0.02 and found > line + 0.15  # measured: 3 to 5 and 20 to 31 points of the unit square

    fresh = torch.rand(40, 2, generator=seeded(99), dtype=torch.float64)
    truth = test([merge(c) for c in fresh]).double()
    for surrogate, values in zip(front.surrogates, truth.T):
        assert 1 - (surrogate(fresh) - values).square().mean() / values.var() > 0.85  # explained variance: 0.93 to 0.97


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="2 fine-tuned models and 1 metrics"):
        ri.map_pareto(BASE, MODELS, METRICS[:1])
    with pytest.raises(ValueError, match="num_samples is 5; 6 samples"):
        ri.map_pareto(BASE, MODELS, METRICS, num_samples=5)
    with pytest.raises(ValueError, match="sampling is 'grid'"):
        ri.map_pareto(BASE, MODELS, METRICS, sampling="grid")
