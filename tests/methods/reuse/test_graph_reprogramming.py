from functools import lru_cache

import pytest
import torch
from torch.nn import functional as F

import reference_impls as ri
from reference_impls.reuse.graph_reprogramming import AGGREGATORS, GraphNetwork, aggregate
from tests.methods.reuse.toy_values import seeded


def communities(generator, count, means, inside, outside, noise):
    """A graph of communities: nodes of one community are joined more often and have similar features."""
    labels = torch.arange(count) % len(means)
    likely = torch.where(labels[:, None] == labels, inside, outside)
    edges = (torch.rand(count, count, generator=generator) < likely).float().triu(1)
    return means[labels] + noise * torch.randn(count, means.shape[1], generator=generator), edges + edges.T, labels


def near_a_mark(generator, count):
    """Another task: is any neighbour marked (feature 0)? Nodes have very different numbers of neighbours."""
    sociable = torch.rand(count, generator=generator).square()
    likely = 0.3 * sociable[:, None] * sociable + 0.01
    edges = (torch.rand(count, count, generator=generator) < likely).float().triu(1)
    edges, marked = edges + edges.T, (torch.rand(count, generator=generator) < 0.12).float()
    features = 0.3 * torch.randn(count, 8, generator=generator)
    features[:, 0] = 2 * marked + 0.1 * torch.randn(count, generator=generator)
    return features, edges, (edges @ marked > 0).long()


@lru_cache
def source(seed):
    """A network trained to tell six communities apart by eight features, their means, and the generator for more graphs."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(6, 8, generator=generator) + 2
    x, edges, labels = communities(generator, 180, means, 0.12, 0.03, 0.8)
    network = seeded(seed, lambda: GraphNetwork(8, 24, 6))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(150):
        loss = F.cross_entropy(network(x, edges), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    short = [communities(generator, 120, means[:, :5], 0.12, 0.03, 0.8) for _ in range(2)]
    noisy = communities(generator, 120, means, 0.10, 0.06, 1.2)
    return network, short, noisy, [near_a_mark(generator, 150) for _ in range(2)]


def right(model, graph):
    return (model(*graph[:2]).argmax(1) == graph[2]).float().mean().item()


PATH = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]])  # three nodes in a row


def test_the_aggregators_by_hand():
    h = torch.tensor([[1.0], [5.0], [-3.0]])
    expected = {"mean": [5, -1, 5], "sum": [5, -2, 5], "max": [5, 1, 5], "min": [5, -3, 5]}
    assert {name: aggregate(h, PATH, name).flatten().tolist() for name in AGGREGATORS} == expected
    assert aggregate(h, torch.zeros(3, 3), "max").tolist() == [[0], [0], [0]]  # without neighbours


def test_padding_and_meta_nodes_by_hand():
    network = seeded(0, lambda: GraphNetwork(3, 4, 2))
    x, labels = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 1, 0])
    model = ri.graph_reprogramming(network, x, PATH, labels, program="graph", meta_nodes=1, num_steps=0, groups=[[0], [1]])
    model.padding.data, model.meta.data = torch.tensor([7.0, 8.0]), torch.tensor([[4.0, 5.0, 6.0]])
    wide = torch.tensor([[1.0, 7, 8], [2, 7, 8], [3, 7, 8], [4, 5, 6]])
    joined = F.pad(PATH, (0, 1, 0, 1), value=1.0)
    assert torch.allclose(model(x, PATH), network(wide, joined)[:3].log_softmax(1), atol=1e-6)


def test_groups_of_labels_are_averaged():
    network = seeded(0, lambda: GraphNetwork(1, 4, 4))
    x, labels = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 1, 0])
    model = ri.graph_reprogramming(network, x, PATH, labels, num_steps=0, groups=[[0, 2], [3, 1]])
    p = network(x, PATH).softmax(1)
    assert torch.allclose(model(x, PATH).exp()[:, 0], p[:, 0] + p[:, 2], atol=1e-6)


def test_reaggregation_starts_as_the_frozen_network_and_then_chooses_one_aggregator_a_layer():
    network = seeded(0, lambda: GraphNetwork(2, 4, 2, "max"))
    x, labels = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0])
    model = ri.graph_reprogramming(network, x, PATH, labels, reaggregate=True, num_steps=0, groups=[[0], [1]])
    assert torch.allclose(model(x, PATH), network(x, PATH).log_softmax(1), atol=1e-6)
    model.preferences.data = torch.tensor([[5.0, 0, 0, 0], [0, 5.0, 0, 0]])  # mean, then sum
    h = (network.first(x) + network.first_neighbors(aggregate(x, PATH, "mean"))).relu()
    h = (network.second(h) + network.second_neighbors(aggregate(h, PATH, "sum"))).relu()
    assert torch.allclose(model(x, PATH), network.last(h).log_softmax(1), atol=1e-6)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_padding_makes_up_for_features_that_are_missing_also_on_new_graphs(seed):
    network, (graph, new), _, _ = source(seed)
    before = [p.clone() for p in network.parameters()]
    same = {"groups": [[i] for i in range(6)]}
    zeros = ri.graph_reprogramming(network, *graph, num_steps=0, **same)
    padded = ri.graph_reprogramming(network, *graph, **same)
    assert right(padded, new) > right(zeros, new) + 0.1
    assert all(torch.equal(a, b) for a, b in zip(before, padded.source.parameters()))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_meta_nodes_and_other_aggregators_open_another_task(seed):
    network, _, _, (graph, new) = source(seed)
    frozen = ri.graph_reprogramming(network, *graph, num_steps=0)
    attached = ri.graph_reprogramming(network, *graph, program="graph")
    loss = lambda model, given: F.nll_loss(model(*given[:2]), given[2]).item()  # noqa: E731
    assert loss(attached, graph) < 0.7 * loss(frozen, graph) and loss(attached, new) < 0.8 * loss(frozen, new)
    assert right(attached, graph) > right(frozen, graph) + 0.04 and right(attached, new) >= right(frozen, new)
    assert loss(ri.graph_reprogramming(network, *graph, reaggregate=True, num_steps=100), graph) < 0.97 * loss(frozen, graph)


def test_leaving_out_edges_serves_the_nodes_whose_labels_are_known():
    network, _, graph, _ = source(1)
    labels = torch.where(torch.arange(120) % 4 < 2, graph[2], -1)
    same = {"groups": [[i] for i in range(6)], "num_steps": 0}
    whole = ri.graph_reprogramming(network, *graph[:2], labels, **same)
    slim = ri.graph_reprogramming(network, *graph[:2], labels, program="edges", **same)
    share = lambda model, known: (model(*graph[:2]).argmax(1) == graph[2])[known].float().mean().item()  # noqa: E731
    assert share(slim, labels >= 0) > share(whole, labels >= 0) + 0.1
    assert 0 < int((1 - slim.kept).sum()) // 2 <= 50 and torch.equal(slim.kept, slim.kept.T)


def test_bad_input_is_refused():
    network, x, labels = GraphNetwork(2, 4, 2), torch.zeros(3, 2), torch.tensor([0, 1, 0])
    with pytest.raises(ValueError, match="0 labels"):
        ri.graph_reprogramming(network, x, PATH, labels * 0 - 1)
    with pytest.raises(ValueError, match="5 features; the network takes 2"):
        ri.graph_reprogramming(network, torch.zeros(3, 5), PATH, labels)
    with pytest.raises(ValueError, match="program is 'nodes'"):
        ri.graph_reprogramming(network, x, PATH, labels, program="nodes")
