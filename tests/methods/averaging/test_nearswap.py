import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def swap(a, b, **options):
    return ri.nearswap({"w": torch.tensor(a, dtype=torch.float64)}, {"w": torch.tensor(b, dtype=torch.float64)}, **options)["w"].tolist()


def test_near_entries_are_swapped_and_far_ones_take_a_step_by_hand():
    # differences 0.5, 2 and -4 with t = 1: weights 1, 1/2 and 1/4
    assert swap([1.0, 1.0, 1.0], [1.5, 3.0, -3.0], t=1.0) == [1.5, 2.0, 0.0]


def test_it_is_interpolation_with_a_weight_for_every_entry():
    a, b = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = (0.3 / (a - b).abs()).clamp(max=1)
    assert swap(a.tolist(), b.tolist(), t=0.3) == pytest.approx((weight * b + (1 - weight) * a).tolist())


def test_a_large_step_gives_the_second_model_and_none_the_first():
    a, b = [1.0, -2.0], [4.0, 0.5]
    assert swap(a, b, t=10.0) == b and swap(a, b, t=0.0) == a and swap(a, a, t=0.1) == a


def test_no_entry_moves_by_more_than_t_and_scale_carries_over():
    a, b = torch.randn(2, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = torch.tensor(swap(a.tolist(), b.tolist(), t=0.3), dtype=torch.float64) - a
    assert moved.abs().max() <= 0.3 + 1e-12 and (moved * (b - a) >= 0).all()
    assert swap((10 * a).tolist(), (10 * b).tolist(), t=3.0) == pytest.approx((10 * (a + moved)).tolist())


def test_entries_closer_than_t_are_swapped_however_small_t_is():
    assert swap([0.0], [1e-8], t=1e-7) == [1e-8]
    floored = min(1, 1e-7 / max(1e-8, 1e-6)) * 1e-8  # mergekit's floor under the difference
    assert floored == pytest.approx(1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_adds_a_nuance_of_the_second_model_about_as_well_as_the_straight_line(seed):
    family = toy_zoo.multitask("mlp", seed, num_tasks=4)
    a, b = family.finetuned[:2]

    def on_both(model):
        return [toy_zoo.accuracy(family.network, model, task.test) for task in family.tasks[:2]]

    kept, gained = on_both(ri.nearswap(a, b, t=0.02))
    assert kept > on_both(a)[0] - 0.08 and gained > on_both(a)[1] + 0.15  # measured: -5 to -7 and +20 to +28 points
    line = on_both(ri.uniform_soup([a, b], weights=[0.6, 0.4]))
    assert abs(kept + gained - sum(line)) < 0.1


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="t is -1"):
        swap([1.0], [2.0], t=-1)
    with pytest.raises(ValueError, match="shape"):
        swap([1.0], [2.0, 3.0])
