"""One network walks on with a learning rate that goes up and down; its snapshots answer together."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import loss, loss_of, mlp, moons, trained
from reference_impls.connectivity.fast_geometric_ensembling import SnapshotEnsemble, fast_geometric_ensembling

CONTROLS = [Control("cycle", 4, 20, 20, 4), Control("lr", 0.2, 2.0, 1.0, 0.2), Control("noise", 0.1, 0.5, 0.3, 0.1)]


def demo(cycle, lr, noise):
    network, test = mlp(2, 12, 2), moons(9, count=200, noise=noise)
    inputs, targets = moons(noise=noise)
    base = trained(network, (inputs, targets), 1, steps=100)
    batches = [(inputs[i::4], targets[i::4]) for i in range(4)]
    found = fast_geometric_ensembling(network, base, batches, num_snapshots=6, cycle=cycle, lr=lr).snapshots
    counts = range(1, len(found) + 1)
    return Picture(
        title="Loss on new examples, by the number of snapshots taken",
        reading="On new examples of so noisy a task every snapshot alone is worse than the network was; together they make up "
        "for nearly all of it.",
        x="snapshots",
        y="loss",
        at=list(counts),
        series={
            "before the walk": [loss(network, base, test).item()] * len(found),
            "the newest snapshot alone": [loss_of(SnapshotEnsemble(network, [one]), test).item() for one in found],
            "all snapshots together": [loss_of(SnapshotEnsemble(network, found[:n]), test).item() for n in counts],
        },
    )
