import math

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.distillation.dual_gan_amalgamation import Filter, label_losses
from tests.methods.distillation.helpers import parameters, perceptron


def test_the_losses_of_labels_by_hand():
    # Odds 3 to 1 for label 1 in both images, 1 to 3 for label 2: probabilities 3/4 and 1/4, sure by log(4/3) each.
    scores = torch.tensor([[1.0, -1.0], [1.0, -1.0]]) * math.log(3)
    entropy = math.log(4) - 0.75 * math.log(3)
    assert [part.item() for part in label_losses(scores, 0.5)] == pytest.approx([math.log(4 / 3), -entropy, 0.5])
    # With threshold 0.8 label 1 counts as absent, and costs log 4
    assert label_losses(scores, 0.8)[0].item() == pytest.approx((math.log(4) + math.log(4 / 3)) / 2)


def test_a_filter_weighs_channels_by_their_means_over_the_image():
    filter_ = Filter(2, torch.Generator().manual_seed(0))
    x = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    factors = filter_(x) / x
    assert torch.allclose(factors, factors[:, :, :1, :1].expand_as(x), atol=1e-5)
    assert 0 < factors.min() < factors.max() < 2
    assert torch.allclose(factors[:, :, 0, 0], filter_(x.mean((2, 3))) / x.mean((2, 3)), atol=1e-5)


def constant(*probabilities):
    """A teacher of two blocks, which gives its labels these probabilities whatever it sees."""
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, len(probabilities)))
    for layer in network:
        layer.weight.data.zero_()
    network[0].bias.data = torch.tensor([1.0, -3.0])
    network[1].bias.data = torch.tensor(probabilities).logit()
    return network


def test_both_stages_by_hand():
    # Probabilities 3/4, 1/4 and 1/2 whatever the image: activations |1| and |-3|. A student of zeros gives 1/2 to
    # everything.
    teachers, losses = [constant(0.75, 0.25), constant(0.5)], []
    student = constant(0.5, 0.5, 0.5)
    student[0].bias.data.zero_()
    weights = {"activation_weight": 0.1, "entropy_weight": 2.0, "sparsity_weight": 0.3}
    options = {"generator_steps": 1, "num_steps": 1, "lr": 0.0, "progress": lambda _, loss: losses.append(loss)}
    ri.dual_gan_amalgamation(teachers, student, (3,), **weights, **options)
    three, half = math.log(4) - 0.75 * math.log(3), math.log(2)  # entropies
    sure = (2 * math.log(4 / 3) + half) / 3
    agreement = (2 * three + half) / 3  # group 1 makes the features of the last block, which says the same
    expected = sure - 0.1 * 2 - 2.0 * agreement + 0.3 * 0.5 + agreement
    assert losses == pytest.approx([expected, agreement, half], rel=1e-5)  # block 1 through the teachers; block 2 alone


def test_chosen_labels_are_the_students_scores():
    teachers, student = [constant(0.9, 0.2), constant(0.6)], constant(0.5, 0.5)
    out = ri.dual_gan_amalgamation(teachers, student, (3,), labels=[2, 0], generator_steps=5, num_steps=200, lr=0.02)
    assert out(torch.zeros(1, 3)).sigmoid()[0].tolist() == pytest.approx([0.6, 0.9], abs=0.02)


def teach(classes, seed):
    """A teacher of the labels "this is a 0", ... of some digits, which has learned too that noise has no label."""
    digits, network = toy_zoo.digits(flat=True), perceptron(64, 64, 48, len(classes), seed=seed)
    x, y = digits.train[0], nn.functional.one_hot(digits.train[1], 10).float()[:, list(classes)]
    optimizer, generator = torch.optim.Adam(network.parameters(), lr=3e-3), torch.Generator().manual_seed(seed)
    for _ in range(300):
        index, noise = torch.randint(len(x), (64,), generator=generator), torch.randn(64, 64, generator=generator)
        noise[::2] = noise[::2].tanh()
        scores, target = network(torch.cat([x[index], noise])), torch.cat([y[index], torch.zeros(64, len(classes))])
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(scores, target).backward()
        optimizer.step()
    return network.eval()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_data_the_student_learns_more_than_noise_can_teach(seed):
    teachers = [teach(range(5), seed), teach(range(5, 10), seed + 10)]
    before, test = parameters(teachers), toy_zoo.digits(flat=True).test
    right = lambda scores: (scores.argmax(dim=1) == test[1]).float().mean().item()  # noqa: E731
    start = perceptron(64, 64, 48, 10, seed=seed + 99)
    student = ri.dual_gan_amalgamation(teachers, start, (64,), num_steps=200)
    untrained = ri.dual_gan_amalgamation(teachers, start, (64,), num_steps=200, generator_steps=0)

    noisy, generator = perceptron(64, 64, 48, 10, seed=seed + 99), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(noisy.parameters(), lr=3e-3)
    for _ in range(400):  # distillation on Gaussian noise
        z = torch.randn(64, 64, generator=generator)
        told = torch.cat([teacher(z) for teacher in teachers], dim=1).detach().sigmoid()
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(noisy(z), told).backward()
        optimizer.step()
    accuracy = right(student(test[0]))
    assert accuracy > 0.38 and accuracy > right(noisy(test[0])) + 0.15 and accuracy > right(untrained(test[0])) + 0.05
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(teachers)))


def test_bad_input_is_refused():
    two = constant(0.5, 0.5)
    with pytest.raises(ValueError, match=r"\[\] and 2 blocks"):
        ri.dual_gan_amalgamation([], two, (3,))
    with pytest.raises(ValueError, match=r"\[2\] and 1 blocks"):
        ri.dual_gan_amalgamation([two], two[:1], (3,))
    with pytest.raises(ValueError, match="2 scores for the labels \\[0, 1, 2, 3\\] of 4"):
        ri.dual_gan_amalgamation([two, two], two, (3,))
    with pytest.raises(ValueError, match="shapes"):
        ri.dual_gan_amalgamation([two], nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)), (3,))
