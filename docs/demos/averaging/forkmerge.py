"""A target task with few examples, and auxiliary tasks of which one helps and one harms: what each way of training them gives."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, loss, mlp, moons, trained
from reference_impls.averaging.forkmerge import forkmerge
from reference_impls.averaging.uniform_soup import uniform_soup

CONTROLS = [Control("rounds", 0, 4, 3, 1), Control("turn", 0, 180, 10, 10)]


def demo(rounds, turn):
    network, validation, test = mlp(2, 12, 2), moons(5, noise=0.3), moons(6, count=200, noise=0.3)
    target = moons(0, count=12, noise=0.3)
    tasks = [target, moons(1, count=60, turn=turn, noise=0.3), moons(2, count=60, turn=180)]
    base = drawn(network, 0)
    at = lambda theta: loss(network, theta, validation)
    alone = trained(network, target, start=base, steps=20 * rounds, lr=0.02)
    together = trained(network, tasks, start=base, steps=20 * rounds, lr=0.02)
    branch = lambda *others: trained(network, [target, *others], start=base, steps=20 * rounds, lr=0.02)
    branches = [branch(), branch(tasks[1]), branch(tasks[2])]
    merged = forkmerge(base, network, tasks, at, num_rounds=rounds, num_steps=20, lr=0.02)
    models = {"target alone": alone, "all together": together, "mean of branches": uniform_soup(branches), "ForkMerge": merged}
    return Picture(
        title="Test loss at a task with twelve examples, with and without two auxiliary tasks",
        reading="Training all together suffers from the auxiliary task that is turned around; ForkMerge gives each "
        "branch the share that "
        "the validation loss wants.",
        x="",
        y="test loss",
        kind="bar",
        at=list(models),
        series={"test loss": [loss(network, theta, test).item() for theta in models.values()]},
    )
