import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def with_head(value, classes):
    return {"body.w": torch.tensor([value]), "head.weight": torch.ones(classes, 1), "head_norm": torch.tensor([value])}


def test_bodies_are_averaged_and_heads_dropped_by_hand():
    fused = ri.fused_base([with_head(1.0, 2), with_head(5.0, 3), with_head(6.0, 4)], heads=["head"])
    assert {key: tensor.tolist() for key, tensor in fused.items()} == {"body.w": [4.0], "head_norm": [4.0]}


def test_without_heads_it_is_the_uniform_soup():
    models = [{"w": torch.randn(5, generator=torch.Generator().manual_seed(s))} for s in (0, 1)]
    assert torch.equal(ri.fused_base(models)["w"], ri.uniform_soup(models)["w"])


def test_order_of_models_does_not_matter():
    models = [with_head(v, 2) for v in (0.3, -1.2, 4.0)]
    assert torch.allclose(ri.fused_base(models, heads=["head"])["body.w"], ri.fused_base(models[::-1], heads=["head"])["body.w"])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_a_better_start_than_a_fine_tuned_model_and_as_good_as_the_base(seed):
    family, new = toy_zoo.multitask("mlp", seed), toy_zoo.digits("rotate180", flat=True)
    few = (new.train[0][:200], new.train[1][:200])

    def after_tuning(start):
        generator = torch.Generator().manual_seed(seed)
        model = toy_zoo.train(family.network, start, few, num_steps=20, lr=2e-3, generator=generator)
        return toy_zoo.accuracy(family.network, model, new.test)

    fused, one, base = after_tuning(ri.fused_base(family.finetuned)), after_tuning(family.finetuned[0]), after_tuning(family.base)
    assert fused > one + 0.04  # measured: 6 to 10 points
    assert abs(fused - base) < 0.03  # the paper's gain over the base does not show on these tasks


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no fine-tuned models"):
        ri.fused_base([])
    with pytest.raises(ValueError, match="no model has a head 'classifier'"):
        ri.fused_base([with_head(1.0, 2)], heads=["classifier"])
    with pytest.raises(ValueError, match="nothing is left"):
        ri.fused_base([{"head.w": torch.zeros(1)}], heads=["head"])
    with pytest.raises(ValueError, match="shape"):
        ri.fused_base([with_head(1.0, 2), with_head(1.0, 3)])
