"""How old the parts of a teacher are: a moving average mixes all students, a spatial ensemble is a patchwork of them."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.averaging.spatial_ensemble import spatial_ensemble

CONTROLS = [
    Control("preserve", 0.5, 1.0, 0.9, 0.05),
    Control("momentum", 0.0, 0.9, 0.0, 0.1),
    Control("students", 10, 60, 30, 10),
]


def demo(preserve, momentum, students):
    models = [{"w": torch.full((40,), float(step))} for step in range(students + 1)]  # a weight says which step it is from
    patchwork = spatial_ensemble(models, preserve=preserve, momentum=momentum, fragment="entry", generator=generator(0))["w"]
    average = spatial_ensemble(models, preserve=0.0, momentum=preserve)["w"] if preserve < 1 else models[0]["w"]
    return Picture(
        title="The step of training that each of a teacher's weights comes from",
        reading="With the same rate of change, the moving average gives all weights one mixture of steps; in the spatial "
        "ensemble every weight "
        "is some student's own.",
        x="weights, in order",
        y="step",
        at=list(range(1, 41)),
        series={"moving average": average.sort().values, "spatial ensemble": patchwork.sort().values},
    )
