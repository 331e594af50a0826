r"""MagMax (marczak2024magmax).

A model that is fine-tuned on one task after another forgets the earlier ones. MagMax keeps the checkpoint after every task
and, once training is over, takes for each parameter the value that moved furthest from the base model, on the idea that what
moved most matters most. Each checkpoint starts from the one before it, so that the task vectors share signs and disturb one
another less.

Notation: theta_0 the base model, theta_t the checkpoint after task t, tau_t = theta_t - theta_0 its task vector, lambda the
scaling coefficient.

Departures: none. Of equal magnitudes the later one is taken, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from reference_impls.core.state_dict import StateDict, linear_combination, task_vector, to_state_dict, to_vector, zip_entries


def magmax(base: StateDict, finetuned: Sequence[StateDict], *, scaling_coef: float = 0.5) -> StateDict:
    r"""Merge models by the entry of largest magnitude among their task vectors.

    $$
    \tau^p = \tau_k^p \ \text{ with }\ k = \arg\max_t |\tau_t^p|, \qquad \theta = \theta_0 + \lambda\,\tau
    $$

    Args:
        base: $\theta_0$, the model before any of the tasks.
        finetuned: $\theta_1 \dots \theta_n$, n >= 1, in the order of training; in the paper each was fine-tuned from the one
            before it, but models fine-tuned from the base independently can be merged, too.
        scaling_coef: $\lambda$. Default 0.5: a released script of the authors for independently fine-tuned models; the
            paper searches it.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure.

    Example:
        -3 is further from zero than 2; of 1 and -1 the later one is taken.

        >>> models = [{"w": torch.tensor([2.0, 1.0])}, {"w": torch.tensor([-3.0, -1.0])}]
        >>> magmax({"w": torch.zeros(2)}, models, scaling_coef=1.0)
        {'w': tensor([-3., -1.])}

    References:
        marczak2024magmax, the section on the method (selection by maximum magnitude).
    """
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    largest, *later = [task_vector(model, base) for model in finetuned]
    for tau in later:
        largest = zip_entries(lambda new, old: torch.where(new.abs() >= old.abs(), new, old), tau, largest)
    return to_state_dict(linear_combination([to_vector(base), largest], [1.0, scaling_coef]), like=base)
