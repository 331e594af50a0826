"""A curve of low loss between two networks, found between them as they are, and after matching their units."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator, hidden, loss, mlp, moons, trained, units
from reference_impls.connectivity.curve_finding import curve_finding
from reference_impls.connectivity.neuron_alignment_curves import neuron_alignment_curves

CONTROLS = [Control("width", 4, 24, 12, 4), Control("num_steps", 0, 60, 20, 10)]


def demo(width, num_steps):
    network, task = mlp(2, width, 2), moons()
    a, b = (trained(network, task, seed) for seed in (1, 2))
    at, says = lambda theta: loss(network, theta, task), [hidden(network, theta, task[0]) for theta in (a, b)]
    options = {"num_steps": num_steps, "lr": 0.2, "num_points": 21}
    plain = curve_finding(a, b, at, generator=generator(0), **options)
    aligned = neuron_alignment_curves(a, b, *says, units(network), at, generator=generator(0), **options).curve
    return Picture(
        title="Loss on a trained curve from one network to another",
        reading="After the same few steps the curve between matched networks is lower: there was less of a hill to go around.",
        x="position on the curve",
        y="loss",
        at=plain.losses.ts,
        series={"as they are": plain.losses.losses, "units aligned first": aligned.losses.losses},
    )
