import math

import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.state_dict import norm


def arc(a, b, **options):
    return ri.slerp({"w": torch.tensor(a, dtype=torch.float64)}, {"w": torch.tensor(b, dtype=torch.float64)}, **options)["w"]


def at_cosine(cosine):
    return [1.0, 0.0], [cosine, math.sqrt(1 - cosine**2)]


def test_arc_between_orthogonal_vectors_by_hand():
    # Omega = 90 deg, t = 1/3: sin 60 = 0.8660 and sin 30 = 0.5; 0.8660 * 3 = 2.598, 0.5 * 4 = 2
    assert arc([3.0, 0.0], [0.0, 4.0], t=1 / 3).tolist() == pytest.approx([2.598076, 2.0])
    # length 2/3 * 3 + 1/3 * 4 = 10/3 in the direction (0.8660, 0.5)
    assert arc([3.0, 0.0], [0.0, 4.0], t=1 / 3, length="interpolated").tolist() == pytest.approx([2.886751, 1.666667])


def test_ends_of_the_arc_are_the_models():
    a, b = [3.0, 0.0, 1.0], [0.0, 4.0, -2.0]
    assert arc(a, b, t=0.0).tolist() == a and arc(a, b, t=1.0).tolist() == pytest.approx(b)
    assert arc(a, a, t=0.3).tolist() == pytest.approx(a)


def test_a_tiny_angle_gives_the_straight_line():
    assert arc([1.0, 0.0], [1.0, 1e-4], t=0.25).tolist() == pytest.approx([1.0, 0.25e-4], rel=1e-7)


def test_swapping_the_models_mirrors_t_and_scaling_both_scales_the_result():
    a, b = torch.randn(2, 20, generator=torch.Generator().manual_seed(0)).tolist()
    assert torch.allclose(arc(a, b, t=0.3), arc(b, a, t=0.7))
    assert torch.allclose(arc([5 * x for x in a], [5 * x for x in b], t=0.3), 5 * arc(a, b, t=0.3))


def test_a_threshold_turns_small_angles_into_straight_lines():
    line = lambda a, b: [0.75 * x + 0.25 * y for x, y in zip(a, b)]  # noqa: E731
    near, far = at_cosine(0.9996), at_cosine(0.9994)
    assert arc(*near, t=0.25, dot_threshold=0.9995).tolist() == pytest.approx(line(*near), abs=1e-12)
    assert math.hypot(*line(*near)) == pytest.approx(0.999925, abs=1e-8)
    assert arc(*near, t=0.25).norm().item() == pytest.approx(1.0, abs=1e-12)
    assert arc(*far, t=0.25, dot_threshold=0.9995).norm().item() == pytest.approx(1.0, abs=1e-12)


def test_a_zero_vector_and_opposite_vectors_are_joined_by_the_straight_line():
    right_angle = math.sin(math.pi / 4) / math.sin(math.pi / 2)  # what mergekit applies to (2, 0)
    assert arc([0.0, 0.0], [2.0, 0.0]).tolist() == [1.0, 0.0] and 2 * right_angle == pytest.approx(1.414, abs=1e-3)
    assert arc([2.0, 0.0], [-2.0, 0.0]).tolist() == [0.0, 0.0]


def test_each_row_or_column_may_have_its_own_angle():
    a, b = [[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]
    assert arc(a, b, scope="row").flatten().tolist() == pytest.approx([0.70710678, 0.70710678, 0.0, 1.0])
    # columns: (1, 0) to (0, 0) is straight; (0, 1) to (1, 1) spans 45 deg: sin 22.5 / sin 45 = 0.5412, times (1, 2)
    assert arc(a, b, scope="column").flatten().tolist() == pytest.approx([0.5, 0.54119610, 0.0, 1.08239220])


def test_one_angle_for_the_whole_model_differs_from_one_a_tensor():
    a, b = {"v": torch.tensor([1.0]), "w": torch.tensor([0.0])}, {"v": torch.tensor([0.0]), "w": torch.tensor([1.0])}
    assert [x.item() for x in ri.slerp(a, b, scope="model").values()] == pytest.approx([0.70710678] * 2)
    assert [x.item() for x in ri.slerp(a, b).values()] == [0.5, 0.5]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_keeps_the_length_that_averaging_loses_at_the_same_accuracy(seed):
    family = toy_zoo.independent("mlp", seed)
    arc, line = ri.slerp(*family.models), ri.uniform_soup(family.models)
    mean_length = sum(norm(model).item() for model in family.models) / 2
    assert abs(norm(arc).item() / mean_length - 1) < 0.03 and norm(line).item() / mean_length < 0.9
    accuracy = [toy_zoo.accuracy(family.network, model, family.task.test) for model in (arc, line)]
    assert abs(accuracy[0] - accuracy[1]) < 0.01  # ReLU networks hardly notice the length of their layers


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="t is 1.5"):
        arc([1.0], [2.0], t=1.5)
    with pytest.raises(ValueError, match="scope is 'layer'"):
        arc([1.0], [2.0], scope="layer")
    with pytest.raises(ValueError, match="shape"):
        arc([1.0], [2.0, 3.0])
