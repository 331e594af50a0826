r"""RegMean++ (nguyen2025regmeanpp).

RegMean merges each linear layer as if its inputs came from the layers of the single models. In the merged model they come
from merged layers. RegMean++ merges from the input to the output, block by block, and measures each block's inputs behind
the blocks that are merged already, so that the later layers are fitted to what they will really see.

Notation: W_i the weight of a linear layer of model i, X_i its inputs on the examples of task i when all earlier blocks are
merged, G_i = X_i^T X_i their Gram matrix, alpha the factor on the off-diagonal of G_i.

Departures: what belongs to no block is averaged before the first one. Within a block the single model's own layers run, as
in the authors' method; by default every linear layer is a block of its own, for a network need not be a stack of equal
blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from reference_impls.averaging.regmean import regmean
from reference_impls.core.state_dict import StateDict, check_same_structure, linear_combination, to_state_dict, to_vector
from reference_impls.core.statistics import gram_matrices


def regmean_plus_plus(
    network: nn.Module,
    models: Sequence[StateDict],
    task_batches: Sequence[Iterable[tuple[Tensor, Tensor]]],
    *,
    alpha: float = 0.95,
    blocks: Sequence[str] | None = None,
) -> StateDict:
    r"""Merge linear layers by regression on the inputs that they get behind the merged earlier blocks.

    $$
    W^\top = \Big(\sum_i \tilde G_i\Big)^{-1} \sum_i \tilde G_i\,W_i^\top, \qquad
    \tilde G_i = \alpha\,G_i + (1 - \alpha)\,\mathrm{diag}(G_i), \qquad
    G_i = X_i^\top X_i, \quad X_i = f_{\text{merged}}^{<\,\text{block}}(D_i)
    $$

    Args:
        network: the architecture; the order of its modules is the order of the blocks.
        models: $\theta_1 \dots \theta_n$, n >= 1.
        task_batches: $D_1 \dots D_n$, for each model the batches of (inputs, targets) of its task, which are gone through once
            for each block; targets are not used.
        alpha: factor on the off-diagonal entries, in [0, 1]. Default 0.95: FusionBench.
        blocks: names of modules in the order from input to output, "layers.0", "layers.1", ...; a block is all that the module
            holds. Default None: every linear layer is a block.

    Returns:
        A new state dict, structured as the first model.

    Raises:
        ValueError: no models, models of another structure, another number of tasks, alpha outside [0, 1], an unknown block.

    Example:
        A single layer sees the same inputs as in RegMean: the first input counts for the first model, the second
        for the second one.

        >>> import torch
        >>> network, zero = nn.Linear(2, 1, bias=False), torch.zeros(1)
        >>> models = [{"weight": torch.tensor([[4.0, 0.0]])}, {"weight": torch.tensor([[2.0, 8.0]])}]
        >>> regmean_plus_plus(network, models, [[(torch.tensor([[1.0, 0.0]]), zero)], [(torch.tensor([[0.0, 3.0]]), zero)]])
        {'weight': tensor([[4., 8.]])}

    References:
        nguyen2025regmeanpp, the section on RegMean++; jin2023regmean (the closed form).
    """
    check_same_structure(*models)
    if len(task_batches) != len(models):
        raise ValueError(f"received batches of {len(task_batches)} tasks for {len(models)} models; one task per model is needed")
    known = {name for name, _ in network.named_modules()}
    if blocks is None:
        blocks = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if unknown := [name for name in blocks if name not in known]:
        raise ValueError(f"the network has no modules {unknown}")

    data = [list(batches) for batches in task_batches]
    average = linear_combination([to_vector(model) for model in models], [1 / len(models)] * len(models))
    merged = to_state_dict(average, like=models[0])
    for number, block in enumerate(blocks):
        ahead = [name for later in blocks[number:] for name in models[0] if _inside(name, later)]
        grams = []
        for model, batches in zip(models, data):
            hybrid = {**merged, **{name: model[name] for name in ahead}}  # merged up to here, the model's own from here on
            all_grams = gram_matrices(network, hybrid, batches)
            grams.append({name: gram for name, gram in all_grams.items() if _inside(name, block)})
        solved = regmean(models, grams, alpha=alpha)
        merged |= {name: solved[name] for name in models[0] if _inside(name, block)}
    return merged


def _inside(name: str, module: str) -> bool:
    return module == "" or name.startswith(module + ".")
