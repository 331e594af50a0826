"""The loss from the initial to the final weights after training with small and with large steps."""

from __future__ import annotations

from docs.figures.figure import Figure, Run, points
from docs.figures.toys import generator
from reference_impls.connectivity.monotonic_linear_interpolation import monotonic_linear_interpolation
from reference_impls.core import toy_zoo

FIGURE = Figure(
    title="Training loss from the initial to the final weights, by the learning rate of the training",
    setting="A perceptron with two hidden layers of 64 units, trained on the digits for 300 steps from one initialisation.",
    x="position from initial to final weights",
    y="training loss",
    reading=(
        "After small steps the loss falls all the way; after large steps the weights have moved far and the line rises in "
        "places."
    ),
)


def measure(seed: int) -> Run:
    task, network = toy_zoo.digits(flat=True), toy_zoo.MLP((64, 64, 64, 10)).eval()
    start = toy_zoo.initialise(network, generator(seed))
    curves, table = {}, {"Largest rise": {}, "Distance moved, by the norm at the start": {}, "Gauss length": {}}
    for lr in (0.001, 0.1):
        end = toy_zoo.train(network, start, task.train, num_steps=300, lr=lr, generator=generator(seed))
        found = monotonic_linear_interpolation(
            start,
            end,
            lambda model: toy_zoo.loss(network, model, task.train),
            lambda model: toy_zoo.logits(network, model, task.train[0][:200]),
            num_points=25,
        )
        name = f"learning rate {lr:g}"
        curves[name] = points(found.curve)
        table["Largest rise"][name] = found.largest_increase.item()
        table["Distance moved, by the norm at the start"][name] = found.normalized_distance.item()
        table["Gauss length"][name] = found.gauss_length.item()
    return Run(curves, table)
