import math

import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def median(*points, **options):
    models = [{"w": torch.tensor(p, dtype=torch.float64)} for p in points]
    return ri.geometric_median(models, **options)["w"]


def distances(x, points):
    return float((x - torch.tensor(points, dtype=torch.float64)).norm(dim=-1).sum())


def test_one_step_from_the_mean_by_hand():
    # mean 11; distances 11, 10 and 21, weights 1/11, 1/10, 1/21: (0 + 1 / 10 + 32 / 21) / (1/11 + 1/10 + 1/21)
    assert median([0.0], [1.0], [32.0], max_iter=1).item() == pytest.approx((1 / 10 + 32 / 21) / (1 / 11 + 1 / 10 + 1 / 21))
    assert median([0.0], [1.0], [32.0], max_iter=0).item() == pytest.approx(11.0)


def test_the_median_of_a_triangle_sees_its_sides_under_120_degrees():
    corners = [[0.0, 0.0], [4.0, 0.0], [1.0, 3.0]]  # all angles below 120 degrees: the Fermat point
    x = median(*corners, max_iter=2000, tol=0)
    arms = [torch.tensor(c, dtype=torch.float64) - x for c in corners]
    for i in range(3):
        cosine = arms[i] @ arms[i - 1] / (arms[i].norm() * arms[i - 1].norm())
        assert math.degrees(math.acos(cosine)) == pytest.approx(120, abs=1e-3)


def test_a_majority_at_one_point_wins_whatever_the_rest():
    assert median([2.0, 2.0], [2.0, 2.0], [2.0, 2.0], [1e6, 0.0], [0.0, -1e6]).tolist() == pytest.approx([2.0, 2.0], abs=1e-3)
    assert median([1.0], [9.0], weights=[3, 1]).item() == pytest.approx(1.0, abs=1e-5)


def test_it_minimises_the_summed_distance():
    points = torch.randn(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    x = median(*points, max_iter=1000, tol=0)
    for seed in range(10):
        step = torch.randn(8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert distances(x + 1e-3 * step, points) > distances(x, points)
    assert distances(median(*points, max_iter=0), points) > distances(x, points)


def test_order_does_not_matter_and_shifts_and_scales_carry_over():
    points = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = median(*points.tolist())
    assert torch.allclose(median(*points.flip(0).tolist()), x)
    assert torch.allclose(median(*(1000 + 3 * points).tolist()), 1000 + 3 * x, atol=1e-5)


def test_one_median_for_the_whole_model_or_for_each_tensor():
    # tensors of one entry: 1 is the median of 0, 4, 1 and 0 that of 0, 0, 3; the triangle's Fermat point is another
    corners = [[0.0, 0.0], [4.0, 0.0], [1.0, 3.0]]
    models = [{"a": torch.tensor(x, dtype=torch.float64), "b": torch.tensor(y, dtype=torch.float64)} for x, y in corners]
    each, whole = (ri.geometric_median(models, scope=scope, max_iter=2000, tol=0) for scope in ("tensor", "model"))
    assert [x.item() for x in each.values()] == pytest.approx([1.0, 0.0], abs=1e-4)
    assert [x.item() for x in whole.values()] == pytest.approx([1.302, 1.047], abs=1e-3) == median(*corners, max_iter=2000, tol=0).tolist()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_corrupted_model_of_five_does_no_harm(seed):
    family = toy_zoo.soup("mlp", seed)
    generator = torch.Generator().manual_seed(seed)
    corrupted = {key: t + 2 * torch.randn(t.shape, generator=generator) for key, t in family.models[0].items()}
    models = [*family.models[1:], corrupted]
    accuracy = lambda model: toy_zoo.accuracy(family.network, model, family.task.test)  # noqa: E731
    best = max(accuracy(model) for model in family.models)
    for scope in ("model", "tensor"):
        assert accuracy(ri.geometric_median(models, scope=scope)) > best - 0.03
    assert accuracy(ri.uniform_soup(models)) < 0.4
    assert abs(accuracy(ri.geometric_median(family.models)) - accuracy(ri.uniform_soup(family.models))) < 0.01


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="2 weights for 1 models"):
        median([1.0], weights=[1, 2])
    with pytest.raises(ValueError, match="none may be negative"):
        median([1.0], [2.0], weights=[1, -1])
    with pytest.raises(ValueError, match="eps 0"):
        median([1.0], eps=0)
    with pytest.raises(ValueError, match="scope is 'row'"):
        median([1.0], scope="row")
