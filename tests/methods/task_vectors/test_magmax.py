from functools import cache

import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo

GROUPS = ((0, 1, 2), (3, 4, 5), (6, 7, 8, 9))


def merge(*values, **options):
    models = [{"w": torch.tensor(v)} for v in values]
    return ri.magmax({"w": torch.zeros_like(models[0]["w"])}, models, **{"scaling_coef": 1.0, **options})["w"].tolist()


def test_the_largest_magnitude_wins_by_hand():
    assert merge([1.0, -4.0, 0.0], [-2.0, 3.0, 0.5], [1.5, 1.0, -0.1]) == [-2.0, -4.0, 0.5]
    assert merge([1.0, -4.0, 0.0], [-2.0, 3.0, 0.5], scaling_coef=0.5) == [-1.0, -2.0, 0.25]
    base = {"w": torch.tensor([10.0, 10.0])}  # task vectors (1, -3) and (-2, 1)
    merged = ri.magmax(base, [{"w": torch.tensor([11.0, 7.0])}, {"w": torch.tensor([8.0, 11.0])}])
    assert merged["w"].tolist() == [9.0, 8.5]


def test_of_equal_magnitudes_the_later_is_taken():
    assert merge([1.0], [-1.0]) == [-1.0] and merge([-1.0], [1.0]) == [1.0]


def test_one_model_and_disjoint_task_vectors():
    assert merge([1.5, -2.0]) == [1.5, -2.0]
    assert merge([1.0, 0.0, 0.0], [0.0, 2.0, 0.0]) == [1.0, 2.0, 0.0]  # their sum


def test_order_matters_for_equal_magnitudes_only_and_scale_carries_over():
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    assert merge(*values.tolist()) == merge(*values.flip(0).tolist())
    assert merge(*(2 * values).tolist()) == [2 * x for x in merge(*values.tolist())]


@cache
def one_group_after_another(seed):
    """Checkpoints of the digits learned in three groups, one after another, and three models that learned one group each."""
    family, digits = toy_zoo.multitask("mlp", seed), toy_zoo.digits("rotate90")
    sequence, independent = [], []
    for number, classes in enumerate(GROUPS):
        split = toy_zoo.restrict(digits, classes, str(classes)).train
        for start, models in ((sequence[-1] if sequence else family.base, sequence), (family.base, independent)):
            generator = torch.Generator().manual_seed(number)
            models.append(toy_zoo.train(family.network, start, split, num_steps=100, lr=1e-3, generator=generator))
    return family, sequence, independent, lambda model: toy_zoo.accuracy(family.network, model, digits.test)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_remembers_what_the_last_checkpoint_forgot(seed):
    family, sequence, _, accuracy = one_group_after_another(seed)
    assert accuracy(ri.magmax(family.base, sequence)) > accuracy(sequence[-1]) + 0.2  # measured: 24 to 27 points
    assert accuracy(ri.magmax(family.base, sequence)) < accuracy(ri.uniform_soup(sequence))  # the record's note prints both


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_checkpoints_of_one_run_merge_better_than_independent_models(seed):
    family, sequence, independent, accuracy = one_group_after_another(seed)
    assert accuracy(ri.magmax(family.base, sequence)) > accuracy(ri.magmax(family.base, independent)) + 0.1


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no fine-tuned models"):
        ri.magmax({"w": torch.zeros(1)}, [])
    with pytest.raises(ValueError, match="shape"):
        ri.magmax({"w": torch.zeros(1)}, [{"w": torch.zeros(2)}])
