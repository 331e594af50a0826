r"""Task arithmetic (ilharco2023task).

The difference between a fine-tuned model and its base points towards a task. Such task vectors can be added to the base
to learn several tasks at once, subtracted to forget one, and combined as in an analogy ("A is to B as C is to D") to
reach a task without data of its own.

Notation: theta_0 the base model, tau_t = theta_t - theta_0 the task vector of model t, lambda the scaling coefficient.

Departures: none. The paper chooses the scaling coefficient on held-out data; here the caller passes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from reference_impls.core.state_dict import StateDict, Vector, linear_combination, task_vector, to_state_dict, to_vector


def task_arithmetic(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    scaling_coef: float = 1.0,
    weights: Sequence[float] | None = None,
) -> StateDict:
    r"""Add task vectors to the base model: learning by addition.

    $$
    \theta = \theta_0 + \lambda \sum_t w_t\,\tau_t, \qquad \tau_t = \theta_t - \theta_0
    $$

    Args:
        base: $\theta_0$, the pre-trained model that all the others were fine-tuned from.
        finetuned: $\theta_1 \dots \theta_n$, n >= 1.
        scaling_coef: $\lambda$, any finite number; the paper picks it on held-out data (Sec. 2).
            Default 1.0: the sum itself, as in the authors' code.
        weights: $w_1 \dots w_n$, one a model; negative ones forget. Default None: all 1 (Sec. 4).

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, another number of weights.

    Example:
        The task vectors are (2, 0) and (1, -1), their sum (3, -1), half of it (1.5, -0.5).

        >>> import torch
        >>> base = {"w": torch.tensor([1.0, 1.0])}
        >>> models = [{"w": torch.tensor([3.0, 1.0])}, {"w": torch.tensor([2.0, 0.0])}]
        >>> task_arithmetic(base, models, scaling_coef=0.5)
        {'w': tensor([2.5000, 0.5000])}

    References:
        ilharco2023task, Sec. 2 (task vectors) and Sec. 4 (addition).
    """
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    w = [1.0] * len(finetuned) if weights is None else [float(x) for x in weights]
    if len(w) != len(finetuned):
        counts = f"{len(finetuned)} fine-tuned models and {len(w)} weights"
        raise ValueError(f"received {counts}; one weight per model is needed")
    return _move(base, [task_vector(model, base) for model in finetuned], w, scaling_coef)


def task_negation(base: StateDict, model: StateDict, *, scaling_coef: float = 1.0) -> StateDict:
    r"""Subtract one task vector from the base model: forgetting by negation.

    $$
    \theta = \theta_0 - \lambda\,\tau
    $$

    Args:
        base: $\theta_0$.
        model: the model fine-tuned on what is to be forgotten.
        scaling_coef: $\lambda$, as in `task_arithmetic`. Default 1.0: the task vector itself.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: a model of another structure.

    Example:
        >>> import torch
        >>> task_negation({"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}, scaling_coef=0.25)
        {'w': tensor([0.5000])}

    References:
        ilharco2023task, Sec. 3.
    """
    return _move(base, [task_vector(model, base)], [-1.0], scaling_coef)


def task_analogy(
    base: StateDict,
    model_a: StateDict,
    model_b: StateDict,
    model_c: StateDict,
    *,
    scaling_coef: float = 1.0,
) -> StateDict:
    r"""Reach task D from "A is to B as C is to D".

    $$
    \theta = \theta_0 + \lambda\,\big(\tau_C + (\tau_B - \tau_A)\big)
    $$

    Args:
        base: $\theta_0$.
        model_a: $\theta_A$.
        model_b: $\theta_B$.
        model_c: $\theta_C$.
        scaling_coef: $\lambda$, as in `task_arithmetic`. Default 1.0: the task vectors themselves.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: a model of another structure.

    Example:
        With base 0 the task vectors are 1, 3 and 10, and 10 + (3 - 1) = 12.

        >>> import torch
        >>> values = [{"w": torch.tensor([x])} for x in (0.0, 1.0, 3.0, 10.0)]
        >>> task_analogy(*values)
        {'w': tensor([12.])}

    References:
        ilharco2023task, Sec. 5.
    """
    return _move(base, [task_vector(m, base) for m in (model_a, model_b, model_c)], [-1.0, 1.0, 1.0], scaling_coef)


def _move(base: StateDict, task_vectors: Sequence[Vector], weights: Sequence[float], scaling_coef: float) -> StateDict:
    """theta_0 + lambda * sum of w_t tau_t."""
    total = linear_combination(task_vectors, weights)
    theta = linear_combination([to_vector(base), total], [1.0, scaling_coef])
    return to_state_dict(theta, like=base)
