import math

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.averaging.weight_scope_alignment import align_scopes, fuse_scopes, scope_divergence
from reference_impls.core import toy_zoo


def weights(*rows):
    return {"w": torch.tensor(rows)}


def test_divergence_by_hand():
    # mean 3, variance 4 against N(1, 4^2): log(4 / 2) + (4 + 4) / 32 - 1/2 = 0.4431
    assert scope_divergence(weights([1.0, 5.0]), {"w": (1.0, 4.0)}).item() == pytest.approx(math.log(2) + 0.25 - 0.5)


def test_fused_scope_by_hand():
    # means 3 and 1, variances 4 and 16: 2 and the root of 10; a bias has no scope
    fused = fuse_scopes([{**weights([1.0, 5.0]), "b": torch.ones(3)}, {**weights([-3.0, 5.0]), "b": torch.ones(3)}])
    assert list(fused) == ["w"] and fused["w"] == pytest.approx((2.0, 10**0.5))


def test_divergence_is_zero_for_the_target_itself_and_positive_elsewhere():
    model = weights([0.3, -1.2, 2.0])
    assert scope_divergence(model, fuse_scopes([model])).item() == pytest.approx(0.0, abs=1e-6)
    for mean, deviation in ((0.5, 1.0), (0.3667, 2.0), (0.3667, 0.7)):
        assert scope_divergence(model, {"w": (mean, deviation)}) > 0


def test_without_steps_it_is_the_average_and_order_of_entries_does_not_matter():
    network, batches = nn.Linear(2, 2, bias=False), [(torch.ones(1, 2), torch.tensor([0]))] * 2
    models = [{"weight": torch.tensor([[1.0, 0.0], [0.0, 2.0]])}, {"weight": torch.tensor([[3.0, 0.0], [0.0, 0.0]])}]
    merged = ri.weight_scope_alignment(models, network, batches, num_steps=0)
    assert merged["weight"].tolist() == [[2.0, 0.0], [0.0, 1.0]]
    assert scope_divergence(weights([1.0, 5.0]), {"w": (0.0, 1.0)}) == scope_divergence(weights([5.0, 1.0]), {"w": (0.0, 1.0)})


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_models_trained_towards_one_scope_average_better(seed):
    network, (inputs, targets) = toy_zoo.build("mlp"), toy_zoo.digits("upright", flat=True).train
    start = toy_zoo.initialise(network, torch.Generator().manual_seed(7 * seed))
    halves = [(inputs[:500], targets[:500]), (inputs[500:], targets[500:])]
    models = [
        toy_zoo.train(network, start, half, num_steps=80, lr=lr, generator=torch.Generator().manual_seed(seed + i))
        for i, (half, lr) in enumerate(zip(halves, (5e-4, 1e-2)))
    ]
    trained = {c: align_scopes(models, network, halves, coef=c, num_steps=60, lr=2e-3) for c in (0.0, 0.1)}
    apart = lambda pair: scope_divergence(pair[0], fuse_scopes(pair[1:])).item()  # noqa: E731
    test_loss = lambda pair: toy_zoo.loss(network, ri.uniform_soup(pair), toy_zoo.digits("upright", flat=True).test)  # noqa: E731
    assert apart(trained[0.1]) < 0.5 * apart(trained[0.0])
    assert test_loss(trained[0.1]) < 0.97 * test_loss(trained[0.0])  # measured: 5 to 8 percent less


def test_bad_input_is_refused():
    network, batch = nn.Linear(2, 2, bias=False), (torch.ones(1, 2), torch.tensor([0]))
    with pytest.raises(ValueError, match="1 models and 2 batches"):
        ri.weight_scope_alignment([{"weight": torch.zeros(2, 2)}], network, [batch, batch])
    with pytest.raises(ValueError, match="coef is -1"):
        ri.weight_scope_alignment([{"weight": torch.zeros(2, 2)}], network, [batch], coef=-1)
    with pytest.raises(ValueError, match="no models"):
        ri.weight_scope_alignment([], network, [])
