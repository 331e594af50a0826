"""Evolutionary gaming: networks that cluster without labels compete, and the fitter ones are kept and cloned."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import blobs, drawn, mlp
from reference_impls.ensembles.evolutionary_gaming import evolutionary_gaming, scatter

CONTROLS = [Control("generations", 1, 3, 1, 1), Control("num_steps", 0, 20, 10, 5), Control("spread", 0.2, 0.8, 0.4, 0.1)]


def demo(generations, num_steps, spread):
    inputs, targets = blobs(0, classes=3, count=45, spread=spread)
    networks = [mlp(2, 8, 3) for _ in range(2)]
    for seed, network in enumerate(networks):
        network.load_state_dict(drawn(network, seed))
    kept = evolutionary_gaming(
        networks, inputs, num_clusters=3, slots=2, generations=generations, num_steps=num_steps, reference_steps=10
    )
    with torch.no_grad():
        features = {f"network {i}": network(inputs) for i, network in enumerate(networks, 1)} | {"kept": kept(inputs)}
    return Picture(
        title="How far apart the true classes lie in the features, against how far they spread",
        reading="No label was used. Features that cluster well are fit; learning from one another draws classes apart.",
        x="",
        y="between / within",
        kind="bar",
        at=list(features),
        series={"scatter": [scatter(f, targets) for f in features.values()]},
    )
