import functools
import math

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.mixing.dery import pattern_score, similarity, stitch

X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))


def linear(*rows):
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)
    return layer


@functools.cache
def digit_networks(seed):
    """Three perceptrons of different widths and depths, as lists of layers."""
    task, networks = toy_zoo.digits(flat=True), []
    for i, sizes in enumerate([(64, 96, 48, 10), (64, 48, 64, 48, 32, 10), (64, 64, 64, 32, 10)]):
        layers = [layer for a, b in zip(sizes, sizes[1:]) for layer in (nn.Linear(a, b), nn.ReLU())][:-1]
        network, generator = nn.Sequential(*layers), torch.Generator().manual_seed(10 * seed + i)
        network.load_state_dict(toy_zoo.train(network, None, task.train, num_steps=250, lr=3e-3, generator=generator))
        networks.append(network.eval())
    return networks, task


def accuracy(network, task):
    return (network(task.test[0]).argmax(1) == task.test[1]).float().mean().item()


def test_similarity_and_pattern_score_by_hand():
    # centred x = (1, -1) and y = (2, -2) have 1; x = (1, -1, 0), y = (1, 1, -2): x . y = 0
    column = lambda *values: torch.tensor(values)[:, None]  # noqa: E731
    assert similarity(column(1.0, -1.0), column(5.0, 1.0)).item() == pytest.approx(1)
    assert similarity(column(1.0, -1.0, 0.0), column(1.0, 1.0, -2.0)).item() == pytest.approx(0, abs=1e-9)
    # codes (1, 0, 1) and (1, 1, 0): distance 2 of 3: kernel ((3, 1), (1, 3)), determinant 8
    codes = torch.tensor([[1.0, -1.0, 2.0], [3.0, 1.0, -1.0]])
    assert pattern_score([codes]) == pytest.approx(math.log(8), abs=0.01)
    assert pattern_score([codes[:, :1], codes[:, 1:]]) == pytest.approx(math.log(8), abs=0.01)
    assert pattern_score([codes[:1].repeat(2, 1)]) < pattern_score([codes])


def test_cuts_find_the_same_place_in_a_longer_network():
    # the first network projects to the first entry, then reads it; the second dallies with two rotations before it
    # projects
    turn = linear([0.6, -0.8], [0.8, 0.6])
    back = linear([0.6, 0.8], [-0.8, 0.6])
    first, second = [linear([1.0, 0.0]), linear([2.0])], [turn, back, linear([1.0, 0.0]), linear([2.0])]
    assert ri.dery([first, second], X).cuts == (((0, 0, 1), (0, 1, 2)), ((1, 0, 3), (1, 3, 4)))


def test_stitch_inverts_a_change_of_basis():
    # the second network works in another basis; a stitch from the first's hidden layer to its second half must undo
    # that
    a = [linear([1.0, 0.0], [0.0, 1.0]), linear([1.0, 2.0])]
    b = [linear([0.0, 2.0], [-3.0, 0.0]), linear([1.0, -1 / 3])]  # (2 y, -3 x) -> 2 y + x
    joined = stitch([a, b], [(0, 0, 1), (1, 1, 2)], X)
    assert len(joined.layers) == 3 and torch.allclose(joined(X), X[:, :1] + 2 * X[:, 1:], atol=1e-3)
    assert joined.layers[1].weight.tolist()[0] == pytest.approx([0, 2], abs=1e-3)


def test_copies_of_one_network_give_its_function_whatever_is_chosen():
    networks, task = digit_networks(0)
    layers = list(networks[0])
    joined = ri.dery([layers, layers], task.val[0], num_stages=3)
    assert torch.allclose(joined(task.test[0]), networks[0](task.test[0]), atol=0.05)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_blocks_of_different_networks_work_together_before_any_training_and_start_well(seed):
    # measured: chosen blocks 0.94 to 0.95, the networks 0.96 to 0.98; 15 steps later 0.90 to 0.95, from scratch 0.23
    # to 0.27
    networks, task = digit_networks(seed)
    lists = [list(network) for network in networks]
    joined = ri.dery(lists, task.val[0], num_stages=3)
    assert len({n for n, _, _ in joined.blocks}) > 1
    assert accuracy(joined, task) > 0.88
    stages = [joined.cuts[0][0], joined.cuts[1][1], joined.cuts[2][2]]  # one block of each
    hybrid = stitch(lists, stages, task.val[0])
    assert accuracy(hybrid, task) > 0.88
    train = lambda start: toy_zoo.train(  # noqa: E731
        hybrid, start, task.train, num_steps=15, lr=1e-3, generator=torch.Generator().manual_seed(seed)
    )
    start = dict(hybrid.state_dict())
    assert toy_zoo.accuracy(hybrid, train(start), task.test) > toy_zoo.accuracy(hybrid, train(None), task.test) + 0.3


def test_limit_on_parameters_is_kept():
    networks, task = digit_networks(0)
    lists = [list(network) for network in networks]
    free = ri.dery(lists, task.val[0])

    def size(joined):
        return sum(p.numel() for n, a, b in joined.blocks for layer in lists[n][a:b] for p in layer.parameters())

    small = ri.dery(lists, task.val[0], max_parameters=size(free) - 1)
    assert size(small) < size(free) and small.score <= free.score
    with pytest.raises(ValueError, match="no choice of blocks is that small"):
        ri.dery(lists, task.val[0], max_parameters=10)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no networks"):
        ri.dery([], X)
    with pytest.raises(ValueError, match="num_stages is 3"):
        ri.dery([[linear([1.0, 0.0]), linear([2.0])]], X, num_stages=3)
