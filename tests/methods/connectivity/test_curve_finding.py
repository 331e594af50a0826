import pytest
import torch

import reference_impls as ri
from reference_impls.connectivity.curve_finding import Curve
from reference_impls.core import toy_zoo

A, B = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}


def circle(model):
    return (model["w"].square().sum() - 1).square()


def test_points_of_both_curves_by_hand():
    points = [{"w": torch.tensor([v])} for v in (0.0, 8.0, 4.0)]
    at = lambda kind, t: Curve(kind, points, None).at(t)["w"].item()  # noqa: E731
    # Bezier at 1/4: 9/16 * 0 + 2 * 3/16 * 8 + 1/16 * 4 = 3.25; chain at 1/4: half way from 0 to 8
    assert at("bezier", 0.25) == 3.25 and at("chain", 0.25) == 4
    # at 3/4: 2 * 3/16 * 8 + 9/16 * 4 = 5.25; half way from 8 to 4
    assert at("bezier", 0.75) == 5.25 and at("chain", 0.75) == 6
    assert [at("chain", t) for t in (0, 0.5, 1)] == [0, 8, 4] and [at("bezier", t) for t in (0, 1)] == [0, 4]


@pytest.mark.parametrize("kind", ["bezier", "chain"])
def test_bend_minimises_the_expected_loss(kind):
    # by symmetry the best bend is (c, c); its expected loss is found by trying every c
    ts = torch.linspace(0, 1, 401)[:, None]
    best = min(
        (circle_mean(kind, c, ts), c) for c in torch.linspace(0.5, 1.5, 201).tolist()
    )[1]  # fmt: skip
    bend = ri.curve_finding(A, B, circle, kind=kind, num_steps=2000, lr=0.01).points[1]["w"]
    assert bend.tolist() == pytest.approx([best, best], abs=0.04)
    assert best > 0.7  # not the middle of the line, 0.5


def circle_mean(kind, c, ts):
    a, b, bend = A["w"], B["w"], torch.full((2,), c)
    if kind == "bezier":
        w = (1 - ts) ** 2 * a + 2 * ts * (1 - ts) * bend + ts**2 * b
    else:
        w = torch.where(ts <= 0.5, 2 * (ts * bend + (0.5 - ts) * a), 2 * ((ts - 0.5) * b + (1 - ts) * bend))
    return (w.square().sum(dim=1) - 1).square().mean().item()


def test_without_training_it_is_the_straight_line():
    for bends in (1, 2):
        for kind in ("bezier", "chain"):
            curve = ri.curve_finding(A, B, circle, kind=kind, num_bends=bends, num_steps=0)
            assert curve.at(0.25)["w"].tolist() == pytest.approx([0.75, 0.25])
            assert len(curve.losses.ts) == 61 and curve.losses.barrier == pytest.approx(0.25, abs=1e-3)


def test_ends_stay_and_more_bends_come_closer():
    one, three = (ri.curve_finding(A, B, circle, kind="chain", num_bends=n, num_steps=1500) for n in (1, 3))
    assert torch.equal(three.points[0]["w"], A["w"]) and torch.equal(three.points[-1]["w"], B["w"])
    assert three.losses.losses.mean() < 0.5 * one.losses.losses.mean()


def test_adding_a_constant_to_the_loss_changes_no_bend():
    shifted = ri.curve_finding(A, B, lambda m: circle(m) + 7)
    assert torch.allclose(shifted.points[1]["w"], ri.curve_finding(A, B, circle).points[1]["w"], atol=1e-5)


def test_progress_reports_every_step():
    seen = []
    ri.curve_finding(A, B, circle, num_steps=3, progress=lambda step, loss: seen.append(step))
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("kind", ["bezier", "chain"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_curve_has_no_barrier_where_the_line_has_one(seed, kind):
    # measured: line 0.69 to 1.00, curve at most 0.034
    family = toy_zoo.independent("mlp", seed, width=32)
    loss_fn = lambda model: toy_zoo.loss(family.network, model, family.task.train)  # noqa: E731
    line = ri.curve_finding(*family.models, loss_fn, num_steps=0, num_points=21).losses.barrier
    curve = ri.curve_finding(*family.models, loss_fn, kind=kind, num_steps=200, lr=0.1, num_points=21).losses.barrier
    assert line > 0.4 and curve < 0.15 * line and curve < 0.06


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="kind is 'spline'"):
        ri.curve_finding(A, B, circle, kind="spline")
    with pytest.raises(ValueError, match="num_bends=0"):
        ri.curve_finding(A, B, circle, num_bends=0)
    with pytest.raises(ValueError, match="shape"):
        ri.curve_finding(A, {"w": torch.zeros(3)}, circle)
