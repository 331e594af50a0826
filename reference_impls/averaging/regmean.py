r"""RegMean (jin2023regmean).

For one linear layer, merging can be posed as regression: find the weight whose outputs are closest to what each model's
own layer computes on its own inputs. The answer has a closed form that needs no inputs, only their inner products. All
other parameters are averaged.

Notation: W_i the weight of a linear layer of model i, X_i its inputs (examples, inputs), G_i = X_i^T X_i their Gram
matrix, alpha the factor on the off-diagonal of G_i. In the paper's equations inputs multiply W from the left; PyTorch
stores W transposed.

Departures: where the summed Gram matrix is singular (units that never fire, fewer examples than inputs) the paper's
inverse does not exist; here the solution nearest to the plain average is taken, so that directions without data are
averaged.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reference_impls.core.state_dict import StateDict, check_same_structure, linear_combination, to_state_dict
from reference_impls.core.state_dict import to_vector


def regmean(
    models: Sequence[StateDict],
    grams: Sequence[StateDict],
    *,
    alpha: float = 0.9,
    weights: Sequence[float] | None = None,
) -> StateDict:
    r"""Merge linear layers by regression on their inputs, and average the rest.

    $$
    W^\top = \Big(\sum_i w_i\,\tilde G_i\Big)^{-1} \sum_i w_i\,\tilde G_i\,W_i^\top, \qquad
    \tilde G_i = \alpha\,G_i + (1 - \alpha)\,\mathrm{diag}(G_i)
    $$

    Args:
        models: $\theta_1 \dots \theta_n$, n >= 1, of one architecture.
        grams: $G_1 \dots G_n$, for each model the Gram matrices (inputs, inputs) of linear layers by the name of the
            weight (outputs, inputs), as `core.statistics.gram_matrices` returns them. A sum over examples gives a
            model with more examples more say (the paper); a mean gives all models the same (all known code).
        alpha: factor on the off-diagonal entries, in [0, 1]; 1 leaves the Gram matrices alone. Default 0.9: one of the
            two values of the authors' experiments, the other is 0.1 (T5).
        weights: $w_1 \dots w_n$, positive, also of the average of the other parameters; only their ratios count.
            Default None: all equal.

    Returns:
        A new state dict, structured as the first model.

    Raises:
        ValueError: no models, models of another structure, another number of Gram matrices or weights, alpha outside
            [0, 1], a Gram matrix for no weight or of the wrong shape.

    Example:
        One layer with one output. The first model saw only the first input, the second mostly the second one:
        (1 * 4 + 0) / (1 + 0) = 4 and (0 + 3 * 8) / (0 + 3) = 8.

        >>> models = [{"w": torch.tensor([[4.0, 0.0]])}, {"w": torch.tensor([[2.0, 8.0]])}]
        >>> grams = [{"w": torch.diag(torch.tensor([1.0, 0.0]))}, {"w": torch.diag(torch.tensor([0.0, 3.0]))}]
        >>> regmean(models, grams)
        {'w': tensor([[4., 8.]])}

    References:
        jin2023regmean, the closed form of the regression mean and its reduced off-diagonal entries.
    """
    check_same_structure(*models)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it is in [0, 1]")
    w = [1.0] * len(models) if weights is None else [float(x) for x in weights]
    if not len(w) == len(grams) == len(models):
        counts = f"{len(models)} models, {len(grams)} sets of Gram matrices, {len(w)} weights"
        raise ValueError(f"received {counts}; one of each per model is needed")
    if min(w) <= 0:
        raise ValueError(f"weights are {w}; they need to be positive")
    thetas = [to_vector(model) for model in models]
    layers = {key for gram in grams for key in gram}
    for key in layers:
        _check_gram(key, thetas[0].get(key), [gram.get(key) for gram in grams])

    merged = linear_combination(thetas, [x / sum(w) for x in w])
    for key in thetas[0]:
        if key in layers:
            reduced = [x * _reduce_off_diagonal(gram[key].double(), alpha) for x, gram in zip(w, grams)]
            merged[key] = _regress([theta[key].double() for theta in thetas], reduced, merged[key].double())
    return to_state_dict(merged, like=models[0])


def _reduce_off_diagonal(gram: Tensor, alpha: float) -> Tensor:
    return alpha * gram + (1 - alpha) * torch.diag(gram.diagonal())


def _regress(weights: Sequence[Tensor], grams: Sequence[Tensor], average: Tensor) -> Tensor:
    """The minimiser of the summed squared error that is nearest to the average, (outputs, inputs)."""
    total = sum(grams)  # (inputs, inputs)
    pull = sum(gram @ (weight - average).T for gram, weight in zip(grams, weights))  # (inputs, outputs)
    return average + (torch.linalg.pinv(total, hermitian=True) @ pull).T


def _check_gram(key: str, weight: Tensor | None, grams: Sequence[Tensor | None]) -> None:
    if weight is None or weight.ndim != 2:
        raise ValueError(f"a Gram matrix is given for {key!r}, which is no matrix of the models")
    need = (weight.shape[1], weight.shape[1])
    for number, gram in enumerate(grams, start=1):
        got = None if gram is None else tuple(gram.shape)
        if got != need:
            raise ValueError(f"Gram matrix of {key!r} in set {number} has shape {got}; {need} is needed")
