import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def merge(*values, **options):
    models = [{"w": torch.tensor(v)} for v in values]
    return ri.breadcrumbs({"w": torch.zeros_like(models[0]["w"])}, models, **{"scaling_coef": 1.0, **options})["w"].tolist()


def test_both_tails_are_removed_and_the_rest_is_summed_by_hand():
    # of five entries gamma 0.2 removes the largest, density 0.4 keeps the next two: -4 and 3 of the first, 20 and -30 of the second
    assert merge([1.0, 2.0, 3.0, -4.0, 5.0], [10.0, 20.0, -30.0, 0.0, 40.0], density=0.4, gamma=0.2) == [0, 20, -27, -4, 0]
    assert merge([1.0, 2.0, 3.0, -4.0, 5.0], density=0.4, gamma=0.2, scaling_coef=0.5) == [0, 0, 1.5, -2, 0]


def test_without_masking_it_is_task_arithmetic():
    base, models = {"w": torch.ones(3)}, [{"w": torch.tensor([3.0, -1.0, 0.5])}, {"w": torch.tensor([1.0, 2.0, 0.0])}]
    ours = ri.breadcrumbs(base, models, density=1.0, gamma=0.0, scaling_coef=0.3)
    assert torch.allclose(ours["w"], ri.task_arithmetic(base, models, scaling_coef=0.3)["w"])


def test_the_order_of_entries_does_not_matter_and_equal_magnitudes_stay_together():
    values = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert merge(values.flip(0).tolist(), density=0.3) == merge(values.tolist(), density=0.3)[::-1]
    assert merge([2.0] * 10, density=0.2) == [2.0] * 10


def test_a_tensor_of_fewer_than_a_hundred_entries_keeps_its_share():
    # one per cent of 64 entries is none: 57 of 64 are kept. An older mergekit's slice [7:-0] is empty
    # and resets the tensor to the base.
    values = [float(v) for v in range(1, 65)]
    assert merge(values, density=0.9, gamma=0.01) == [0.0] * 7 + values[7:]
    assert values[7:-0] == []
    # 0.2 of 4 entries is less than one: one is kept, where mergekit 0.1.5 keeps int(0.2 * 4) = 0
    assert merge([1.0, 2.0, 3.0, 4.0], density=0.2, gamma=0.0) == [0.0, 0.0, 0.0, 4.0]


def test_entries_are_ranked_in_each_tensor_or_in_each_row():
    # the whole tensor: 8 removed, 7 and 6 kept. Rows: 4 and 8 removed, 3 and 7 kept.
    values = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]
    assert merge(values, density=0.25, gamma=0.125) == [[0, 0, 0, 0], [0, 6, 7, 0]]
    assert merge(values, density=0.25, gamma=0.25, scope="row") == [[0, 0, 3, 0], [0, 0, 7, 0]]


def test_density_is_what_is_kept_after_the_largest_are_gone():
    # a tenth of ten removed, four fifths kept; read as the paper's beta, the removed smallest, 0.8 would keep one entry, the 9
    kept = [v for v in merge([float(v) for v in range(1, 11)], density=0.8, gamma=0.1) if v]
    assert kept == [2, 3, 4, 5, 6, 7, 8, 9]


def test_ties_drops_the_values_against_the_elected_sign():
    assert merge([3.0], [-1.0], density=1.0, gamma=0.0) == [2.0]
    assert merge([3.0], [-1.0], density=1.0, gamma=0.0, merge="ties") == [3.0]
    assert merge([3.0], [-1.0], density=1.0, gamma=0.0, merge="ties", weights=[1.0, 4.0]) == [-4.0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_removing_the_outliers_helps(seed):
    family = toy_zoo.multitask("mlp", seed, num_tasks=4)

    def best(method, coefficients, **options):
        merged = [method(family.base, family.finetuned, scaling_coef=c, **options) for c in coefficients]
        return max(toy_zoo.mean_accuracy(family.network, model, family.tasks) for model in merged)

    arithmetic = best(ri.task_arithmetic, (0.4, 0.5, 0.6))
    for density, gamma in ((0.2, 0.1), (0.5, 0.05)):
        both_tails = best(ri.breadcrumbs, (0.6, 1.0, 1.5), density=density, gamma=gamma)
        smallest_only = best(ri.breadcrumbs, (0.6, 1.0, 1.5), density=density, gamma=0.0)
        assert both_tails > smallest_only + 0.03  # measured: 3 to 7 points
    assert both_tails > arithmetic + 0.005  # measured at density 0.5: 6.6, 1.0 and 0.8 points


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="density is 0"):
        merge([1.0], density=0)
    with pytest.raises(ValueError, match="gamma is 0.5 with density 0.6"):
        merge([1.0], density=0.6, gamma=0.5)
    with pytest.raises(ValueError, match="no fine-tuned models"):
        ri.breadcrumbs({"w": torch.zeros(1)}, [])
    with pytest.raises(ValueError, match="merge is 'mean'"):
        merge([1.0], merge="mean")
    with pytest.raises(ValueError, match="2 weights for 1 models"):
        merge([1.0], weights=[1.0, 2.0])
