r"""Git Re-Basin: straight-through estimator (ainsworth2023gitrebasin).

Weight matching never looks at the loss. The straight-through estimator learns the permutation from it: free weights are
kept as a pointer to the permutation of model B that lies nearest to them; in the forward pass they are replaced by that
permuted model, averaged with model A, and the loss of the average is taken; in the backward pass the free weights get
the gradient as if nothing had been replaced.

Notation: theta_A, theta_B the models, phi the free weights, pi_phi the permutation of B nearest to phi, L the loss.

Departures: none. The nearest permutation is found by weight matching, as in the paper; the best permutation seen is returned.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reference_impls.alignment.weight_matching import weight_matching
from reference_impls.core.permutation import PermutationSpec, apply_permutation
from reference_impls.core.state_dict import StateDict, check_same_structure, to_state_dict, to_vector


def ste_matching(
    model_a: StateDict,
    model_b: StateDict,
    spec: PermutationSpec,
    loss_fn: Callable[[StateDict], Tensor],
    *,
    num_steps: int = 50,
    lr: float = 1e-2,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> dict[str, Tensor]:
    r"""Learn the permutations of model B's units that give the average with model A a low loss.

    $$
    \min_{\phi} L\Big(\tfrac12 \big(\theta_A + \pi_\phi(\theta_B)\big)\Big), \qquad
    \pi_\phi = \arg\max_\pi \langle \phi, \pi(\theta_B) \rangle, \qquad
    \frac{\partial\, \pi_\phi(\theta_B)}{\partial \phi} := I
    $$

    Args:
        model_a: $\theta_A$, the model that stays as it is; $\phi$ starts there, so that the first step is weight matching.
        model_b: $\theta_B$, the model whose units are to be reordered.
        spec: which permutation acts on which axis.
        loss_fn: $L$, from a state dict to a scalar.
        num_steps: gradient steps, >= 0; 0 is weight matching. Default 50; the paper trains by epochs over its data.
        lr: step size of Adam on $\phi$, > 0. Default 1e-2; the paper leaves it open.
        generator: source of the order of layers in weight matching. Default None: seed 0.
        progress: called with step and loss of the average.

    Returns:
        The permutations with the lowest loss of the average that were seen, as index tensors by name.

    Raises:
        ValueError: models of another structure than each other's or the spec's, a negative num_steps, lr not above 0.

    Example:
        The loss counts how far the average is from model A; the first step, which is weight matching, already finds the
        order of no loss.

        >>> spec = PermutationSpec({"first.weight": ("hidden", None), "second.weight": (None, "hidden")}, {"hidden": 2})
        >>> model_a = {"first.weight": torch.tensor([[1.0], [2.0]]), "second.weight": torch.tensor([[5.0, 6.0]])}
        >>> model_b = {"first.weight": torch.tensor([[2.0], [1.0]]), "second.weight": torch.tensor([[6.0, 5.0]])}
        >>> loss_fn = lambda model: sum((model[k] - model_a[k]).square().sum() for k in model)
        >>> ste_matching(model_a, model_b, spec, loss_fn, num_steps=3)
        {'hidden': tensor([1, 0])}

    References:
        ainsworth2023gitrebasin, Sec. 3.3 (straight-through estimator matching).
    """
    if num_steps < 0 or lr <= 0:
        raise ValueError(f"num_steps is {num_steps} and lr {lr}; at least 0 and above 0 are needed")
    check_same_structure(model_a, model_b)
    spec.check(model_a)
    generator = generator or torch.Generator().manual_seed(0)

    a = to_vector(model_a)
    trained = [key for key in a if key not in spec.buffers]
    phi = {key: a[key].clone() for key in trained}
    optimizer = torch.optim.Adam(phi.values(), lr=lr)
    best: tuple[float, dict[str, Tensor]] | None = None
    for step in range(num_steps + 1):
        pointer = to_state_dict({**a, **phi}, like=model_a)
        permutations = weight_matching(pointer, model_b, spec, generator=generator)  # pi_phi
        b = to_vector(apply_permutation(spec, permutations, model_b))
        average = to_state_dict({key: (a[key] + b[key]) / 2 for key in a}, like=model_a)
        leaves = {key: average[key].requires_grad_() for key in trained}
        loss = loss_fn(average)
        if best is None or loss.item() < best[0]:
            best = (loss.item(), permutations)
        if progress is not None:
            progress(step, loss.item())
        if step < num_steps:
            gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
            for key, gradient in zip(trained, gradients):  # straight through: dL/dphi = dL/d average / 2
                phi[key].grad = torch.zeros_like(phi[key]) if gradient is None else gradient.to(phi[key].dtype) / 2
            optimizer.step()
    return best[1]
