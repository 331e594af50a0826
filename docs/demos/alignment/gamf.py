"""Several networks matched as graphs to common units: the loss of their average, by how many there are."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import loss, mlp, moons, trained, units
from reference_impls.alignment.gamf import gamf
from reference_impls.averaging.uniform_soup import uniform_soup

CONTROLS = [Control("width", 4, 16, 12, 4), Control("temperature", 0.1, 1.0, 0.5, 0.1), Control("decay", 0.5, 0.8, 0.7, 0.1)]


def demo(width, temperature, decay):
    network, task = mlp(2, width, 2), moons()
    models = [trained(network, task, seed) for seed in (1, 2, 3, 4)]
    spec, counts = units(network), [1, 2, 3, 4]
    matched = [
        gamf(models[:n], spec, temperature=temperature, decay=decay, final_temperature=0.05, max_iter=3) for n in counts
    ]
    at = lambda theta: loss(network, theta, task).item()  # noqa: E731
    return Picture(
        title="Loss of the average of networks that were trained apart",
        reading="Averaged as they are, networks lose what each of them knew; with all of them matched to common units the "
        "average stays close to one of them.",
        x="networks averaged",
        y="loss",
        kind="bar",
        at=["1", "2", "3", "4"],
        series={"mean": [at(uniform_soup(models[:n])) for n in counts], "GAMF": [at(theta) for theta in matched]},
    )
