import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo

NAMES = ("u.weight", "u.bias", "v.weight", "v.bias")
START = {name: torch.zeros(3) for name in NAMES}
END = {name: torch.ones(3) for name in NAMES} | {"v.bias": torch.tensor([4.0, 1.0, 2.0])}


def test_three_paths_by_hand():
    # at 1/2: weights 1/2; biases (1/2, 2) on the line, (1/2, 4/4) homogeneously, (1/2, 0) without the last
    loss = lambda m: 100 - (m["u.weight"] + 2 * m["u.bias"] + 5 * m["v.bias"])[0]  # noqa: E731
    result = ri.mli_plateau(START, END, loss, num_points=3)
    seen = [curve.losses[1].item() for curve in (result.linear, result.homogeneous, result.unbiased)]
    assert seen == [100 - 0.5 - 1 - 10, 100 - 0.5 - 1 - 5, 100 - 0.5 - 1]


def test_lengths_and_the_gap_by_hand():
    # the loss falls by alpha^3 (times 8): a tenth of the way at 0.1^(1/3) = 0.464, half of it at 0.794, on a grid of
    # 0.02
    cube = lambda m: -8 * m["u.weight"][0] ** 3  # noqa: E731
    assert ri.mli_plateau(START, END, cube).lengths.tolist() == pytest.approx([0.48] * 3)
    assert ri.mli_plateau(START, END, cube, tol=0.5).lengths.tolist() == pytest.approx([0.8] * 3)
    # largest last bias 4, mean of the others 3 / 2
    assert ri.mli_plateau(START, END, cube).bias_gap == 2.5


def test_without_any_change_of_the_loss_everything_is_plateau():
    assert ri.mli_plateau(START, END, lambda m: torch.ones(())).lengths.tolist() == [1, 1, 1]


def test_scale_of_the_loss_does_not_matter_and_a_rising_one_counts_alike():
    loss = lambda m: (m["u.weight"][0] - 1) ** 2  # noqa: E731
    lengths = ri.mli_plateau(START, END, loss).lengths
    assert torch.equal(ri.mli_plateau(START, END, lambda m: 5 + 3 * loss(m)).lengths, lengths)
    assert torch.equal(ri.mli_plateau(START, END, lambda m: -loss(m)).lengths, lengths)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_depth_makes_the_plateau_longer_and_biases_that_move_as_the_signal_make_it_shorter(seed):
    # measured: plateau of the loss 0.14 (two layers), 0.40 to 0.42 (five); of the error 0.20 to 0.22, homogeneous
    # biases 0.02 to 0.04
    task, generator = toy_zoo.digits(flat=True), lambda: torch.Generator().manual_seed(seed)

    def measure(sizes):
        network = toy_zoo.MLP(sizes).eval()
        start = {
            key: torch.zeros_like(tensor) if key.endswith("bias") else 0.3 * tensor
            for key, tensor in toy_zoo.initialise(network, generator()).items()
        }
        end = toy_zoo.train(network, start, task.train, num_steps=300, lr=2e-3, generator=generator())
        loss = ri.mli_plateau(start, end, lambda m: toy_zoo.loss(network, m, task.train))
        return loss, ri.mli_plateau(start, end, lambda m: 1 - torch.tensor(toy_zoo.accuracy(network, m, task.train)))

    (shallow, _), (deep, deep_error) = measure((64, 64, 10)), measure((64, 64, 64, 64, 64, 10))
    assert deep.lengths[0] > shallow.lengths[0] + 0.15
    assert deep_error.lengths[0] > 0.12 and deep_error.lengths[1] < deep_error.lengths[0] - 0.1
    assert deep.bias_gap > shallow.bias_gap


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="at least one is needed"):
        ri.mli_plateau({"w": torch.zeros(1)}, {"w": torch.ones(1)}, lambda m: m["w"].sum())
    with pytest.raises(ValueError, match="tol is 1.0"):
        ri.mli_plateau(START, END, lambda m: m["v.bias"].sum(), tol=1.0)
