r"""Rescale and reshift, also after pruning (qu2024rethink).

Renormalising a merged network does two things to a hidden unit: it rescales the unit's deviations from its mean, and it
shifts the mean. Taken apart and applied alone, the two show which of them the network had lost; together they are
REPAIR. A pruned network has lost the same things for the same reason, so its units can be brought back to the
statistics of the network it was pruned from.

Notation: X the pre-activation of a unit in the damaged network, X_i in the reference networks, std and E over all samples.

Departures: rescaling is about the unit's own mean, so that the two parts compose to REPAIR; the paper's choice is not
confirmed. With batch normalisation, rescaling renews the running variances, reshifting the running means.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reference_impls.alignment.repair import fold, hidden_layers, run, target
from reference_impls.core.permutation import PermutationSpec
from reference_impls.core.state_dict import StateDict, check_same_structure, to_state_dict, to_vector


@dataclass(frozen=True)
class RescaleReshift:
    """The damaged model with either correction and with both, and what had collapsed.

    Attributes:
        rescaled: only the standard deviations are those of the references.
        reshifted: only the means.
        both: REPAIR.
        collapse: by layer, the median over its units of std(X) / std*, measured in the damaged network; 1 where nothing
            collapsed.
    """

    rescaled: StateDict
    reshifted: StateDict
    both: StateDict
    collapse: dict[str, float]


def rescale_reshift(
    network: nn.Module,
    merged: StateDict,
    models: Sequence[StateDict],
    spec: PermutationSpec,
    batches: Iterable[tuple[Tensor, Tensor]],
) -> RescaleReshift:
    r"""Give a merged or pruned network the standard deviations, the means, or both, of the networks it came from.

    $$
    X_{\text{rescale}} = \frac{\mathrm{std}^*}{\mathrm{std}(X)}\,(X - \mathbb{E}[X]) + \mathbb{E}[X], \qquad
    X_{\text{reshift}} = X - \mathbb{E}[X] + \mathbb{E}^*, \qquad
    \mathrm{std}^* = \frac1n \sum_i \mathrm{std}(X_i), \quad \mathbb{E}^* = \frac1n \sum_i \mathbb{E}[X_i]
    $$

    Args:
        network: $f$, the architecture.
        merged: the damaged model: an average of aligned models, or a pruned one.
        models: the references, aligned: the models that were averaged, or the one before pruning; at least one.
        spec: which units are hidden; layers that write them are corrected.
        batches: pairs (inputs, targets); targets are not used.

    Returns:
        A `RescaleReshift`: three state dicts structured as `merged`, and the collapse of every layer.

    Raises:
        ValueError: no models, models of another structure, no batches, a layer to correct that has no bias.

    Example:
        On inputs -1 and 1 the reference unit is 2x + 3: std 2, mean 3; pruning left 1x + 1. Its scale doubles about its
        mean of 1; then it is shifted.

        >>> network = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
        >>> axes = {"0.weight": ("h", None), "0.bias": ("h",), "1.weight": (None, "h"), "1.bias": (None,)}
        >>> spec = PermutationSpec(axes, {"h": 1})
        >>> make = lambda weight, bias: {"0.weight": torch.full((1, 1), weight), "0.bias": torch.full((1,), bias),
        ...                              "1.weight": torch.ones(1, 1), "1.bias": torch.zeros(1)}
        >>> found = rescale_reshift(network, make(1.0, 1.0), [make(2.0, 3.0)], spec, [(torch.tensor([[-1.0], [1.0]]), None)])
        >>> [(m["0.weight"].item(), m["0.bias"].item()) for m in (found.rescaled, found.reshifted, found.both)], found.collapse
        ([(2.0, 1.0), (1.0, 3.0), (2.0, 3.0)], {'0': 0.5})

    References:
        qu2024rethink, abstract and the section on rescaling and reshifting; jordan2023repair for both together.
    """
    check_same_structure(merged, *models)
    spec.check(merged)
    if not models:
        raise ValueError("received no models; at least one reference is needed")
    inputs = [x for x, _ in batches]
    if not inputs:
        raise ValueError("received no batches; statistics need at least one")
    x = torch.cat(inputs)

    layers, vector = hidden_layers(network, spec), to_vector(merged)
    references = [run(network, model, x, layers) for model in models]
    targets = {name: target([units[name] for units in references], [1 / len(models)] * len(models)) for name in layers}
    damaged = run(network, merged, x, layers)
    collapse = {}
    for name in layers:
        std = target([damaged[name]], [1.0])[1]
        alive = targets[name][1] > 0  # a reference unit that is constant has nothing to lose
        collapse[name] = (std[alive] / targets[name][1][alive]).median().item() if alive.any() else 1.0

    parts = {}
    for part in ("rescale", "reshift", "both"):
        units = run(network, merged, x, layers, targets, part)
        parts[part] = to_state_dict(fold(vector, units, layers, targets, part), like=merged)
    return RescaleReshift(parts["rescale"], parts["reshift"], parts["both"], collapse)
