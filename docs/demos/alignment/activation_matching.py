"""Units of two networks paired by what they say about the same inputs: how well each pair correlates, before and after."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import entries, hidden, mlp, moons, trained, units
from reference_impls.alignment.activation_matching import activation_matching

CONTROLS = [Control("width", 4, 16, 10, 2), Control("samples", 2, 60, 40, 2)]


def demo(width, samples):
    network, task = mlp(2, width, 2), moons()
    inputs = task[0]
    a, b = (hidden(network, trained(network, task, seed), inputs)["0"] for seed in (1, 2))  # (samples, units)
    pairs = activation_matching({"0": a[:samples]}, {"0": b[:samples]}, units(network), similarity="correlation")["0"]
    together = torch.corrcoef(torch.cat([a.T, b[:, pairs].T]))[:width, width:].diagonal()
    before = torch.corrcoef(torch.cat([a.T, b.T]))[:width, width:].diagonal()
    return Picture(
        title="Correlation of each hidden unit with its partner in a network that was trained apart",
        reading="The unit in the same place is a stranger, often one that does the opposite; the matched partner mostly "
        "fires on the same inputs.",
        x="unit of the first network",
        y="correlation",
        kind="bar",
        at=entries(width),
        series={"unit in the same place": before, "matched unit": together},
    )
