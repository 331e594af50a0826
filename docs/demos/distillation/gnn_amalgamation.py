"""Amalgamating graph networks: the student has the labels of both teachers and listens to the same neighbours."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.distillation.gnn_amalgamation import GraphAttentionNetwork, gnn_amalgamation

CONTROLS = [Control("num_steps", 0, 60, 40, 20), Control("attribution_weight", 0.0, 0.4, 0.1, 0.1)]


def demo(num_steps, attribution_weight):
    g = generator(0)
    edges = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 0, 0, 1, 2, 3], [1, 0, 2, 1, 3, 2, 0, 3, 0, 1, 2, 3]])
    graphs = [[(torch.randn(4, width, generator=g), edges)] for width in (2, 4)]
    teachers = [GraphAttentionNetwork((2, 4, 2), 2, generator(1)), GraphAttentionNetwork((4, 3), 2, generator(2))]
    student = GraphAttentionNetwork((4, 6, 5), 2, generator(3))
    learned = gnn_amalgamation(
        teachers, student, graphs, attribution_weight=attribution_weight, targets="soft", num_steps=num_steps, lr=0.02
    )

    def gap(network):
        with torch.no_grad():
            pairs = [(network(*graph[0]), teacher(*graph[0])) for teacher, graph in zip(teachers, graphs)]
            return [(a[:, part].sigmoid() - b.sigmoid()).abs().mean() for (a, b), part in zip(pairs, (slice(0, 2), slice(2, 5)))]

    return Picture(
        title="Distance of the student's probabilities from those of its two teachers, node by node",
        reading="The teachers' graphs have features of other widths, and no node has a label; the student takes both.",
        x="teacher",
        y="mean difference",
        kind="bar",
        at=["teacher 1", "teacher 2"],
        series={"before": gap(student), "after": gap(learned)},
    )
