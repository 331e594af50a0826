import copy
import math

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.distillation.filtered_amalgamation import hard_loss, soft_loss
from reference_impls.distillation.intertwined_amalgamation import ChannelCoding
from tests.methods.distillation.helpers import fit_questions, parameters, scene_network, scene_questions, scenes

WANTED = [[0, 2], [2]]  # of the teachers' three questions each


def network(*slopes):
    blocks = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, len(slopes), bias=False))
    blocks[0].weight.data.fill_(1.0)
    blocks[1].weight.data = torch.tensor(slopes)[:, None]
    return blocks


def first_loss(tasks, **options):
    losses = []
    teachers, student = [network(3.0, -1.0), network(2.0)], network(1.0)[:1]
    options |= {"num_steps": 1, "finetune_steps": 0, "progress": lambda _, loss: losses.append(loss)}
    ri.filtered_amalgamation(teachers, student, [torch.tensor([[1.0]])], tasks, **options)
    return losses[0]


def test_the_losses_by_hand():
    # the teacher is 3/4 sure of yes; a score of 0 is one half: log 2 either way. A score of log 3 costs log(4/3) if the answer is yes.
    sure, none, three = torch.tensor([[math.log(3)]]), torch.zeros(1, 1), torch.tensor([[math.log(3)]])
    assert hard_loss(none, sure).item() == soft_loss(none, sure).item() == pytest.approx(math.log(2))
    assert hard_loss(three, sure).item() == pytest.approx(math.log(4 / 3))
    assert soft_loss(three, sure).item() == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4))


def test_only_wanted_questions_are_asked():
    # At x = 1 the first teacher answers yes and no, the second yes; the student's feature 1 goes through each teacher's filter and head.
    generator = torch.Generator().manual_seed(0)
    a, b = (ChannelCoding(1, generator)(torch.ones(1, 1)).item() for _ in range(2))
    log = lambda z: math.log(1 + math.exp(-z))  # noqa: E731
    assert first_loss([[1], [0]]) == pytest.approx(log(a) + log(2 * b), rel=1e-5)  # the score -a of a question whose answer is no
    assert first_loss([[0, 1], []]) == pytest.approx((log(3 * a) + log(a)) / 2, rel=1e-5)  # the second teacher is not needed


def test_answers_come_in_the_order_of_the_tasks():
    x = torch.tensor([[1.0], [-1.0]])
    student = ri.filtered_amalgamation([network(3.0, -1.0), network(2.0)], network(1.0)[:1], [x], [[1, 0], [0]])
    assert (student(x) > 0).tolist() == [[False, True, True], [True, False, False]]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_customised_student_answers_the_wanted_questions_as_its_teachers_do(seed):
    (images, classes, depth), (x, c, d), unlabeled = scenes(400, 0), scenes(400, 1), scenes(400, 5)[0]
    answers, truth = scene_questions(classes, depth), scene_questions(c, d)
    teachers = [
        fit_questions(scene_network(3, seed=seed + 10 * t), images, answers[:, 3 * t : 3 * t + 3], num_steps=300, seed=seed) for t in range(2)
    ]
    before, trunk = parameters(teachers), copy.deepcopy(teachers[0])[:-1]
    options = {"num_steps": 80, "finetune_steps": 200}
    student = ri.filtered_amalgamation(teachers, trunk, list(unlabeled.split(32)), WANTED, **options)
    together = lambda x: torch.cat([t(x)[:, w] for t, w in zip(teachers, WANTED)], 1)  # noqa: E731
    right = lambda scores: ((scores > 0) == (truth[:, [0, 2, 5]] > 0.5)).float().mean().item()  # noqa: E731
    everything = ri.filtered_amalgamation(teachers, trunk, list(unlabeled.split(32)), [[0, 1, 2]] * 2, **options)
    with torch.no_grad():
        assert student(x).shape == (400, 3)
        assert right(student(x)) > right(together(x)) - 0.05 and right(together(x)) > 0.9
        # Asking for all six questions costs the three wanted ones nothing here; the record's note says so.
        assert abs(right(student(x)) - right(everything(x)[:, [0, 2, 5]])) < 0.04
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(teachers)))


def test_bad_input_is_refused():
    x, one = [torch.ones(1, 1)], network(1.0)
    with pytest.raises(ValueError, match="2 lists of tasks for 1 teachers"):
        ri.filtered_amalgamation([one], one[:1], x, [[0], [0]])
    with pytest.raises(ValueError, match=r"tasks are \[1\], of a teacher with 1 outputs"):
        ri.filtered_amalgamation([one], one[:1], x, [[1]])
    with pytest.raises(ValueError, match="targets is 'both'"):
        ri.filtered_amalgamation([one], one[:1], x, [[0]], targets="both")
    with pytest.raises(ValueError, match="ReLU; it must be Linear"):
        ri.filtered_amalgamation([nn.Sequential(one[0], nn.ReLU())], one[:1], x, [[0]])
