import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.distillation.adaptive_amalgamation import Adapters, least_ambiguous
from tests.methods.distillation.helpers import parameters, perceptron


def chain(*matrices):
    network = nn.Sequential(*[nn.Linear(len(m[0]), len(m), bias=False) for m in matrices])
    for layer, matrix in zip(network, matrices):
        layer.weight.data = torch.tensor(matrix)
    return network


def test_the_source_of_least_entropy_teaches_each_input():
    # entropies of (0.9, 0.1) 0.33, (0.5, 0.5) 0.69 and (0.2, 0.8) 0.50; how often a source is right is not looked at
    rows = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]).log()
    assert least_ambiguous([rows, rows.roll(1, 0), rows.roll(2, 0)]).tolist() == [0, 1, 2]
    assert least_ambiguous([rows + 5, 0.5 * rows]).tolist() == [0, 0, 0]  # a constant changes nothing, a temperature does


def test_rows_of_the_sources_adapters_are_held_at_length_one():
    adapters = Adapters([2], [2], torch.Generator().manual_seed(0))
    adapters.weights[0].data = torch.tensor([[3.0, 4.0], [0.6, 0.8]])  # squared lengths 25 and 1
    assert adapters.norm_penalty().item() == pytest.approx((24**2 + 0) / 2)
    assert adapters([torch.tensor([[1.0, 1.0]])])[0].tolist() == [pytest.approx([7.0, 1.4])]


def test_only_the_chosen_source_is_imitated():
    # Two inputs, 1 and -1; the first source is sure of both (scores 4x, -4x), the second in doubt (scores x, -x). The component gives 0.
    sources, component, losses = [chain([[1.0]], [[4.0], [-4.0]]), chain([[1.0]], [[1.0], [-1.0]])], chain([[0.0]], [[0.0], [0.0]]), []
    inputs = [torch.tensor([[1.0], [-1.0]])]
    options = {"num_steps": 1, "common_width": 1, "progress": lambda _, loss: losses.append(loss)}
    for select in ("entropy", "all"):
        ri.adaptive_amalgamation(sources, [component], component, inputs, [[(0, (0, 1)), (1, (0, 1))]], select=select, **options)
    generator = torch.Generator().manual_seed(0)
    a, b = (Adapters([1], [1], generator).weights[0].item() ** 2 for _ in range(2))  # squared rows: features are 1 and -1, the component's 0
    penalty = (a - 1) ** 2 + (b - 1) ** 2
    assert losses[0] == pytest.approx(16 + a + penalty, rel=1e-5) and losses[2] == pytest.approx((16 + a + 1 + b) / 2 + penalty, rel=1e-5)


def test_one_source_for_each_sub_task_is_plain_imitation():
    sources, x = [chain([[1.0]], [[2.0], [-2.0]]), chain([[1.0]], [[5.0], [-1.0], [0.0]])], torch.tensor([[1.0], [-0.5]])
    components = [chain([[0.5]], [[1.0], [1.0]]), chain([[0.5]], [[1.0]])]
    student = chain([[0.5]], [[1.0]] * 3)
    trained = ri.adaptive_amalgamation(sources, components, student, [x], [[(0, (0, 1))], [(1, (0,))]], num_steps=600, lr=0.02)
    assert torch.allclose(trained(x), torch.cat([sources[0](x), sources[1](x)[:, :1]], 1), atol=0.1)


LABELS = (lambda y: y % 2, lambda y: (y >= 5).long())  # odd? at least five?


def teach(network, task, label, seed):
    """Two tasks: the sub-task on scores 0 and 1, the digit's remainder by three on the others, which nobody asks for."""
    optimizer, generator = torch.optim.Adam(network.parameters(), lr=3e-3), torch.Generator().manual_seed(seed)
    for _ in range(150):
        index = torch.randint(1000, (64,), generator=generator)
        scores, y = network(task.train[0][index]), task.train[1][index]
        loss = nn.functional.cross_entropy(scores[:, :2], label(y)) + nn.functional.cross_entropy(scores[:, 2:], y % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_student_is_at_home_wherever_a_source_is(seed):
    # Two sub-tasks and two kinds of images; each source knows one sub-task on one kind.
    kinds = [toy_zoo.digits(name, flat=True) for name in ("upright", "checker")]
    pairs = [(k, d) for k in range(2) for d in range(2)]
    sources = [teach(perceptron(64, 48 + 16 * d, 32, 5, seed=seed * 10 + 2 * k + d), kinds[d], LABELS[k], seed) for k, d in pairs]
    before, inputs = parameters(sources), torch.cat([kind.train[0] for kind in kinds])
    inputs = list(inputs[torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))].split(50))
    groups = [[(0, (0, 1)), (1, (0, 1))], [(2, (0, 1)), (3, (0, 1))]]

    @torch.no_grad()
    def right(scores):
        """Mean over sub-tasks and kinds of images."""
        parts = [(scores(kind.test[0], k).argmax(1) == LABELS[k](kind.test[1])).float().mean().item() for k in range(2) for kind in kinds]
        return sum(parts) / 4

    def train(select):
        components = [perceptron(64, 48, 32, 2, seed=30 + k) for k in range(2)]
        student = ri.adaptive_amalgamation(
            sources, components, perceptron(64, 64, 48, 4, seed=40), inputs, groups, select=select, num_steps=400, common_width=16
        )
        return right(lambda x, k: student(x)[:, 2 * k : 2 * k + 2])

    student = train("entropy")
    assert student > 0.92 and student > train("all") + 0.008  # the ablation: all sources teach every input
    assert student > max(right(lambda x, k, d=d: sources[2 * k + d](x)[:, :2]) for d in range(2)) + 0.15
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(sources)))


def test_bad_input_is_refused():
    one, x = chain([[1.0]], [[1.0], [0.0]]), [torch.ones(1, 1)]
    with pytest.raises(ValueError, match="1 components for 2 sub-tasks"):
        ri.adaptive_amalgamation([one], [one], one, x, [[(0, (0, 1))]] * 2)
    with pytest.raises(ValueError, match="needs a source"):
        ri.adaptive_amalgamation([one], [one], one, x, [[]])
    with pytest.raises(ValueError, match="a component has 2 scores, the sub-task 1"):
        ri.adaptive_amalgamation([one], [one], one, x, [[(0, (0,))]])
    with pytest.raises(ValueError, match="it needs the 2 of all sub-tasks"):
        ri.adaptive_amalgamation([one], [one], chain([[1.0]], [[1.0]]), x, [[(0, (0, 1))]], num_steps=0)
