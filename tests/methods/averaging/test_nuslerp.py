import math

import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.state_dict import norm, task_vector


def arc(a, b, base=None, **options):
    wrap = lambda v: None if v is None else {"w": torch.tensor(v, dtype=torch.float64)}  # noqa: E731
    return ri.nuslerp(wrap(a), wrap(b), base=wrap(base), **options)["w"]


def test_weights_divide_the_arc_by_hand():
    # weights 1 and 2: t = 2/3 of 90 degrees; sin 30 = 0.5 times 2, sin 60 = 0.8660 times 4
    assert arc([2.0, 0.0], [0.0, 4.0], weights=[1, 2]).tolist() == pytest.approx([1.0, 3.4641016])
    # the same arc around the base (10, 10)
    assert arc([12.0, 10.0], [10.0, 14.0], [10.0, 10.0], weights=[1, 2]).tolist() == pytest.approx([11.0, 13.4641016])


def test_without_a_base_it_is_slerp():
    a, b = torch.randn(2, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    slerp = ri.slerp({"w": torch.tensor(a)}, {"w": torch.tensor(b)}, t=0.3)["w"]
    assert torch.allclose(arc(a, b, weights=[0.7, 0.3]).float(), slerp, atol=1e-6)
    assert arc(a, b, weights=[1, 0]).tolist() == pytest.approx(a) and arc(a, b, weights=[0, 1]).tolist() == pytest.approx(b)


def test_swapping_models_and_weights_changes_nothing():
    a, b, base = torch.randn(3, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64).tolist()
    assert torch.allclose(arc(a, b, base, weights=[0.2, 0.8]), arc(b, a, base, weights=[0.8, 0.2]))
    assert torch.allclose(arc(a, b, base, weights=[0.2, 0.8]), arc(a, b, base, weights=[1, 4]))


def test_rows_and_columns_are_what_they_say():
    a, b = [[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]
    assert arc(a, b, scope="row").flatten().tolist() == pytest.approx([0.70710678, 0.70710678, 0.0, 1.0])
    assert arc(a, b, scope="column")[:, 1].tolist() == pytest.approx([0.54119610, 1.08239220])  # nuslerp_row_wise: true of mergekit


def test_a_model_equal_to_the_base_is_joined_by_the_straight_line():
    right_angle = 2 * math.sin(math.pi / 4)  # what mergekit takes for (2, 0)
    assert arc([5.0, 1.0], [7.0, 1.0], [5.0, 1.0]).tolist() == [6.0, 1.0] and right_angle == pytest.approx(1.414, abs=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_keeps_the_length_of_task_vectors_at_no_gain_in_accuracy(seed):
    family = toy_zoo.multitask("mlp", seed, num_tasks=4)
    pair, tasks = family.finetuned[:2], family.tasks[:2]
    ours, average = ri.nuslerp(*pair, base=family.base), ri.uniform_soup(pair)
    length = sum(norm(task_vector(model, family.base)) for model in pair) / 2
    assert abs(norm(task_vector(ours, family.base)) / length - 1) < 0.01 and norm(task_vector(average, family.base)) / length < 0.8
    accuracy = [toy_zoo.mean_accuracy(family.network, model, tasks) for model in (ours, average)]
    assert -0.03 < accuracy[0] - accuracy[1] < 0.01  # the record's note prints them


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="two are needed"):
        arc([1.0], [2.0], weights=[1, 1, 1])
    with pytest.raises(ValueError, match="none negative"):
        arc([1.0], [2.0], weights=[2, -1])
    with pytest.raises(ValueError, match="scope is 'layer'"):
        arc([1.0], [2.0], scope="layer")
    with pytest.raises(ValueError, match="shape"):
        arc([1.0], [2.0], [1.0, 2.0])
