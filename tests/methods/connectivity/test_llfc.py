import math

import pytest
import torch

import reference_impls as ri
from reference_impls.connectivity.llfc import commutativity, weak_additivity
from reference_impls.core import toy_zoo
from reference_impls.core.statistics import activations

A = {"u": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "v": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}
B = {"u": torch.tensor([[0.0, 1.0], [1.0, 0.0]]), "v": torch.tensor([[1.0, 0.0], [0.0, 2.0]])}


def features(model):
    """Two linear layers without a nonlinearity, inputs (1, 0) and (1, 1)."""
    first = torch.tensor([[1.0, 0.0], [1.0, 1.0]]) @ model["u"].T
    return {"first": first, "second": first @ model["v"].T}


def test_distances_by_hand():
    result = ri.llfc(A, B, features)
    # first layer: A (1, 0), (1, 1); B (0, 1), (1, 1): cosines 0 and 1. Linear in its weights: no distance to the
    # interpolation
    assert result.layers == ("first", "second")
    assert result.baseline[0].item() == pytest.approx(0.5) and result.interpolated[0].item() == pytest.approx(
        0, abs=1e-7
    )
    # second layer, weights of the middle diag(1, 3/2): A (1, 0), (1, 1); B (0, 2), (1, 2); half way (1/2, 1), (1, 3/2)
    # network in the middle: (1/2, 1/2) -> (1/2, 3/4) and (1, 1) -> (1, 3/2)
    cosine = (0.25 + 0.75) / math.sqrt((0.25 + 1) * (0.25 + 0.5625))
    assert result.interpolated[1].item() == pytest.approx(1 - (cosine + 1) / 2, abs=1e-6)
    assert result.baseline[1].item() == pytest.approx(1 - (0 + 3 / math.sqrt(10)) / 2, abs=1e-6)


def test_equal_models_and_both_ends_have_no_distance():
    assert ri.llfc(A, A, features).baseline.tolist() == pytest.approx([0, 0], abs=1e-7)
    for t in (0.0, 1.0):
        assert ri.llfc(A, B, features, t=t).interpolated.tolist() == pytest.approx([0, 0], abs=1e-7)


def test_a_factor_on_the_features_changes_nothing():
    scaled = lambda model: {name: 7 * z for name, z in features(model).items()}  # noqa: E731
    assert torch.allclose(ri.llfc(A, B, features).interpolated, ri.llfc(A, B, scaled).interpolated)


def test_the_two_conditions_hold_exactly_where_they_must():
    h = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    assert weak_additivity(h, 3 * h).item() == pytest.approx(0, abs=1e-7)  # equal signs: the ReLU is linear
    assert weak_additivity(h, -h / 2) > 0.1
    w = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    assert commutativity(w, w, h, h + 1) < 1e-10 and commutativity(w, w + 1, h, h) < 1e-10
    assert commutativity(w, -w, h, -h) > 1


@pytest.mark.parametrize("architecture", ["mlp", "residual"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_features_are_linear_between_connected_networks_and_not_between_strangers(architecture, seed):
    # measured, last layer: connected at most 0.0001 of a baseline 0.006 to 0.013; strangers 0.11 to 0.19 of 0.03 to
    # 0.08
    def distances(family):
        inputs = family.task.test[0]
        return ri.llfc(*family.models, lambda model: activations(family.network, model, inputs))

    connected, strangers = (
        distances(toy_zoo.soup(architecture, seed, count=2)),
        distances(toy_zoo.independent(architecture, seed)),
    )
    assert (connected.interpolated < 0.1 * connected.baseline).all()
    assert (
        strangers.interpolated[-1] > strangers.baseline[-1]
        and strangers.interpolated[-1] > 100 * connected.interpolated[-1]
    )


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="t is -0.1"):
        ri.llfc(A, B, features, t=-0.1)
    with pytest.raises(ValueError, match="shape"):
        ri.llfc(A, {**B, "u": torch.zeros(3, 2)}, features)
