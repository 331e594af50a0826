import pytest
import torch

import reference_impls as ri
from reference_impls.alignment.clafusion import align_layers
from reference_impls.core import toy_zoo
from reference_impls.core.permutation import layer_activations, permutation_spec
from tests.methods.alignment.helpers import average, generator

EYE = torch.eye(2)
X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
DEEP = {"0.weight": 2 * EYE, "1.weight": 3 * EYE, "2.weight": torch.tensor([[1.0, 1.0]])}


def test_assignment_of_layers_by_hand():
    # the first is fixed; the second column costs 0.5 at row 1 and 0.2 at row 2
    assert align_layers(torch.tensor([[0.1, 0.9], [0.0, 0.5], [0.7, 0.2]])) == [0, 2]
    # the cheapest row for the second column is 2 (0.05), but 0.1 (row 1) + 0 (row 2) beats 0.05 (row 2) + 0.3 (row 3)
    costs = torch.tensor([[0.0, 9, 9], [9, 0.1, 9], [9, 0.05, 0.0], [9, 9, 0.3]])
    assert align_layers(costs) == [0, 1, 2]
    assert align_layers(torch.rand(4, 4, generator=generator(0))) == [0, 1, 2, 3]  # equal depth leaves no choice


def test_a_missing_layer_is_an_identity_by_hand():
    shallow = {"0.weight": 2 * EYE, "1.weight": torch.tensor([[5.0, 7.0]])}
    merged = ri.clafusion(DEEP, shallow, {"0": 2 * X, "1": 6 * X}, {"0": 2 * X})
    assert merged["0.weight"].tolist() == [[2.0, 0.0], [0.0, 2.0]]
    assert merged["1.weight"].tolist() == [[2.0, 0.0], [0.0, 2.0]] and merged["2.weight"].tolist() == [[3.0, 4.0]]  # (3 + 1) / 2
    # with B's units in the other order the transport undoes it
    swapped = {"0.weight": shallow["0.weight"].flip(0), "1.weight": shallow["1.weight"].flip(1)}
    again = ri.clafusion(DEEP, swapped, {"0": 2 * X, "1": 6 * X}, {"0": 2 * X.flip(1)})
    assert all(torch.equal(again[key], merged[key]) for key in merged)


def trained(sizes, seed):
    task = toy_zoo.digits(flat=True)
    network = toy_zoo.MLP(sizes).eval()
    model = toy_zoo.train(network, None, task.train, num_steps=150, lr=3e-3, generator=generator(seed))
    spec = permutation_spec(network, task.train[0][:1])
    of = layer_activations(spec, network, model, task.train[0][:500])
    return network, model, {layer: value.relu() for layer, value in of.items()}


def test_equal_depth_is_otfusion():
    network, a, of_a = trained((64, 16, 16, 10), 0)
    _, b, of_b = trained((64, 16, 16, 10), 1)
    spec = permutation_spec(network, torch.zeros(1, 64))
    plain = ri.otfusion(a, b, spec, activations_a=of_a, activations_b=of_b)
    merged = ri.clafusion(a, b, of_a, of_b)
    assert all(torch.equal(merged[key], plain[key]) for key in a)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_shallow_network_survives_the_move_and_fusion_beats_the_plain_average(seed):
    network, a, of_a = trained((64, 64, 64, 64, 10), seed)
    _, b, of_b = trained((64, 64, 10), seed + 50)
    task, eye = toy_zoo.digits(flat=True), torch.eye(64)
    accuracy = lambda m: toy_zoo.accuracy(network, m, task.test)  # noqa: E731
    deepened = {f"layers.{i}.{k}": v for i in (1, 2) for k, v in (("weight", eye), ("bias", eye[0] * 0))}
    deepened |= {f"layers.{i}.{k}": b[f"layers.{j}.{k}"] for i, j in ((0, 0), (3, 1)) for k in ("weight", "bias")}
    assert accuracy(ri.clafusion(a, b, of_a, of_b, t=1.0)) == pytest.approx(accuracy(deepened), abs=1e-6)
    assert accuracy(ri.clafusion(a, b, of_a, of_b)) > accuracy(average(a, deepened)) + 0.2


def test_widths_may_differ_too():
    network, a, of_a = trained((64, 24, 24, 10), 0)
    _, b, of_b = trained((64, 48, 10), 1)
    merged = ri.clafusion(a, b, of_a, of_b)
    assert {k: v.shape for k, v in merged.items()} == {k: v.shape for k, v in a.items()}
    assert toy_zoo.accuracy(network, merged, toy_zoo.digits(flat=True).test) > 0.8


def test_bad_input_is_refused():
    shallow = {"0.weight": 2 * EYE, "1.weight": torch.tensor([[5.0, 7.0]])}
    with pytest.raises(ValueError, match="model A has 1 hidden layers and B 2; give the deeper model first"):
        ri.clafusion(shallow, DEEP, {"0": X}, {"0": X, "1": X})
    with pytest.raises(ValueError, match="all others need activations"):
        ri.clafusion(DEEP, shallow, {"0": X}, {"0": X})
    with pytest.raises(ValueError, match="t is 2"):
        ri.clafusion(DEEP, shallow, {"0": X, "1": X}, {"0": X}, t=2)
