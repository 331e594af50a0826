import math

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.distillation.knowledge_factorization import bottleneck, information
from tests.methods.distillation.helpers import parameters, perceptron

SHAPES = torch.tensor([[[1, 1, 1], [1, 0, 1], [1, 1, 1]], [[0, 1, 0], [1, 1, 1], [0, 1, 0]],
                       [[1, 0, 1], [0, 1, 0], [1, 0, 1]], [[1, 1, 1], [0, 1, 0], [0, 1, 0]]])  # fmt: skip


def test_the_bound_on_information_by_hand():
    # Matching inputs of cosine 1 and 0.6, others of cosine 0 and 0.8: (1 + 0.6) / 2 - log((e^0 + e^0.8) / 2)
    a, b = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    assert information(a, b).item() == pytest.approx(0.8 - math.log((math.exp(0.8) + 1) / 2), abs=1e-6)


def test_the_means_over_a_whole_matrix_count_what_does_not_belong():
    # Cosines 1 on the diagonal and 0 beside it: 1 - log(1) over the pairs; over the matrix 2/4 - log((4 e^0) / 4)
    assert information(torch.eye(2), torch.eye(2)).item() == pytest.approx(1)
    assert information(torch.eye(2), torch.eye(2), "matrix").item() == pytest.approx(0.5)


