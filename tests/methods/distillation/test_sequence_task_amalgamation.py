import math
from functools import lru_cache

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.distillation.sequence_task_amalgamation import (
    Detection,
    Objects,
    find_objects,
    generalised_iou,
    set_loss,
)
from tests.methods.distillation.detectors import detector, f1_score, scenes, targets
from tests.methods.distillation.helpers import parameters


class Fixed(nn.Module):
    """Answers the same tokens, scores and boxes to every image."""

    def __init__(self, tokens, scores, boxes):
        super().__init__()
        self.values = nn.ParameterList(nn.Parameter(torch.tensor(v)) for v in (tokens, scores, boxes))

    def forward(self, x):
        tokens, scores, boxes = (v.expand(len(x), *v.shape) for v in self.values)
        return Detection([tokens], scores, boxes)


def test_generalised_overlap_by_hand():
    # The left half, the middle half and the right quarter of the unit square. The halves share 1/4 of a union of 3/4,
    # their hull; the left half and the right quarter share nothing, and 1/4 of their hull is empty.
    a = torch.tensor([0.25, 0.5, 0.5, 1.0])
    b = torch.tensor([[0.5, 0.5, 0.5, 1.0], [0.875, 0.5, 0.25, 1.0]])
    assert generalised_iou(a, b).tolist() == pytest.approx([1 / 3, -1 / 4])


def test_findings_are_sorted_by_confidence_and_padded_with_minus_five():
    # Teacher 1 has one class, teacher 2 has two. Sure findings: 1's first (odds e^2), 2's first (its class 2, odds e^3
    # to 1 and 1).
    box = lambda v: torch.full((1, 2, 4), v)  # noqa: E731
    first = Detection([], torch.tensor([[[0.0, 2.0], [3.0, 0.0]]]), box(0.1))
    second = Detection([], torch.tensor([[[0.0, 0.0, 3.0], [0.0, 0.1, 0.0]]]), box(0.2))  # the second has 0.36: too little
    found = find_objects([first, second], threshold=0.5, max_objects=3)
    assert found.exist.tolist() == [[True, True, False]] and found.boxes[0, :2, 0].tolist() == pytest.approx([0.2, 0.1])
    assert found.scores[0, :2].tolist() == [[0, -5, 0, 3], [0, 2, -5, -5]]
    assert find_objects([first, second], threshold=0.9, max_objects=1).exist.sum() == 1
    assert find_objects([first, second], threshold=0.95, max_objects=2).exist.sum() == 0


def test_the_losses_of_classes_and_boxes_by_hand():
    # One object, the left half of the image. Query 1 has its box but odds of 1, query 2 the odds but lies in the right
    # quarter: likeness 1/2 - 0 + 2 against e/(1 + e) - 5 (0.625 + 0.25) - 2/4, so query 1 is assigned. At temperature 2
    # the object's odds are e^2 to 1; query 2 should say "no object".
    p = lambda z: 1 / (1 + math.exp(-z))  # noqa: E731
    boxes = torch.tensor([[[0.25, 0.5, 0.5, 1.0], [0.875, 0.5, 0.25, 1.0]]])
    out = Detection([], torch.tensor([[[0.0, 0.0], [0.0, 1.0]]]), boxes)
    found = Objects(torch.tensor([[[0.0, 4.0]]]), boxes[:, :1], torch.tensor([[True]]))
    kl = p(2) * math.log(2 * p(2)) + p(-2) * math.log(2 * p(-2))
    expected = (4 * kl - 0.1 * math.log(p(-1))) / 1.1
    assert set_loss(out, found, (5.0, 2.0, 0.1), 2.0).item() == pytest.approx(expected, rel=1e-5)
    moved = Objects(found.scores, torch.tensor([[[0.25, 0.5, 0.4, 1.0]]]), found.exist)  # 0.1 narrower: overlap 0.8
    assert set_loss(out, moved, (5.0, 2.0, 0.1), 2.0).item() == pytest.approx(expected + 5 * 0.1 + 2 * 0.2, rel=1e-5)


def test_the_hint_compares_each_part_of_the_sequence_with_its_teacher():
    # Tokens of two numbers are normalised to (1, -1) or (-1, 1). The student's first token is as the first teacher's,
    # its second is the opposite of the second teacher's: mean squared differences 0 and 4. No teacher finds anything.
    scores, boxes, losses = [[1.0, 0.0]], [[0.5, 0.5, 1.0, 1.0]], []
    teachers = [Fixed([[3.0, 1.0]], scores, boxes), Fixed([[0.0, 5.0]], scores, boxes)]
    student = Fixed([[9.0, 4.0], [2.0, 1.0]], [[1.0, 0.0, 0.0]], boxes)
    for weights in ((1.0, 0.0), (0.5, 0.0), (0.0, 1.0)):
        ri.sequence_task_amalgamation(
            teachers, student, [torch.zeros(2, 1)], hint_weight=weights[0], task_weight=weights[1], num_steps=1,
            progress=lambda _, loss: losses.append(loss),
        )  # fmt: skip
    assert losses == pytest.approx([4.0, 2.0, math.log(1 + 2 * math.exp(-1))], abs=1e-3)


@lru_cache
def teach(first):
    """A detector of two of the four colours, trained on labelled images."""
    network, generator = detector(2, 10 + first, width=32, queries=2), torch.Generator().manual_seed(first)
    optimizer, scene = torch.optim.Adam(network.parameters(), lr=5e-3), scenes(1000, 10 + first)
    aims = targets(scene, range(first, first + 2))
    for _ in range(300):
        index = torch.randint(1000, (32,), generator=generator)
        loss = set_loss(network(scene[0][index]), Objects(*(t[index] for t in aims)), (5.0, 2.0, 0.1), 1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_detector_finds_what_both_teachers_find(seed):
    teachers, test = [teach(0), teach(2)], scenes(400, 999)
    before = parameters(teachers)
    images = list(scenes(1000, 555 + seed)[0].split(32))
    start = detector(4, 50 + seed, width=32, queries=2, streams=2)
    student = ri.sequence_task_amalgamation(teachers, start, images, num_steps=250, lr=3e-3)
    alone = max(f1_score(teacher, test, range(4), first) for teacher, first in zip(teachers, (0, 2)))
    assert f1_score(student, test, range(4)) > alone + 0.05
    for teacher, first in zip(teachers, (0, 2)):
        mine = range(first, first + 2)
        assert f1_score(student, test, mine) > f1_score(teacher, test, mine, first) - 0.25
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(teachers)))


def test_bad_input_is_refused():
    teacher = Fixed([[1.0, 0.0]], [[1.0, 0.0]], [[0.5, 0.5, 1.0, 1.0]])
    x = [torch.zeros(2, 1)]
    with pytest.raises(ValueError, match="0 teachers"):
        ri.sequence_task_amalgamation([], teacher, x)
    with pytest.raises(ValueError, match="1 tokens and 2 scores; 2 and 3 are needed"):
        ri.sequence_task_amalgamation([teacher, teacher], teacher, x)
    with pytest.raises(ValueError, match="1 tokens and 2 scores; 1 and 3 are needed"):
        ri.sequence_task_amalgamation([teacher, teacher], teacher, x, sequence="aggregate")
    with pytest.raises(ValueError, match="'mean'"):
        ri.sequence_task_amalgamation([teacher], teacher, x, sequence="mean")
