r"""LLFC score, weak additivity and commutativity (zhou2023llfc).

If two networks are linearly connected, more than the loss is linear on the way: the features of the interpolated
network are, layer by layer and up to a factor, the interpolation of the two networks' features. The score is the mean
angle between the two, as one minus a cosine, to be compared with the plain distance between the networks' features.
Two conditions explain it: averaging before or after a ReLU hardly differs, and the two networks can exchange weights
and features within a layer.

Notation: f^l the features of layer l, one vector for each input x, theta_A and theta_B the models, t the position
between them, sigma the ReLU, W^l the weights that make layer l out of the features H^{l-1}.

Departures: the paper's alpha multiplies theta_A; here t multiplies theta_B.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.core.paths import interpolate
from reference_impls.core.state_dict import StateDict


@dataclass(frozen=True)
class FeatureConnectivity:
    """Cosine distances, means over the inputs, one entry a layer.

    Attributes:
        layers: names of the k layers.
        interpolated: features of the interpolated network against interpolated features; shape (k,). Zero: LLFC holds.
        baseline: features of one network against features of the other; shape (k,).
    """

    layers: tuple[str, ...]
    interpolated: Tensor
    baseline: Tensor


def llfc(
    model_a: StateDict,
    model_b: StateDict,
    features_fn: Callable[[StateDict], Mapping[str, Tensor]],
    *,
    t: float = 0.5,
) -> FeatureConnectivity:
    r"""Compare the features of the interpolated network with the interpolation of the features, layer by layer.

    $$
    1 - \mathbb{E}_x \cos\!\big( f^l_{(1 - t)\theta_A + t\,\theta_B}(x),\
    (1 - t)\, f^l_{\theta_A}(x) + t\, f^l_{\theta_B}(x) \big)
    \qquad\text{against}\qquad
    1 - \mathbb{E}_x \cos\!\big( f^l_{\theta_A}(x),\ f^l_{\theta_B}(x) \big)
    $$

    Args:
        model_a: $\theta_A$.
        model_b: $\theta_B$.
        features_fn: state dict to the features of each layer on the same inputs; each (inputs, units).
        t: position, in [0, 1]. Default 0.5: the middle.

    Returns:
        A `FeatureConnectivity`: two distances for each layer, in [0, 2].

    Raises:
        ValueError: models of different structure, t outside [0, 1].

    Example:
        One linear layer, input 1: the features are the weights, so the interpolation is exact. A and B are at right
        angles.

        >>> a, b = {"w": torch.tensor([[1.0, 0.0]])}, {"w": torch.tensor([[0.0, 1.0]])}
        >>> result = llfc(a, b, lambda model: {"layer": model["w"]})
        >>> result.interpolated.round(decimals=6).tolist(), result.baseline.tolist()
        ([0.0], [1.0])

    References:
        zhou2023llfc, the definition of layerwise linear feature connectivity and the experiments that test it.
    """
    if not 0 <= t <= 1:
        raise ValueError(f"t is {t}; it must lie in [0, 1]")
    with torch.no_grad():
        features_a, features_b, features_t = (
            features_fn(m) for m in (model_a, model_b, interpolate(model_a, model_b, t))
        )
    between = {name: (1 - t) * features_a[name] + t * features_b[name] for name in features_a}
    return FeatureConnectivity(
        layers=tuple(features_a),
        interpolated=torch.stack([_cosine_distance(features_t[name], between[name]) for name in features_a]),
        baseline=torch.stack([_cosine_distance(features_a[name], features_b[name]) for name in features_a]),
    )


def weak_additivity(preactivations_a: Tensor, preactivations_b: Tensor) -> Tensor:
    r"""Return how far averaging before and after a ReLU differ; zero: weak additivity holds.

    $$ 1 - \mathbb{E}_x \cos(\sigma(\tfrac12 (h_A + h_B)), \tfrac12(\sigma(h_A) + \sigma(h_B))) $$

    Example:
        Opposite signs: the ReLU of the mean is (0.5, 0), the mean of the ReLUs is (1, 0.5), at an angle with cosine
        2/sqrt(5).

        >>> round(weak_additivity(torch.tensor([[2.0, 1.0]]), torch.tensor([[-1.0, -1.0]])).item(), 4)
        0.1056
    """
    after, before = (
        torch.relu((preactivations_a + preactivations_b) / 2),
        (preactivations_a.relu() + preactivations_b.relu()) / 2,
    )
    return _cosine_distance(after, before)


def commutativity(weight_a: Tensor, weight_b: Tensor, features_a: Tensor, features_b: Tensor) -> Tensor:
    r"""Return how far the networks are from exchanging their features; zero: commutativity holds.

    $$
    \mathrm{dist}(W_A H_A + W_B H_B,\ W_A H_B + W_B H_A), \qquad
    \mathrm{dist}(x, y) = \lVert x - y \rVert^2 / (\lVert x \rVert\, \lVert y \rVert)
    $$

    Args:
        weight_a: $W_A$; shape (units, features).
        weight_b: $W_B$; shape (units, features).
        features_a: $H_A$; shape (inputs, features).
        features_b: $H_B$; shape (inputs, features).

    Example:
        1 * 1 + 2 * 3 = 7 and 1 * 3 + 2 * 1 = 5: 4 / 35.

        >>> one, two, three = (torch.full((1, 1), v) for v in (1.0, 2.0, 3.0))
        >>> round(35 * commutativity(one, two, one, three).item(), 4)
        4.0
    """
    straight = features_a @ weight_a.T + features_b @ weight_b.T
    crossed = features_b @ weight_a.T + features_a @ weight_b.T
    return (straight - crossed).square().sum() / (straight.norm() * crossed.norm()).clamp(min=1e-12)


def _cosine_distance(x: Tensor, y: Tensor) -> Tensor:
    """One minus the mean cosine of the rows."""
    return 1 - torch.cosine_similarity(x.double(), y.double(), dim=1).mean()
