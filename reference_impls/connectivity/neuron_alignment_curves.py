r"""Neuron alignment with curve finding (tatro2020optimizing).

The units of a layer can be permuted without changing a network, so that between two networks there are as many curves
as permutations. The choice matters: if the units of the second network are first put next to the units of the first
that behave alike, by an assignment on the correlations of their activations, a curve found between the two has a lower
loss than one between the networks as they are.

Notation: theta_A and theta_B the networks, P the permutation of theta_B's units, R the correlations of activations,
phi the Bezier curve.

Departures: none known. The paper also refines the permutation along with the curve; that variant is not here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from reference_impls.alignment.activation_matching import activation_matching
from reference_impls.connectivity.curve_finding import Curve, curve_finding
from reference_impls.core.permutation import PermutationSpec, apply_permutation
from reference_impls.core.state_dict import StateDict


@dataclass(frozen=True)
class AlignedCurve:
    """A curve to the aligned copy of the second network.

    Attributes:
        curve: from the first network to the aligned second one.
        permutations: of the second network's units, by name.
    """

    curve: Curve
    permutations: Mapping[str, Tensor]


def neuron_alignment_curves(
    model_a: StateDict,
    model_b: StateDict,
    activations_a: Mapping[str, Tensor],
    activations_b: Mapping[str, Tensor],
    spec: PermutationSpec,
    loss_fn: Callable[[StateDict], Tensor],
    *,
    kind: Literal["bezier", "chain"] = "bezier",
    num_steps: int = 500,
    lr: float = 0.03,
    num_points: int = 61,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> AlignedCurve:
    r"""Align the units of two networks by their correlations, then train a curve between the aligned networks.

    $$
    P = \arg\max_P \langle P, R \rangle, \quad R_{ij} = \mathrm{corr}(z_i^A, z_j^B), \qquad
    \min_\theta\ \mathbb{E}_{t \sim U(0, 1)}\, L\big( (1 - t)^2\, \theta_A + 2t(1 - t)\, \theta + t^2\, P\theta_B \big)
    $$

    Args:
        model_a: $\theta_A$.
        model_b: $\theta_B$.
        activations_a: activations of model A by permutation name; each (samples, units).
        activations_b: activations of model B on the same samples.
        spec: which permutation acts on which axis.
        loss_fn: $L$, differentiable, state dict to scalar.
        kind: "bezier" or "chain", as in `curve_finding`. Default "bezier": the paper's curve.
        num_steps: steps on the bend; 0 leaves the straight line between the aligned networks. Default 500: a toy's.
        lr: learning rate. Default 0.03: a toy's.
        num_points: positions at which the final losses are taken, ends included. Default 61: as in `curve_finding`.
        generator: source of the positions on the curve. Default None: a fresh generator with seed 0.
        progress: called with the step and its loss. Default None.

    Returns:
        An `AlignedCurve`; its last point computes what model B computes.

    Raises:
        ValueError: activations or models that do not fit the spec.

    Example:
        B is A with its two units exchanged. Aligned, they are one network, and the straight line has no barrier.

        >>> spec = PermutationSpec({"u": ("hidden",), "v": ("hidden",)}, {"hidden": 2})
        >>> a = {"u": torch.tensor([1.0, -1.0]), "v": torch.tensor([2.0, 3.0])}
        >>> b = {"u": torch.tensor([-1.0, 1.0]), "v": torch.tensor([3.0, 2.0])}
        >>> z = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
        >>> loss = lambda model: ((model["u"] * model["v"]).sum() + 1).square()
        >>> aligned = neuron_alignment_curves(a, b, {"hidden": z}, {"hidden": z.flip(1)}, spec, loss, num_steps=0)
        >>> aligned.permutations["hidden"].tolist(), round(aligned.curve.losses.barrier.item(), 6)
        ([1, 0], 0.0)

    References:
        tatro2020optimizing, Algorithm 1; garipov2018loss for the curve.
    """
    permutations = activation_matching(activations_a, activations_b, spec, similarity="correlation")
    aligned = apply_permutation(spec, permutations, model_b)
    curve = curve_finding(
        model_a,
        aligned,
        loss_fn,
        kind=kind,
        num_steps=num_steps,
        lr=lr,
        num_points=num_points,
        generator=generator,
        progress=progress,
    )
    return AlignedCurve(curve, permutations)
