import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.permutation import PermutationSpec, apply_permutation
from reference_impls.core.selection import keep_largest
from tests.methods.alignment.helpers import average, zoo_spec

NETWORK = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
SPEC = PermutationSpec({"0.weight": ("h", None), "0.bias": ("h",), "1.weight": (None, "h"), "1.bias": (None,)}, {"h": 1})
BATCHES = [(torch.tensor([[-1.0], [1.0]]), None)]


def model(weight, bias):
    first = {"0.weight": torch.tensor([[weight]]), "0.bias": torch.tensor([bias])}
    return first | {"1.weight": torch.ones(1, 1), "1.bias": torch.zeros(1)}


def line(state_dict):
    return state_dict["0.weight"].item(), state_dict["0.bias"].item()


def test_the_parts_by_hand():
    # references 4x + 1 and 2x + 5: std 3, mean 3; damaged 1.5x + 2: rescaled about its mean 2 by 2, reshifted by 1
    found = ri.rescale_reshift(NETWORK, model(1.5, 2.0), [model(4.0, 1.0), model(2.0, 5.0)], SPEC, BATCHES)
    assert (line(found.rescaled), line(found.reshifted), line(found.both)) == ((3.0, 2.0), (1.5, 3.0), (3.0, 3.0))
    assert found.collapse == {"0": 0.5}


def test_a_model_that_lost_nothing_comes_back():
    family = toy_zoo.independent("mlp", 0)
    trained = family.models[0]
    found = ri.rescale_reshift(family.network, trained, [trained], zoo_spec("mlp"), [family.task.train])
    for part in (found.rescaled, found.reshifted, found.both):
        assert all(torch.allclose(part[key], trained[key], atol=1e-5) for key in trained)
    assert list(found.collapse.values()) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("architecture", ["mlp", "conv"])
def test_both_parts_together_are_repair(architecture):
    family, spec = toy_zoo.independent(architecture, 0), zoo_spec(architecture)
    a, b = family.models
    found = ri.rescale_reshift(family.network, average(a, b), [a, b], spec, [family.task.train])
    repaired = ri.repair(family.network, a, b, spec, [family.task.train])
    assert all(torch.allclose(found.both[key], repaired[key], atol=1e-4) for key in repaired)


def test_after_merging_the_scale_matters_most():
    # eight seeds: reshifting leaves 0.70 (spread 0.16) of the loss of the average, rescaling 0.70 (0.08) of that, both 0.89
    # (0.05) of that
    spec, losses = zoo_spec("conv"), []
    for seed in range(3):
        family = toy_zoo.independent("conv", seed)
        a, b = family.models
        b = apply_permutation(spec, ri.weight_matching(a, b, spec), b)
        merged = average(a, b)
        found = ri.rescale_reshift(family.network, merged, [a, b], spec, [family.task.train])
        models = (found.both, found.rescaled, found.reshifted, merged)
        losses.append([toy_zoo.loss(family.network, m, family.task.test).item() for m in models])
        assert all(0.4 < ratio < 0.95 for ratio in found.collapse.values())
        assert found.collapse["norm3"] < found.collapse["norm1"] - 0.1  # deeper layers have collapsed further
    both, rescaled, reshifted, plain = (sum(column) for column in zip(*losses))
    assert both < 0.98 * rescaled and rescaled < 0.85 * reshifted and reshifted < 0.9 * plain


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_pruned_network_is_brought_back(seed):
    family, spec = toy_zoo.independent("mlp", seed), zoo_spec("mlp")
    dense = family.models[0]
    pruned = {k: keep_largest(v, v.numel() // 10) if v.dim() > 1 and k != "layers.2.weight" else v for k, v in dense.items()}
    found = ri.rescale_reshift(family.network, pruned, [dense], spec, [family.task.train])
    loss = lambda m: toy_zoo.loss(family.network, m, family.task.test).item()  # noqa: E731
    assert loss(found.both) < 0.85 * loss(pruned) and loss(found.rescaled) < 0.85 * loss(pruned)
    assert loss(found.reshifted) > loss(pruned)  # the means alone make it worse
    assert found.collapse["layers.1"] < 0.3


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no models"):
        ri.rescale_reshift(NETWORK, model(1.0, 1.0), [], SPEC, BATCHES)
    with pytest.raises(ValueError, match="no batches"):
        ri.rescale_reshift(NETWORK, model(1.0, 1.0), [model(1.0, 1.0)], SPEC, [])
    with pytest.raises(ValueError, match="shape"):
        ri.rescale_reshift(NETWORK, model(1.0, 1.0), [{**model(1.0, 1.0), "0.bias": torch.zeros(2)}], SPEC, BATCHES)
