import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def merge(*matrices, **options):
    models = [{"w": torch.as_tensor(m, dtype=torch.float64)} for m in matrices]
    return ri.tsv_merging({"w": torch.zeros_like(models[0]["w"])}, models, **options)["w"]


def rank_one(left, strength, right):
    return strength * torch.outer(torch.tensor(left, dtype=torch.float64), torch.tensor(right, dtype=torch.float64))


def test_overlapping_directions_are_made_orthogonal_by_hand():
    # left vectors (1, 0) and (0.6, 0.8): their sum and difference have lengths 1.7889 and 0.8944, so that the nearest orthonormal pair
    # is (0.9487, -0.3162), (0.3162, 0.9487); the right vectors are orthogonal already. Strengths 2 and 1.
    merged = merge(rank_one([1.0, 0.0], 2.0, [1.0, 0.0]), rank_one([0.6, 0.8], 1.0, [0.0, 1.0]))
    assert torch.allclose(merged, torch.tensor([[1.8973666, 0.3162278], [-0.6324555, 0.9486833]], dtype=torch.float64))


def test_every_task_keeps_its_share_of_the_rank():
    assert torch.allclose(merge(torch.diag(torch.tensor([3.0, 2.0]))), torch.diag(torch.tensor([3.0, 2.0])).double())  # one task: all
    # two tasks, rank two: one vector each, the weaker ones are dropped
    a, b = torch.diag(torch.tensor([3.0, 0.5])), torch.diag(torch.tensor([0.25, 4.0]))
    assert torch.allclose(merge(a, b), torch.diag(torch.tensor([3.0, 4.0])).double())
    assert not torch.allclose(merge(a, b, lossless=True), torch.diag(torch.tensor([3.0, 4.0])).double(), atol=0.1)


def test_singular_vectors_of_the_result_are_the_orthogonal_ones():
    g = torch.Generator().manual_seed(0)
    deltas = [torch.randn(12, 9, generator=g, dtype=torch.float64) for _ in range(3)]
    kept = torch.cat([torch.linalg.svdvals(d)[:3] for d in deltas])
    assert torch.allclose(torch.linalg.svdvals(merge(*deltas)), kept.sort(descending=True).values)


def test_order_does_not_matter_and_rotations_and_scale_carry_over():
    g = torch.Generator().manual_seed(1)
    deltas = [torch.randn(6, 8, generator=g, dtype=torch.float64) for _ in range(2)]
    q = torch.linalg.qr(torch.randn(6, 6, generator=g, dtype=torch.float64)).Q
    assert torch.allclose(merge(*deltas[::-1]), merge(*deltas))
    assert torch.allclose(merge(*(3 * q @ d for d in deltas), scaling_coef=0.5), 1.5 * q @ merge(*deltas))


def test_biases_are_averaged_or_left_alone():
    base = {"b": torch.tensor([1.0]), "w": torch.zeros(1, 1)}
    models = [{"b": torch.tensor([3.0]), "w": torch.ones(1, 1)}, {"b": torch.tensor([5.0]), "w": torch.ones(1, 1)}]
    assert ri.tsv_merging(base, models)["b"].item() == 4.0 and ri.tsv_merging(base, models, others="zero")["b"].item() == 1.0
    rows = [{"p": torch.eye(2)[:1]}, {"p": torch.eye(2)[1:]}]
    assert ri.tsv_merging({"p": torch.zeros(1, 2)}, rows, exclude=["p"])["p"].tolist() == [[0.5, 0.5]]


def test_every_task_keeps_at_least_one_direction():
    row = [[1.0, 0.0]]
    assert int(min(1, 2) * (1 / 3)) == 0  # what the authors' code keeps
    assert merge(row, row, row).tolist()[0] == pytest.approx([1.0, 0.0])


def test_equal_tasks_count_once():
    delta = rank_one([1.0, 0.0], 2.0, [0.0, 1.0])
    assert torch.allclose(merge(delta, delta), delta)
    u = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)  # the two left vectors
    p, _, rh = torch.linalg.svd(u)
    completed = p @ rh  # with an arbitrary second direction, as in the authors' code
    assert not torch.allclose(completed, u / 2**0.5, atol=0.1)


@pytest.mark.parametrize(("seed", "num_tasks"), [(0, 3), (1, 3), (2, 3), (0, 4), (1, 4), (2, 4)])
def test_it_beats_task_arithmetic_by_far(seed, num_tasks):
    family = toy_zoo.multitask("mlp", seed, num_tasks)
    accuracy = lambda model: toy_zoo.mean_accuracy(family.network, model, family.tasks)  # noqa: E731
    arithmetic = max(accuracy(ri.task_arithmetic(family.base, family.finetuned, scaling_coef=c)) for c in (0.3, 0.5))
    assert accuracy(ri.tsv_merging(family.base, family.finetuned)) > arithmetic + 0.08  # measured: 9 to 21 points


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no fine-tuned models"):
        ri.tsv_merging({"w": torch.zeros(1, 1)}, [])
    with pytest.raises(ValueError, match="others is 'sum'"):
        merge([[1.0]], others="sum")
    with pytest.raises(ValueError, match="shape"):
        ri.tsv_merging({"w": torch.zeros(1, 1)}, [{"w": torch.zeros(2, 1)}])
