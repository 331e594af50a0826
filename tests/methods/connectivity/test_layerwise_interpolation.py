import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo

START = {"u.weight": torch.zeros(1), "u.bias": torch.zeros(1), "v.weight": torch.zeros(1)}
END = {"u.weight": torch.ones(1), "u.bias": torch.ones(1), "v.weight": torch.full((1,), 2.0)}


def output(model):
    return ((model["u.weight"] + model["u.bias"]) * model["v.weight"]).sum()


def test_curves_of_a_product_by_hand():
    # whole: (a + a) * 2a = 4 a^2; u alone (with its bias): 2a * 2; v alone: 2 * 2a
    result = ri.layerwise_interpolation(START, END, output, num_points=3)
    assert result.whole.losses.tolist() == [0, 1, 4]
    assert {name: curve.losses.tolist() for name, curve in result.layers.items()} == {"u": [0, 2, 4], "v": [0, 2, 4]}


def test_layers_can_be_named():
    # only the bias moves: (1 + a) * 2
    result = ri.layerwise_interpolation(START, END, output, num_points=3, layers={"bias": ["u.bias"]})
    assert result.layers["bias"].losses.tolist() == [2, 3, 4]


def test_one_layer_that_is_all_gives_the_whole_line():
    result = ri.layerwise_interpolation(START, END, output, num_points=7, layers={"all": list(START)})
    assert torch.equal(result.layers["all"].losses, result.whole.losses)


def test_every_curve_ends_at_the_final_loss_and_an_unmoved_layer_is_flat():
    result = ri.layerwise_interpolation({**START, "v.weight": END["v.weight"]}, END, output)
    assert len(result.whole.ts) == 50
    assert all(curve.losses[-1] == result.whole.losses[-1] == 4 for curve in result.layers.values())
    assert result.layers["v"].losses.tolist() == [4.0] * 50


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shape_of_the_line_does_not_tell_the_accuracy_and_layers_differ(seed):
    # measured: rise above the straight line 0.07 to 0.10 (init as it is) and 0.00 (init times 3); accuracies differ by
    # 0.012 at most
    task, network = toy_zoo.digits(flat=True), toy_zoo.MLP((64, 64, 64, 10)).eval()
    init = toy_zoo.initialise(network, torch.Generator().manual_seed(seed))

    def run(factor):
        start = {key: factor * tensor for key, tensor in init.items()}
        generator = torch.Generator().manual_seed(seed)
        end = toy_zoo.train(network, start, task.train, num_steps=300, lr=2e-3, generator=generator)
        loss_fn = lambda model: toy_zoo.loss(network, model, task.train)  # noqa: E731
        return ri.layerwise_interpolation(start, end, loss_fn, num_points=11), toy_zoo.accuracy(network, end, task.test)

    (plain, accuracy_plain), (large, accuracy_large) = run(1.0), run(3.0)
    assert plain.whole.barrier > 0.03 and large.whole.barrier < 0.01
    assert abs(accuracy_plain - accuracy_large) < 0.03
    # putting the first layer back to its start harms most, the last least: 1.4 to 1.5 against 0.3 to 0.8 of loss
    back = {name: curve.losses[0].item() for name, curve in plain.layers.items()}
    assert back["layers.0"] > back["layers.2"] + 0.2 and max(back.values()) < plain.whole.losses[0]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="which the models lack"):
        ri.layerwise_interpolation(START, END, output, layers={"x": ["w.weight"]})
    with pytest.raises(ValueError, match="num_points is 1"):
        ri.layerwise_interpolation(START, END, output, num_points=1)
    with pytest.raises(ValueError, match="missing"):
        ri.layerwise_interpolation({"u.weight": torch.zeros(1)}, END, output)
