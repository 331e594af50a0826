import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.distillation.layerwise_amalgamation import Pointwise


def stages(widths, seed):
    """A perceptron whose stages end before their nonlinearity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pairs = enumerate(zip(widths, widths[1:]))
        return nn.Sequential(*[nn.Sequential(*[nn.ReLU()] * (i > 0), nn.Linear(a, b)) for i, (a, b) in pairs])


def linear(*matrices):
    """Stages that are matrices."""
    network = nn.Sequential(*[nn.Linear(len(m[0]), len(m), bias=False) for m in matrices])
    for layer, matrix in zip(network, matrices):
        layer.weight.data = torch.tensor(matrix)
    return network


def teach(task, seed):
    network, first = stages((64, 48, 32, 5), seed), task.classes[0]
    optimizer, generator = torch.optim.Adam(network.parameters(), lr=3e-3), torch.Generator().manual_seed(seed)
    for _ in range(150):
        index = torch.randint(len(task.train[0]), (64,), generator=generator)
        loss = nn.functional.cross_entropy(network(task.train[0][index]), task.train[1][index] - first)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


@torch.no_grad()
def accuracy(network, split, classes=range(10)):
    scores = network(split[0])[:, list(classes)]
    return (scores.argmax(1) + classes[0] == split[1]).float().mean().item()


def test_the_losses_are_half_the_squared_errors_of_the_paper():
    # One input x = 1; teachers 2x -> score 3 * 2 = 6 and 1x -> -1; features (2, 1), scores (6, -1). No step is taken (lr 0).
    teachers, losses = [linear([[2.0]], [[3.0]]), linear([[1.0]], [[-1.0]])], []
    student = linear([[0.5]], [[1.0], [2.0]])
    ri.layerwise_amalgamation(
        teachers, student, [torch.ones(1, 1)], lr=0.0, num_steps=1, joint_steps=1, progress=lambda _, loss: losses.append(loss)
    )
    generator = torch.Generator().manual_seed(0)
    encoder, decoder = Pointwise(2, 1, generator), Pointwise(1, 2, generator)
    f = torch.tensor([[2.0, 1.0]])
    code = encoder(f).item()
    assert losses == pytest.approx([
        0.5 * (decoder(encoder(f)) - f).square().sum().item(),  # the auto-encoder
        0.5 * (0.5 - code) ** 2,  # stage 1 sees x = 1 and answers 0.5
        0.5 * ((code - 6) ** 2 + (2 * code + 1) ** 2),  # stage 2 sees the amalgamated feature
        0.5 * ((0.5 - 6) ** 2 + (2 * 0.5 + 1) ** 2),  # both, one after the other
    ])  # fmt: skip


def test_a_stage_may_see_the_students_own_feature():
    teachers, losses = [linear([[2.0]], [[3.0]]), linear([[1.0]], [[-1.0]])], []
    student = linear([[0.5]], [[1.0], [2.0]])
    options = {"lr": 0.0, "num_steps": 1, "joint_steps": 0, "progress": lambda _, loss: losses.append(loss)}
    ri.layerwise_amalgamation(teachers, student, [torch.ones(1, 1)], stage_inputs="student", **options)
    assert losses[2] == pytest.approx(0.5 * ((0.5 - 6) ** 2 + (1 + 1) ** 2))


def test_features_that_fit_the_code_are_kept_without_loss():
    # Two teachers with the same one feature: one number holds both, and linear stages can follow it exactly.
    teachers = [linear([[1.0, -1.0]], [[2.0]]), linear([[1.0, -1.0]], [[-3.0]])]
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    student = ri.layerwise_amalgamation(teachers, linear([[0.1, 0.2]], [[1.0], [1.0]]), [x], num_steps=400, lr=0.02)
    assert torch.allclose(student(x), torch.cat([t(x) for t in teachers], 1), atol=0.05)


def test_a_pointwise_map_mixes_channels_and_not_places():
    generator = torch.Generator().manual_seed(0)
    mix, image = Pointwise(3, 2, generator), torch.randn(2, 3, 4, 5, generator=generator)
    assert torch.allclose(mix(image), nn.functional.conv2d(image, mix.weight[:, :, None, None], mix.bias), atol=1e-6)
    assert torch.allclose(mix(image[:, :, 0, 0]), mix(image)[:, :, 0, 0], atol=1e-6)


def test_incremental_amalgamation_encodes_two_at_a_time():
    widths, teachers = [], [linear([[1.0]] * 2, [[1.0, 1.0]]) for _ in range(3)]
    student = linear([[1.0]], [[1.0]] * 3)
    for order in ("direct", "incremental"):
        losses = []
        options = {"num_steps": 1, "joint_steps": 0, "progress": lambda _, loss: losses.append(loss)}
        ri.layerwise_amalgamation(teachers, student, [torch.ones(1, 1)], order=order, **options)
        widths.append(len(losses))
    # trainings: one auto-encoder of 6 features and two stages; two auto-encoders (of 4 and of 1 + 2) and two stages
    assert widths == [3, 4]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_student_keeps_each_teachers_classes_and_the_layers_help(seed):
    digits = toy_zoo.digits(flat=True)
    parts = [toy_zoo.restrict(digits, classes, "part") for classes in (range(5), range(5, 10))]
    teachers = [teach(part, 2 * seed + i) for i, part in enumerate(parts)]
    before = [p.clone() for t in teachers for p in t.parameters()]
    inputs = [x for x, _ in toy_zoo.batches(digits.train, 100, torch.Generator().manual_seed(seed))]
    student = ri.layerwise_amalgamation(teachers, stages((64, 64, 48, 10), 99 + seed), inputs)
    for part, teacher in zip(parts, teachers):
        own = part.test[0], part.test[1] - part.classes[0]
        assert accuracy(student, part.test, range(part.classes[0], part.classes[0] + 5)) > accuracy(teacher, own, range(5)) - 0.02
    together = lambda x: torch.cat([t(x) for t in teachers], 1)  # noqa: E731
    assert accuracy(student, digits.test) > accuracy(together, digits.test) - 0.03  # it has fewer parameters than they
    loss = lambda network: (network(digits.test[0]) - together(digits.test[0])).square().sum(1).mean().item()  # noqa: E731
    scores_only = ri.layerwise_amalgamation(teachers, stages((64, 64, 48, 10), 99 + seed), inputs, num_steps=0, joint_steps=200)
    assert loss(student) < 0.9 * loss(scores_only)
    assert all(torch.equal(a, p) for a, p in zip(before, (p for t in teachers for p in t.parameters())))


def test_bad_input_is_refused():
    teacher, x = linear([[1.0]], [[1.0]]), [torch.ones(1, 1)]
    with pytest.raises(ValueError, match="0 teachers"):
        ri.layerwise_amalgamation([], teacher, x)
    with pytest.raises(ValueError, match=r"\[2\] stages, the student 1"):
        ri.layerwise_amalgamation([teacher], linear([[1.0]]), x)
    with pytest.raises(ValueError, match="2 scores together and the student 1"):
        ri.layerwise_amalgamation([teacher, teacher], teacher, x)
    with pytest.raises(ValueError, match="order is 'random'"):
        ri.layerwise_amalgamation([teacher], teacher, x, order="random")
