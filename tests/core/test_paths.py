import pytest
import torch

from reference_impls.core.paths import LossCurve, convex_combination, interpolate, loss_along, loss_barrier

END_A, END_B = {"w": torch.tensor([-1.0])}, {"w": torch.tensor([1.0])}


def double_well(state_dict):
    return (state_dict["w"].square() - 1).square().sum()


def test_barrier_of_a_double_well_is_one():
    # minima at -1 and 1 with loss 0; the line passes the hill (0 - 1)^2 = 1 at t = 1/2
    curve = loss_along(lambda t: interpolate(END_A, END_B, t), double_well, num_points=5)
    assert curve.losses.tolist() == [0.0, 0.5625, 1.0, 0.5625, 0.0]
    assert curve.barrier == 1


def test_barrier_is_measured_from_the_line_between_unequal_ends():
    # line 2, 3, 4, 5, 6: rises 0, 1, 0, 4, 0
    assert loss_barrier(torch.tensor([2.0, 4, 4, 9, 6]), torch.linspace(0, 1, 5)) == 4
    # uneven positions: at t = 0.25 the line from 0 to 8 has 2
    assert loss_barrier(torch.tensor([0.0, 5, 8]), torch.tensor([0, 0.25, 1])) == 3


def test_a_convex_loss_has_no_barrier():
    assert LossCurve(torch.linspace(0, 1, 3), torch.tensor([4.0, 1, 0])).barrier == 0


def test_constants_do_not_change_the_barrier_and_factors_scale_it():
    losses, ts = torch.tensor([1.0, 7, 2]), torch.linspace(0, 1, 3)
    assert loss_barrier(losses + 5, ts) == loss_barrier(losses, ts)
    assert loss_barrier(3 * losses, ts) == 3 * loss_barrier(losses, ts)


def test_barrier_is_the_same_from_both_ends():
    losses, ts = torch.tensor([1.0, 7, 3, 2]), torch.tensor([0, 0.3, 0.9, 1])
    assert loss_barrier(losses.flip(0), (1 - ts).flip(0)) == pytest.approx(float(loss_barrier(losses, ts)))


def test_ends_of_the_line_are_the_models_and_buffers_are_the_first_ones():
    a = {"w": torch.tensor([1.0, 2], dtype=torch.float16), "steps": torch.tensor(3)}
    b = {"w": torch.tensor([5.0, 2], dtype=torch.float16), "steps": torch.tensor(9)}
    assert torch.equal(interpolate(a, b, 0.0)["w"], a["w"]) and torch.equal(interpolate(a, b, 1.0)["w"], b["w"])
    middle = interpolate(a, b, 0.5)
    assert middle["w"].tolist() == [3, 2] and middle["w"].dtype == torch.float16 and middle["steps"] == 3


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="shape"):
        loss_barrier(torch.zeros(3), torch.linspace(0, 1, 4))
    with pytest.raises(ValueError, match="increase from 0 to 1"):
        loss_barrier(torch.zeros(3), torch.tensor([0.0, 0.5, 0.9]))
    with pytest.raises(ValueError, match="num_points is 1"):
        loss_along(lambda t: END_A, double_well, num_points=1)
    with pytest.raises(ValueError, match="sum to 1.5"):
        convex_combination([END_A, END_B], [1.0, 0.5])
