import math

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.distillation.common_feature_learning import CommonSpace, squared_mmd
from tests.methods.distillation.helpers import accuracy, convolutional, digit_parts, fit, parameters, perceptron


def line(*slopes):
    network = nn.Sequential(nn.Identity(), nn.Linear(1, len(slopes), bias=False))
    network[1].weight.data = torch.tensor(slopes)[:, None]
    return network


def first_loss(**options):
    losses = []
    ri.common_feature_learning(
        [line(2.0), line(3.0)], line(1.0, 0.0), [torch.tensor([[1.0], [-1.0]])], num_steps=1, progress=lambda _, l: losses.append(l), **options
    )
    return losses[0]


def test_the_discrepancy_by_hand():
    # Lengths 2 and 3 are scaled to 1, then |a - b|^2 = 2: k(a, a) + k(b, b) - 2 k(a, b) = 2 - 2 exp(-2 / 2 sigma^2) for each sigma
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    assert squared_mmd(a, b, [1.0]).item() == pytest.approx(2 - 2 * math.exp(-1), abs=1e-6)
    assert squared_mmd(a, b, [1.0, 2.0]).item() == pytest.approx(4 - 2 * math.exp(-1) - 2 * math.exp(-1 / 4), abs=1e-6)
    # it compares batches and not pairs: the same inputs in another order are no discrepancy
    both = torch.cat([a, b])
    assert squared_mmd(both, both.flip(0), [1.0]).item() == pytest.approx(0, abs=1e-6)


def test_with_alpha_one_only_the_scores_count():
    # scores (1, 0) and targets (2, 3) at x = 1, their negatives at x = -1: mean of 1 and 9 is 5
    assert first_loss(alpha=1.0) == pytest.approx(5.0)
    assert first_loss(alpha=0.5) > 2.5


def test_a_divergence_may_stand_for_the_squared_error():
    # the mean over x = 1 and x = -1 of KL(softmax(2x, 3x) || softmax(x, 0)): every probability is a sigmoid of a difference of scores
    sigmoid = lambda z: 1 / (1 + math.exp(-z))  # noqa: E731
    kl = lambda p, q: p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))  # noqa: E731
    expected = (kl(sigmoid(-1), sigmoid(1)) + kl(sigmoid(1), sigmoid(-1))) / 2
    assert expected == pytest.approx(0.462, abs=1e-3)
    assert first_loss(alpha=1.0, soft_targets="kl") == pytest.approx(expected, abs=1e-5)


def test_one_extractor_serves_images_and_vectors():
    space = CommonSpace(5, [3, 4], 8, torch.Generator().manual_seed(0))
    own, features = torch.randn(2, 5), [torch.randn(2, 3), torch.randn(2, 4)]
    h_s, hs, decoded = space(own, features)
    assert h_s.shape == hs[0].shape == hs[1].shape == (2, 8, 1, 1) and [d.shape[1] for d in decoded] == [3, 4]
    images = [f[:, :, None, None].expand(-1, -1, 4, 4) for f in (own, *features)]
    assert space(images[0], images[1:])[0].shape == (2, 8, 4, 4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_architecture_of_its_own_keeps_the_classes_of_both_teachers(seed):
    digits, parts = digit_parts()
    teachers = [
        fit(perceptron(64, 64, 48, 5, seed=seed), parts[0].train, num_steps=100, seed=seed),
        fit(convolutional(8, 16, 32, 5, seed=seed + 10), parts[1].train, num_steps=150, lr=5e-3, seed=seed),
    ]
    before = parameters(teachers)
    inputs = [x for x, _ in toy_zoo.batches(digits.train, 50, torch.Generator().manual_seed(seed))]
    train = lambda **o: ri.common_feature_learning(teachers, perceptron(64, 48, 32, 10, seed=99 + seed), inputs, num_steps=250, **o)  # noqa: E731
    student, scores_only = train(common_width=16), train(common_width=1, alpha=1.0)
    together = lambda x: torch.cat([t(x) for t in teachers], 1)  # noqa: E731
    assert accuracy(student, digits.test) > 0.7  # a teacher knows half of the classes and cannot answer more than half of them
    assert accuracy(student, digits.test) > accuracy(together, digits.test) - 0.05
    # The paper compares with distillation of the scores alone: that accuracy is as good here, the scores themselves are further off.
    error = lambda network: (network(digits.test[0]) - together(digits.test[0])).square().mean().item()  # noqa: E731
    assert error(student) < 0.97 * error(scores_only)
    assert abs(accuracy(student, digits.test) - accuracy(scores_only, digits.test)) < 0.02
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(teachers)))


def test_bad_input_is_refused():
    x = [torch.ones(2, 1)]
    with pytest.raises(ValueError, match="0 teachers"):
        ri.common_feature_learning([], line(1.0), x)
    with pytest.raises(ValueError, match="alpha is 2"):
        ri.common_feature_learning([line(1.0)], line(1.0), x, alpha=2)
    with pytest.raises(ValueError, match="'mse'"):
        ri.common_feature_learning([line(1.0)], line(1.0), x, soft_targets="mse")
    with pytest.raises(ValueError, match="other than the 2 scores"):
        ri.common_feature_learning([line(1.0), line(1.0)], line(1.0), x)
