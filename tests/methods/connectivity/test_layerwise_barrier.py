import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo

A = {"u": torch.tensor([2.0]), "v": torch.tensor([0.5]), "w": torch.tensor([1.0])}
B = {"u": torch.tensor([0.5]), "v": torch.tensor([2.0]), "w": torch.tensor([1.0])}


def loss(model):
    return (model["u"] * model["v"] * model["w"] - 1).square().sum()


def test_excess_errors_by_hand():
    result = ri.layerwise_barrier(A, B, loss)
    # average of u: 5/4. In A 5/4 * 1/2 = 5/8, (3/8)^2; in B 5/4 * 2 = 5/2, (3/2)^2. All: 25/16, (9/16)^2
    assert result.single.tolist() == [[0.140625, 2.25], [2.25, 0.140625], [0, 0]]
    assert result.from_input[:, 0].tolist() == [0.140625, 0.31640625, 0.31640625]
    assert result.from_output[:, 0].tolist() == [0.31640625, 2.25, 0]
    assert result.full == 0.31640625


def test_excess_is_over_the_mean_error_of_the_two_models():
    # losses of the ends 0 and 8, mean 4; at the average 2: -2
    result = ri.layerwise_barrier(
        {"u": torch.tensor([0.0])}, {"u": torch.tensor([4.0])}, lambda m: m["u"].square().sum() / 2
    )
    assert result.full == -2 and result.single.tolist() == [[-2, -2]]


def test_all_layers_together_are_the_full_average_from_both_sides():
    family = toy_zoo.independent("mlp", 0)
    result = ri.layerwise_barrier(*family.models, lambda m: toy_zoo.loss(family.network, m, family.task.val))
    assert result.layers == ("layers.0", "layers.1", "layers.2")
    for row in (result.from_input[-1], result.from_output[0]):
        assert row.tolist() == pytest.approx([result.full.item()] * 2, abs=1e-6)


def test_swapping_the_models_swaps_the_columns():
    one, other = ri.layerwise_barrier(A, B, loss, t=0.25), ri.layerwise_barrier(B, A, loss, t=0.75)
    assert torch.allclose(one.single, other.single.flip(1)) and torch.allclose(one.full, other.full)


@pytest.mark.parametrize("architecture", ["mlp", "residual"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_single_layers_have_a_small_barrier_where_the_whole_network_has_a_large_one(architecture, seed):
    # measured: whole 0.42 to 0.79; worst single layer 0.21 to 0.30; the layers of the residual blocks at most 0.03
    family = toy_zoo.independent(architecture, seed)
    result = ri.layerwise_barrier(*family.models, lambda m: toy_zoo.loss(family.network, m, family.task.test))
    single = result.single.mean(dim=1)
    assert single.max() < 0.65 * result.full
    if architecture == "residual":
        assert single[1:-1].max() < 0.1 * result.full


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="t is 1.5"):
        ri.layerwise_barrier(A, B, loss, t=1.5)
    with pytest.raises(ValueError, match="which the models lack"):
        ri.layerwise_barrier(A, B, loss, layers={"x": ["z"]})
    with pytest.raises(ValueError, match="shape"):
        ri.layerwise_barrier(A, {**B, "u": torch.zeros(2)}, loss)
