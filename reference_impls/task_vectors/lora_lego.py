r"""LoRA-LEGO (zhao2025lego).

A LoRA of rank r is a sum of r rank-one units, each a row of A with its column of B, and the order of the units means
nothing. Adding the factors of several LoRAs up entry by entry therefore mixes units that have nothing in common. LEGO
takes all the LoRAs apart instead, clusters the units of all of them, and builds a new LoRA of the clusters' centres,
of whatever rank is wanted. Its scale is then mended twice: centres are shorter than their members, and a LoRA of more
units has larger outputs.

Notation: A_t (r, n) and B_t (m, r) the factors of LoRA t, u = [a; b] a unit of n + m numbers, k the number of
clusters, c_j the centre of cluster C_j.

Departures: the paper's equations for the two factors of the reweighting are not confirmed; here each centre gets the
mean norm of its members, and the output the factor sqrt(r / k). Both can be switched off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def lora_lego(
    adapters: Sequence[Mapping[str, tuple[Tensor, Tensor]]],
    *,
    rank: int | None = None,
    reweight_parameters: bool = True,
    reweight_output: bool = True,
    max_iter: int = 100,
    generator: torch.Generator | None = None,
) -> dict[str, tuple[Tensor, Tensor]]:
    r"""Cluster the rank-one units of all LoRAs and assemble the centres into one.

    $$
    \min_{C_1, \dots, C_k} \sum_{j=1}^k \sum_{u \in C_j} \lVert u - c_j \rVert^2, \quad
    c_j = \frac{1}{|C_j|} \sum_{u \in C_j} u; \qquad
    [a_j; b_j] = c_j\, \frac{\frac{1}{|C_j|}\sum_{u \in C_j} \lVert u \rVert}{\lVert c_j \rVert}, \quad
    \Delta W = \sqrt{\frac rk}\; \sum_j b_j a_j^\top
    $$

    Args:
        adapters: one mapping per LoRA, from weight name to $A_t$ (r, n) and $B_t$ (m, r); ranks may differ.
        rank: $k$, of the result, 1 to the number of all units. Default None: the largest rank among the LoRAs.
        reweight_parameters: gives every centre the mean norm of its members. Default True: the paper.
        reweight_output: multiplies the update by $\sqrt{r / k}$, r the mean rank of the LoRAs; it is put into B.
            Default True: the paper.
        max_iter: rounds of k-means at most, >= 1. Default 100: a choice here.
        generator: source of the first centres (k-means++). Default None: a new one with seed 0.

    Returns:
        One LoRA, weight name to A (k, n) and B (m, k).

    Raises:
        ValueError: no LoRAs, other names or shapes, a rank out of range.

    Example:
        The same LoRA twice, its two units in another order: adding up the factors would mix them, the clusters find them again.

        >>> A, B = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]])
        >>> merged = lora_lego([{"w": (A, B)}, {"w": (A.flip(0), B.flip(1))}])["w"]
        >>> merged[1] @ merged[0]
        tensor([[3., 0.],
                [0., 2.]])

    References:
        zhao2025lego (rank-wise clustering, dual reweighting).
    """
    if not adapters:
        raise ValueError("received no adapters; at least one is needed")
    if any(set(adapter) != set(adapters[0]) for adapter in adapters):
        raise ValueError("the adapters name different weights; all need the same names")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    merged = {}
    for name, (first_A, first_B) in adapters[0].items():
        parts = [adapter[name] for adapter in adapters]
        shapes = [(tuple(A.shape), tuple(B.shape)) for A, B in parts]
        n, m = first_A.shape[1], first_B.shape[0]
        if any(a[1] != n or b[0] != m or a[0] != b[1] for a, b in shapes):
            raise ValueError(f"{name!r} has factors of shapes {shapes}; A (r, n) and B (m, r) need common n and m")
        ranks = [A.shape[0] for A, _ in parts]
        k = max(ranks) if rank is None else rank
        if not 1 <= k <= sum(ranks):
            raise ValueError(f"rank is {rank}; there are {sum(ranks)} units to cluster")

        # take apart: every unit as one vector of n + m numbers
        units = torch.cat([torch.cat([A, B.T], dim=1) for A, B in parts])  # (R, n + m)
        units = units.detach().to(torch.promote_types(units.dtype, torch.float32))
        labels = _cluster(units, k, max_iter, generator)
        # put together
        centres = torch.stack([units[labels == j].mean(dim=0) for j in range(k)])
        if reweight_parameters:
            lengths = torch.stack([units[labels == j].norm(dim=1).mean() for j in range(k)])
            short = centres.norm(dim=1)
            centres = centres * (lengths / torch.where(short > 0, short, 1))[:, None]
        scale = (sum(ranks) / len(ranks) / k) ** 0.5 if reweight_output else 1.0
        merged[name] = centres[:, :n].to(first_A.dtype), (scale * centres[:, n:].T).to(first_B.dtype)
    return merged


def _cluster(points: Tensor, k: int, max_iter: int, generator: torch.Generator) -> Tensor:
    """k-means: a label for each of the points (R, d), every label from 0 to k - 1 used at least once."""
    distances = lambda centres: (points[:, None] - centres[None]).square().sum(dim=2)  # noqa: E731  (R, k)
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    while len(chosen) < k:  # k-means++: far points are likelier to become centres
        nearest = distances(points[chosen]).amin(dim=1)
        nearest[chosen] = 0
        if nearest.sum() == 0:  # the rest are copies of the chosen ones
            nearest = torch.ones_like(nearest)
            nearest[chosen] = 0
        chosen.append(int(torch.multinomial(nearest.cpu(), 1, generator=generator)))
    centres = points[chosen]
    labels = torch.full((len(points),), -1, device=points.device)
    for _ in range(max_iter):
        new = distances(centres).argmin(dim=1)
        for j in range(k):  # an empty cluster takes the point farthest from its own centre among those that can be spared
            if not (new == j).any():
                counts = torch.bincount(new, minlength=k)
                spare = distances(centres).gather(1, new[:, None])[:, 0].masked_fill(counts[new] < 2, -1.0)
                new[spare.argmax()] = j
        if torch.equal(new, labels):
            break
        labels = new
        centres = torch.stack([points[labels == j].mean(dim=0) for j in range(k)])
    return labels
