import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.task_vectors.knots import shared_basis


def merge(*matrices, **options):
    models = [{"w": torch.as_tensor(m, dtype=torch.float64)} for m in matrices]
    return ri.knots({"w": torch.zeros_like(models[0]["w"])}, models, **{"scaling_coef": 1.0, "density": 1.0, **options})["w"]


def random_matrices(count, *shape):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(count)]


def test_a_conflict_along_one_output_direction_is_one_conflict_by_hand():
    # both drive (0.6, 0.8): with 5 and -10 along the first input, 10 and 5 along the second. In the shared basis minus wins at the
    # first input, -10 alone, and the second is the mean 7.5; times (0.6, 0.8)
    a, b = [[3.0, 6.0], [4.0, 8.0]], [[-6.0, 3.0], [-8.0, 4.0]]
    assert torch.allclose(merge(a, b), torch.tensor([[-6.0, 4.5], [-8.0, 6.0]], dtype=torch.float64))


def test_the_basis_gives_the_changes_back_and_is_orthonormal():
    deltas = random_matrices(3, 5, 4)
    u, s, parts = shared_basis(deltas)
    for delta, part in zip(deltas, parts):
        assert torch.allclose(u * s @ part, delta)
    assert torch.allclose(u.T @ u, torch.eye(5, dtype=torch.float64))
    assert torch.allclose(sum(part @ part.T for part in parts), torch.eye(5, dtype=torch.float64))


def test_for_a_linear_rule_the_basis_changes_nothing():
    deltas = random_matrices(3, 5, 4)
    assert torch.allclose(merge(*deltas, merge="mean"), sum(deltas) / 3)
    assert not torch.allclose(merge(*deltas), ri.ties_merging({"w": 0 * deltas[0]}, [{"w": d} for d in deltas], density=1.0)["w"], atol=0.1)


def test_one_model_comes_back_and_order_does_not_matter():
    deltas = random_matrices(3, 5, 4)
    assert torch.allclose(merge(deltas[0]), deltas[0])
    assert torch.allclose(merge(*deltas[::-1], density=0.5), merge(*deltas, density=0.5))


def test_it_does_not_depend_on_the_basis_of_the_outputs_as_ties_does():
    deltas = random_matrices(2, 5, 4)
    q = torch.linalg.qr(random_matrices(1, 5, 5)[0]).Q
    ties = lambda *d: ri.ties_merging({"w": 0 * d[0]}, [{"w": x} for x in d], density=1.0)["w"]  # noqa: E731
    turned = [q @ delta for delta in deltas]
    assert torch.allclose(merge(*turned), q @ merge(*deltas)) and not torch.allclose(ties(*turned), q @ ties(*deltas), atol=0.1)


def test_weak_directions_are_left_out():
    delta = torch.diag(torch.tensor([1.0, 5e-5], dtype=torch.float64))
    assert merge(delta).diagonal().tolist() == pytest.approx([1.0, 5e-5])
    assert merge(delta, eps=1e-4).diagonal().tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sparse_ties_works_better_in_the_shared_basis_of_adapters(seed):
    family = toy_zoo.adapters("mlp", seed)

    def best(method, coefficients):
        merged = [method(family.base, family.models, density=0.1, scaling_coef=c) for c in coefficients]
        return max(toy_zoo.mean_accuracy(family.network, model, family.tasks) for model in merged)

    assert best(ri.knots, (0.4, 0.5, 0.6)) > best(ri.ties_merging, (0.4, 0.6, 0.8)) + 0.02  # measured: 4 to 9 points


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no fine-tuned models"):
        ri.knots({"w": torch.zeros(1, 1)}, [])
    with pytest.raises(ValueError, match="merge is 'sum'"):
        merge([[1.0]], merge="sum")
    with pytest.raises(ValueError, match="density is 0"):
        merge([[1.0]], density=0)
