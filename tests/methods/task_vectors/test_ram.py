import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.task_vectors.ram import ram_plus


def merge(*values, method=ri.ram, **options):
    models = [{"w": torch.tensor(v)} for v in values]
    return method({"w": torch.zeros_like(models[0]["w"])}, models, **options)["w"].tolist()


def test_shared_changes_are_averaged_and_unique_ones_kept_by_hand():
    # moved by three, two, one and none: (1 + 2 + 6) / 3, (4 - 2) / 2, 5, 0
    assert merge([1.0, 4.0, 0.0, 0.0], [2.0, 0.0, 5.0, 0.0], [6.0, -2.0, 0.0, 0.0]) == [3.0, 1.0, 5.0, 0.0]


def test_unique_changes_are_enlarged_by_the_share_of_the_others_by_hand():
    # first model: 1 shared, 2 unique, factor 1 + 0.1 * min(1/2, 0.2) = 1.02; with alpha 1: 1 + 0.1 / 2 = 1.05
    # second model: 1 shared, 1 unique: 1.02, with alpha 1: 1.1
    values = [2.0, 1.0, -1.0, 0.0], [4.0, 0.0, 0.0, 1.0]
    assert merge(*values, method=ram_plus) == pytest.approx([3.0, 1.02, -1.02, 1.02])
    assert merge(*values, method=ram_plus, alpha=1.0) == pytest.approx([3.0, 1.05, -1.05, 1.1])
    assert merge(*values, method=ram_plus, r=0.0) == merge(*values)


def test_it_is_the_average_where_all_moved_and_the_sum_where_nothing_is_shared():
    values = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    assert merge(*values.tolist()) == pytest.approx(values.mean(0).tolist(), abs=1e-6)
    assert merge([1.0, 0.0], [0.0, 2.0]) == [1.0, 2.0]
    assert merge([1.5, -2.0]) == [1.5, -2.0]


def test_order_does_not_matter():
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    assert merge(*values.tolist(), eps=0.5) == pytest.approx(merge(*values.flip(0).tolist(), eps=0.5), abs=1e-6)


def test_what_moved_no_more_than_eps_is_dropped():
    assert merge([1.0, 0.25], [2.0, 1.0], eps=0.25) == [1.5, 1.0]


def test_ratios_are_counted_over_the_model_or_in_each_tensor():
    base = {"a": torch.zeros(2), "b": torch.zeros(2)}
    models = [{"a": torch.tensor([1.0, 1.0]), "b": torch.ones(2)}, {"a": torch.tensor([1.0, 0.0]), "b": torch.zeros(2)}]
    whole = ram_plus(base, models, r=1.0, alpha=1.0)  # 1 shared to 3 unique
    each = ram_plus(base, models, r=1.0, alpha=1.0, scope="tensor")  # 1 to 1, and 0 to 2
    assert torch.cat([*whole.values()]).tolist() == pytest.approx([1.0, 4 / 3, 4 / 3, 4 / 3])
    assert torch.cat([*each.values()]).tolist() == [1.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sparse_changes_are_not_diluted(seed):
    # as after reinforcement learning: each model moves three tenths of its parameters, its largest changes
    family = toy_zoo.multitask("mlp", seed)
    sparse = [ri.ties_merging(family.base, [model], density=0.3) for model in family.finetuned]
    accuracy = lambda model: toy_zoo.mean_accuracy(family.network, model, family.tasks)  # noqa: E731
    merged = accuracy(ri.ram(family.base, sparse))
    assert merged > accuracy(ri.uniform_soup(sparse)) + 0.1  # measured: 11 to 15 points
    assert merged > accuracy(ri.ties_merging(family.base, sparse, density=1.0)) + 0.015  # measured: 2 to 3 points
    assert abs(accuracy(ram_plus(family.base, sparse)) - merged) < 0.005


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="eps is -1"):
        merge([1.0], eps=-1)
    with pytest.raises(ValueError, match="r is -0.1"):
        merge([1.0], method=ram_plus, r=-0.1)
    with pytest.raises(ValueError, match="scope is 'row'"):
        merge([1.0], method=ram_plus, scope="row")
    with pytest.raises(ValueError, match="no fine-tuned models"):
        ri.ram({"w": torch.zeros(1)}, [])
