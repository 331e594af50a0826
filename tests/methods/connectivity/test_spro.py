import math

import pytest
import torch

import reference_impls as ri
from reference_impls.connectivity.spro import Complex, _log_volume, espro
from reference_impls.core import toy_zoo


def point(*values):
    return {"w": torch.tensor(values)}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_volumes_by_hand():
    # triangle of sides 3 and 4 at a right angle: 6; the second mode makes a triangle of base 4 and height 3 - 1 = 2,
    # area 4; together 10
    connectors = [point(3.0, 0.0, 0.0), point(3.0, 4.0, 0.0)]
    assert _log_volume([point(0.0, 0.0, 0.0)], connectors).exp().item() == pytest.approx(6)
    assert _log_volume([point(0.0, 0.0, 0.0), point(1.0, 0.0, 0.0)], connectors).exp().item() == pytest.approx(10)
    # tetrahedron with three edges of 1 at right angles: 1 / 6
    corner = [point(1.0, 0.0, 0.0), point(0.0, 1.0, 0.0), point(0.0, 0.0, 1.0)]
    assert _log_volume([point(0.0, 0.0, 0.0)], corner).exp().item() == pytest.approx(1 / 6)


def test_vertex_of_a_segment_balances_loss_and_volume_by_hand():
    # mode 0, vertex v, loss w^2: E (t v)^2 = v^2 / 3, volume |v|: 2 v / 3 = lambda / v, so v = sqrt(3 lambda / 2) =
    # 0.866 for 1/2.
    # The authors' code adds up its five samples without dividing: v = sqrt(3 lambda / 10) = 0.387, which we find at a
    # fifth of lambda.
    square = lambda m: m["w"].square().sum()  # noqa: E731
    options = dict(num_connectors=1, num_steps=600, lr=0.1)
    v = espro({"w": torch.tensor([1e-9])}, square, volume_coef=0.5, **options).connectors[0]["w"]
    assert abs(v.item()) == pytest.approx(math.sqrt(0.75), rel=0.08)
    small = espro({"w": torch.tensor([1e-9])}, square, volume_coef=0.1, **options).connectors[0]["w"]
    assert abs(small.item()) == pytest.approx(math.sqrt(0.15), rel=0.08)


def test_samples_are_uniform_in_the_simplex_of_a_mode():
    simplex = Complex((point(0.0, 0.0), point(10.0, 10.0)), (point(1.0, 0.0), point(0.0, 1.0)), torch.zeros(2))
    random = generator()
    points = torch.stack([simplex.sample(random, mode=0)["w"] for _ in range(2000)])
    assert (points >= 0).all() and (points.sum(dim=1) <= 1.0001).all()
    assert points.mean(dim=0).tolist() == pytest.approx([1 / 3, 1 / 3], abs=0.02)
    assert (points.sum(dim=1) < 0.5).float().mean().item() == pytest.approx(0.25, abs=0.03)
    both = torch.stack([simplex.sample(random)["w"].sum() for _ in range(400)])
    assert (both > 1.01).float().mean().item() == pytest.approx(0.5, abs=0.08)


def test_modes_stay_and_a_flat_loss_moves_no_vertex():
    modes = [point(1.0, 0.0), point(0.0, 1.0)]
    result = ri.spro(modes, lambda m: m["w"].sum() * 0, num_connectors=2, volume_coef=0.0, num_steps=5)
    assert all(torch.equal(a["w"], b["w"]) for a, b in zip(result.modes, modes))
    for connector in result.connectors:  # the mean of all vertices so far, noise of a hundredth
        assert torch.allclose(connector["w"], torch.tensor([0.5, 0.5]), atol=0.05)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_volume_between_independent_networks_has_a_low_loss(seed):
    # measured: 0.15 to 0.16 on average and at most 0.23 inside; the convex hull of the networks 0.65 to 0.86 and 1.26
    # to 1.62
    family = toy_zoo.independent("mlp", seed, count=3, width=32)
    loss_fn = lambda model: toy_zoo.loss(family.network, model, family.task.train)  # noqa: E731
    joined = ri.spro(family.models, loss_fn, num_connectors=2, num_steps=60, lr=0.1)
    losses = torch.tensor([loss_fn(joined.sample(generator(i))) for i in range(30)])
    hull = ri.convex_hull_probe(family.models, loss_fn, num_points=30)
    assert losses.mean() < 0.35 * hull.losses.mean() and losses.max() < 0.35 * hull.losses.max()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_simplex_around_one_network_keeps_the_loss_and_grows_with_the_reward(seed):
    # measured: training loss inside at most 0.003 above the network's 0.012 to 0.016, at log volumes of -7.5 (no
    # reward) and 3.4 (0.3)
    task, network = toy_zoo.digits(flat=True), toy_zoo.build("mlp", 32)
    few = (task.train[0][:200], task.train[1][:200])
    base = toy_zoo.train(network, None, few, num_steps=150, lr=3e-3, generator=generator(seed))
    loss_fn = lambda model: toy_zoo.loss(network, model, few)  # noqa: E731
    volumes = []
    for volume_coef in (0.0, 0.3):
        simplex = espro(base, loss_fn, num_steps=40, lr=0.1, volume_coef=volume_coef)
        members = [simplex.sample(generator(i)) for i in range(10)]
        assert max(loss_fn(m) for m in members) < loss_fn(base) + 0.01
        volumes.append(simplex.log_volumes[-1])
    assert volumes[1] > volumes[0] + 5
    # the ensemble is better than its members, by convexity, and no better than the network here
    p = torch.stack([toy_zoo.logits(network, m, task.test[0]).softmax(dim=1) for m in members]).mean(dim=0)
    ensemble = torch.nn.functional.nll_loss(p.log(), task.test[1])
    assert ensemble < sum(toy_zoo.loss(network, m, task.test) for m in members) / len(members)
    assert abs(ensemble - toy_zoo.loss(network, base, task.test)) < 0.03


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no models"):
        ri.spro([], lambda m: m["w"].sum())
    with pytest.raises(ValueError, match="num_connectors=0"):
        ri.spro([point(1.0)], lambda m: m["w"].sum(), num_connectors=0)
    with pytest.raises(ValueError, match="shape"):
        ri.spro([point(1.0), point(1.0, 2.0)], lambda m: m["w"].sum())
