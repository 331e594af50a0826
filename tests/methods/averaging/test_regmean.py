import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.statistics import gram_matrices


def merge(weights, grams, **options):
    wrap = lambda values: [{"w": torch.tensor(v, dtype=torch.float64)} for v in values]  # noqa: E731
    return ri.regmean(wrap(weights), wrap(grams), **options)["w"].flatten().tolist()


ROWS = [[[1.0, 0.0]], [[0.0, 1.0]]]
GRAMS = [[[1.0, 0.5], [0.5, 1.0]], [[1.0, 0.0], [0.0, 1.0]]]


def test_two_by_two_system_by_hand():
    # sum ((2, 0.5), (0.5, 2)), right side (1, 0.5) + (0, 1) = (1, 1.5), determinant 3.75: (2 - 0.75, 3 - 0.5) / 3.75
    assert merge(ROWS, GRAMS, alpha=1.0) == pytest.approx([1 / 3, 2 / 3])


def test_off_diagonal_factor_changes_the_result():
    # alpha 0.1: sum ((2, 0.05), (0.05, 2)), right side (1, 1.05), determinant 3.9975
    assert merge(ROWS, GRAMS, alpha=0.1) == pytest.approx([1.9475 / 3.9975, 2.05 / 3.9975])
    assert merge(ROWS, GRAMS, alpha=0.9) == merge(ROWS, GRAMS) != merge(ROWS, GRAMS, alpha=1.0)
    assert merge(ROWS, GRAMS, alpha=0.0) == pytest.approx([0.5, 0.5])


def test_equal_grams_or_equal_models_give_the_mean():
    assert merge(ROWS, GRAMS[:1] * 2) == pytest.approx([0.5, 0.5])
    assert merge([[[3.0, -1.0]]] * 2, GRAMS) == pytest.approx([3.0, -1.0])


def test_it_minimises_the_distance_to_the_outputs_of_the_models():
    g = torch.Generator().manual_seed(0)
    inputs = [torch.randn(30, 4, generator=g, dtype=torch.float64) for _ in range(3)]
    weights = [torch.randn(5, 4, generator=g, dtype=torch.float64) for _ in range(3)]
    merged = ri.regmean([{"w": w} for w in weights], [{"w": x.T @ x} for x in inputs], alpha=1.0)["w"].requires_grad_()
    error = sum((x @ merged.T - x @ w.T).square().sum() for x, w in zip(inputs, weights))
    (gradient,) = torch.autograd.grad(error, merged)
    assert gradient.abs().max() < 1e-10


def test_a_model_with_more_examples_has_more_say_unless_the_gram_matrix_is_a_mean():
    # inputs of 1: three examples of the model with weight 0, one of the model with weight 4
    assert merge([[[0.0]], [[4.0]]], [[[3.0]], [[1.0]]]) == [1.0]
    assert merge([[[0.0]], [[4.0]]], [[[3.0 / 3]], [[1.0 / 1]]]) == [2.0]


def test_directions_without_data_are_averaged():
    # the two inputs were always equal; outputs 2 and 0 fix w_1 + w_2 = 1, and (1, 0) is the nearest to the mean
    one_example = [[[1.0, 1.0], [1.0, 1.0]]] * 2
    assert torch.linalg.matrix_rank(2 * torch.tensor(one_example[0])).item() == 1  # no inverse
    assert merge([[[2.0, 0.0]], [[0.0, 0.0]]], one_example, alpha=1.0) == pytest.approx([1.0, 0.0])


def test_what_has_no_gram_matrix_is_averaged_with_the_weights():
    models = [{"w": torch.tensor([[x]]), "b": torch.tensor([x])} for x in (0.0, 4.0)]
    merged = ri.regmean(models, [{"w": torch.tensor([[3.0]])}, {"w": torch.tensor([[1.0]])}], weights=[1, 3])
    assert merged["w"].item() == 2.0 and merged["b"].item() == 3.0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_beats_the_average(seed):
    family = toy_zoo.multitask("mlp", seed)
    grams = [gram_matrices(family.network, model, [task.train]) for model, task in zip(family.finetuned, family.tasks)]
    score = lambda model: toy_zoo.mean_accuracy(family.network, model, family.tasks)  # noqa: E731
    assert score(ri.regmean(family.finetuned, grams)) > score(ri.uniform_soup(family.finetuned)) + 0.1


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="2 models, 1 sets"):
        merge(ROWS, GRAMS[:1])
    with pytest.raises(ValueError, match="alpha is 1.5"):
        merge(ROWS, GRAMS, alpha=1.5)
    with pytest.raises(ValueError, match=r"set 2 has shape \(1, 1\); \(2, 2\) is needed"):
        merge(ROWS, [GRAMS[0], [[1.0]]])
    with pytest.raises(ValueError, match="no matrix of the models"):
        ri.regmean([{"w": torch.zeros(1)}], [{"v": torch.ones(1, 1)}])
