"""Units matched by their weights, by their activations, and by both: how alike they are in either space."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator, hidden, mlp, moons, trained, units
from reference_impls.alignment.mudsc import mudsc
from reference_impls.core.permutation import apply_permutation

CONTROLS = [Control("width", 4, 20, 12, 4), Control("steps", 10, 60, 40, 10)]


def demo(width, steps):
    network, task = mlp(2, width, width, 2), moons()
    a, b = (trained(network, task, seed, steps=steps) for seed in (1, 2))
    spec, says = units(network), [hidden(network, theta, task[0]) for theta in (a, b)]
    flat = lambda theta: torch.cat([tensor.flatten() for tensor in theta.values()])  # noqa: E731
    balances, alike = [i / 5 for i in range(6)], {"weights": [], "activations": []}
    for balance in balances:
        order = mudsc(a, b, *says, spec, balance=balance, generator=generator(0))
        moved = apply_permutation(spec, order, b)
        alike["weights"].append(torch.cosine_similarity(flat(a), flat(moved), dim=0).item())
        both = [torch.corrcoef(torch.cat([says[0][k].T, says[1][k][:, order[k]].T])) for k in order]
        alike["activations"].append(torch.stack([r[:width, width:].diagonal().mean() for r in both]).mean().item())
    return Picture(
        title="How alike two networks are after matching, in weights (cosine) and in activations (correlation)",
        reading="Matching by activations alone gives away likeness of the weights, matching by weights alone likeness of the "
        "activations; in between there is some of both.",
        x="balance: activations only (0) to weights only (1)",
        y="similarity",
        at=balances,
        series=alike,
    )
