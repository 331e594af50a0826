"""Two models that changed different matrices: the share of each model, matrix by matrix."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.averaging.varm import varm

CONTROLS = [Control("ratio", 1.0, 4.0, 2.0, 0.5), Control("seed", 0, 9, 0, 1)]


def demo(ratio, seed):
    names, g = [f"layer {i}" for i in range(1, 6)], generator(seed)
    base = {name: torch.zeros(4, 4) for name in names}
    sizes = [ratio ** (i - 2) for i in range(5)]  # how much more the second model changed the layer than the first
    a = {name: torch.randn(4, 4, generator=g) for name in names}
    b = {name: size * torch.randn(4, 4, generator=g) for name, size in zip(names, sizes)}
    merged, mean = varm(base, [a, b]), uniform_soup([a, b])

    def share(model):
        """The place of every matrix on the line from the first model's to the second's."""
        lines = [(model[name] - a[name], b[name] - a[name]) for name in names]
        return [((moved * line).sum() / line.square().sum()).item() for moved, line in lines]

    return Picture(
        title="Share of the second model in each matrix",
        reading="In the first layers the first model changed more, in the last the second: VaRM gives the matrix to the "
        "one that changed it.",
        x="",
        y="share of the second model",
        kind="bar",
        at=names,
        series={"mean": share(mean), "VaRM": share(merged)},
    )
