import math

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.distillation.gnn_amalgamation import GraphAttentionNetwork, attribution_map, normalised
from tests.methods.distillation.helpers import parameters


def network(widths, num_heads, seed):
    return GraphAttentionNetwork(widths, num_heads, torch.Generator().manual_seed(seed))


def averaging(weight):
    """One layer that listens to all neighbours alike: the score is the weight times the mean of their features."""
    out = network((1, 1), 1, 0)
    for parameter in out.parameters():
        parameter.data.zero_()
    out.weights[0].data.fill_(weight)
    return out


EDGES = torch.tensor([[0, 1, 2, 0, 1], [0, 0, 0, 1, 1]])  # from 0, 1 and 2 into 0, from 0 and 1 into 1


def test_attributions_are_the_change_of_the_labels_scores_with_each_edge():
    # Features 1, 2 and -4: the score of node 0 is -1/3, no label; that of node 1 is (1 u + 2 u') / 2, a label: 1/2 and
    # 1
    unary, x = torch.ones(5, 1, requires_grad=True), torch.tensor([[1.0], [2.0], [-4.0]])
    scores = averaging(1.0)(x, EDGES, unary)
    assert scores[:2, 0].tolist() == pytest.approx([-1 / 3, 1.5])
    assert attribution_map(scores, scores > 0, unary).tolist() == pytest.approx([0, 0, 0, 0.5, 1])


def test_attributions_are_compared_around_each_node_whatever_their_scale_there():
    a = torch.tensor([1.0, 4.0, 2.0, -3.0, 5.0])
    around = torch.tensor([7.0, 7.0, 7.0, -2.0, -2.0])
    scale = torch.tensor([2.0, 2.0, 2.0, 10.0, 10.0])
    assert torch.allclose(normalised(a, EDGES), normalised(scale * a + around, EDGES), atol=1e-4)
    assert torch.allclose(normalised(-a, EDGES), -normalised(a, EDGES))


def test_the_loss_by_hand():
    # Features 1, 2 and 0. The teacher's scores are 1 and 1.5 (node 2 hears nobody: 0), the student's -1, -1.5 and 0;
    # labels 1, 1 and 0. Around node 0 the attributions 1/3, 2/3 and 0 have mean 1/3 and variance 2/27, around node 1
    # 1/2 and 1, mean 3/4 and variance 1/16; the student's are their negatives, so the normalised ones differ by twice
    # theirs: squares 4 (3/2, 3/2, 0, 1, 1), but for the 1e-5.
    graph, losses = (torch.tensor([[1.0], [2.0], [0.0]]), EDGES), []
    for options in ({"attribution_weight": 0.0}, {}, {"attribution_weight": 0.0, "targets": "soft"}):
        ri.gnn_amalgamation(
            [averaging(1.0)], averaging(-1.0), [[graph]], num_steps=1, progress=lambda _, loss: losses.append(loss), **options
        )
    softplus, sigmoid = (lambda z: math.log(1 + math.exp(z))), (lambda z: 1 / (1 + math.exp(-z)))
    hard = (softplus(1) + softplus(1.5) + math.log(2)) / 3
    soft = hard + ((1 - sigmoid(1)) * -1 + (1 - sigmoid(1.5)) * -1.5) / 3
    assert losses[0] == pytest.approx(hard, rel=1e-5) and losses[2] == pytest.approx(soft, rel=1e-5)
    assert losses[1] == pytest.approx(hard + 0.1 * 4 * 5 / 5, rel=1e-3)


def test_the_slimmable_layer_reads_fewer_features_as_if_the_rest_were_zero():
    wide, x = network((6, 3, 2), 2, 0), torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(wide(x, EDGES), wide(torch.cat([x, torch.zeros(3, 2)], dim=1), EDGES), atol=1e-6)


def test_the_names_of_the_nodes_do_not_matter():
    net, x = network((4, 3, 2), 2, 0), torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([2, 0, 1])
    assert torch.allclose(net(x[order], order.argsort()[EDGES]), net(x, EDGES)[order], atol=1e-6)


FEATURES, LABELS = (6, 10), (4, 3)


def graph(task, seed, nodes=40):
    """A random graph whose nodes listen to their neighbours by one direction of the features, and label what they hear."""
    d, generator, rule = FEATURES[task], torch.Generator().manual_seed(seed), torch.Generator().manual_seed(1000 + task)
    x = torch.randn(nodes, d, generator=generator)
    source = torch.randint(nodes, (5 * nodes,), generator=generator)
    edges = torch.stack([torch.cat([source, torch.arange(nodes)]), torch.arange(nodes).repeat(6)])
    loud = (2.25 * (x @ torch.randn(d, generator=rule)) / d**0.5).exp()
    heard = torch.zeros(nodes, d).index_add(0, edges[1], (x * loud[:, None])[edges[0]])
    return (x, edges), (heard @ torch.randn(d, LABELS[task], generator=rule) > 0).float()


def teach(task, seed):
    net = network((FEATURES[task], 16, LABELS[task]), 2, seed)
    optimizer, graphs = torch.optim.Adam(net.parameters(), lr=1e-2), [graph(task, 100 * seed + i) for i in range(20)]
    for step in range(150):
        inputs, labels = graphs[step % 20]
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(net(*inputs), labels).backward()
        optimizer.step()
    return net


def compare(student, teacher, graphs, own):
    """Share of labels that the student gives as the teacher does, and the mean squared difference of their attributions."""
    agreement = difference = 0.0
    for x, edges in graphs:
        unary = torch.ones(edges.shape[1], 1, requires_grad=True)
        told, said = teacher(x, edges, unary), student(x, edges, unary)[:, own]
        maps = [normalised(attribution_map(scores, told > 0, unary), edges) for scores in (told, said)]
        agreement += ((told > 0) == (said > 0)).float().mean().item() / len(graphs)
        difference += (maps[0] - maps[1]).square().mean().item() / len(graphs)
    return agreement, difference


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_network_keeps_both_tasks_and_listening_alike_helps(seed):
    teachers = [teach(0, seed), teach(1, seed + 10)]
    before = parameters(teachers)
    graphs = [[graph(task, 3000 + i)[0] for i in range(10)] for task in range(2)]
    test = [[graph(task, 9000 + 50 * seed + i)[0] for i in range(10)] for task in range(2)]
    results = []
    for options in ({}, {"attribution_weight": 0.0}):
        start = network((10, 12, 7), 6, seed + 99)
        student = ri.gnn_amalgamation(teachers, start, graphs, num_steps=300, **options)
        results.append([compare(student, teachers[m], test[m], own) for m, own in enumerate((slice(0, 4), slice(4, 7)))])
    (agreement, difference), (plain_agreement, plain_difference) = (list(zip(*r)) for r in results)
    assert min(agreement) > 0.85 and sum(agreement) > sum(plain_agreement) + 0.02
    assert all(a < 0.6 * b for a, b in zip(difference, plain_difference))
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(teachers)))


def test_bad_input_is_refused():
    net, g = averaging(1.0), (torch.ones(3, 1), EDGES)
    with pytest.raises(ValueError, match="1 teachers and 2 lists"):
        ri.gnn_amalgamation([net], net, [[g], [g]])
    with pytest.raises(ValueError, match="2 labels together and the student 1"):
        ri.gnn_amalgamation([net, net], net, [[g], [g]])
    with pytest.raises(ValueError, match="'softer'"):
        ri.gnn_amalgamation([net], net, [[g]], targets="softer")
    with pytest.raises(ValueError, match="attribution_weight is -1"):
        ri.gnn_amalgamation([net], net, [[g]], attribution_weight=-1)
