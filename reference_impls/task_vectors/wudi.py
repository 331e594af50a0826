r"""WUDI-Merging (cheng2025wudi).

What a merged model gets wrong on a task's inputs is the difference between the merged and the task's own change of a layer,
applied to those inputs. The inputs are not there, but the rows of a task matrix are sums of the layer's inputs, gathered by
the gradient steps, and span nearly the same subspace. WUDI looks for the merged matrix whose difference from every task
matrix is small on that task's own rows.

Notation: tau_t = theta_t - theta_0 the task matrix of one linear layer (outputs, inputs), tau_m the merged one, |.|_F the
Frobenius norm.

Departures: none with the default solver. The objective is quadratic; `solver="exact"` goes to the minimiser that is nearest
to the start, the sum of the task matrices, where the paper takes a few hundred short steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.descent import descend
from reference_impls.core.state_dict import StateDict, Vector, linear_combination, task_vector, to_state_dict, to_vector


def wudi(
    base: StateDict,
    finetuned: Sequence[StateDict],
    *,
    solver: Literal["adam", "exact"] = "adam",
    num_steps: int = 300,
    lr: float = 1e-5,
    exclude: Sequence[str] = (),
    progress: Callable[[int, float], None] | None = None,
) -> StateDict:
    r"""Merge task matrices so that each task's difference is small on that task's own rows.

    $$
    \tau_m = \arg\min_\tau \sum_t \frac{1}{\lVert\tau_t\rVert_F^2} \big\lVert (\tau - \tau_t)\,\tau_t^\top \big\rVert_F^2, \qquad
    W = W_0 + \tau_m
    $$

    The minimiser is that of RegMean with the Gram matrices $\tau_t^\top \tau_t / \lVert\tau_t\rVert_F^2$ in place of those
    of inputs.

    Args:
        base: $\theta_0$, the pre-trained model that all the others were fine-tuned from.
        finetuned: $\theta_1 \dots \theta_T$, T >= 1.
        solver: "adam" takes `num_steps` steps of Adam from the sum of the task matrices (the paper, FusionBench); "exact" solves
            the normal equations (merge-and-rebase, there with a ridge). Default "adam": the paper.
        num_steps: steps of Adam, >= 0; 0 is the sum. Default 300: FusionBench.
        lr: step size of Adam, in units of the weights. Default 1e-5: FusionBench.
        exclude: names of matrices whose task vectors are averaged, as are all that are no matrices. Default: none.
        progress: called with the step and the objective before it. Default None: silent.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, a negative number of steps, an unknown solver.

    Example:
        The tasks read different inputs, so that each one's change can be kept whole: 2 for the first, 3 for the second.

        >>> models = [{"w": torch.tensor([[2.0, 0.0]])}, {"w": torch.tensor([[0.0, 3.0]])}]
        >>> wudi({"w": torch.zeros(1, 2)}, models, solver="exact")
        {'w': tensor([[2., 3.]])}

    References:
        cheng2025wudi, the objective with the task vector in place of the inputs.
    """
    if solver not in ("adam", "exact"):
        raise ValueError(f"solver is {solver!r}; it is one of adam, exact")
    if not finetuned:
        raise ValueError("received no fine-tuned models; at least one is needed")
    task_vectors = [task_vector(model, base) for model in finetuned]
    merged = linear_combination(task_vectors, [1 / len(finetuned)] * len(finetuned))
    matrices = [key for key, t in merged.items() if t.ndim == 2 and t.numel() and key not in exclude]
    taus = {key: torch.stack([tau[key] for tau in task_vectors]) for key in matrices}  # (T, outputs, inputs)
    if solver == "exact":
        merged |= {key: _minimiser(tau.double()) for key, tau in taus.items()}
    elif taus:
        start = {key: tau.sum(dim=0) for key, tau in taus.items()}
        merged |= descend(lambda v, step: _interference(v, taus), start, num_steps=num_steps, lr=lr, progress=progress)
    return to_state_dict(linear_combination([to_vector(base), merged], [1.0, 1.0]), like=base)


def _interference(merged: Vector, taus: Vector) -> Tensor:
    """The objective, summed over layers: each layer is a problem of its own."""
    total = torch.zeros(())
    for key, tau in taus.items():
        products = (merged[key] - tau) @ tau.transpose(1, 2)  # (T, outputs, outputs)
        total = total.to(products) + (products.square() / _energy(tau)).sum()
    return total


def _minimiser(tau: Tensor) -> Tensor:
    """The solution of the normal equations that is nearest to the sum of the task matrices, (outputs, inputs)."""
    grams = tau.transpose(1, 2) @ tau / _energy(tau)  # (T, inputs, inputs)
    start = tau.sum(dim=0)
    pull = ((tau - start) @ grams).sum(dim=0)
    return start + pull @ torch.linalg.pinv(grams.sum(dim=0), hermitian=True, rtol=1e-9)


def _energy(tau: Tensor) -> Tensor:
    """Squared Frobenius norms, (T, 1, 1); one for a task that changed nothing."""
    energy = tau.square().sum(dim=(1, 2), keepdim=True)
    return torch.where(energy > 0, energy, 1)
