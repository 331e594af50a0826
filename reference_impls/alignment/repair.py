r"""REPAIR, with the closed form (jordan2023repair).

The average of two aligned networks computes with shrunken units: where two units agree only in part, their average varies less
than either, and layer upon layer the activations collapse towards constants. REPAIR measures every hidden unit's pre-activation
on some inputs and rescales and shifts it, so that its mean and its standard deviation lie where they should, on the line between
the two networks'. The correction is folded into the weights; under batch normalisation, new running statistics do the same.

Notation: t the interpolation, X_A, X_B, X_t the pre-activation of one unit in model A, model B (aligned) and their interpolation;
E and std its mean and standard deviation over all samples, image positions and tokens.

Departures: none; statistics are taken over all batches together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from reference_impls.core.permutation import PermutationSpec
from reference_impls.core.state_dict import StateDict, Vector, check_same_structure, linear_combination, to_state_dict, to_vector

Moments = tuple[Tensor, Tensor]  # mean and standard deviation (or variance), (units,)
Part = Literal["both", "rescale", "reshift"]  # REPAIR takes both


def repair(
    network: nn.Module,
    model_a: StateDict,
    model_b: StateDict,
    spec: PermutationSpec,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    t: float = 0.5,
    coefficients: Literal["measured", "closed form"] = "measured",
) -> StateDict:
    r"""Interpolate two aligned models and give every hidden unit the statistics it should have.

    $$
    X_t' = \frac{\mathrm{std}^*}{\mathrm{std}(X_t)}\,\big(X_t - \mathbb{E}[X_t]\big) + \mathbb{E}^*, \qquad
    \mathbb{E}^* = (1-t)\,\mathbb{E}[X_A] + t\,\mathbb{E}[X_B], \qquad
    \mathrm{std}^* = (1-t)\,\mathrm{std}(X_A) + t\,\mathrm{std}(X_B)
    $$

    The closed form takes $X_t$ to be $(1-t) X_A + t X_B$, which is exact in the first layer, and so needs no pass through the
    interpolated network:

    $$
    \operatorname{Var}(X_t) = (1-t)^2 \operatorname{Var}(X_A) + t^2 \operatorname{Var}(X_B) + 2t(1-t) \operatorname{Cov}(X_A, X_B)
    $$

    Args:
        network: $f$, the architecture.
        model_a: $\theta_A$.
        model_b: $\theta_B$, already aligned to model A.
        spec: which units are hidden; layers that write them are repaired, outputs are left alone.
        batches: pairs (inputs, targets); targets are not used.
        t: share of model B, in [0, 1]. Default 0.5: the midpoint, where the paper reports its barriers.
        coefficients: "measured" on the interpolated network, each layer after those before it were corrected; or "closed form"
            from the statistics of the two models and their covariance. Default "measured": the paper's exact variant.

    Returns:
        A new state dict, structured as `model_a`.

    Raises:
        ValueError: models of another structure, no batches, t outside [0, 1], an unknown option, a layer without bias.

    Example:
        On inputs -1 and 1 the units have standard deviations 3 and 1 in model A, 1 and 1 in model B, and those of the average are
        1 and 1. They should be (3 + 1) / 2 = 2 and 1, so the first is doubled.

        >>> from reference_impls.core.permutation import permutation_spec
        >>> network = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> spec = permutation_spec(network, torch.zeros(1, 1))
        >>> rest = {"0.bias": torch.zeros(2), "2.weight": torch.ones(1, 2), "2.bias": torch.zeros(1)}
        >>> model_a = {"0.weight": torch.tensor([[3.0], [1.0]]), **rest}
        >>> model_b = {"0.weight": torch.tensor([[-1.0], [1.0]]), **rest}
        >>> batches = [(torch.tensor([[-1.0], [1.0]]), torch.zeros(2))]
        >>> repair(network, model_a, model_b, spec, batches)["0.weight"]
        tensor([[2.],
                [1.]])

    References:
        jordan2023repair, variance collapse, the correction and its closed-form variant.
    """
    if not 0 <= t <= 1:
        raise ValueError(f"t is {t}; it is the share of model B, in [0, 1]")
    if coefficients not in ("measured", "closed form"):
        raise ValueError(f"coefficients is {coefficients!r}; it is one of measured, closed form")
    check_same_structure(model_a, model_b)
    spec.check(model_a)
    if not (inputs := [x for x, _ in batches]):
        raise ValueError("received no batches; statistics need at least one")
    x = torch.cat(inputs)

    a, b = to_vector(model_a), to_vector(model_b)
    merged = linear_combination([a, b], [1 - t, t])
    layers = hidden_layers(network, spec)
    units_a, units_b = (run(network, to_state_dict(v, model_a), x, layers) for v in (a, b))
    targets = {name: target([u, units_b[name]], [1 - t, t]) for name, u in units_a.items()}
    if coefficients == "measured":
        units = run(network, to_state_dict(merged, model_a), x, layers, targets)
    else:  # the variance of these is the formula above
        units = {name: (1 - t) * u + t * units_b[name] for name, u in units_a.items()}
    return to_state_dict(fold(merged, units, layers, targets), like=model_a)


def target(units: Sequence[Tensor], weights: Sequence[float]) -> Moments:
    """The mean and standard deviation that units should have: weighted means of those of the given (samples, units)."""
    mean = sum(w * u.double().mean(dim=0) for w, u in zip(weights, units))
    return mean, sum(w * u.double().std(dim=0, correction=0) for w, u in zip(weights, units))


def hidden_layers(network: nn.Module, spec: PermutationSpec) -> dict[str, nn.Module]:
    """The normalisations to reset, and the linear and convolutional layers to correct: those whose hidden units none follows."""
    modules = dict(network.named_modules())
    norms = {key.rpartition(".")[0]: axes[0] for key, axes in spec.axes.items() if key.endswith("running_mean")}
    layers = {name: modules[name] for name in norms}
    for key, axes in spec.axes.items():
        name = key.rpartition(".")[0]
        if isinstance(modules.get(name), nn.Linear | nn.modules.conv._ConvNd) and key.endswith("weight"):
            if axes[0] is not None and axes[0] not in norms.values():
                layers[name] = modules[name]
    return layers


@torch.no_grad()
def run(
    network: nn.Module,
    state_dict: StateDict,
    x: Tensor,
    layers: Mapping[str, nn.Module],
    targets: Mapping[str, Moments] | None = None,
    part: Part = "both",
) -> dict[str, Tensor]:
    """The units (samples, units) that every layer computes; with targets, each is corrected before the next layer sees it."""
    units, handles = {}, []

    def watch(name: str, module: nn.Module) -> None:
        is_norm, axis = isinstance(module, nn.modules.batchnorm._BatchNorm), -1 if isinstance(module, nn.Linear) else 1

        def hook(module: nn.Module, given: tuple, result: Tensor) -> Tensor | None:
            value = (given[0] if is_norm else result).movedim(axis, -1)  # (..., units)
            units[name] = value.reshape(-1, value.shape[-1])
            if targets is None:
                return None
            if is_norm:
                statistics = _statistics(units[name], module.running_mean, module.running_var, part)
                return nn.functional.batch_norm(given[0], *statistics, module.weight, module.bias, eps=module.eps)
            scale, shift = _affine(units[name], targets[name], part)
            return (value * scale.to(value) + shift.to(value)).movedim(-1, axis)

        handles.append(module.register_forward_hook(hook))

    training = network.training
    try:
        network.eval()
        for name, module in layers.items():
            watch(name, module)
        torch.func.functional_call(network, dict(state_dict), (x,))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return units


def fold(
    vector: Vector, units: Mapping[str, Tensor], layers: Mapping[str, nn.Module], targets: Mapping[str, Moments],
    part: Part = "both",
) -> Vector:
    """Return the weights with the corrections of the units (samples, units) written into them."""
    out = dict(vector)
    for name, module in layers.items():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # its scale and bias, interpolated, are already the target
            mean, variance = out[f"{name}.running_mean"], out[f"{name}.running_var"]
            out[f"{name}.running_mean"], out[f"{name}.running_var"] = _statistics(units[name], mean, variance, part)
            continue
        weight, bias = out[f"{name}.weight"], out.get(f"{name}.bias")
        if bias is None:
            raise ValueError(f"layer {name!r} has no bias to shift; give it one of zeros")
        scale, shift = (m.to(weight) for m in _affine(units[name], targets[name], part))
        out[f"{name}.weight"] = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
        out[f"{name}.bias"] = bias * scale + shift
    return out


def _affine(units: Tensor, goal: Moments, part: Part) -> Moments:
    """Scale and shift that bring units to their goal; a constant unit is only shifted."""
    mean, std = target([units], [1.0])
    scale = torch.where(std > 0, goal[1] / std, 1) if part != "reshift" else torch.ones_like(std)
    return scale, goal[0] - scale * mean if part != "rescale" else mean - scale * mean


def _statistics(units: Tensor, mean: Tensor, variance: Tensor, part: Part) -> Moments:
    """Running statistics for a normalisation: measured ones, or the measured part of them."""
    measured = units.double().mean(dim=0).to(mean), units.double().var(dim=0, correction=0).to(variance)
    return (mean if part == "rescale" else measured[0]), (variance if part == "reshift" else measured[1])
