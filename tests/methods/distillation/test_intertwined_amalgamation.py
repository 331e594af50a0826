import copy
import math

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.distillation.intertwined_amalgamation import ChannelCoding, reverse_huber, soft_cross_entropy
from tests.methods.distillation.helpers import dense_network, fit_dense, initialised, parameters, scenes


def chain(*slopes):
    layers = [nn.Linear(1, 1, bias=False) for _ in slopes]
    for layer, slope in zip(layers, slopes):
        layer.weight.data.fill_(slope)
    return nn.Sequential(*layers)


def test_channel_coding_weighs_channels_by_a_function_of_their_means():
    coding = ChannelCoding(2, torch.Generator().manual_seed(0))
    coding.first.data, coding.second.data = torch.tensor([[1.0, 1.0]]), torch.tensor([[math.log(3)], [0.0]])
    image = torch.tensor([[[[0.0, 1.0]], [[0.5, 0.5]]]])  # means 0.5 and 0.5, so 1 within, gates sigmoid(log 3) = 3/4 and 1/2
    assert coding(image).flatten().tolist() == pytest.approx([0, 0.75, 0.25, 0.25])
    assert torch.allclose(coding(image.flip(3)), coding(image).flip(3))  # the places are not looked at


def test_the_losses_by_hand():
    # errors 0, 1 and 5: c = 1, so 0 + 1 + (25 + 1) / 2 over 3
    assert reverse_huber(torch.tensor([[0.0, 1.0, 5.0]]), torch.zeros(1, 3)).item() == pytest.approx(14 / 3)
    scores = torch.tensor([[math.log(3), 0.0]])  # the teacher's probabilities are 3/4 and 1/4
    assert soft_cross_entropy(torch.zeros(1, 2), scores).item() == pytest.approx(math.log(2))


def test_a_block_is_judged_by_what_the_teachers_make_of_it():
    # The feature 2x goes through each coding and then through the teacher's rest, 3 or -1; the teachers themselves answer 3 and -1.
    losses = []
    squared = lambda p, t: (p - t).square().mean()  # noqa: E731

    ri.intertwined_amalgamation(
        [chain(1, 3), chain(1, -1)], chain(2), [torch.ones(1, 1)], losses=[squared, squared], weights=[1.0, 10.0],
        num_steps=1, finetune_steps=0, progress=lambda _, loss: losses.append(loss),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    a, b = (ChannelCoding(1, generator)(torch.full((1, 1), 2.0)).item() for _ in range(2))
    assert losses == pytest.approx([(3 * a - 3) ** 2 + 10 * (-b + 1) ** 2])


def test_each_task_branches_out_where_its_loss_was_least():
    # The student's second block is zero: what comes after it knows nothing of x.
    x = torch.tensor([[1.0], [2.0], [3.0]])
    student = ri.intertwined_amalgamation([chain(1, 1, 2), chain(1, 1, -1)], chain(1, 0), [x], num_steps=0, finetune_steps=0)
    assert student.branches_after == (0, 0) and len(student.trunk) == 1
    other = ri.intertwined_amalgamation([chain(0, 1, 0), chain(1, 1, -1)], chain(1, 0), [x], num_steps=0, finetune_steps=0)
    assert other.branches_after == (0, 0)  # the first teacher's answer is always zero: equal losses, the earlier block
    assert torch.equal(other(x)[0], torch.zeros(3, 1))


def test_one_student_parses_scenes_and_sees_depth_as_its_teachers_do():
    # six seeds: accuracy 0.002 (spread 0.001) below the parser's, error 1.07 (0.04) times the other teacher's and 0.88
    # (0.10) times that of a student that shares all but the heads
    found = torch.tensor([parsing_and_depth(seed) for seed in range(3)]).mean(0).tolist()
    parsed, parsed_by_teacher, parsed_by_shared, error, error_of_teacher, error_of_shared = found
    assert parsed > max(parsed_by_teacher, parsed_by_shared) - 0.005
    assert error < 1.15 * error_of_teacher and error < 0.95 * error_of_shared


def parsing_and_depth(seed):
    """Accuracies of the student, its teacher and a student that shares all but the heads; then their errors in depth."""
    (images, classes, depth), (x, c, d), unlabeled = scenes(300, 0), scenes(200, 1), list(scenes(300, 5)[0].split(32))
    parser = fit_dense(dense_network(3, seed=seed), images, classes, num_steps=250, seed=seed)
    gauge = fit_dense(dense_network(1, seed=seed + 10), images, depth, num_steps=250, seed=seed)
    before, trunk = parameters([parser, gauge]), copy.deepcopy(parser[:-1])
    student = ri.intertwined_amalgamation([parser, gauge], trunk, unlabeled, num_steps=50, finetune_steps=100)

    plain = nn.ModuleList([copy.deepcopy(trunk), *[initialised(nn.Conv2d(12, k, 1), seed) for k in (3, 1)]])  # all shared, two heads
    optimizer = torch.optim.Adam(plain.parameters(), lr=3e-3)
    for step in range(4 * 50 + 100):  # as many steps, the same losses
        batch = unlabeled[step % len(unlabeled)]
        feature = plain[0](batch)
        loss = soft_cross_entropy(plain[1](feature), parser(batch).detach()) + reverse_huber(plain[2](feature), gauge(batch).detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    size = lambda *networks: sum(p.numel() for n in networks for p in n.parameters())  # noqa: E731
    assert size(student) < size(parser, gauge)
    assert all(torch.equal(a, b) for a, b in zip(before, parameters([parser, gauge])))
    with torch.no_grad():
        (parsed, seen), shared = student(x), plain[0](x)
        right = [(scores.argmax(1) == c).float().mean().item() for scores in (parsed, parser(x), plain[1](shared))]
        return right + [(out - d).abs().mean().item() for out in (seen, gauge(x), plain[2](shared))]


def test_bad_input_is_refused():
    x = [torch.ones(1, 1)]
    with pytest.raises(ValueError, match="0 teachers"):
        ri.intertwined_amalgamation([], chain(1), x)
    with pytest.raises(ValueError, match=r"2 blocks, the teachers \[2\]"):
        ri.intertwined_amalgamation([chain(1, 1)], chain(1, 1), x)
    with pytest.raises(ValueError, match="one weight for each of the 1 teachers"):
        ri.intertwined_amalgamation([chain(1, 1)], chain(1), x, weights=[1.0, 2.0])
