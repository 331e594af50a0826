r"""DeRy, deep model reassembly (yang2022deep).

Trained networks of different architectures are taken apart and put together anew. First every network is cut into the
same number of blocks, so that the blocks of one stage do alike: they take in and give out similar representations of
the same data. Then one block is chosen for each stage, within a limit on the size, so that a score that needs no
training is highest: how many different patterns of on and off the units show on a batch. Linear layers stitch the
chosen blocks together, and the result is ready to be fine-tuned.

Notation: B_k^n the block of network n for stage k, x and B(x) what it takes in and gives out, s the similarity of
representations (linear CKA), c_i the binary code of example i, H the Hamming distance.

Departures: a network is a list of layers on vectors (batch, width). The score reads the signs of all layers' outputs.
Every choice is tried, in place of an integer programme. Stitches are fitted by least squares, not drawn at random, so
that the result works before any training.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import accumulate, combinations, product

import torch
from torch import Tensor, nn

Block = tuple[int, int, int]  # network, first layer, layer after the last


def dery(
    layer_lists: Sequence[Sequence[nn.Module]],
    inputs: Tensor,
    *,
    num_stages: int = 2,
    max_parameters: int | None = None,
    max_iter: int = 20,
) -> Reassembly:
    r"""Cut networks into stages of similar blocks, choose one block for each stage, and stitch them together.

    $$
    \max_{\text{cuts}} \sum_{n, k} S(B_k^n, A_k), \quad S(B, B') = s(x, x') + s(B(x), B'(x')), \qquad
    \max_{n_1 \dots n_K} \log\det \big( d - H(c_i, c_j) \big)_{ij} \ \text{ with } \sum_k |B_k^{n_k}| \le \text{limit}
    $$

    Args:
        layer_lists: each trained network as its layers, in order; all take the same inputs and give as many outputs.
        inputs: a batch on which representations are compared; shape (batch, width). Labels are not needed.
        num_stages: $K$, at least 1 and at most the depth of the shallowest network. Default 2: a toy's; the paper's
            experiments take 4.
        max_parameters: limit on the parameters of the chosen blocks. Default None: no limit.
        max_iter: rounds of cutting and of choosing the centres $A_k$, each the most similar block of its stage. Default
            20: it ends as soon as nothing changes.

    Returns:
        A `Reassembly`: a network, its blocks, the cuts of all networks and the score.

    Raises:
        ValueError: no networks, a number of stages that does not fit, a limit that no choice meets.

    Example:
        Two copies of one network: whatever blocks are chosen, the function is the same.

        >>> layers = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)]
        >>> x = torch.tensor([[1.0, 2.0], [0.5, -1.0], [-2.0, 0.3], [0.1, 0.2]])
        >>> joined = dery([layers, layers], x)
        >>> torch.allclose(joined(x), nn.Sequential(*layers)(x), atol=1e-4)
        True

    References:
        yang2022deep, the cutting into equivalent blocks and the reassembly by training-free proxy.
    """
    if not layer_lists:
        raise ValueError("received no networks; at least one is needed")
    shortest = min(len(layers) for layers in layer_lists)
    if not 1 <= num_stages <= shortest:
        raise ValueError(
            f"num_stages is {num_stages}; it must lie in [1, {shortest}], the depth of the shallowest network"
        )
    with torch.no_grad():
        features = [
            _run(layers, inputs) for layers in layer_lists
        ]  # of network n: its inputs and the outputs of its layers
        cuts = _cut(features, num_stages, max_iter)

        best: tuple[float, Reassembly] | None = None
        for choice in product(range(len(layer_lists)), repeat=num_stages):
            blocks = [cuts[n][k] for k, n in enumerate(choice)]
            size = sum(p.numel() for n, i, j in blocks for layer in layer_lists[n][i:j] for p in layer.parameters())
            if max_parameters is not None and size > max_parameters:
                continue
            network = stitch(layer_lists, blocks, inputs)
            score = pattern_score(_run(network.layers, inputs)[1:])
            if best is None or score > best[0]:
                best = score, network
    if best is None:
        raise ValueError(f"max_parameters is {max_parameters}; no choice of blocks is that small")
    network = best[1]
    network.cuts, network.score = tuple(tuple(blocks) for blocks in cuts), torch.tensor(best[0], dtype=torch.float64)
    return network


class Reassembly(nn.Module):
    """Blocks of several networks with stitches in between; its weights are copies and can be trained.

    Attributes:
        blocks: (network, first layer, layer after the last) of each stage.
        cuts: the blocks of every network.
        score: training-free score; scalar.
    """

    def __init__(self, layers: Sequence[nn.Module], blocks: Sequence[Block]) -> None:
        super().__init__()
        self.layers, self.blocks = nn.ModuleList(layers), tuple(blocks)
        self.cuts: tuple[tuple[Block, ...], ...] = ()
        self.score = torch.zeros((), dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def stitch(layer_lists: Sequence[Sequence[nn.Module]], blocks: Sequence[Block], inputs: Tensor) -> Reassembly:
    """Join blocks; where the network changes, a least-squares layer maps what comes to what the next block knew."""
    layers: list[nn.Module] = []
    with torch.no_grad():
        for k, (n, i, j) in enumerate(blocks):
            if k and (blocks[k - 1][0], blocks[k - 1][2]) != (n, i):
                comes, wanted = _run(layers, inputs)[-1], _run(layer_lists[n], inputs)[i]
                extended = torch.cat([comes, torch.ones_like(comes[:, :1])], dim=1).double()
                ridge = 1e-6 * torch.eye(extended.shape[1]).to(extended) * extended.square().mean() * len(extended)
                map_ = torch.linalg.solve(extended.T @ extended + ridge, extended.T @ wanted.double()).to(comes)
                seam = nn.utils.skip_init(
                    nn.Linear, comes.shape[1], wanted.shape[1], device=comes.device, dtype=comes.dtype
                )
                seam.weight.copy_(map_[:-1].T)
                seam.bias.copy_(map_[-1])
                layers.append(seam)
            layers.extend(copy.deepcopy(layer) for layer in layer_lists[n][i:j])
    return Reassembly(layers, blocks)


def similarity(x: Tensor, y: Tensor) -> Tensor:
    r"""Linear CKA of two representations of the same examples, in [0, 1].

    $$ s(X, Y) = \lVert X^\top Y\rVert_F^2 / (\lVert X^\top X\rVert_F \lVert Y^\top Y\rVert_F), \text{ centred} $$

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
        >>> round(similarity(x, 3 * x.flip(1)).item(), 4)
        1.0
    """
    x, y = (z.flatten(1).double() - z.flatten(1).double().mean(dim=0) for z in (x, y))
    norms = (x.T @ x).norm() * (y.T @ y).norm()
    return (x.T @ y).square().sum() / norms.clamp(min=1e-12)


def pattern_score(outputs: Sequence[Tensor]) -> float:
    """Logarithm of the determinant of the kernel of binary codes: high if examples have patterns of their own."""
    codes = torch.cat([(z.flatten(1) > 0).double() for z in outputs], dim=1)  # (examples, d)
    kernel = codes @ codes.T + (1 - codes) @ (1 - codes).T  # d minus the Hamming distance
    return torch.linalg.slogdet(kernel + 1e-3 * torch.eye(len(kernel)).to(kernel)).logabsdet.item()


def _run(layers: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
    """The inputs and the outputs of all layers."""
    return list(accumulate(layers, lambda h, layer: layer(h), initial=x))


def _cut(features: Sequence[Sequence[Tensor]], K: int, max_iter: int) -> list[list[Block]]:
    """Cut every network into K blocks; alternately the best cuts for the centres and the best centres for the cuts."""
    table: dict[tuple, float] = {}

    def alike(a: Block, b: Block) -> float:
        total = 0.0
        for p, q in (((a[0], a[1]), (b[0], b[1])), ((a[0], a[2]), (b[0], b[2]))):
            if (p, q) not in table:
                table[p, q] = table[q, p] = float(similarity(features[p[0]][p[1]], features[q[0]][q[1]]))
            total += table[p, q]
        return total

    def blocks_of(n: int, inner: Sequence[int]) -> list[Block]:
        edges = [0, *inner, len(features[n]) - 1]
        return [(n, i, j) for i, j in zip(edges, edges[1:])]

    depth = len(features[0]) - 1
    centers = blocks_of(0, [round(depth * k / K) for k in range(1, K)])  # the first network, cut evenly
    cuts: list[list[Block]] = []
    for _ in range(max_iter):
        choices = [
            [blocks_of(n, inner) for inner in combinations(range(1, len(f) - 1), K - 1)] for n, f in enumerate(features)
        ]
        new = [
            max(options, key=lambda blocks: sum(alike(b, c) for b, c in zip(blocks, centers))) for options in choices
        ]
        if new == cuts:
            break
        cuts = new
        stages = list(zip(*cuts))
        centers = [max(stage, key=lambda b, s=stage: sum(alike(b, other) for other in s)) for stage in stages]
    return cuts
