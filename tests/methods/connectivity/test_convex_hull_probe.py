import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo

CORNERS = [{"w": torch.tensor(v, dtype=torch.float64)} for v in ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0])]


def dome(model):
    return 1 - model["w"].square().sum()


def test_losses_at_the_points_by_hand():
    hull = ri.convex_hull_probe(CORNERS, dome, num_points=200)
    # the corners put the weights 2 and 3 into the two entries: loss 1 - w_2^2 - w_3^2; ends 1, 0, 0; centre 1 - 2/9
    expected = 1 - hull.weights[:, 1] ** 2 - hull.weights[:, 2] ** 2
    assert torch.allclose(hull.losses, expected) and hull.end_losses.tolist() == [1, 0, 0]
    assert hull.center_loss.item() == pytest.approx(7 / 9)
    # rise above the plane through the ends: 1 - w_2^2 - w_3^2 - w_1 = w_2 (1 - w_2) + w_3 (1 - w_3), at most 1/2 at
    # (0, 1/2, 1/2)
    assert 0.45 < hull.barrier < 0.5


def test_weights_are_uniform_on_the_simplex():
    weights = ri.convex_hull_probe(CORNERS, dome, num_points=3000).weights
    assert torch.allclose(weights.sum(dim=1), torch.ones(3000, dtype=torch.float64)) and (weights >= 0).all()
    # uniform: mean 1/3, variance 1/18, a weight above 1/2 in a quarter of the points
    assert weights.mean(dim=0).tolist() == pytest.approx([1 / 3] * 3, abs=0.015)
    assert weights.var(dim=0).tolist() == pytest.approx([1 / 18] * 3, abs=0.005)
    assert (weights > 0.5).double().mean(dim=0).tolist() == pytest.approx([0.25] * 3, abs=0.03)


def test_a_convex_loss_has_no_barrier_and_equal_models_no_spread():
    assert ri.convex_hull_probe(CORNERS, lambda m: m["w"].square().sum()).barrier == 0
    equal = ri.convex_hull_probe(CORNERS[1:2] * 3, dome)
    assert equal.losses.tolist() == pytest.approx([0] * 50, abs=1e-12) and equal.shared_correct is None


def test_shared_and_kept_predictions_by_hand():
    # right if the sum of the entries exceeds the example's threshold: the corners have sums 0, 1, 1
    thresholds = torch.tensor([-1.0, -0.5, 0.5, 2.0])
    hull = ri.convex_hull_probe(CORNERS, dome, correct_fn=lambda m: m["w"].sum() > thresholds)
    assert hull.shared_correct == 0.5 and hull.kept_correct == 1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_runs_that_share_their_start_span_a_hull_of_low_loss(seed):
    # measured: shared start: no barrier, at least 0.998 of the shared predictions kept; from initialisation: barrier
    # 0.46 to 0.79, 0.85 to 0.89
    task, network = toy_zoo.digits(flat=True), toy_zoo.build("mlp", 24)
    generator = lambda s: torch.Generator().manual_seed(s)  # noqa: E731
    train = lambda model, steps, s: toy_zoo.train(  # noqa: E731
        network, model, task.train, num_steps=steps, lr=2e-2, batch_size=16, generator=generator(s)
    )
    start = toy_zoo.initialise(network, generator(seed))
    early = train(start, 100, seed)

    def probe(model):
        ends = [train(model, 200, 100 * seed + i) for i in range(4)]
        correct_fn = lambda m: toy_zoo.logits(network, m, task.test[0]).argmax(dim=1) == task.test[1]  # noqa: E731
        return ri.convex_hull_probe(
            ends, lambda m: toy_zoo.loss(network, m, task.test), num_points=30, correct_fn=correct_fn
        )

    shared, apart = probe(early), probe(start)
    assert shared.barrier < 0.02 and apart.barrier > 0.2
    assert shared.center_loss < shared.end_losses.mean()
    assert shared.kept_correct > 0.98 and apart.kept_correct < 0.95


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="received 1 models"):
        ri.convex_hull_probe(CORNERS[:1], dome)
    with pytest.raises(ValueError, match="num_points=0"):
        ri.convex_hull_probe(CORNERS, dome, num_points=0)
