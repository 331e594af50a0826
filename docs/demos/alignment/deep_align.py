"""A network that reads the weights of others learns to match their units: which it finds again in a shuffled, shaken copy."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator, mlp, moons, trained, units
from reference_impls.alignment.deep_align import deep_align
from reference_impls.alignment.weight_matching import weight_matching
from reference_impls.core.permutation import apply_permutation

CONTROLS = [Control("width", 8, 16, 16, 4), Control("num_steps", 0, 10, 10, 5)]


def demo(width, num_steps):
    network, task, g = mlp(2, width, width, 2), moons(), generator(0)
    a, *others = [trained(network, task, seed, steps=40) for seed in (1, 2, 3)]
    spec = units(network)
    order = {name: torch.randperm(width, generator=g) for name in spec.sizes}
    shake = {key: torch.randn(tensor.shape, generator=g) * tensor.std() for key, tensor in a.items()}
    sizes, names = [0.2, 0.5, 0.8], ("weight matching", "Deep-Align, untrained", "Deep-Align, trained")
    found = {name: [] for name in names}
    for size in sizes:
        b = apply_permutation(spec, order, {key: a[key] + size * shake[key] for key in a})
        answers = [weight_matching(a, b, spec, generator=generator(0))] + [
            deep_align(a, b, spec, others, num_steps=steps, features=16, generator=generator(0)) for steps in (0, num_steps)
        ]
        for name, answer in zip(names, answers):
            right = [order[layer][answer[layer]] == torch.arange(width) for layer in order]
            found[name].append(100 * torch.cat(right).float().mean())
    return Picture(
        title="Units found again in a shuffled copy whose weights were shaken",
        reading="Here weight matching gets stuck; features that go along with every reordering find most units without any "
        "training, and a few more with it.",
        x="size of the shake, in standard deviations of the weights",
        y="percent of the units",
        at=sizes,
        series=found,
    )
