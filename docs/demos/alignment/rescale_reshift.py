"""A pruned network, and what giving its units back their spread, their mean, or both does for its loss."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import loss, mlp, moons, trained, units
from reference_impls.alignment.rescale_reshift import rescale_reshift

CONTROLS = [Control("width", 8, 24, 8, 4), Control("pruned", 0.0, 0.9, 0.5, 0.1)]


def demo(width, pruned):
    network, task = mlp(2, width, width, width, 2), moons()
    theta = trained(network, task, 1, steps=40)
    small = dict(theta)
    for key in ("2.weight", "4.weight"):  # the smallest weights of these layers become zero
        kept = theta[key].abs() >= torch.quantile(theta[key].abs(), pruned)
        small[key] = theta[key] * kept
    found = rescale_reshift(network, small, [theta], units(network), [task])
    models = [theta, small, found.rescaled, found.reshifted, found.both]
    return Picture(
        title="Loss of a network, of it pruned, and of the pruned one with its units' statistics restored",
        reading="Pruning changes how much units vary and around what; giving them both back takes most of the harm away, unless "
        "too much was pruned.",
        x="",
        y="loss",
        kind="bar",
        at=["whole", "pruned", "rescaled", "reshifted", "both"],
        series={"loss": [loss(network, model, task).item() for model in models]},
    )
