from functools import cache

import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def extrapolate(base, *models, **options):
    wrap = lambda v: {"w": torch.tensor(v, dtype=torch.float64)}  # noqa: E731
    return ri.expo(wrap(base), [wrap(m) for m in models], **options)["w"].tolist()


def test_the_change_is_added_once_more_by_hand():
    assert extrapolate([1.0], [3.0], alpha=0.5) == [4.0]  # 3 + 0.5 * 2; FusionBench's documentation would give 1 + 0.5 * 2
    assert extrapolate([1.0, 2.0], [2.0, 0.0], alpha=1.5) == [3.5, -3.0]


def test_the_default_is_three_tenths():
    assert extrapolate([0.0], [1.0]) == pytest.approx([1.3]) != pytest.approx(extrapolate([0.0], [1.0], alpha=0.1))


def test_no_extrapolation_or_no_change_gives_the_model():
    assert extrapolate([1.0, 2.0], [2.0, 0.0], alpha=0.0) == [2.0, 0.0] and extrapolate([2.0], [2.0], alpha=0.7) == pytest.approx([2.0])


def test_it_is_task_arithmetic_beyond_one():
    base, model = {"w": torch.randn(20, generator=torch.Generator().manual_seed(0))}, {"w": torch.ones(20)}
    assert torch.allclose(ri.expo(base, [model], alpha=0.4)["w"], ri.task_arithmetic(base, [model], scaling_coef=1.4)["w"], atol=1e-6)


def test_several_models_are_averaged_first():
    assert extrapolate([0.0], [1.0], [3.0], alpha=0.5) == [3.0] == extrapolate([0.0], [3.0], [1.0], alpha=0.5)


@cache
def trained_for(num_steps, seed):
    family = toy_zoo.multitask("mlp", seed)
    generator = torch.Generator().manual_seed(seed)
    model = toy_zoo.train(family.network, family.base, family.tasks[0].train, num_steps=num_steps, lr=1e-4, generator=generator)
    return family.base, model, lambda m: toy_zoo.accuracy(family.network, m, family.tasks[0].test)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_does_for_a_partly_trained_model_what_more_training_would(seed):
    base, model, accuracy = trained_for(100, seed)
    assert accuracy(ri.expo(base, [model])) > accuracy(model) + 0.03  # measured: 4 to 9 points
    assert accuracy(ri.expo(base, [model], alpha=1.5)) < accuracy(model) - 0.03  # too far


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_fully_trained_model_gains_nothing(seed):
    family = toy_zoo.multitask("mlp", seed)
    accuracy = lambda model: toy_zoo.accuracy(family.network, model, family.tasks[0].test)  # noqa: E731
    model = family.finetuned[0]
    assert abs(accuracy(ri.expo(family.base, [model])) - accuracy(model)) < 0.01


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="alpha is -0.5"):
        extrapolate([1.0], [2.0], alpha=-0.5)
    with pytest.raises(ValueError, match="no fine-tuned models"):
        extrapolate([1.0])
    with pytest.raises(ValueError, match="shape"):
        extrapolate([1.0], [2.0, 3.0])
