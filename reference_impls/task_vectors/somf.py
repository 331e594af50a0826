r"""SOMF: safety realignment by subspace-oriented model fusion (yi2024safety).

Fine-tuning an aligned model on a harmless task can undo its safety. SOMF separates what each fine-tuned model has
learned, its task vector, from the aligned model, learns one mask over the parameters that keeps of all the task
vectors what agrees with safety, and adds the masked task vectors to the aligned model. The mask is learned through a
relaxation: its entries are drawn from a distribution between 0 and 1 that gradients can pass through.

Notation: theta_0 the aligned model, tau_t the task vector of fine-tuned model t, x the logits of the mask, m the
mask, T the temperature, lambda the scaling coefficient, L_safe the loss on safety preferences.

Departures: none known. The start of the logits, the division by the mask's mean and a final mask that is drawn are
those of the authors' code; they were not compared with the paper's text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.paths import dress
from reference_impls.core.state_dict import StateDict, Vector, linear_combination, task_vector, to_state_dict, to_vector
from reference_impls.core.state_dict import zip_map


def somf(
    base: StateDict,
    finetuned: Sequence[StateDict],
    loss_fn: Callable[[StateDict], Tensor],
    *,
    scaling_coef: float = 1.0,
    temperature: float = 0.5,
    initial: float = 5.0,
    rescale: bool = True,
    final: Literal["sample", "threshold"] = "sample",
    num_steps: int = 200,
    lr: float = 0.1,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> StateDict:
    r"""Learn which parameters of the task vectors are safe, and add those to the aligned model.

    $$
    m = \sigma\Big(\frac{x + \log u - \log(1 - u)}{T}\Big),\ u \sim U(0, 1), \qquad
    \min_x\ \mathbb{E}_u\, L_{safe}\Big(\theta_0 + \lambda \sum_t \frac{m}{\bar m} \odot \tau_t\Big)
    $$

    Args:
        base: $\theta_0$, the model that is aligned.
        finetuned: $\theta_1 \dots \theta_n$, n >= 1, fine-tuned from it.
        loss_fn: $L_{safe}$, differentiable, state dict to scalar; for pairs of a chosen and a rejected answer it is
            `preference_loss`.
        scaling_coef: $\lambda$ of the task arithmetic that follows the mask. Default 1.0: the sum itself.
        temperature: $T$, > 0; the lower, the nearer the drawn masks are to 0 and 1. Default 0.5: ours.
        initial: of all logits; at 5 a parameter is kept with probability 0.993. Default 5.0: the authors' code.
        rescale: divides the mask of each tensor by its mean $\bar m$. Default True: the authors' code.
        final: the binary mask is drawn once more ("sample", the authors' code), or keeps what has a probability of more than one
            half ("threshold"). Default "sample": the authors' code.
        num_steps: optimiser steps, >= 0. Default 200: a toy's length.
        lr: step size of Adam. Default 0.1: a toy's.
        generator: source of u. Default None: a new one with seed 0.
        progress: called with the step and its loss. Default None.

    Returns:
        A new state dict, structured as `base`.

    Raises:
        ValueError: no models, models of another structure, a temperature of 0 or less, an unknown option.

    Example:
        Safety needs the first parameter where it was; the second is free. The mask drops the first movement.

        >>> safe = lambda model: 10 * model["a"].square().sum()
        >>> base, model = {"a": torch.zeros(1), "b": torch.zeros(1)}, {"a": torch.ones(1), "b": torch.ones(1)}
        >>> somf(base, [model], safe, rescale=False, final="threshold")
        {'a': tensor([0.]), 'b': tensor([1.])}

    References:
        yi2024safety (task vectors, subspace masking, fusion); authors' code at 3551237.
    """
    if final not in ("sample", "threshold"):
        raise ValueError(f"final is {final!r}; it is one of sample, threshold")
    if not finetuned or temperature <= 0:
        raise ValueError(f"received {len(finetuned)} fine-tuned models and temperature {temperature}; both must be above 0")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    theta_0 = to_vector(base)
    # one mask for all: the sum of masked task vectors is the masked sum
    total = linear_combination([task_vector(model, base) for model in finetuned], [scaling_coef] * len(finetuned))
    logits = {name: torch.full_like(t, initial).requires_grad_() for name, t in total.items()}

    def fuse(mask: Vector) -> Vector:
        scale = lambda m: m / m.mean().clamp(min=1e-12) if rescale and m.numel() else m  # noqa: E731
        return linear_combination([theta_0, zip_map(lambda m, tau: scale(m) * tau, mask, total)], [1.0, 1.0])

    optimizer = torch.optim.Adam(logits.values(), lr=lr)
    for step in range(num_steps):
        loss = loss_fn(dress(fuse({name: _draw(x, temperature, generator) for name, x in logits.items()}), like=base))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    with torch.no_grad():
        soft = logits if final == "threshold" else {name: _draw(x, 1.0, generator) - 0.5 for name, x in logits.items()}
        return to_state_dict(fuse({name: (x > 0).to(x.dtype) for name, x in soft.items()}), like=base)


def preference_loss(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, *, beta: float = 0.1
) -> Tensor:
    r"""The loss of direct preference optimisation, which the authors' code trains the mask with.

    $$ L = -\operatorname{mean} \log \sigma\Big(\beta \big[ \log\tfrac{\pi(y_w)}{\pi_{ref}(y_w)} -
       \log\tfrac{\pi(y_l)}{\pi_{ref}(y_l)} \big]\Big) $$

    Args:
        chosen: log-probabilities of the safe answers $y_w$, (batch,).
        rejected: those of the harmful answers $y_l$.
        reference_chosen: log-probabilities of the safe answers by the aligned model.
        reference_rejected: those of the harmful ones by it.
        beta: $\beta$. Default 0.1: a toy's.

    Returns:
        A scalar.

    Example:
        >>> preference_loss(torch.tensor([-1.0]), torch.tensor([-1.0]), torch.tensor([-2.0]), torch.tensor([-2.0]))
        tensor(0.6931)
    """
    margin = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -torch.nn.functional.logsigmoid(beta * margin).mean()


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """A sample of the relaxed Bernoulli (Concrete) distribution."""
    u = torch.rand(logits.shape, generator=generator).clamp(1e-6, 1 - 1e-6).to(logits)
    return torch.sigmoid((logits + u.log() - (1 - u).log()) / temperature)
