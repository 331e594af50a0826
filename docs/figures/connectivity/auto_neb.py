"""The straight line and the relaxed band between independent networks."""

from __future__ import annotations

from docs.figures.figure import Figure, Run, points, resampled
from docs.figures.toys import networks
from reference_impls.connectivity.auto_neb import auto_neb

FIGURE = Figure(
    title="Training loss along the straight line and along the relaxed band",
    setting=(
        "Two perceptrons of the toy zoo, 32 units wide, trained on the digits from different initialisations; three "
        "cycles of 20 steps at learning rate 0.1."
    ),
    x="position on the path, by length",
    y="training loss",
    reading=(
        "The pivots slide off the hill; the highest loss that is left bounds the saddle between the networks from above."
    ),
)


def measure(seed: int) -> Run:
    pair = networks("mlp", seed, width=32)
    train_loss = lambda model: pair.loss(model, 1000)  # noqa: E731
    bands = {
        "straight line": auto_neb(*pair.models, train_loss, num_steps=0, lr=(0.1,)),
        "relaxed band": auto_neb(*pair.models, train_loss, num_steps=20, lr=(0.1, 0.1, 0.1)),
    }
    table = {
        "Barrier": {name: band.losses.barrier.item() for name, band in bands.items()},
        "Highest loss": {name: band.saddle.item() for name, band in bands.items()},
    }
    return Run({name: points(resampled(band.losses)) for name, band in bands.items()}, table)
