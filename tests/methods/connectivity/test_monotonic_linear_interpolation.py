import math

import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo

ZERO, ONE = {"w": torch.zeros(1, dtype=torch.float64)}, {"w": torch.ones(1, dtype=torch.float64)}


def identity(model):
    return model["w"][None]


def along(values):
    """A loss that takes these values at the evenly spaced positions of a line from 0 to 1."""
    return lambda model: torch.tensor(values)[round(model["w"].item() * (len(values) - 1))]


def test_largest_rise_by_hand():
    # lowest before each position: 5, 2, 2, 1, 1; rises 0, 0, 1, 0, 3
    result = ri.monotonic_linear_interpolation(ZERO, ONE, along([5.0, 2, 3, 1, 4]), identity, num_points=5)
    assert result.largest_increase == 3 and not result.monotonic
    # with a tolerance of 1 a rise of 1 is forgiven
    result = ri.monotonic_linear_interpolation(ZERO, ONE, along([5.0, 2, 3, 1]), identity, num_points=4, tol=1.0)
    assert result.largest_increase == 1 and result.monotonic


def test_gauss_length_of_a_corner_and_a_polygon_by_hand():
    # two chords at a right angle: pi / 2
    corner = lambda m: torch.stack([m["w"].clamp(max=0.5), (m["w"] - 0.5).clamp(min=0)], dim=1)  # noqa: E731
    assert ri.monotonic_linear_interpolation(
        ZERO, ONE, along([1.0, 1, 1]), corner, num_points=3
    ).gauss_length == pytest.approx(math.pi / 2)
    # a full circle in 12 chords: 11 turns of 30 degrees; the mean with an example that stands still is half of it
    ring = lambda m: torch.stack([(2 * math.pi * m["w"]).cos(), (2 * math.pi * m["w"]).sin()], dim=1)  # noqa: E731
    both = lambda m: torch.cat([ring(m), torch.zeros(1, 2, dtype=torch.float64)])  # noqa: E731
    length = ri.monotonic_linear_interpolation(ZERO, ONE, along([1.0] * 13), ring, num_points=13).gauss_length
    half = ri.monotonic_linear_interpolation(ZERO, ONE, along([1.0] * 13), both, num_points=13).gauss_length
    assert length == pytest.approx(11 * math.pi / 6) and half == pytest.approx(11 * math.pi / 12)


def test_linear_outputs_do_not_turn_and_a_convex_loss_that_ends_in_its_minimum_is_monotonic():
    line = lambda m: torch.stack([3 * m["w"], -m["w"]], dim=1)  # noqa: E731
    result = ri.monotonic_linear_interpolation(ZERO, ONE, lambda m: (m["w"] - 1).square().sum(), line)
    assert result.gauss_length < 1e-6 and result.monotonic and len(result.curve.ts) == 50


def test_scaling_logits_does_not_change_the_gauss_length_and_distances_are_euclidean():
    a, b = {"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([3.0, 14.0])}
    curve = lambda c: lambda m: c * torch.stack([m["w"][1:], m["w"][1:] ** 2], dim=1)  # noqa: E731
    one, ten = (ri.monotonic_linear_interpolation(a, b, lambda m: m["w"].sum(), curve(c)) for c in (1, 10))
    assert one.gauss_length == pytest.approx(ten.gauss_length.item(), rel=1e-4)
    assert one.distance == 10 and one.normalized_distance == 2


def test_small_steps_give_a_monotonic_line_and_large_steps_a_longer_way_with_rises():
    # six seeds: learning rate 0.001: no rise, distance 1.0, Gauss length 1.2 to 1.7; 0.3: rise 0.003 to 0.026, 23 to 24,
    # 2.1 to 4.0 (with 0.1 two of six lines do not rise)
    task, network = toy_zoo.digits(flat=True), toy_zoo.MLP((64, 64, 64, 10)).eval()

    def measure(seed, lr):
        start = toy_zoo.initialise(network, torch.Generator().manual_seed(seed))
        generator = torch.Generator().manual_seed(seed)
        end = toy_zoo.train(network, start, task.train, num_steps=300, lr=lr, generator=generator)
        loss_fn = lambda model: toy_zoo.loss(network, model, task.train)  # noqa: E731
        logits_fn = lambda model: toy_zoo.logits(network, model, task.train[0][:200])  # noqa: E731
        return ri.monotonic_linear_interpolation(start, end, loss_fn, logits_fn, num_points=25)

    small, large = ([measure(seed, lr) for seed in range(3)] for lr in (1e-3, 3e-1))
    assert all(line.monotonic for line in small) and sum(not line.monotonic for line in large) >= 2
    assert all(b.normalized_distance > 10 * a.normalized_distance for a, b in zip(small, large))
    assert sum(b.gauss_length - a.gauss_length for a, b in zip(small, large)) / 3 > 0.6


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="num_points is 2"):
        ri.monotonic_linear_interpolation(ZERO, ONE, along([1.0, 1]), identity, num_points=2)
    with pytest.raises(ValueError, match="examples, classes"):
        ri.monotonic_linear_interpolation(ZERO, ONE, along([1.0, 1, 1]), lambda m: m["w"], num_points=3)
    with pytest.raises(ValueError, match="shape"):
        ri.monotonic_linear_interpolation(ZERO, {"w": torch.zeros(2)}, along([1.0, 1, 1]), identity)
