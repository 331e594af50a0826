import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def merge(*values, **options):
    models = [v if isinstance(v, dict) else {"w": torch.tensor(v)} for v in values]
    return ri.emr_merging({k: torch.zeros_like(v) for k, v in models[0].items()}, models, **options)


def test_elect_mask_and_rescale_by_hand():
    # sums (6, -1, 1) -> (+, -, +); largest agreeing magnitudes (5, 3, 1); model 1 agrees in entries 1 and 3, model 2 in 1 and 2
    merged = merge([1.0, 2.0, 1.0], [5.0, -3.0, 0.0])
    assert merged.unified["w"].tolist() == [5.0, -3.0, 1.0]
    assert [m["w"].tolist() for m in merged.masks] == [[True, False, True], [True, True, False]]
    assert merged.rescalers.tolist() == pytest.approx([4 / 6, 8 / 8])
    assert merged.model(0)["w"].tolist() == pytest.approx([10 / 3, 0.0, 2 / 3])
    assert merged.model(1)["w"].tolist() == [5.0, -3.0, 0.0]
    shifted = ri.emr_merging({"w": torch.ones(1)}, [{"w": torch.tensor([3.0])}, {"w": torch.tensor([0.0])}])  # task vectors 2, -1
    assert shifted.model(0)["w"].tolist() == [3.0] and shifted.model(1)["w"].tolist() == [1.0]


def test_one_model_comes_back():
    assert merge([1.5, -2.0, 0.0]).model(0)["w"].tolist() == [1.5, -2.0, 0.0]


def test_models_on_disjoint_parameters_all_come_back():
    merged = merge([1.0, 0.0, -2.0], [0.0, 3.0, 0.0])
    assert merged.model(0)["w"].tolist() == [1.0, 0.0, -2.0] and merged.model(1)["w"].tolist() == [0.0, 3.0, 0.0]


def test_every_model_keeps_its_total_movement():
    values = torch.randn(4, 60, generator=torch.Generator().manual_seed(0))
    merged = merge(*values.tolist())
    for t, tau in enumerate(values):
        assert merged.model(t)["w"].abs().sum().item() == pytest.approx(tau.abs().sum().item(), rel=1e-5)


def test_order_of_models_does_not_matter():
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(1)).tolist()
    forwards, backwards = merge(*values), merge(*reversed(values))
    assert forwards.model(0)["w"].tolist() == pytest.approx(backwards.model(2)["w"].tolist(), abs=1e-6)


def test_a_small_tensor_counts_as_much_as_a_large_one_only_with_the_rule_of_the_script():
    # unified: 3 four times and 4. Totals: (4 + 4) / 16 and (12 + 1) / 16. Sums of means: (1 + 4) / 7 and (3 + 1) / 7
    a = {"matrix": torch.ones(2, 2), "bias": torch.tensor([4.0])}
    b = {"matrix": torch.full((2, 2), 3.0), "bias": torch.tensor([1.0])}
    assert merge(a, b).rescalers.tolist() == pytest.approx([8 / 16, 13 / 16])
    assert merge(a, b, rescale="tensor").rescalers.tolist() == pytest.approx([5 / 7, 4 / 7])


def test_a_sum_of_zero_elects_nothing_in_the_paper_and_minus_in_the_code():
    assert merge([2.0], [-2.0]).unified["w"].tolist() == [0.0]
    assert merge([2.0], [-2.0], zero_sum="minus").unified["w"].tolist() == [-2.0]


def test_the_largest_value_is_taken_and_not_the_sum():
    assert merge([1.0], [3.0]).unified["w"].tolist() == [3.0]
    assert merge([1.0], [3.0], unify="sum").unified["w"].tolist() == [4.0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_near_the_individual_models_where_one_merged_model_is_not(seed):
    family = toy_zoo.multitask("mlp", seed)

    def mean(models):
        return sum(toy_zoo.accuracy(family.network, m, task.test) for m, task in zip(models, family.tasks)) / len(family.tasks)

    merged = ri.emr_merging(family.base, family.finetuned)
    emr = mean([merged.model(t) for t in range(3)])
    individual = mean(family.finetuned)
    ties = mean([ri.ties_merging(family.base, family.finetuned)] * 3)
    assert emr > individual - 0.06 and emr > ties + 0.20  # measured: 4 to 5 points below, 29 to 40 points above


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no fine-tuned models"):
        ri.emr_merging({"w": torch.zeros(1)}, [])
    with pytest.raises(ValueError, match="rescale is 'mean'"):
        merge([1.0], rescale="mean")
    with pytest.raises(ValueError, match="zero_sum is 'plus'"):
        merge([1.0], zero_sum="plus")
    with pytest.raises(ValueError, match="shape"):
        ri.emr_merging({"w": torch.zeros(2)}, [{"w": torch.zeros(3)}])
