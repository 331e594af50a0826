import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.distillation.soka_net import strength_error
from tests.methods.distillation.helpers import accuracy, fit, initialised, parameters, perceptron


def linear(*slopes):
    """Stages that multiply by a number."""
    network = nn.Sequential(*[nn.Linear(1, 1, bias=False) for _ in slopes])
    for layer, slope in zip(network, slopes):
        layer.weight.data.fill_(slope)
    return network


X = [torch.tensor([[1.0], [-1.0]])]


def train(**options):
    """Features 2x and 4x, outputs 6x and -4x; the student has x, and heads x and 2x."""
    losses = []
    out = ri.soka_net(
        [linear(2.0, 3.0), linear(4.0, -1.0)], linear(1.0), [linear(1.0)[0], linear(2.0)[0]], X,
        progress=lambda _, loss: losses.append(loss), **options,
    )  # fmt: skip
    return out, losses


def test_the_losses_of_both_steps_by_hand():
    # Tasks: (6 - 1)^2 and (-4 - 2)^2. Collaboration: features (2 + 4) / 2 = 3 against 1, and 0.05 of the tasks' losses.
    _, losses = train(lr=0.0, warmup_steps=1, num_steps=1)
    assert losses == pytest.approx([25 + 36, (3 - 1) ** 2 + 0.05 * (25 + 36)])


def test_competition_trains_the_heads_and_collaboration_the_shared_stages():
    # The first step of Adam has the length of the rate, against the sign of the gradient.
    out, _ = train(lr=0.1, warmup_steps=0, num_steps=1, task_share=0.0, balance=False)
    assert [head.weight.item() for head in out.heads] == pytest.approx([1.1, 1.9])
    assert out.shared[0].weight.item() == pytest.approx(1.1)  # towards 3
    # The tasks alone would move it by 2 (6 - 1.1) * 1.1 + 2 (-4 - 1.9) * 1.9 < 0
    alone, _ = train(lr=0.1, warmup_steps=0, num_steps=1, task_share=1e6, balance=False)
    assert alone.shared[0].weight.item() == pytest.approx(0.9)


def test_strengths_are_asked_to_follow_what_is_left_to_learn():
    # Pulls 3 and 1, mean 2. As far as each other: both are to be 2. One with 1/4 of its loss left, the other with 3/4:
    # relative to their mean 1/2 and 3/2, to the power 2 1/4 and 9/4, so 1/2 and 9/2 are asked for.
    pulls = torch.tensor([3.0, 1.0])
    assert strength_error(pulls, torch.tensor([0.5, 0.5]), 2.0).item() == pytest.approx(2)
    assert strength_error(pulls, torch.tensor([0.25, 0.75]), 2.0).item() == pytest.approx(2.5 + 3.5)


def test_the_weights_move_towards_the_task_that_pulls_less_than_it_should():
    # d/dW of (6 - h W)^2 at h = 1 and of (-4 - 2 W)^2: pulls 10 and 24 of equal progress, so the first task gains.
    out, _ = train(lr=0.0, warmup_steps=1, num_steps=1, weight_lr=0.1)
    assert out.weights.tolist() == pytest.approx([1.1, 0.9])


def quarters(x):
    """Mean ink of the four quarters of an image."""
    return x.reshape(-1, 2, 4, 2, 4).mean((2, 4)).flatten(1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_balanced_competition_lifts_the_task_that_equal_weights_neglect(seed):
    # Scores of digits, and ink of the quarters, 400 times smaller in square. Errors relative to the outputs' variance.
    digits = toy_zoo.digits(flat=True)
    teachers = [fit(perceptron(64, 64, 32, 10, seed=seed), digits.train, num_steps=200, seed=seed)]
    teachers.append(perceptron(64, 64, 32, 4, seed=seed + 5))
    optimizer, x = torch.optim.Adam(teachers[1].parameters(), lr=3e-3), digits.train[0]
    for step in range(200):
        part = x[step % 10 * 100 :][:100]
        optimizer.zero_grad()
        nn.functional.mse_loss(teachers[1](part), quarters(part)).backward()
        optimizer.step()
    before = parameters(teachers)

    def errors(**options):
        start = perceptron(64, 64, 32, 10, seed=seed + 99)[:-1]
        heads = [initialised(nn.Linear(32, size), seed + size) for size in (10, 4)]
        out = ri.soka_net(teachers, start, heads, list(x.split(64)), num_steps=400, lr=2e-3, **options)
        with torch.no_grad():
            pairs = [(o, t(digits.test[0])) for o, t in zip(out(digits.test[0]), teachers)]
        right = accuracy(lambda x: out(x)[0], digits.test)
        return torch.stack([(o - t).square().mean() / t.var(dim=0).mean() for o, t in pairs]), right, out.weights

    (balanced, right, weights), (equal, equal_right, _) = errors(), errors(balance=False)
    assert balanced[1] < 0.92 * equal[1] and weights[1] > 1.2
    assert equal[0] < balanced[0] < 0.4 and 0.55 < right < equal_right  # at the expense of the other task
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(teachers)))


def test_bad_input_is_refused():
    teacher, head = linear(1.0, 1.0), linear(1.0)[0]
    with pytest.raises(ValueError, match="0 teachers"):
        ri.soka_net([], linear(1.0), [], X)
    with pytest.raises(ValueError, match="1 teachers, 2 heads"):
        ri.soka_net([teacher], linear(1.0), [head, head], X)
    with pytest.raises(ValueError, match=r"\[2\] stages; 2 shared ones and a head"):
        ri.soka_net([teacher], linear(1.0, 1.0), [head], X)
    with pytest.raises(ValueError, match="the teachers' shapes"):
        ri.soka_net([teacher], linear(1.0), [nn.Linear(1, 2)], X)
