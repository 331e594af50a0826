r"""Statistics of a model on data: diagonal Fisher information, Gram matrices of layer inputs, activations.

Notation: $f(x; \theta)$ logits, $p_\theta(y \mid x)$ their softmax, $N$ inputs. `batches` is an iterable of
`(inputs, targets)`; every statistic is a sum over examples, so the way they are cut into batches does not matter.
Networks run in evaluation mode with the tensors of the given state dict, and are left as they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

_CHUNK = 64  # examples whose gradients are held at once


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def diagonal_fisher(
    network: nn.Module,
    state_dict: Mapping[str, Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    estimator: str = "exact",
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    r"""The diagonal of the Fisher information matrix of a classifier.

    $$ F = \frac1N \sum_{i=1}^N \mathbb{E}_{y \sim p_\theta(y \mid x_i)}
       \big(\nabla_\theta \log p_\theta(y \mid x_i)\big)^2 $$

    with the square taken entry by entry and the gradient per example: the square of a mean gradient is something else.

    Args:
        network: maps inputs to logits (batch, classes); token models (batch, time, classes) for all but "exact".
        state_dict: theta.
        batches: of (inputs, targets); the targets matter to "empirical" only.
        estimator: "exact" takes the expectation over y as the sum over classes with weights p; "sampled" draws one
            y per input (unbiased); "empirical" takes the target in place of y, which is not the Fisher information
            but is often used. The log-likelihood of a sequence is the sum over its positions.
        generator: for "sampled". Default None: a fresh one with seed 0.

    Returns:
        Non-negative tensors by parameter name, shaped as the parameters; tied names share one tensor. Buffers have
        no Fisher information and are absent.

    Raises:
        ValueError: for an unknown estimator, no examples, or "exact" with more than one prediction per example.

    Example:
        >>> network = nn.Linear(1, 2, bias=False)
        >>> zero = {"weight": torch.zeros(2, 1)}  # p = (1/2, 1/2), so F = x^2 p (1 - p) = 4 / 4
        >>> diagonal_fisher(network, zero, [(torch.tensor([[2.0]]), torch.tensor([0]))])["weight"].flatten()
        tensor([1., 1.])

    References: matena2022fisher, the estimator of its diagonal Fisher information.
    """
    if estimator not in ("exact", "empirical", "sampled"):
        raise ValueError(f"estimator must be 'exact', 'empirical' or 'sampled', got {estimator!r}")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    owners = {name: parameter for name, parameter in network.named_parameters(remove_duplicate=False)}
    first = {id(parameter): name for name, parameter in reversed(list(owners.items()))}
    parameters = {name: state_dict[name].detach() for name in first.values()}
    rest = {name: tensor for name, tensor in state_dict.items() if name not in owners}

    def log_probabilities(parameters: dict[str, Tensor], x: Tensor) -> Tensor:  # of one example
        return functional_call(network, {**rest, **parameters}, (x.unsqueeze(0),)).squeeze(0).log_softmax(-1)

    def log_likelihood(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return log_probabilities(parameters, x).gather(-1, y.unsqueeze(-1)).sum()

    total = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in parameters.items()}
    count = 0
    with _evaluating(network):
        for batch_inputs, batch_targets in batches:
            for inputs, targets in zip(batch_inputs.split(_CHUNK), batch_targets.split(_CHUNK), strict=True):
                if estimator == "exact":
                    log_p = vmap(log_probabilities, (None, 0))(parameters, inputs)
                    if log_p.ndim != 2:
                        raise ValueError(f"'exact' needs logits (batch, classes), got shape {tuple(log_p.shape)}")
                    jacobian = vmap(jacrev(log_probabilities), (None, 0))(parameters, inputs)
                    for name, g in jacobian.items():  # (examples, classes, *shape)
                        total[name] += torch.einsum("nc,nc...->...", log_p.exp().double(), g.double() ** 2)
                else:
                    if estimator == "sampled":
                        with torch.no_grad():
                            p = vmap(log_probabilities, (None, 0))(parameters, inputs).exp()
                        draws = torch.multinomial(p.flatten(0, -2).cpu(), 1, generator=generator)
                        targets = draws.view(p.shape[:-1]).to(p.device)
                    for name, g in vmap(grad(log_likelihood), (None, 0, 0))(parameters, inputs, targets).items():
                        total[name] += (g.double() ** 2).sum(0)
                count += len(inputs)
    if count == 0:
        raise ValueError("received no examples; at least one batch is needed")
    fisher = {name: (tensor / count).to(parameters[name].dtype) for name, tensor in total.items()}
    return {name: fisher[first[id(parameter)]] for name, parameter in owners.items()}


def gram_matrices(
    network: nn.Module,
    state_dict: Mapping[str, Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    normalize: bool = False,
) -> dict[str, Tensor]:
    r"""Gram matrix of the inputs of every linear layer.

    $$ G = X^\top X, \qquad X \in \mathbb{R}^{N \times n} $$

    where the rows of X are the inputs of the layer, all positions of a sequence or an image counted as rows.

    Args:
        network: its `nn.Linear` layers are measured; a layer that is called several times adds up its calls.
        state_dict: theta.
        batches: of (inputs, targets); targets are not used.
        normalize: True divides by the number of rows N, the mean of x x^T.

    Returns:
        Symmetric positive semi-definite matrices (n, n) by the name of the weight ("head.weight"), in the weight's
        dtype, summed in float64.

    Raises:
        ValueError: if there is no batch or no linear layer.

    Example:
        >>> inputs = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
        >>> gram_matrices(nn.Linear(2, 1), {"weight": torch.zeros(1, 2), "bias": torch.zeros(1)}, [(inputs, None)])
        {'weight': tensor([[1., 2.],
                [2., 5.]])}

    References: jin2023regmean, the matrices X^T X of each linear layer.
    """
    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    if not layers:
        raise ValueError("the network has no nn.Linear layer")
    grams: dict[str, Tensor] = {}
    rows: dict[str, int] = {}
    for inputs, _ in batches:
        for name, calls in _record(network, state_dict, inputs, layers, "inputs").items():
            weight = f"{name}.weight" if name else "weight"
            for x in calls:
                x = x.flatten(0, -2).double()
                grams[weight] = grams.get(weight, 0) + x.T @ x
                rows[weight] = rows.get(weight, 0) + len(x)
    if not grams:
        raise ValueError("received no examples; at least one batch is needed")
    return {
        name: (gram / rows[name] if normalize else gram).to(state_dict[name].dtype) for name, gram in grams.items()
    }


def activations(
    network: nn.Module,
    state_dict: Mapping[str, Tensor],
    inputs: Tensor,
    layers: Sequence[str] | None = None,
    *,
    at: str = "outputs",
) -> dict[str, Tensor]:
    r"""What layers compute: a matrix $Z \in \mathbb{R}^{N \times d}$ of samples by units for each layer.

    Positions of an image (n, c, h, w) or of a sequence (n, t, d) count as samples. Outputs are those of the layer
    itself, before a nonlinearity that follows it; the inputs of the next layer are after it.

    Args:
        network: the architecture.
        state_dict: theta.
        inputs: a batch of inputs.
        layers: module names. Default None: every module with parameters of its own, in the order of the network.
        at: "outputs" or "inputs" of the layers.

    Returns:
        Tensors (samples, units) by layer name.

    Raises:
        ValueError: for an unknown layer or `at`.

    Example:
        >>> network = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU())
        >>> activations(network, {"0.weight": torch.tensor([[1.0], [-1.0]])}, torch.tensor([[3.0]]), ["0", "1"])
        {'0': tensor([[ 3., -3.]]), '1': tensor([[3., 0.]])}
    """
    if at not in ("outputs", "inputs"):
        raise ValueError(f"at must be 'outputs' or 'inputs', got {at!r}")
    modules = dict(network.named_modules())
    if layers is None:
        layers = [name for name, module in modules.items() if any(True for _ in module.parameters(recurse=False))]
    unknown = [name for name in layers if name not in modules]
    if unknown:
        raise ValueError(f"the network has no layers {unknown}; it has {[name for name in modules if name]}")
    recorded = _record(network, state_dict, inputs, {name: modules[name] for name in layers}, at)
    return {name: torch.cat([_samples_by_units(z) for z in recorded[name]]) for name in layers}


def _samples_by_units(z: Tensor) -> Tensor:
    if z.ndim == 4:  # an image: units are channels
        z = z.movedim(1, -1)
    return z.flatten(0, -2)


def _record(
    network: nn.Module, state_dict: Mapping[str, Tensor], inputs: Tensor, layers: Mapping[str, nn.Module], at: str
) -> dict[str, list[Tensor]]:
    """One forward pass that notes the inputs or outputs of each call of the layers."""
    recorded: dict[str, list[Tensor]] = {name: [] for name in layers}

    def note(name: str):
        return lambda _, args, output: recorded[name].append((args[0] if at == "inputs" else output).detach())

    handles = [module.register_forward_hook(note(name)) for name, module in layers.items()]
    tie_weights = len(state_dict) < len(network.state_dict())  # one name of a tied group stands for all
    try:
        with _evaluating(network), torch.no_grad():
            functional_call(network, dict(state_dict), (inputs,), tie_weights=tie_weights)
    finally:
        for handle in handles:
            handle.remove()
    return recorded