def test_the_price_of_a_distinction_by_hand():
    # mean 1 and variance 1: 1/2; mean 0 and variance e: (e - 1 - 1) / 2; a standard normal is free
    assert bottleneck(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item() == pytest.approx(0.5 + (math.e - 2) / 2)
    assert bottleneck(torch.zeros(3, 2), torch.zeros(3, 2)).item() == 0


def constant(inputs, *outputs):
    """Answers the same to every input."""
    layer = nn.Linear(inputs, len(outputs))
    layer.weight.data.zero_()
    layer.bias.data = torch.tensor(outputs)
    return layer


def test_the_loss_is_the_sum_of_its_parts():
    # All parts answer 0, without noise (log-variance -60): every cross-entropy is log 2, whatever the labels, the
    # features say nothing of one another, and a task's 3 features cost 3 (60 - 1) / 2 = 88.5. The teacher's scores are
    # 0 and 2, at T = 2 odds 1 to e.
    teacher, x, losses = nn.Sequential(nn.Identity(), constant(4, 0.0, 2.0, 2.0, 0.0)), torch.ones(6, 4), []
    parts = constant(4, 0.0, 0.0, 0.0), [constant(4, *[0.0] * 3, *[-60.0] * 3)] * 2
    for data in (x, (x, torch.zeros(6, 2, dtype=torch.long))):
        ri.knowledge_factorization(
            teacher, *parts, [data], num_steps=1, bottleneck_weight=0.01, task_weight=0.5, kd_weight=0.25, temperature=2.0,
            progress=lambda _, loss: losses.append(loss),
        )  # fmt: skip
    p = math.e / (1 + math.e)
    divergence = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    assert losses == pytest.approx([2 * (1.5 * math.log(2) + 0.25 * 4 * divergence + 0.885)] * 2, rel=1e-5)


def test_with_labels_the_parts_learn_them_and_not_the_teacher():
    teacher, x = nn.Sequential(nn.Identity(), constant(4, 0.0, 4.0)), torch.ones(6, 4)
    options = {"tasks": [[0, 1]], "kd_weight": 0.0, "num_steps": 50}
    for labels in (0, 1):
        data = [(x, torch.full((6, 1), labels))]
        out = ri.knowledge_factorization(teacher, perceptron(4, 3, seed=1), [perceptron(4, 6, seed=2)], data, **options)
        assert out(x).argmax(dim=1).unique().tolist() == [labels]


def test_parts_assemble_without_training():
    teacher, x = perceptron(4, 5, 6, seed=0), torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    specific = [perceptron(4, 6, seed=s) for s in (2, 3, 4)]
    out = ri.knowledge_factorization(teacher, perceptron(4, 3, seed=1), specific, [x], num_steps=2)
    assert torch.equal(out.assemble([2, 0])(x), out(x)[:, [4, 5, 0, 1]]) and torch.equal(out(x, [1]), out(x)[:, 2:4])


def sprites(count, seed):
    """One of four shapes at one of four columns, at any row: two independent tasks on one image."""
    generator = torch.Generator().manual_seed(seed)
    shape, column, row = (torch.randint(k, (count,), generator=generator) for k in (4, 4, 6))
    x = 0.5 * torch.randn(count, 1, 8, 8, generator=generator)
    for i in range(count):
        x[i, 0, row[i] : row[i] + 3, column[i] + 1 : column[i] + 4] += 2.0 * SHAPES[shape[i]] - 0.5
    return x, torch.stack([shape, column], dim=1)


def linear_probe(features, labels):
    """Accuracy on the second half of a least-squares classifier fitted on the first."""
    features = torch.cat([features, torch.ones(len(features), 1)], dim=1)
    half = len(features) // 2
    solution = torch.linalg.lstsq(features[:half], nn.functional.one_hot(labels[:half]).float()).solution
    return ((features[half:] @ solution).argmax(dim=1) == labels[half:]).float().mean().item()


@pytest.mark.parametrize("seed", [0, 1, 2])
@torch.no_grad()
def test_task_features_hold_their_own_task_only_and_answers_stay(seed):
    (x, y), (xt, yt) = sprites(2000, seed), sprites(1000, seed + 9)
    teacher, generator = perceptron(64, 128, 64, 8, seed=seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(teacher.parameters(), lr=3e-3)
    for _ in range(300):
        index = torch.randint(len(x), (64,), generator=generator)
        with torch.enable_grad():
            scores = teacher(x[index]).unflatten(1, (2, 4)).transpose(1, 2)
            nn.functional.cross_entropy(scores, y[index]).backward()
        optimizer.step()
        optimizer.zero_grad()
    before = parameters([teacher])
    right = lambda network: (network(xt).unflatten(1, (2, 4)).argmax(dim=2) == yt).float().mean(dim=0)  # noqa: E731

    def factorize(**weights):
        """The accuracies on both tasks, and what a reader of one task's features finds out about the other task."""
        parts = perceptron(64, 64, 24, 24, seed=seed), [perceptron(64, 32, 48, seed=seed + 1 + j) for j in range(2)]
        with torch.enable_grad():
            out = ri.knowledge_factorization(teacher, *parts, list(x.split(64)), **weights)
        drawn, noise = [], torch.Generator().manual_seed(seed)
        for network in out.specific:
            mu, log_var = network(xt).chunk(2, dim=1)
            drawn.append(mu + (0.5 * log_var).exp() * torch.randn(mu.shape, generator=noise))
        own, other = ([linear_probe(drawn[j], yt[:, abs(j - k)]) for j in range(2)] for k in range(2))
        return right(out), torch.tensor(own), torch.tensor(other)

    accuracy, own, other = factorize(bottleneck_weight=0.1)
    plain_accuracy, _, plain_other = factorize(bottleneck_weight=0, infomax_weight=0)  # distillation into the same parts
    assert (accuracy > right(teacher) - 0.05).all() and (accuracy > plain_accuracy - 0.03).all()
    assert (other < 0.35).all() and (other < plain_other - 0.05).all() and (own > 0.55).all()  # chance is 0.25
    assert all(torch.equal(a, b) for a, b in zip(before, parameters([teacher])))


def test_bad_input_is_refused():
    teacher, parts, x = perceptron(4, 5, 4), (perceptron(4, 3), [perceptron(4, 6)]), [torch.ones(2, 4)]
    with pytest.raises(ValueError, match="0 batches"):
        ri.knowledge_factorization(teacher, *parts, [])
    with pytest.raises(ValueError, match="1 specific networks for 2 tasks"):
        ri.knowledge_factorization(teacher, *parts, x, tasks=[[0], [1]])
    with pytest.raises(ValueError, match="'all'"):
        ri.knowledge_factorization(teacher, *parts, x, marginal="all")
    with pytest.raises(ValueError, match="not be negative"):
        ri.knowledge_factorization(teacher, *parts, x, kd_weight=-1)
