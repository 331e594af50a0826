import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def average(*values, **options):
    return ri.uniform_soup([{"w": torch.tensor(v)} for v in values], **options)["w"]


def test_mean_and_weighted_mean_by_hand():
    # (1 + 3 + 8) / 3 = 4; (2 * 1 + 1 * 3 + 1 * 8) / 4 = 3.25
    assert average([1.0], [3.0], [8.0]).tolist() == [4.0]
    assert average([1.0], [3.0], [8.0], weights=[2, 1, 1]).tolist() == [3.25]


def test_one_model_or_equal_models_come_back():
    assert average([1.5, -2.0]).tolist() == [1.5, -2.0]
    assert average([1.5, -2.0], [1.5, -2.0]).tolist() == [1.5, -2.0]


def test_order_of_models_does_not_matter():
    values = torch.randn(4, 30, generator=torch.Generator().manual_seed(0)).tolist()
    assert torch.allclose(average(*values), average(*reversed(values)), atol=1e-6)


def test_weights_are_ratios_unless_normalization_is_switched_off():
    # 0.1 and 1.0: divided by 1.1 they give (0.1 * 11 + 1.0 * 22) / 1.1 = 21, undivided 23.1
    assert average([11.0], [22.0], weights=[0.1, 1.0]).item() == pytest.approx(21.0)
    assert average([11.0], [22.0], weights=[1.0, 10.0]).item() == pytest.approx(21.0)
    assert average([11.0], [22.0], weights=[0.1, 1.0], normalize=False).item() == pytest.approx(23.1)


def test_half_precision_is_summed_in_float32():
    # bfloat16 keeps 8 bits; the mean of 1, 1 and 1.03125 is 1.0104, nearest to 1.0078125
    models = [{"w": torch.tensor([v], dtype=torch.bfloat16)} for v in (1.0, 1.0, 1.03125)]
    third = torch.tensor(1 / 3, dtype=torch.bfloat16)
    assert ri.uniform_soup(models)["w"].item() == 1.0078125
    assert (third * models[0]["w"] + third * models[1]["w"] + third * models[2]["w"]).item() == 1.015625


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_its_loss_is_below_the_mean_loss_of_its_members(seed):
    family = toy_zoo.soup("mlp", seed)
    members = [toy_zoo.loss(family.network, model, family.task.test).item() for model in family.finetuned]
    soup = toy_zoo.loss(family.network, ri.uniform_soup(family.finetuned), family.task.test).item()
    assert soup < 0.95 * sum(members) / len(members)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no models"):
        ri.uniform_soup([])
    with pytest.raises(ValueError, match="2 models and 1 weights"):
        average([1.0], [2.0], weights=[1.0])
    with pytest.raises(ValueError, match="sum to zero"):
        average([1.0], [2.0], weights=[1.0, -1.0])
