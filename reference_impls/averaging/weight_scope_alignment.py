r"""Weight Scope Alignment (xu2024weight).

Models trained under different conditions end with weights of different spread, and an average of weights of different
spread fits none of them. As the weights of a layer look Gaussian, let every model train with a penalty on the
divergence between the Gaussian of each of its layers and a target Gaussian that all models share. For training in
several rounds the target is fused from the models.

Notation: m_l and s_l mean and standard deviation of the weights of layer l, m_l* and s_l* those of the target, mu the
strength.

Departures: which way the divergence points could not be confirmed; here it is from the layer to the target. The fused
target takes the plain means of the models' means and variances.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.core.descent import descend, outputs
from reference_impls.core.state_dict import StateDict, Vector, check_same_structure, to_state_dict, to_vector

Scope = Mapping[str, tuple[float, float]]  # name -> mean and standard deviation
SMALLEST_VARIANCE = 1e-8


def weight_scope_alignment(
    models: Sequence[StateDict],
    network: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    target: Scope | None = None,
    coef: float = 0.1,
    num_steps: int = 50,
    lr: float = 1e-3,
    progress: Callable[[int, float], None] | None = None,
) -> StateDict:
    r"""Train models towards one weight scope and average them.

    $$
    \min_{\theta_i}\; L_i(\theta_i) + \mu \sum_l
    \mathrm{KL}\Big(\mathcal N(m_l, s_l^2) \,\Big\|\, \mathcal N({m_l^*}, {s_l^*}^2)\Big),
    \qquad \mathrm{KL} = \log\frac{s_l^*}{s_l} + \frac{s_l^2 + (m_l - m_l^*)^2}{2\,{s_l^*}^2} - \frac12
    $$

    Args:
        models: where the models start, n >= 1.
        network: maps inputs to logits (batch, classes), in evaluation mode.
        batches: (inputs, targets), as many as models: model i is trained on the i-th.
        target: mean and standard deviation by name of a weight matrix. Default None: fused from `models` by
            `fuse_scopes`.
        coef: $\mu$ >= 0, in nats of loss a nat of divergence. Default 0.1: for small models.
        num_steps: steps of Adam a model, >= 0. Default 50: for small models.
        lr: step size. Default 0.001: for small models.
        progress: called with the step (of all models in turn) and the penalised loss.

    Returns:
        A new state dict, structured as the first model: the average. `align_scopes` returns the models before it.

    Raises:
        ValueError: no models, models of another structure, another number of batches, a negative coef.

    Example:
        Without steps the result is the average of the models.

        >>> import torch
        >>> models = [{"weight": torch.tensor([[x], [0.0]])} for x in (1.0, 3.0)]
        >>> batches = [(torch.ones(1, 1), torch.tensor([0]))] * 2
        >>> weight_scope_alignment(models, nn.Linear(1, 2, bias=False), batches, num_steps=0)
        {'weight': tensor([[2.],
                [0.]])}

    References:
        xu2024weight, weight scope regularisation and weight scope fusion.
    """
    return uniform_soup(
        align_scopes(models, network, batches, target=target, coef=coef, num_steps=num_steps, lr=lr, progress=progress)
    )


def align_scopes(
    models: Sequence[StateDict],
    network: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    target: Scope | None = None,
    coef: float = 0.1,
    num_steps: int = 50,
    lr: float = 1e-3,
    progress: Callable[[int, float], None] | None = None,
) -> list[dict[str, Tensor]]:
    """Train every model on its own data with the penalty; all arguments as in `weight_scope_alignment`.

    Returns:
        The trained state dicts, in order.
    """
    check_same_structure(*models)
    if len(batches) != len(models):
        raise ValueError(f"received {len(models)} models and {len(batches)} batches; one batch per model is needed")
    if coef < 0:
        raise ValueError(f"coef is {coef}; it is at least 0")
    target = fuse_scopes(models) if target is None else target
    trained = []
    for i, (model, (inputs, targets)) in enumerate(zip(models, batches)):

        def loss(theta: Vector, step: int, model=model, inputs=inputs, targets=targets) -> Tensor:
            fit = nn.functional.cross_entropy(outputs(network, theta, inputs, like=model), targets)
            return fit + coef * scope_divergence(theta, target)

        report = None if progress is None else lambda step, value, first=i * num_steps: progress(first + step, value)
        theta = descend(loss, to_vector(model), num_steps=num_steps, lr=lr, progress=report)
        trained.append(to_state_dict(theta, like=model))
    return trained


def fuse_scopes(models: Sequence[StateDict]) -> dict[str, tuple[float, float]]:
    r"""Return for every weight matrix the mean over models of its mean, and the root of the mean of its variance.

    Example:
        Means 1 and 3, variances 1 and 9: the fused mean is 2, the standard deviation the root of 5.

        >>> import torch
        >>> fuse_scopes([{"w": torch.tensor([[0.0, 2.0]])}, {"w": torch.tensor([[0.0, 6.0]])}])
        {'w': (2.0, 2.23606797749979)}
    """
    vectors = [to_vector(model) for model in models]
    fused = {}
    for key, tensor in vectors[0].items():
        if tensor.ndim > 1 and tensor.numel() > 1:  # biases and norms are too small to have a scope
            means = [vector[key].mean().item() for vector in vectors]
            variances = [vector[key].var(unbiased=False).item() for vector in vectors]
            fused[key] = (sum(means) / len(means), (sum(variances) / len(variances)) ** 0.5)
    return fused


def scope_divergence(theta: Vector, target: Scope) -> Tensor:
    r"""Return the sum over layers of the divergence from the layer's Gaussian to the target's, in nats.

    Example:
        Mean 1 and variance 1 against a standard Gaussian: 0 + (1 + 1) / 2 - 1 / 2.

        >>> import torch
        >>> scope_divergence({"w": torch.tensor([[0.0, 2.0]])}, {"w": (0.0, 1.0)})
        tensor(0.5000)
    """
    total = 0.0
    for key, (mean, deviation) in target.items():
        m, variance = theta[key].mean(), theta[key].var(unbiased=False).clamp(min=SMALLEST_VARIANCE)
        wanted = max(deviation**2, SMALLEST_VARIANCE)
        total = total + (wanted / variance).log() / 2 + (variance + (m - mean) ** 2) / (2 * wanted) - 0.5
    return total
