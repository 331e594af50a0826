import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def merge(*values, **options):
    models = [{"w": torch.tensor(v)} for v in values]
    return ri.sce({"w": torch.zeros_like(models[0]["w"])}, models, **options)["w"].tolist()


def test_select_calculate_and_erase_by_hand():
    # variances (0, 1, 4, 9): three positions vary, density 0.7 selects int(2.1) = 2 of them, the last two
    # energies 4 + 9 = 13 and 4 + 9 = 13 -> 1/2 each; sums 0 (plus: 2 alone) and 0 (plus: 3 alone)
    assert merge([1.0, 2.0, 2.0, -3.0], [1.0, 0.0, -2.0, 3.0], density=0.7) == [0, 0, 2, 3]
    # nothing selected away: energies 1 + 4 = 5 and 9 + 16 = 25 -> 1/6 and 5/6; (1 + 5 * 3) / 6, then minus wins: -4 alone
    assert merge([1.0, 2.0], [3.0, -4.0]) == pytest.approx([16 / 6, -4.0])


def test_one_model_or_equal_models_come_back():
    assert merge([1.5, -2.0]) == [1.5, -2.0] == merge([1.5, -2.0], [1.5, -2.0])


def test_equally_large_updates_that_agree_are_averaged():
    assert merge([1.0, 2.0], [2.0, 1.0]) == pytest.approx([1.5, 1.5])


def test_order_does_not_matter_and_scale_carries_over():
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    assert merge(*values.tolist(), density=0.3) == pytest.approx(merge(*values.flip(0).tolist(), density=0.3), abs=1e-6)
    assert merge(*(1e-5 * values).tolist()) == pytest.approx([1e-5 * x for x in merge(*values.tolist())], rel=1e-4)


def test_coefficients_belong_to_each_matrix():
    base = {"a": torch.zeros(1), "b": torch.zeros(1)}
    models = [{"a": torch.tensor([3.0]), "b": torch.tensor([1.0])}, {"a": torch.tensor([1.0]), "b": torch.tensor([3.0])}]
    assert [x.item() for x in ri.sce(base, models).values()] == pytest.approx([2.8, 2.8])  # over the whole model both weigh 1/2: 2


def test_coefficients_keep_their_ratio_for_updates_of_any_size():
    # 1e-8 and 9e-8: coefficients 0.1 and 0.9, 0.1 * 1e-4 + 0.9 * 3e-4 = 2.8e-4
    assert merge([1e-4], [3e-4]) == pytest.approx([2.8e-4])
    uniform = (1e-4 + 3e-4) / 2  # mergekit, as the summed mean square 1e-7 is below its 1e-6
    assert uniform == pytest.approx(2e-4) and merge([1e-3], [3e-3]) == pytest.approx([2.8e-3])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_favours_the_model_that_learned_something_in_a_matrix(seed):
    # A known answer: three tasks, each needs one of three matrices and leaves noise in the other two.
    generator = torch.Generator().manual_seed(seed)
    noise = lambda: 0.2 * torch.randn(20, 20, generator=generator)  # noqa: E731
    learned = {key: torch.randn(20, 20, generator=generator) for key in "abc"}
    models = [{key: learned[key] if key == own else noise() for key in "abc"} for own in "abc"]
    base = {key: torch.zeros(20, 20) for key in "abc"}
    error = lambda merged: sum(((merged[key] - learned[key]) ** 2).mean() for key in "abc") / 3  # noqa: E731
    assert error(ri.sce(base, models)) < 0.1 * error(ri.uniform_soup(models))
    assert error(ri.sce(base, models)) < 0.7 * error(ri.ties_merging(base, models))  # measured: 0.36 to 0.5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_small_dense_networks_it_stays_near_the_average(seed):
    # Every task moves every layer alike there, so that the coefficients differ little; the record's note prints these accuracies.
    family = toy_zoo.multitask("mlp", seed)
    accuracy = lambda model: toy_zoo.mean_accuracy(family.network, model, family.tasks)  # noqa: E731
    assert abs(accuracy(ri.sce(family.base, family.finetuned)) - accuracy(ri.uniform_soup(family.finetuned))) < 0.04
    assert accuracy(ri.sce(family.base, family.finetuned, density=0.1)) < accuracy(family.base) + 0.1


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="density is 0"):
        merge([1.0], density=0)
    with pytest.raises(ValueError, match="no fine-tuned models"):
        ri.sce({"w": torch.zeros(1)}, [])
    with pytest.raises(ValueError, match="shape"):
        ri.sce({"w": torch.zeros(1)}, [{"w": torch.zeros(2)}])
