"""The second network carried over to the first one's units, by a permutation and by a linear map from CCA."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import hidden, loss, mlp, moons, trained, units
from reference_impls.alignment.activation_matching import activation_matching
from reference_impls.alignment.cca_merge import cca_merge
from reference_impls.core.paths import interpolate
from reference_impls.core.permutation import apply_permutation

CONTROLS = [Control("width", 4, 20, 12, 4), Control("eps", 0.1, 1.0, 0.1, 0.1)]


def demo(width, eps):
    network, task = mlp(2, width, 2), moons()
    a, b = (trained(network, task, seed) for seed in (1, 2))
    spec, says = units(network), [hidden(network, theta, task[0]) for theta in (a, b)]
    matched = apply_permutation(spec, activation_matching(*says, spec, similarity="correlation"), b)
    ts = [i / 10 for i in range(11)]
    at = lambda theta: loss(network, theta, task).item()  # noqa: E731
    return Picture(
        title="Loss on the way from one network to another that was trained apart",
        reading="Up to half way the linear map keeps the loss lower than a permutation does; but tanh does not commute with it, "
        "and carried over whole (share 1) the second network is worse than it was.",
        x="share of the second network",
        y="loss",
        at=ts,
        series={
            "as they are": [at(interpolate(a, b, t)) for t in ts],
            "matched units": [at(interpolate(a, matched, t)) for t in ts],
            "CCA Merge": [at(cca_merge(a, b, *says, spec, t=t, eps=eps)) for t in ts],
        },
    )
