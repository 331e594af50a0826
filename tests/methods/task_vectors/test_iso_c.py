import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.task_vectors.iso_c import iso_cts


def merge(*matrices, method=ri.iso_c, **options):
    models = [{"w": torch.as_tensor(m, dtype=torch.float64)} for m in matrices]
    return method({"w": torch.zeros_like(models[0]["w"])}, models, **options)["w"]


def random_matrices(count, *shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(count)]


def test_singular_values_of_the_sum_become_their_mean_by_hand():
    # ((0, 3), (1, 0)) has singular values 3 and 1: both become 2
    assert torch.allclose(merge([[0.0, 2.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]), torch.tensor([[0.0, 2.0], [2.0, 0.0]], dtype=torch.float64))
    values = torch.linalg.svdvals(merge(*random_matrices(3, 6, 4), scaling_coef=0.5))
    assert torch.allclose(values, torch.linalg.svdvals(sum(random_matrices(3, 6, 4))).mean().expand(4) / 2)


def test_an_isotropic_sum_is_task_arithmetic():
    q = torch.linalg.qr(random_matrices(1, 5, 5)[0]).Q
    assert torch.allclose(merge(3 * q, -q), 2 * q)


def test_common_directions_and_those_of_each_task_by_hand():
    # the sum diag(4, 3, 2, 1) has the common directions 1 and 2 at half the rank; outside them the first task has diag(., ., 2, 0),
    # the second diag(., ., 0, 1): strengths 4, 3, 2, 1, mean 2.5
    a, b = torch.diag(torch.tensor([4.0, 0.0, 2.0, 0.0])), torch.diag(torch.tensor([0.0, 3.0, 0.0, 1.0]))
    assert torch.allclose(merge(a, b, method=iso_cts, common_fraction=0.5), 2.5 * torch.eye(4, dtype=torch.float64))


def test_what_cancels_in_the_sum_is_no_direction_of_it():
    c, d = (torch.tensor([[5.0, 0.0], [0.0, s]]) for s in (1.0, -1.0))
    assert torch.allclose(merge(c, d), torch.tensor([[5.0, 0.0], [0.0, 0.0]], dtype=torch.float64))


def test_all_common_is_iso_c():
    deltas = random_matrices(3, 6, 9)
    assert torch.allclose(merge(*deltas, method=iso_cts, common_fraction=1.0), merge(*deltas))


def test_order_does_not_matter_and_rotations_and_scale_carry_over():
    deltas, q = random_matrices(2, 6, 8), torch.linalg.qr(random_matrices(1, 6, 6, seed=1)[0]).Q
    for method in (ri.iso_c, iso_cts):
        assert torch.allclose(merge(*deltas[::-1], method=method), merge(*deltas, method=method))
        assert torch.allclose(merge(*(3 * q @ d for d in deltas), method=method), 3 * q @ merge(*deltas, method=method))


def test_biases_are_averaged_or_left_alone():
    base = {"b": torch.tensor([1.0]), "w": torch.zeros(1, 1)}
    models = [{"b": torch.tensor([3.0]), "w": torch.ones(1, 1)}, {"b": torch.tensor([5.0]), "w": torch.ones(1, 1)}]
    for method in (ri.iso_c, iso_cts):
        assert method(base, models)["b"].item() == 4.0 and method(base, models, others="zero")["b"].item() == 1.0
        assert method(base, models)["w"].item() == 2.0 and method(base, models, exclude=["w"])["w"].item() == 1.0


def test_directions_of_strength_zero_stay_zero():
    assert merge([[4.0, 0.0], [0.0, 0.0]]).flatten().tolist() == pytest.approx([2.0, 0.0, 0.0, 0.0])
    u, s, vh = torch.linalg.svd(torch.tensor([[4.0, 0.0], [0.0, 0.0]]))
    completed = s.mean() * u @ vh  # as in the authors' code
    assert completed.abs().tolist() == [[2.0, 0.0], [0.0, 2.0]]


@pytest.mark.parametrize(("seed", "num_tasks"), [(0, 3), (1, 3), (2, 3), (0, 4), (1, 4), (2, 4)])
def test_equal_strength_beats_the_sum(seed, num_tasks):
    family = toy_zoo.multitask("mlp", seed, num_tasks)

    def best(method, coefficients):
        merged = [method(family.base, family.finetuned, scaling_coef=c) for c in coefficients]
        return max(toy_zoo.mean_accuracy(family.network, model, family.tasks) for model in merged)

    sum_of_tasks = best(ri.task_arithmetic, (0.3, 0.5, 0.7))
    assert best(ri.iso_c, (1.0, 1.5, 2.0)) > sum_of_tasks + 0.05  # measured: 7 to 16 points
    assert best(iso_cts, (1.0, 1.5, 2.0)) > sum_of_tasks - 0.01  # the record's note prints both


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no fine-tuned models"):
        ri.iso_c({"w": torch.zeros(1, 1)}, [])
    with pytest.raises(ValueError, match="others is 'sum'"):
        merge([[1.0]], others="sum")
    with pytest.raises(ValueError, match="common_fraction is 1.5"):
        merge([[1.0]], method=iso_cts, common_fraction=1.5)
