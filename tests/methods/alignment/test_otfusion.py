import pytest
import torch

import reference_impls as ri
from reference_impls.alignment.otfusion import transport_maps
from reference_impls.core import toy_zoo
from reference_impls.core.permutation import PermutationSpec, apply_permutation, permutation_spec, random_permutations
from reference_impls.core.permutation import unit_activations
from tests.methods.alignment.helpers import count_recovered, generator, midpoint_barrier, zoo_spec


def spec_of(units):
    return PermutationSpec({"first": ("hidden", None), "second": (None, "hidden")}, {"hidden": units})


def model(first, second):
    return {"first": torch.tensor(first)[:, None], "second": torch.tensor(second)[None]}


def test_two_units_exchanged_by_hand():
    # distances of the incoming weights: [[2, 0], [1, 1]]: unit 1 takes B's second (cost 0), unit 2 its first (1); 1/2 each
    fused = ri.otfusion(model([1.0, 2.0], [5.0, 6.0]), model([3.0, 1.0], [8.0, 4.0]), spec_of(2))
    assert fused["first"].flatten().tolist() == [1.0, 2.5] and fused["second"].tolist() == [[4.5, 7.0]]


def test_three_units_onto_two_by_hand():
    # B: 2, 1, 1, a third of the mass each, onto halves: unit 1 takes 1/2 from the 1s, unit 2 the last 1/6 of them and
    # the 1/3 of the 2: (1/6 * 1 + 1/3 * 2) / (1/2) = 5/3; columns alike: 30 and 30 have mean 30, (1/6 * 30 + 1/3 * 60)
    # * 2 = 50
    fused = ri.otfusion(model([1.0, 2.0], [0.0, 0.0]), model([2.0, 1.0, 1.0], [60.0, 30.0, 30.0]), spec_of(2), t=1.0)
    assert fused["first"].flatten().tolist() == pytest.approx([1.0, 5 / 3])
    assert fused["second"].flatten().tolist() == pytest.approx([30.0, 50.0])


def test_much_entropy_moves_every_unit_onto_the_mean():
    fused = ri.otfusion(model([1.0, 2.0], [0.0, 0.0]), model([3.0, 5.0], [1.0, 3.0]), spec_of(2), t=1.0, reg=1e4)
    assert fused["first"].flatten().tolist() == pytest.approx([4.0, 4.0], abs=1e-3)
    assert fused["second"].flatten().tolist() == pytest.approx([2.0, 2.0], abs=1e-3)


def test_permuting_model_b_changes_nothing():
    a, b = toy_zoo.independent("conv", 0).models
    spec = zoo_spec("conv")
    fused = ri.otfusion(a, b, spec)
    again = ri.otfusion(a, apply_permutation(spec, random_permutations(spec, generator(3)), b), spec)
    assert all(torch.allclose(fused[key], again[key], atol=1e-5) for key in fused)


def test_output_units_are_matched_only_if_the_spec_says_so():
    # the published code also transports the last layer; classes have an order, so here that takes a spec that names them
    a, b = {"w": torch.tensor([[1.0], [2.0]])}, {"w": torch.tensor([[2.0], [1.0]])}
    assert ri.otfusion(a, b, PermutationSpec({"w": (None, None)}, {}))["w"].flatten().tolist() == [1.5, 1.5]
    assert ri.otfusion(a, b, PermutationSpec({"w": ("classes", None)}, {"classes": 2}))["w"].flatten().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("architecture", ["mlp", "conv", "residual", "vit"])
def test_a_known_permutation_is_found_100_of_100(architecture):
    spec, trained = zoo_spec(architecture), toy_zoo.independent(architecture, 0).models[0]

    def match(a, b, seed):
        maps = transport_maps(a, b, spec)
        assert all(((m == 0) | ((m - 1).abs() < 1e-6)).all() for m in maps.values())  # equal widths: hard maps
        return {name: m.argmax(dim=1) for name, m in maps.items()}

    assert count_recovered(match, trained, spec) == 100


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_lowers_the_barrier_by_weights_and_by_activations(seed):
    for architecture, left in (("mlp", 0.1), ("conv", 0.8)):
        family, spec = toy_zoo.independent(architecture, seed), zoo_spec(architecture)
        a, b = family.models
        naive = midpoint_barrier(family.network, a, b, family.task.test)
        of_a, of_b = (unit_activations(spec, family.network, m, family.task.train[0][:200], written=True) for m in (a, b))
        for options in ({}, {"activations_a": of_a, "activations_b": of_b}):
            fused = ri.otfusion(a, b, spec, **options)
            assert midpoint_barrier(family.network, a, b, family.task.test, fused) < left * naive


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_carries_a_wider_network_over_to_fewer_units(seed):
    wide = toy_zoo.independent("mlp", seed, count=1, width=64).models[0]
    family = toy_zoo.independent("mlp", seed + 10, count=1, width=32)
    narrow, spec = family.models[0], permutation_spec(family.network, torch.zeros(1, 64))
    accuracy = lambda m: toy_zoo.accuracy(family.network, m, family.task.test)  # noqa: E731
    cut = {key: wide[key][tuple(slice(n) for n in narrow[key].shape)] for key in narrow}  # its first 32 units
    halfway = {key: (narrow[key] + cut[key]) / 2 for key in narrow}
    assert accuracy(ri.otfusion(narrow, wide, spec, t=1.0)) > accuracy(cut) + 0.05
    assert accuracy(ri.otfusion(narrow, wide, spec)) > max(0.9, accuracy(halfway))


def test_bad_input_is_refused():
    a = model([1.0, 2.0], [5.0, 6.0])
    with pytest.raises(ValueError, match="t is 2"):
        ri.otfusion(a, a, spec_of(2), t=2)
    with pytest.raises(ValueError, match="reg is -1"):
        ri.otfusion(a, a, spec_of(2), reg=-1)
    with pytest.raises(ValueError, match="axis 0 holds no hidden units"):
        ri.otfusion(a, {**a, "second": torch.zeros(3, 2)}, spec_of(2))
    with pytest.raises(ValueError, match="has 3 units on axis 1, elsewhere 'hidden' has 2"):
        ri.otfusion(a, {**a, "second": torch.zeros(1, 3)}, spec_of(2))
    with pytest.raises(ValueError, match="one model only"):
        ri.otfusion(a, a, spec_of(2), activations_a={"hidden": torch.zeros(4, 2)})
