import itertools

import pytest
import torch

import reference_impls as ri
from reference_impls.connectivity.neuron_replication_path import critical_subspaces, minima_subspaces
from reference_impls.core import toy_zoo
from reference_impls.core.paths import interpolate

NET = {
    "layers.0.weight": torch.tensor([[1.0], [2.0], [3.0]]),
    "layers.0.bias": torch.tensor([0.1, 0.2, 0.3]),
    "layers.1.weight": torch.tensor([[10.0, 20.0, 30.0]]),
    "layers.1.bias": torch.tensor([5.0]),
}


def outputs(model):
    hidden = (torch.linspace(-2, 2, 9)[:, None] @ model["layers.0.weight"].T + model["layers.0.bias"]).relu()
    return hidden @ model["layers.1.weight"].T + model["layers.1.bias"]


def loss(model):
    return outputs(model).square().mean()


def test_two_neurons_change_places_by_hand():
    path = ri.neuron_replication_path(NET, loss, order=[1, 0, 2])
    slots = [(p["layers.0.weight"].flatten().tolist(), p["layers.1.weight"].flatten().tolist()) for p in path.points]
    assert slots == [
        ([1, 2, 3, 0], [10, 20, 30, 0]),
        ([1, 2, 3, 1], [10, 20, 30, 0]),  # the new slot replicates neuron 0
        ([1, 2, 3, 1], [0, 20, 30, 10]),  # and takes over: slot 0 is free
        ([2, 2, 3, 1], [0, 20, 30, 10]),
        ([2, 2, 3, 1], [20, 0, 30, 10]),  # neuron 1 has moved to slot 0
        ([2, 1, 3, 1], [20, 0, 30, 10]),
        ([2, 1, 3, 1], [20, 10, 30, 0]),  # and neuron 0 to slot 1
    ]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_every_order_is_reached_and_the_function_never_changes(order):
    path = ri.neuron_replication_path(NET, loss, order=order)
    end = path.points[-1]
    assert torch.equal(end["layers.0.weight"][:3], NET["layers.0.weight"][list(order)])
    assert torch.equal(end["layers.0.bias"][:3], NET["layers.0.bias"][list(order)])
    assert (
        torch.equal(end["layers.1.weight"][:, :3], NET["layers.1.weight"][:, list(order)])
        and end["layers.1.weight"][0, 3] == 0
    )
    for p, q in zip(path.points, path.points[1:]):
        assert torch.allclose(outputs(interpolate(p, q, 0.37)), outputs(NET), atol=1e-4)


def test_the_identity_needs_no_move():
    path = ri.neuron_replication_path(NET, loss, order=[0, 1, 2])
    assert len(path.points) == 1 and path.variation == 0


def test_counts_are_those_of_an_enumeration():
    def onto(r, m):  # which of r neurons does each of m replicate, none left out
        return sum(len(set(choice)) == r for choice in itertools.product(range(r), repeat=m))

    def groupings(items):  # partitions of a list into groups
        if not items:
            return 1
        rest = items[1:]
        return sum(
            groupings([x for x in rest if x not in with_first])
            for n in range(len(items))
            for with_first in itertools.combinations(rest, n)
        )

    for r, m in ((1, 1), (1, 4), (2, 4), (3, 5)):
        assert critical_subspaces(r, m) == onto(r, m)
        idle = itertools.chain.from_iterable(itertools.combinations(range(m), u) for u in range(m - r + 1))
        assert minima_subspaces(r, m) == sum(onto(r, m - len(chosen)) * groupings(list(chosen)) for chosen in idle)
    assert minima_subspaces(3, 3) == 6  # no room to spare: the permutations


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_path_is_flat_where_the_line_between_the_permuted_networks_has_a_barrier(seed):
    # measured: rise 0.97 to 1.16 in the middle of the line, variation below 1e-7 on the path
    task, network = toy_zoo.digits(flat=True), toy_zoo.MLP((64, 12, 10)).eval()
    model = toy_zoo.train(
        network, None, task.train, num_steps=200, lr=5e-3, generator=torch.Generator().manual_seed(seed)
    )
    loss_fn = lambda m: toy_zoo.loss(network, m, task.train)  # noqa: E731
    path = ri.neuron_replication_path(model, loss_fn, num_points=3)
    middle = loss_fn(interpolate(path.points[0], path.points[-1], 0.5))
    assert middle - loss_fn(model) > 0.3 and path.variation < 1e-4
    assert len(path.points) == 1 + 2 * (6 * 3)  # six pairs change places, three moves each


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"order is \[0, 0, 1\]"):
        ri.neuron_replication_path(NET, loss, order=[0, 0, 1])
    with pytest.raises(ValueError, match="no layers 'a' and 'b'"):
        ri.neuron_replication_path(NET, loss, layers=("a", "b"))
    with pytest.raises(ValueError, match="r=3 and m=2"):
        critical_subspaces(3, 2)
