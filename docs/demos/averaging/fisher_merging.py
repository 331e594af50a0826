"""Two models, each sure of other weights: Fisher merging follows the surer one, the mean does not."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import entries
from reference_impls.averaging.fisher_merging import fisher_merging
from reference_impls.averaging.uniform_soup import uniform_soup

CONTROLS = [Control("contrast", 0.0, 4.0, 2.0, 0.5), Control("weight", 0.1, 0.9, 0.5, 0.1)]


def demo(contrast, weight):
    a, b = {"w": torch.zeros(9)}, {"w": torch.ones(9)}
    lean = torch.linspace(-contrast, contrast, 9)  # how much surer the second model is, in powers of ten
    fishers = [{"w": 10.0**-lean}, {"w": 10.0**lean}]
    merged = fisher_merging([a, b], fishers, weights=[1 - weight, weight])
    return Picture(
        title="Two models whose weights are 0 and 1 everywhere, merged",
        reading="Where the first model's Fisher information is larger, on the left, the weight stays near 0; where "
        "the second's is, it goes to 1.",
        x="weight, from the first model's to the second's",
        y="merged value",
        kind="dot",
        at=entries(9),
        series={"mean": uniform_soup([a, b])["w"], "Fisher merging": merged["w"]},
    )
