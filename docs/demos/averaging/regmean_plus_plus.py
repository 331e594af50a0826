"""Merging layer by layer: RegMean looks at the inputs in the single models, RegMean++ behind the merged layers before."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, loss, mlp, trained
from reference_impls.averaging.regmean import regmean
from reference_impls.averaging.regmean_plus_plus import regmean_plus_plus
from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.core.statistics import gram_matrices

CONTROLS = [Control("alpha", 0.5, 1.0, 0.95, 0.05), Control("steps", 10, 80, 40, 10)]


def demo(alpha, steps):
    network, tasks = mlp(2, 16, 16, 2), [clusters(task) for task in range(3)]
    base = trained(network, tasks, steps=5)
    models = [trained(network, task, start=base, steps=steps) for task in tasks]
    grams = [gram_matrices(network, model, [task]) for model, task in zip(models, tasks)]
    merged = {
        "mean": uniform_soup(models),
        "RegMean": regmean(models, grams, alpha=alpha),
        "RegMean++": regmean_plus_plus(network, models, [[task] for task in tasks], alpha=alpha),
    }
    return Picture(
        title="Loss of the merged network at the task of each of three models",
        reading="The later layers of RegMean++ are fitted to what the merged earlier ones really give them; those of "
        "RegMean to what they gave before.",
        x="",
        y="loss",
        kind="bar",
        at=["task 1", "task 2", "task 3"],
        series={name: [loss(network, theta, task).item() for task in tasks] for name, theta in merged.items()},
    )
