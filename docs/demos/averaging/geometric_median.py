"""Six models agree and one does not: where the mean and the geometric median go."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.averaging.geometric_median import geometric_median
from reference_impls.averaging.uniform_soup import uniform_soup

CONTROLS = [Control("distance", 0.0, 20.0, 10.0, 1.0), Control("max_iter", 0, 30, 30, 1)]


def demo(distance, max_iter):
    models = [{"w": point} for point in torch.randn(6, 2, generator=generator(0))]
    models.append({"w": torch.tensor([distance, distance / 2])})
    mean, median = uniform_soup(models)["w"], geometric_median(models, max_iter=max_iter)["w"]
    points = torch.stack([model["w"] for model in models])
    return Picture(
        title="Seven models of two weights, their mean and their geometric median",
        reading="The farther the outlier, the farther it pulls the mean; the median stays with the other six.",
        x="first weight",
        y="second weight",
        kind="scatter",
        series={
            "models": (points[:, 0], points[:, 1]),
            "mean": ([mean[0].item()], [mean[1].item()]),
            "geometric median": ([median[0].item()], [median[1].item()]),
        },
    )
