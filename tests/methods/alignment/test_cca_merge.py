import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.permutation import PermutationSpec, apply_permutation, permutation_spec, random_permutations
from reference_impls.core.permutation import unit_activations
from tests.methods.alignment.helpers import average, generator, midpoint_barrier, zoo_spec

SPEC = PermutationSpec({"first": ("h", None), "head": (None, "h")}, {"h": 2})


def model(first, head):
    return {"first": torch.tensor(first), "head": torch.tensor(head)}


def test_scale_of_a_single_unit_by_hand():
    # variances 4 and 1, covariance 2: T = 2 * 1 / 1 = 2; with a ridge of half of each, sqrt(6) / sqrt(1.5) = 2 still
    one = PermutationSpec(SPEC.axes, {"h": 1})
    x = torch.tensor([[-1.0], [1.0]])
    for eps in (1e-6, 0.5):
        merged = ri.cca_merge(model([[3.0]], [[5.0]]), model([[1.0]], [[4.0]]), {"h": 2 * x}, {"h": x}, one, eps=eps)
        assert merged["first"].item() == pytest.approx((3 + 2 * 1) / 2)
        assert merged["head"].item() == pytest.approx((5 + 4 / 2) / 2)


def test_a_linear_network_is_carried_over_exactly():
    # B computes with mixtures M of A's units: T must be the inverse of M, which undoes it in both layers
    mixing = torch.tensor([[1.0, 0.5], [-1.0, 2.0]])
    a = model(torch.randn(2, 3, generator=generator(0)).tolist(), torch.randn(1, 2, generator=generator(1)).tolist())
    b = {"first": mixing @ a["first"], "head": a["head"] @ mixing.inverse()}
    x = torch.randn(200, 3, generator=generator(2))
    merged = ri.cca_merge(a, b, {"h": x @ a["first"].T}, {"h": x @ b["first"].T}, SPEC, t=1.0, eps=1e-9)
    assert all(torch.allclose(merged[key], a[key], atol=1e-3) for key in a)
    permuted = apply_permutation(SPEC, ri.activation_matching({"h": x @ a["first"].T}, {"h": x @ b["first"].T}, SPEC), b)
    assert not torch.allclose(permuted["first"], a["first"], atol=0.3)  # no permutation does


def test_a_permuted_copy_comes_back_and_t_0_is_model_a():
    family, spec = toy_zoo.independent("mlp", 0), zoo_spec("mlp")
    a, b = family.models
    copy = apply_permutation(spec, random_permutations(spec, generator(0)), a)
    of_a, of_copy = (unit_activations(spec, family.network, m, family.task.train[0][:500], written=True) for m in (a, copy))
    merged = ri.cca_merge(a, copy, of_a, of_copy, spec)
    # measured on four networks: at most 0.037 of a tensor's length is lost to the ridge; without the maps about 0.7
    assert all((merged[key] - a[key]).norm() < 0.06 * a[key].norm() for key in a)
    assert any((0.5 * (copy[key] + a[key]) - a[key]).norm() > 0.5 * a[key].norm() for key in a)
    assert all(torch.equal(ri.cca_merge(a, b, of_a, of_a, spec, t=0.0)[key], a[key]) for key in a)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_lowers_the_barrier_below_matching_the_same_activations(seed):
    for width in (32, None):
        family = toy_zoo.independent("mlp", seed, width=width)
        a, b = family.models
        inputs = family.task.train[0]
        spec = permutation_spec(family.network, inputs[:2])
        activations = [unit_activations(spec, family.network, m, inputs[:500]) for m in (a, b)]
        matched = apply_permutation(spec, ri.activation_matching(*activations, spec, similarity="correlation"), b)
        barrier = lambda m: midpoint_barrier(family.network, a, b, family.task.test, m)  # noqa: B023, E731
        merged = barrier(ri.cca_merge(a, b, *activations, spec))
        assert merged < barrier(average(a, matched)) and merged < 0.2 * barrier(None)


def test_bad_input_is_refused():
    a, x = model([[1.0], [2.0]], [[3.0, 4.0]]), {"h": torch.randn(5, 2, generator=generator(0))}
    with pytest.raises(ValueError, match="eps 0"):
        ri.cca_merge(a, a, x, x, SPEC, eps=0)
    with pytest.raises(ValueError, match=r"received \(5, 2\) and \(4, 2\)"):
        ri.cca_merge(a, a, x, {"h": torch.zeros(4, 2)}, SPEC)
    with pytest.raises(ValueError, match="attention heads"):
        ri.cca_merge(a, a, x, x, PermutationSpec(SPEC.axes, SPEC.sizes, blocks={("h",): 2}))
