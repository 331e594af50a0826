r"""Evolutionary merging in the data flow space (akiba2024evolutionary).

The weights of the source models stay as they are; what is searched is the way that data take through their layers. All
layers of all models stand in a row, and the row is repeated a few times; a switch for each place says whether the data
pass through that layer. Since a layer then gets inputs from layers that it never followed, each pair of layers also has
a factor for what is handed over. Switches and factors are found by evolution, which only needs a score of the assembled
network.

Notation: M the number of layers of all models, r the repetitions, I in R^{M r} the switches (on if positive), W in R^{M
x M} the factors.

Departures: W is held entry by entry; the paper makes it with a small network if M is large.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from reference_impls.core.evolution import cma_es


def evolutionary_dfs(
    embed: nn.Module,
    layers: Sequence[nn.Module],
    head: nn.Module,
    fitness_fn: Callable[[nn.Module], float],
    *,
    num_start_layers: int | None = None,
    num_repeats: int = 3,
    population: int | None = None,
    num_evaluations: int = 300,
    sigma: float = 0.5,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> DataFlow:
    r"""Evolve the path that data take through the layers of several models.

    $$
    h_0 = \mathrm{embed}(x), \qquad h_{s} = \mathrm{layer}_{p_s}\big( W_{p_{s-1}, p_s}\, h_{s-1} \big), \qquad
    p = \big( i \bmod M : I_i > 0 \big)_{i = 0, \dots, M r - 1}
    $$

    Args:
        embed: what stands before the layers, inputs to hidden states; of the first model in the paper.
        layers: the layers of all models, the first model's first; each a function of hidden states.
        head: what stands after the layers.
        fitness_fn: score of a network, the higher the better.
        num_start_layers: the search starts from the path through the first so many layers. Default None: half of the
            layers.
        num_repeats: $r$, how often the row of layers is repeated. Default 3: the paper's experiments.
        population: networks scored in each generation, >= 4. Default None: 4 + floor(3 ln d) for d switches and
            factors.
        num_evaluations: networks scored in all; 0 gives the starting path. Default 300: a toy's.
        sigma: initial step size of the switches, which start at 1 and -1; the factors, which start at 1, have a tenth.
            Default 0.5: a choice here.
        generator: source of the candidates. Default None: a fresh generator with seed 0.
        progress: called with the number of networks scored and the best score. Default None.

    Returns:
        A `DataFlow`: the best network seen, its path and its factors. Layers that occur twice share their weights.

    Raises:
        ValueError: no layers, a population below 4, a number of starting layers that does not fit.

    Example:
        Layers that add 1 and that double. Only "add, then double" makes 4 of 1; the start, "add" alone, makes 2.

        >>> class Add(nn.Module):
        ...     forward = lambda self, h: h + 1
        >>> class Double(nn.Module):
        ...     forward = lambda self, h: 2 * h
        >>> score = lambda network: -abs(network(torch.ones(1)).item() - 4)
        >>> found = evolutionary_dfs(
        ...     nn.Identity(), [Add(), Double()], nn.Identity(), score, num_repeats=1, sigma=1.0, population=16
        ... )
        >>> found.path, round(score(found), 1)
        ((0, 1), -0.0)

    References:
        akiba2024evolutionary, Sec. 3.2.
    """
    M = len(layers)
    if M < 1 or (population is not None and population < 4):
        raise ValueError(
            f"received {M} layers and population={population}; at least one layer and a population of 4 are needed"
        )
    start = max(M // 2, 1) if num_start_layers is None else num_start_layers
    if not 1 <= start <= M or num_repeats < 1:
        raise ValueError(
            f"received num_start_layers={start} and num_repeats={num_repeats}; 1 to {M} and at least 1 are needed"
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator

    # a point of the search: the switches, and the factors as 1 + x / 10
    slots = M * num_repeats
    point = torch.cat([-torch.ones(slots), torch.zeros(M * M)]).double()
    point[:start] = 1
    build = lambda x: DataFlow(embed, layers, head, x[:slots], 1 + x[slots:].reshape(M, M) / 10)  # noqa: E731
    if num_evaluations < 1:
        return build(point)
    best, value = cma_es(
        lambda x: -float(fitness_fn(build(x))),
        point,
        sigma=sigma,
        population=population,
        num_evaluations=num_evaluations,
        generator=generator,
        progress=None if progress is None else lambda done, value: progress(done, -value),
    )
    return build(point) if -value < float(fitness_fn(build(point))) else build(best)


class DataFlow(nn.Module):
    """A path through given layers, with a factor at every change of layers.

    Attributes:
        path: numbers of the layers that the data pass, in order.
        scales: the factor before each of them; the first is 1.
    """

    def __init__(
        self, embed: nn.Module, layers: Sequence[nn.Module], head: nn.Module, switches: Tensor, factors: Tensor
    ) -> None:
        super().__init__()
        self.path = tuple(i % len(layers) for i in range(len(switches)) if switches[i] > 0)
        self.scales = tuple(
            [1.0] * len(self.path[:1]) + [float(factors[i, j]) for i, j in zip(self.path, self.path[1:])]
        )
        used = {i: copy.deepcopy(layers[i]) for i in sorted(set(self.path))}
        self.embed, self.head = copy.deepcopy(embed), copy.deepcopy(head)
        self.layers = nn.ModuleDict({str(i): layer for i, layer in used.items()})
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        for i, scale in zip(self.path, self.scales):
            h = self.layers[str(i)](scale * h)
        return self.head(h)
