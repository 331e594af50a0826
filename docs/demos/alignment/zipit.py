"""Two networks of different tasks made one, in the first layer or in all: averaged, and zipped where units correlate."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, hidden, loss, mlp, trained, units
from reference_impls.alignment.zipit import partial_zipit
from reference_impls.core.paths import interpolate

CONTROLS = [Control("width", 4, 24, 12, 4), Control("repeat", 0.0, 1.0, 0.3, 0.1), Control("within", 0.0, 1.0, 0.2, 0.1)]


def demo(width, repeat, within):
    network, tasks = mlp(2, width, width, 2), [clusters(task) for task in range(2)]
    models = [trained(network, task, seed, steps=20) for seed, task in enumerate(tasks, 1)]
    inputs = torch.cat([inputs for inputs, _ in tasks])
    says = [hidden(network, theta, inputs) for theta in models]
    mean = interpolate(*models, 0.5)
    averaged = [theta | {key: mean[key] for key in ("0.weight", "0.bias")} for theta in models]  # each with its own head
    zipped = [partial_zipit(*models, *says, units(network), zipped=layers, repeat=repeat, within=within)
              for layers in (["0"], ["0", "2"])]
    losses = lambda pair: [loss(network, theta, task).item() for theta, task in zip(pair, tasks)]  # noqa: E731
    return Picture(
        title="Loss of two networks of different tasks after sharing their first layer, or all layers",
        reading="A zipped first layer serves both tasks, each with its own head; zipped to the end, one head has to answer for "
        "both, and neither method manages.",
        x="task",
        y="loss",
        kind="bar",
        at=["task 1", "task 2"],
        series={
            "mean, first layer": losses(averaged),
            "ZipIt, first layer": losses(zipped[0]),
            "mean, all layers": losses([mean, mean]),
            "ZipIt, all layers": losses(zipped[1]),
        },
    )
