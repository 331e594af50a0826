"""Two models merged with another share in each of their blocks."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import entries
from reference_impls.averaging.block_merge import block_merge
from reference_impls.averaging.uniform_soup import uniform_soup

CONTROLS = [Control("first", 0.0, 1.0, 0.0, 0.1), Control("middle", 0.0, 1.0, 0.9, 0.1), Control("last", 0.0, 1.0, 0.3, 0.1)]


def demo(first, middle, last):
    names = [f"blocks.{i}.weight" for i in range(9)]
    a, b = {name: torch.zeros(1) for name in names}, {name: torch.ones(1) for name in names}
    merged = block_merge(a, b, ratios=(first, middle, last))
    mean = uniform_soup([a, b])
    return Picture(
        title="Share of the second model in every block",
        reading="Three anchors set the first, the middle and the last block; the blocks between them lie on straight lines.",
        x="block",
        y="share of the second model",
        at=entries(9),
        series={"mean": [mean[name].item() for name in names], "block merge": [merged[name].item() for name in names]},
    )
