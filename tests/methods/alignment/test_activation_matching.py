import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.permutation import PermutationSpec, apply_permutation, permutation_spec, unit_activations
from tests.methods.alignment.helpers import count_recovered, midpoint_barrier, zoo_spec

ONE = PermutationSpec({"w": ("h",)}, {"h": 2})


def match(z_a, z_b, **options):
    return ri.activation_matching({"h": torch.tensor(z_a)}, {"h": torch.tensor(z_b)}, ONE, **options)["h"].tolist()


def test_inner_products_by_hand():
    # Z_A^T Z_B = [[0, 1], [6, 2]]: 1 + 6 > 0 + 2
    assert match([[1.0, 0.0], [0.0, 2.0]], [[0.0, 1.0], [3.0, 1.0]]) == [1, 0]


def test_correlation_ignores_the_scale_and_the_mean_of_a_unit():
    # unit 1 of A is (0, 1, 2); the units of B are 5 + (0, 1, 2) / 10 and (1, 0, 3): inner products [[15.6, 6], [10.1,
    # 3]] (A's second: (1, 0, 1)) keep the order for 15.6 + 3 > 6 + 10.1; scaled by 100, B's second unit still
    # correlates less with A's first
    z_a, z_b = [[0.0, 1.0], [1.0, 0.0], [2.0, 1.0]], [[5.0, 1.0], [5.1, 0.0], [5.2, 3.0]]
    assert match(z_a, z_b) == match(z_a, z_b, similarity="correlation") == [0, 1]
    scaled = [[x, 100 * y] for x, y in z_b]  # inner products [[15.6, 600], [10.2, 400]]: 600 + 10.2 > 15.6 + 400
    assert match(z_a, scaled) == [1, 0] and match(z_a, scaled, similarity="correlation") == [0, 1]


def matcher(architecture, **options):
    network, spec = toy_zoo.build(architecture), zoo_spec(architecture)
    inputs = toy_zoo.digits(flat=architecture in ("mlp", "residual")).train[0][:200]

    def match(a, b, seed=0):
        of_a, of_b = (unit_activations(spec, network, model, inputs, written=True) for model in (a, b))
        return ri.activation_matching(of_a, of_b, spec, **options)

    return match


@pytest.mark.parametrize("similarity", ["inner product", "correlation"])
@pytest.mark.parametrize("architecture", ["mlp", "conv", "residual", "vit"])
def test_a_known_permutation_is_found_100_of_100(architecture, similarity):
    trained = toy_zoo.independent(architecture, 0).models[0]
    times = 100 if similarity == "inner product" else 20
    assert count_recovered(matcher(architecture, similarity=similarity), trained, zoo_spec(architecture), times) == times


def test_units_that_never_fire_cannot_be_told_apart_after_the_nonlinearity():
    network = toy_zoo.MLP((2, 4, 2))
    model = toy_zoo.initialise(network, torch.Generator().manual_seed(0))
    model["layers.0.bias"][:2] = -100.0  # two dead units
    spec, inputs = permutation_spec(network, torch.zeros(1, 2)), torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    swapped = apply_permutation(spec, {"layers.0": torch.tensor([1, 0, 3, 2])}, model)
    at = lambda m, written: unit_activations(spec, network, m, inputs, written=written)  # noqa: E731
    before = ri.activation_matching(at(model, True), at(swapped, True), spec)["layers.0"].tolist()
    after = ri.activation_matching(at(model, False), at(swapped, False), spec)["layers.0"].tolist()
    assert before == [1, 0, 3, 2] and sorted(after[:2]) == [0, 1] and after[2:] == [3, 2]


def test_it_lowers_the_barrier_and_correlation_lowers_it_more_under_batch_normalisation():
    # eight seeds: at most 0.06 is left of the barrier of perceptrons; of that of convolutional networks inner products
    # leave 0.49 (spread 0.10), and correlations 0.68 (0.15) of that
    def barrier(architecture, **options):
        total = 0.0
        for seed in range(3):
            family, spec = toy_zoo.independent(architecture, seed), zoo_spec(architecture)
            a, b = family.models
            aligned = apply_permutation(spec, matcher(architecture, **options)(a, b), b) if options else b
            total += midpoint_barrier(family.network, a, aligned, family.task.test)
        return total

    assert barrier("mlp", similarity="inner product") < 0.1 * barrier("mlp")
    inner_product = barrier("conv", similarity="inner product")
    assert barrier("conv", similarity="correlation") < 0.9 * inner_product and inner_product < 0.7 * barrier("conv")


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="received None and None"):
        ri.activation_matching({}, {}, ONE)
    with pytest.raises(ValueError, match=r"received \(2, 2\) and \(1, 2\)"):
        match([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0]])
    with pytest.raises(ValueError, match="similarity is 'cosine'"):
        match([[1.0, 2.0]], [[1.0, 2.0]], similarity="cosine")
