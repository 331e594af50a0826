"""A network against its own shuffled copy, changed only where no input ever goes: who finds the order again?"""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, generator, mlp, units
from reference_impls.alignment.covariance_matching import covariance_matching
from reference_impls.alignment.weight_matching import weight_matching
from reference_impls.core.permutation import apply_permutation

CONTROLS = [Control("width", 4, 24, 12, 4), Control("used", 1, 6, 3, 1)]


def demo(width, used):
    network, g = mlp(6, width, 2), generator(0)
    spec, a, order = units(network), drawn(network, 1), torch.randperm(width, generator=g)
    inputs = torch.randn(50, 6, generator=g) * (torch.arange(6) < used)  # the other inputs are always zero
    noise = torch.randn(width, 6, generator=g) * (torch.arange(6) >= used)
    sizes, found = [i / 2 for i in range(9)], {"weight matching": [], "covariance matching": []}
    for size in sizes:
        changed = a | {"0.weight": a["0.weight"] + size * noise}
        b = apply_permutation(spec, {"0": order}, changed)
        seen = torch.tanh(inputs @ a["0.weight"].T)
        grams = [{"0.weight": inputs.T @ inputs, "2.weight": z.T @ z} for z in (seen, seen[:, order])]
        for name, got in (("weight matching", weight_matching(a, b, spec, generator=generator(0))["0"]),
                          ("covariance matching", covariance_matching(a, b, spec, grams)["0"])):
            found[name].append(100 * sum(int(order[i]) == place for place, i in enumerate(got)) / width)
    return Picture(
        title="Units found again in a shuffled copy whose weights were changed where they do not matter",
        reading="Weights that read inputs which are always zero mislead weight matching; in the metric of the inputs "
        "they do not count.",
        x="size of the change",
        y="percent of the units",
        at=sizes,
        series=found,
    )
