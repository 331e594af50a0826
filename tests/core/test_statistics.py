"""Fisher information, Gram matrices and activations against values worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reference_impls.core import toy_zoo as zoo
from reference_impls.core.statistics import activations, diagonal_fisher, gram_matrices

LINEAR = nn.Linear(2, 2, bias=True)
# Logits W x + b with W = [[1, 0], [0, 0]], b = 0; p_0 = sigmoid(x_1).
THETA = {"weight": torch.tensor([[1.0, 0.0], [0.0, 0.0]]), "bias": torch.zeros(2)}
INPUTS = torch.tensor([[0.0, 1.0], [2.0, 3.0]])


def close(a, b, **options):
    assert list(a) == list(b)
    for name in a:
        torch.testing.assert_close(a[name], b[name], **options)


def test_the_exact_fisher_of_a_logistic_regression_is_p_times_one_minus_p_times_x_squared():
    fisher = diagonal_fisher(LINEAR, THETA, [(INPUTS, torch.tensor([0, 0]))])
    p = torch.sigmoid(INPUTS[:, 0])  # d log p_y / d w_c = (1[y = c] - p_c) x, and E (1[y = c] - p_c)^2 = p_c (1 - p_c)
    variance = p * (1 - p)  # 0.25 and 0.10499
    row = (variance[:, None] * INPUTS**2).mean(0)
    expected = {"weight": torch.stack([row, row]), "bias": variance.mean().repeat(2)}
    close(fisher, expected)
    assert fisher["bias"][0].item() == pytest.approx((0.25 + 0.104994) / 2, abs=1e-5)


def test_the_empirical_fisher_squares_the_gradient_of_the_given_target():
    targets = torch.tensor([0, 1])
    fisher = diagonal_fisher(LINEAR, THETA, [(INPUTS, targets)], estimator="empirical")
    p = torch.sigmoid(INPUTS[:, 0])
    squared = torch.stack([(1 - p[0]) ** 2, p[1] ** 2])  # of class 0; of class 1 the same
    row = (squared[:, None] * INPUTS**2).mean(0)
    close(fisher, {"weight": torch.stack([row, row]), "bias": squared.mean().repeat(2)})


def test_the_sampled_fisher_converges_to_the_exact_one():
    many = [(INPUTS.repeat(4000, 1), torch.zeros(8000, dtype=torch.int64))]
    sampled = diagonal_fisher(LINEAR, THETA, many, estimator="sampled", generator=torch.Generator().manual_seed(0))
    close(sampled, diagonal_fisher(LINEAR, THETA, many), rtol=0.05, atol=1e-3)
    close(sampled, diagonal_fisher(LINEAR, THETA, many, estimator="sampled"))  # default: seed 0


@pytest.mark.parametrize("architecture", ["mlp", "conv", "vit"])
@pytest.mark.parametrize("estimator", ["exact", "empirical"])
def test_the_fisher_does_not_depend_on_the_batch_size(architecture, estimator):
    network, flat = zoo.build(architecture, 8), architecture == "mlp"
    theta = zoo.initialise(network, torch.Generator().manual_seed(0))
    split = tuple(part[:70] for part in zoo.digits(flat=flat).train)
    whole = diagonal_fisher(network, theta, [split], estimator=estimator)
    for size in (1, 32):
        cut = diagonal_fisher(network, theta, zoo.batches(split, size), estimator=estimator)
        close(cut, whole, rtol=1e-4, atol=1e-8)
    assert list(whole) == [name for name, _ in network.named_parameters()]


def test_the_fisher_agrees_with_a_loop_over_examples_and_classes():
    network = zoo.MLP((3, 4, 3)).eval()
    theta = zoo.initialise(network, torch.Generator().manual_seed(0))
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    expected = {name: torch.zeros_like(tensor) for name, tensor in theta.items()}
    network.load_state_dict(theta)
    for x in inputs:
        log_p = network(x[None])[0].log_softmax(-1)
        for c in range(3):
            for name, g in zip(theta, torch.autograd.grad(log_p[c], list(network.parameters()), retain_graph=True)):
                expected[name] += log_p[c].exp().detach() * g**2 / 5
    close(diagonal_fisher(network, theta, [(inputs, torch.zeros(5, dtype=torch.int64))]), expected)


def test_tied_weights_share_one_fisher_and_sequences_need_targets():
    family = zoo.language_models(tied=True)
    batch = tuple(part[:3] for part in family.tasks[0].train)
    fisher = diagonal_fisher(family.network, family.base, [batch], estimator="empirical")
    assert list(fisher) == list(family.base) and fisher["head.weight"] is fisher["embed.weight"]
    with pytest.raises(ValueError, match="needs logits"):
        diagonal_fisher(family.network, family.base, [batch])


def test_a_gram_matrix_is_x_transposed_x():
    grams = gram_matrices(LINEAR, THETA, [(INPUTS, None)])
    assert grams["weight"].tolist() == [[4, 6], [6, 10]]  # [[0+4, 0+6], [0+6, 1+9]]
    assert gram_matrices(LINEAR, THETA, [(INPUTS, None)], normalize=True)["weight"].tolist() == [[2, 3], [3, 5]]


def test_gram_matrices_of_deeper_layers_see_what_the_layer_sees_however_batches_are_cut():
    family = zoo.multitask("mlp")
    split = tuple(part[:100] for part in family.tasks[0].train)
    theta = family.finetuned[0]
    hidden = torch.relu(split[0] @ theta["layers.0.weight"].T + theta["layers.0.bias"])
    grams = gram_matrices(family.network, theta, zoo.batches(split, 30))
    assert list(grams) == ["layers.0.weight", "layers.1.weight", "layers.2.weight"]
    torch.testing.assert_close(grams["layers.1.weight"], hidden.T @ hidden, rtol=1e-4, atol=1e-3)


def test_positions_of_a_sequence_are_rows():
    network = zoo.build("vit", 8)
    theta = zoo.initialise(network, torch.Generator().manual_seed(0))
    grams = gram_matrices(network, theta, [zoo.digits().val], normalize=True)
    patches = zoo.digits().val[0].squeeze(1).unfold(1, 2, 2).unfold(2, 2, 2).reshape(-1, 4)
    torch.testing.assert_close(grams["embed.weight"], patches.T @ patches / len(patches))


def test_activations_are_samples_by_units_before_or_after_the_nonlinearity():
    family = zoo.independent("mlp", width=32)
    theta, inputs = family.models[0], family.task.val[0][:7]
    before = activations(family.network, theta, inputs)
    after = activations(family.network, theta, inputs, ["layers.1"], at="inputs")
    assert [tuple(z.shape) for z in before.values()] == [(7, 32), (7, 64), (7, 10)]
    torch.testing.assert_close(after["layers.1"], before["layers.0"].relu())
    torch.testing.assert_close(before["layers.2"], zoo.logits(family.network, theta, inputs))


def test_pixels_of_an_image_are_samples():
    network = zoo.build("conv", 4)
    theta = zoo.initialise(network, torch.Generator().manual_seed(0))
    inputs = zoo.digits().val[0][:2]
    (z,) = activations(network, theta, inputs, ["conv1"]).values()
    image = nn.functional.conv2d(inputs, theta["conv1.weight"], theta["conv1.bias"], padding=1)
    assert z.shape == (2 * 64, 4)
    torch.testing.assert_close(z[:, 3], image[:, 3].flatten())


def test_nothing_is_left_on_the_network():
    network = zoo.build("conv", 4).train()
    theta = zoo.initialise(network, torch.Generator().manual_seed(0))
    kept = zoo.clone(theta)
    activations(network, theta, zoo.digits().val[0][:2])
    diagonal_fisher(network, theta, [tuple(part[:2] for part in zoo.digits().val)])
    assert network.training and all(not module._forward_hooks for module in network.modules())
    assert all(torch.equal(theta[name], kept[name]) for name in kept)


def test_refusals():
    with pytest.raises(ValueError, match="estimator must be"):
        diagonal_fisher(LINEAR, THETA, [(INPUTS, None)], estimator="joint")
    with pytest.raises(ValueError, match="no examples"):
        diagonal_fisher(LINEAR, THETA, [])
    with pytest.raises(ValueError, match="no examples"):
        gram_matrices(LINEAR, THETA, [])
    with pytest.raises(ValueError, match="no nn.Linear"):
        gram_matrices(nn.ReLU(), {}, [(INPUTS, None)])
    with pytest.raises(ValueError, match="no layers"):
        activations(LINEAR, THETA, INPUTS, ["conv9"])
    with pytest.raises(ValueError, match="at must be"):
        activations(LINEAR, THETA, INPUTS, at="middle")
