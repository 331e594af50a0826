r"""Uniform soup (wortsman2022soups).

Models that were fine-tuned from one pre-trained model, with different hyper-parameters or data orders, mostly lie in
one low-loss basin. Their average lies in it too, often nearer to its middle than any of them, and costs no more to run
than one model.

Notation: theta_i the models, w_i their weights, n their number.

Departures: none. Weights other than equal ones are the linear merge of other libraries.
"""

from __future__ import annotations

from collections.abc import Sequence

from reference_impls.core.state_dict import StateDict, check_same_structure, linear_combination, to_state_dict
from reference_impls.core.state_dict import to_vector


def uniform_soup(
    models: Sequence[StateDict],
    *,
    weights: Sequence[float] | None = None,
    normalize: bool = True,
) -> StateDict:
    r"""Average the parameters of several models.

    $$
    \theta = \frac{\sum_i w_i\,\theta_i}{\sum_i w_i}, \qquad w_i = 1 \text{ in the uniform soup}
    $$

    Args:
        models: $\theta_1 \dots \theta_n$, n >= 1, of one architecture.
        weights: $w_1 \dots w_n$, any finite numbers; only their ratios count while `normalize` is true.
            Default None: all equal (Sec. 2, Table 2).
        normalize: True divides by $\sum_i w_i$; False returns the plain weighted sum (an option of mergekit).
            Default True: an average.

    Returns:
        A new state dict, structured as the first model.

    Raises:
        ValueError: no models, models of another structure, another number of weights, weights that sum to zero.

    Example:
        >>> import torch
        >>> models = [{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 6.0])}]
        >>> uniform_soup(models)
        {'w': tensor([2., 4.])}
        >>> uniform_soup(models, weights=[3, 1])  # (3 * 1 + 1 * 3) / 4, (3 * 2 + 1 * 6) / 4
        {'w': tensor([1.5000, 3.0000])}

    References:
        wortsman2022soups, Sec. 2 and Table 2.
    """
    check_same_structure(*models)
    w = [1.0] * len(models) if weights is None else [float(x) for x in weights]
    if len(w) != len(models):
        raise ValueError(f"received {len(models)} models and {len(w)} weights; one weight per model is needed")
    total = sum(w) if normalize else 1.0
    if abs(total) < 1e-12:
        raise ValueError(f"weights {w} sum to zero and cannot be normalized; pass normalize=False for the plain sum")
    average = linear_combination([to_vector(model) for model in models], [x / total for x in w])
    return to_state_dict(average, like=models[0])
