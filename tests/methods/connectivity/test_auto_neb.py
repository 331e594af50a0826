import pytest
import torch

import reference_impls as ri
from reference_impls.connectivity.auto_neb import _across, _insert, _redistribute
from reference_impls.core import toy_zoo

A, B = ({"x": torch.tensor(x), "y": torch.tensor(0.0)} for x in (-1.0, 1.0))


def bent(model):
    """Two wells parted by a hill of height 1, joined by a valley along y = 1 - x^2."""
    return (model["x"] ** 2 - 1) ** 2 + 5 * (model["y"] - 1 + model["x"] ** 2) ** 2


def test_gradient_across_the_path_by_hand():
    # chain (0,0), (1,0), (2,2). The next pivot is higher: tangent (1,2)/sqrt5; gradient (5,0) - 5/5 (1,2) = (4,-2)
    chain = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 2.0]])
    gradients = torch.tensor([[9.0, 9.0], [5.0, 0.0], [9.0, 9.0]])
    upwards = _across(chain, torch.tensor([1.0, 0.0, 3.0]), gradients)
    assert torch.allclose(upwards, torch.tensor([[0.0, 0.0], [4.0, -2.0], [0.0, 0.0]]), atol=1e-5)
    # the previous pivot is higher: tangent (1, 0), nothing of (5, 0) remains
    assert torch.allclose(_across(chain, torch.tensor([3.0, 0.0, 1.0]), gradients)[1], torch.zeros(2), atol=1e-5)


def test_pivots_go_back_to_their_relative_distances_by_hand():
    # a right angle of sides 4 and 2, length 6; a quarter of the way is 1.5, half 3, all on the first side
    chain = torch.tensor([[0.0, 0.0], [1.0, 0.0], [4.0, 0.0], [4.0, 2.0]])
    assert _redistribute(chain, torch.tensor([0.25, 0.25, 0.5])).tolist() == [[0, 0], [1.5, 0], [3, 0], [4, 2]]
    assert _redistribute(chain, torch.tensor([0.5, 1 / 3, 1 / 6]))[2].tolist() == pytest.approx([4, 1], abs=1e-5)


def test_new_pivots_stand_where_the_loss_rises_most_above_the_interpolation():
    # losses 0, 0, 1 at the pivots; a spike of 3 at x = 0.3, and nothing between 1 and 2
    chain = torch.tensor([[0.0], [1.0], [2.0]])
    loss = lambda p: 3.0 if abs(p.item() - 0.3) < 0.01 else max(p.item() - 1, 0)  # noqa: E731
    grown, spacing = _insert(chain, torch.tensor([0.5, 0.5]), loss, 2, 0.1, 9)
    assert grown.flatten().tolist() == pytest.approx([0, 0.3, 1, 2])
    assert spacing.tolist() == pytest.approx([0.15, 0.35, 0.5])


def test_saddle_of_a_bent_valley_is_found():
    # every path crosses x = 0, where the loss is at least 1; the straight line meets 1 + 5
    line = ri.auto_neb(A, B, bent, num_steps=0, lr=(0.1,))
    assert line.saddle == 6 and line.losses.barrier == 6 and line.num_pivots.tolist() == [3]
    band = ri.auto_neb(A, B, bent, lr=(0.02,) * 4)
    assert band.saddle.item() == pytest.approx(1, abs=0.01)
    for pivot in band.pivots:
        assert pivot["y"].item() == pytest.approx(1 - pivot["x"].item() ** 2, abs=0.1)


def test_ends_stay_and_a_straight_valley_needs_no_pivots():
    valley = lambda m: 5 * m["y"] ** 2  # noqa: E731
    band = ri.auto_neb(A, B, valley)
    assert band.pivots[0] == A and band.pivots[-1] == B
    assert band.num_pivots.tolist() == [3, 3, 3, 3] and band.saddle == 0
    assert (band.losses.ts.diff() > 0).all() and len(band.losses.ts) == 4 * 10 + 1


def test_both_directions_find_the_same_saddle():
    there, back = (ri.auto_neb(*ends, bent, lr=(0.02,) * 3) for ends in ((A, B), (B, A)))
    assert there.saddle.item() == pytest.approx(back.saddle.item(), abs=0.01)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_path_between_independent_networks_has_no_barrier(seed):
    # measured: highest loss 0.71 to 1.03 on the line, 0.033 to 0.036 on the path, 0.028 to 0.033 at the ends
    family = toy_zoo.independent("mlp", seed, width=32)
    loss_fn = lambda model: toy_zoo.loss(family.network, model, family.task.train)  # noqa: E731
    line = ri.auto_neb(*family.models, loss_fn, num_steps=0, lr=(0.1,))
    band = ri.auto_neb(*family.models, loss_fn, num_steps=20, lr=(0.1, 0.1, 0.1))
    assert line.losses.barrier > 0.4 and band.saddle < 0.1 * line.saddle and band.losses.barrier < 0.03


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="num_pivots=0"):
        ri.auto_neb(A, B, bent, num_pivots=0)
    with pytest.raises(ValueError, match="0 learning rates"):
        ri.auto_neb(A, B, bent, lr=())
    with pytest.raises(ValueError, match="shape"):
        ri.auto_neb(A, {**B, "y": torch.zeros(2)}, bent)
