"""Test loss of single snapshots and of the ensemble of all so far."""

from __future__ import annotations

import torch
from torch import nn

from docs.figures.figure import Figure, Run
from docs.figures.toys import generator
from reference_impls.connectivity.fast_geometric_ensembling import SnapshotEnsemble, fast_geometric_ensembling
from reference_impls.core import toy_zoo
from reference_impls.core.paths import interpolate, loss_barrier

FIGURE = Figure(
    title="Test loss of single snapshots, and of the ensemble of all so far",
    setting=(
        "A perceptron of 32 units, trained for 80 steps on 300 digits, then cycles of 20 steps with learning rates from "
        "0.1 down. Snapshot 0 is the network that the cycles start from."
    ),
    x="snapshot",
    y="test loss",
    reading=(
        "Single snapshots are no better than the start; their mean prediction is. The line from one snapshot to the next "
        "has next to no barrier."
    ),
)


def measure(seed: int) -> Run:
    task, network = toy_zoo.digits(flat=True), toy_zoo.build("mlp", 32)
    few = task.train[0][:300], task.train[1][:300]
    base = toy_zoo.train(network, None, few, num_steps=80, lr=5e-3, batch_size=32, generator=generator(seed))
    batches = [batch for i in range(12) for batch in toy_zoo.batches(few, 32, generator(100 + 50 * seed + i))]
    snapshots = fast_geometric_ensembling(network, base, batches, lr=0.1).snapshots
    inputs, targets = task.test
    loss = lambda model: toy_zoo.loss(network, model, task.test).item()  # noqa: E731
    single = [loss(model) for model in (base, *snapshots)]
    with torch.no_grad():
        ensembles = [SnapshotEnsemble(network, snapshots[: k + 1]) for k in range(len(snapshots))]
        together = [nn.functional.cross_entropy(ensemble(inputs), targets).item() for ensemble in ensembles]
    ts = torch.linspace(0, 1, 11, dtype=torch.float64)
    barriers = [
        loss_barrier(torch.tensor([loss(interpolate(p, q, t)) for t in ts.tolist()], dtype=torch.float64), ts).item()
        for p, q in zip(snapshots, snapshots[1:])
    ]
    names = [str(k) for k in range(len(single))]
    table = {
        "Test loss": {"start": single[0], "snapshots, mean": sum(single[1:]) / len(snapshots), "ensemble of all": together[-1]},
        "Barrier": {"between neighbouring snapshots, highest": max(barriers)},
    }
    return Run({"single": (names, single), "ensemble so far": (names, [single[0], *together])}, table)
