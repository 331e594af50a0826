import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def fuse(a, b, **options):
    wrap = lambda v: {"w": torch.tensor(v)}  # noqa: E731
    return ri.arcee_fusion(wrap(a), wrap(b), **options)["w"].tolist()


def test_outliers_are_taken_and_the_rest_is_kept_by_hand():
    # one row: importance is proportional to the changes 1, 2, 3, 4, 5, 6, 7, 8, 30; quartiles 3, 5, 7; threshold 5 + 1.5 * 4 = 11
    changes = [float(v) for v in (1, 2, 3, 4, 5, 6, 7, 8, 30)]
    assert fuse([0.0] * 9, changes) == [0.0] * 8 + [30.0]
    assert fuse([0.0] * 9, changes, whiskers=0.5) == [0.0] * 6 + [7.0, 8.0, 30.0]  # threshold 7


def test_rows_count_by_the_divergence_of_their_distributions():
    # the first row is shifted by 50 everywhere, which softmax does not see; in the second the importance is k times the change
    # quartiles of 0 (six times) and k (1, 2, 3, 4, 5, 20): 0, 0 and 3 k; threshold 4.5 k
    shift, changes = [50.0] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 20.0]
    assert fuse([[0.0] * 6] * 2, [shift, changes]) == [[0.0] * 6, [0.0, 0.0, 0.0, 0.0, 5.0, 20.0]]


def test_equal_models_come_back():
    assert fuse([1.0, -2.0, 0.5], [1.0, -2.0, 0.5]) == [1.0, -2.0, 0.5]


def test_the_order_of_rows_does_not_matter():
    a, b = torch.randn(2, 20, 10, generator=torch.Generator().manual_seed(0))
    turned = ri.arcee_fusion({"w": a.flip(0)}, {"w": b.flip(0)})["w"]
    assert torch.equal(turned.flip(0), ri.arcee_fusion({"w": a}, {"w": b})["w"])


def test_small_changes_have_a_positive_divergence():
    a, b = torch.zeros(3), torch.tensor([9e-4, 8e-4, 3e-4])
    assert fuse(a.tolist(), b.tolist()) == [0.0, 0.0, 0.0]
    p, q = b.softmax(0) + 1e-8, a.softmax(0) + 1e-8
    single = (p * (p / q).log()).sum()  # mergekit's, in single precision
    exact = (b.double().softmax(0) * (3 * b.double().softmax(0)).log()).sum()
    assert single < 0 < exact
    importance = b * single
    q1, median, q3 = importance.sort().values[[0, 1, 1]]
    assert (importance >= median + 1.5 * (q3 - q1)).tolist() == [False, False, True]


def test_where_most_entries_are_unchanged_everything_is_taken():
    assert fuse([0.0] * 10, [0.0] * 8 + [1.0, 5.0]) == [0.0] * 8 + [1.0, 5.0]
    assert fuse([0.0] * 4, [3.0, 4.0, 1.0, 5.0]) == [0.0] * 4  # quartiles 1, 3 and 4: threshold 3 + 1.5 * 3


def test_large_tensors_are_ranked_whole():
    a = torch.zeros(1_000_001)
    b = torch.randn(1_000_001, generator=torch.Generator().manual_seed(0))
    once, again = (ri.arcee_fusion({"w": a}, {"w": b})["w"] for _ in range(2))
    assert torch.equal(once, again)
    share = (once != 0).double().mean().item()
    assert share == pytest.approx(0.0546, abs=0.002)  # |normal| > 0.674 + 1.5 * (1.150 - 0.319)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_tenth_of_the_entries_carries_most_of_a_task_as_the_largest_changes_do(seed):
    family = toy_zoo.multitask("mlp", seed, num_tasks=4)
    base, model, task = family.base, family.finetuned[1], family.tasks[1]
    accuracy = lambda m: toy_zoo.accuracy(family.network, m, task.test)  # noqa: E731
    fused = ri.arcee_fusion(base, model)
    share = sum((fused[k] != base[k]).sum().item() for k in base) / sum(t.numel() for t in base.values())
    assert 0.09 < share < 0.15
    assert accuracy(fused) > accuracy(base) + 0.5  # measured: from 0.14-0.24 to 0.77-0.81
    largest = ri.ties_merging(base, [model], density=share)
    assert abs(accuracy(fused) - accuracy(largest)) < 0.03


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="whiskers is -1"):
        fuse([1.0], [2.0], whiskers=-1)
    with pytest.raises(ValueError, match="shape"):
        fuse([1.0], [2.0, 3.0])
