import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.task_vectors.task_arithmetic import task_analogy, task_negation


def add(*values, base=0.0, **options):
    return ri.task_arithmetic({"w": torch.tensor([base])}, [{"w": torch.tensor([v])} for v in values], **options)["w"].item()


def test_addition_negation_and_analogy_by_hand():
    # base 1: task vectors 2, 3 and -5, sum 0; weights 1, 2 and -1 give 2 + 6 + 5 = 13, halved 6.5
    assert add(3.0, 4.0, -4.0, base=1.0) == 1.0
    assert add(3.0, 4.0, -4.0, base=1.0, weights=[1, 2, -1], scaling_coef=0.5) == 7.5
    one, two, five, nine = ({"w": torch.tensor([v])} for v in (1.0, 2.0, 5.0, 9.0))
    assert task_negation(one, five, scaling_coef=0.5)["w"].item() == -1.0
    # analogy from base 1: task vectors 1, 4 and 8, and 8 + (4 - 1) = 11
    assert task_analogy(one, two, five, nine)["w"].item() == 12.0


def test_it_ends_at_the_base_the_model_and_the_average():
    assert add(5.0, base=2.0, scaling_coef=0.0) == 2.0
    assert add(5.0, base=2.0) == 5.0
    assert add(5.0, 8.0, base=2.0, scaling_coef=0.5) == pytest.approx(6.5)


def test_negation_is_addition_with_a_negative_weight_and_order_does_not_matter():
    base, model = {"w": torch.tensor([1.0, -2.0])}, {"w": torch.tensor([0.5, 3.0])}
    forgotten = task_negation(base, model, scaling_coef=0.3)
    assert torch.equal(forgotten["w"], ri.task_arithmetic(base, [model], weights=[-1.0], scaling_coef=0.3)["w"])
    assert add(1.0, 4.0, -2.0) == add(-2.0, 1.0, 4.0)


def test_defaults_of_other_libraries_give_other_models():
    assert [add(1.0, 3.0, scaling_coef=c) for c in (1.0, 0.8, 0.3)] == pytest.approx([4.0, 3.2, 1.2])
    assert add(1.0, 3.0, weights=[1, 1]) == 4.0 and add(1.0, 3.0, weights=[0.5, 0.5]) == 2.0


def test_half_precision_is_summed_in_float32():
    # (1 + 1.03125) / 3 = 0.6771, nearest to 0.67578125; bfloat16 rounds a third, both products and their sum
    values = [torch.tensor([v], dtype=torch.bfloat16) for v in (0.0, 1.0, 1.03125)]
    base, *models = ({"w": v} for v in values)
    third = torch.tensor(1 / 3, dtype=torch.bfloat16)
    assert ri.task_arithmetic(base, models, weights=[1 / 3] * 2)["w"].item() == 0.67578125
    assert (third * values[1] + third * values[2]).item() == 0.6796875


def test_integer_buffers_are_those_of_the_base():
    counter = lambda steps: {"w": torch.zeros(1), "steps": torch.tensor(steps)}  # noqa: E731
    merged = ri.task_arithmetic(counter(0), [counter(10), counter(20)], scaling_coef=0.3)
    assert merged["steps"].item() == 0 and round(0.3 * (10 + 20)) == 9


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_adding_task_vectors_beats_the_average(seed):
    family = toy_zoo.multitask("mlp", seed)
    score = lambda model: toy_zoo.mean_accuracy(family.network, model, family.tasks)  # noqa: E731
    added = ri.task_arithmetic(family.base, family.finetuned, scaling_coef=0.5)
    assert score(added) > score(ri.uniform_soup(family.finetuned)) + 0.05


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_negating_a_task_vector_forgets_that_task_most(seed):
    family = toy_zoo.multitask("mlp", seed)
    losses = lambda model: [toy_zoo.loss(family.network, model, task.test).item() for task in family.tasks]  # noqa: E731
    forgetful = task_negation(family.base, family.finetuned[0], scaling_coef=0.5)
    rise = [after - before for after, before in zip(losses(forgetful), losses(family.base))]
    assert rise[0] > max(rise[1:]) and rise[0] > 0.1


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no fine-tuned models"):
        add()
    with pytest.raises(ValueError, match="2 fine-tuned models and 1 weights"):
        add(1.0, 2.0, weights=[1.0])
    with pytest.raises(ValueError, match="shape"):
        task_negation({"w": torch.zeros(1)}, {"w": torch.zeros(2)})
