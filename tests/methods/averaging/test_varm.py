import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def merge(*rows, base=None):
    start = torch.zeros(len(rows[0])) if base is None else torch.tensor(base)
    return ri.varm({"w": start}, [{"w": torch.tensor(r)} for r in rows])["w"].tolist()


def test_weights_in_proportion_to_the_mean_squared_change_by_hand():
    # changes (3, 1) and (1, 3) from (1, 1) have mean squares 5 and 5; (0, 2) has 2: weights 5/12, 5/12, 2/12
    assert merge([4.0, 2.0], [2.0, 4.0], [1.0, 3.0], base=[1.0, 1.0]) == pytest.approx([1 + 20 / 12, 1 + 24 / 12])


def test_equal_changes_give_the_average_and_an_unchanged_model_counts_nothing():
    assert merge([1.0, -1.0], [-1.0, 3.0], base=[0.0, 1.0]) == pytest.approx([0.0, 1.0])  # mean squares 2.5 and 2.5
    assert merge([5.0, 6.0], [0.0, 0.0]) == [5.0, 6.0]
    assert merge([2.0], [2.0], base=[2.0]) == [2.0]


def test_each_tensor_has_weights_of_its_own():
    base = {"a": torch.zeros(1), "b": torch.zeros(1)}
    models = [{"a": torch.tensor([1.0]), "b": torch.tensor([3.0])}, {"a": torch.tensor([3.0]), "b": torch.tensor([1.0])}]
    merged = ri.varm(base, models)
    assert merged["a"].item() == merged["b"].item() == pytest.approx(2.8)


def test_order_does_not_matter_and_scaling_scales():
    rows = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    once = merge(*rows.tolist())
    assert merge(*rows.flip(0).tolist()) == pytest.approx(once, abs=1e-6)
    assert merge(*(2 * rows).tolist()) == pytest.approx([2 * x for x in once], abs=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_its_loss_is_below_the_average_where_models_moved_by_different_amounts(seed):
    family = toy_zoo.soup("mlp", seed)
    loss = lambda model: toy_zoo.loss(family.network, model, family.task.test).item()  # noqa: E731
    assert loss(ri.varm(family.base, family.finetuned)) < 0.95 * loss(ri.uniform_soup(family.finetuned))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no fine-tuned models"):
        ri.varm({"w": torch.zeros(1)}, [])
    with pytest.raises(ValueError, match="shape"):
        merge([1.0, 2.0], base=[0.0])
