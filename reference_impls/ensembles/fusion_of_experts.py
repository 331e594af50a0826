r"""FoE and FrugalFoE (wang2024foe).

Experts that each know a part of the data are fused by supervised learning: a small network, the fuser, reads what all the experts
say about an input and learns, from labelled validation data, the label itself or, where answers cannot be mixed (generated text),
which expert to trust. The frugal variant asks one expert after another and stops when the error that further experts are expected
to remove costs more than asking them; the expectation is over those validation inputs on which the experts asked so far spoke
most alike.

Notation: f_k the k-th of K experts, x an input, y its label; F the fuser; S a set of experts, f_S(x) = (f_k(x)) for k in S their
answers, c_k the cost of asking expert k, lambda the price of cost in units of error.

Departures: in "expert" mode the target is the expert with the least cross-entropy; the paper's are the experts or domains known
to be right. FrugalFoE needs a fuser for every set of experts: here a nearest-neighbour vote (not confirmed as the paper's
choice), and the search looks ahead over all sets that contain the experts asked so far, where the paper searches best-first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def fusion_of_experts(
    networks: Sequence[nn.Module],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    predict: Literal["label", "expert"] = "label",
    width: int = 64,
    num_steps: int = 200,
    lr: float = 1e-2,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Train a fuser on what the experts say, and return experts and fuser as one network.

    $$ \min_\theta\ \mathbb{E}_{(x, y)}\, \mathrm{CE}\big(F_\theta(f_1(x), \dots, f_K(x)),\ y\big), \qquad
    \text{or}\quad \min_\theta\ \mathbb{E}_{(x, y)}\, \mathrm{CE}\big(F_\theta(f_1(x), \dots, f_K(x)),\ k^*(x)\big)
    \ \text{ with }\ k^*(x) = \arg\min_k \mathrm{CE}(f_k(x), y)
    $$

    Args:
        networks: $f_1 \dots f_K$, each maps inputs to logits (n, C); the fuser reads their probabilities, concatenated.
        batches: labelled validation data from every expert's part, pairs (inputs, targets of shape (n,)).
        predict: "label" (the fuser answers) or "expert" (it chooses who answers). Default "label": the paper's classification.
        width: hidden units of the fuser, one layer. Default 64: for toys; the paper's fusers differ by experiment.
        num_steps: steps of Adam, one batch each. Default 200: for toys.
        lr: step size. Default 1e-2: for toys.
        generator: draws the fuser's initial parameters. Default None: a generator with seed 0.
        progress: called with step and loss.

    Returns:
        A network that maps inputs to logits (n, C). It holds the given experts, which are not trained.

    Raises:
        ValueError: no networks, no batches, an unknown option.

    Example:
        Both experts always answer class 0, the second one less surely when the label is 1, which only the fuser notices.

        >>> class Expert(nn.Module):
        ...     def __init__(self, slope):
        ...         super().__init__()
        ...         self.slope = slope
        ...     def forward(self, x):
        ...         return torch.stack([4 - self.slope * x[:, 0], 0 * x[:, 0]], 1)
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1])
        >>> experts = [Expert(0.0), Expert(3.0)]
        >>> [network(x).argmax(1).tolist() for network in (*experts, fusion_of_experts(experts, [(x, y)]))]
        [[0, 0], [0, 0], [0, 1]]

    References:
        wang2024foe, the fuser and FrugalFoE (here `frugal_fusion_of_experts`).
    """
    if predict not in ("label", "expert"):
        raise ValueError(f"predict is {predict!r}; it is one of label, expert")
    said = [(_answers(networks, x), y) for x, y in _check(networks, batches)]  # answers (n, K, C) never change: computed once
    num_experts, num_classes = said[0][0].shape[1:]
    generator, outputs = generator or torch.Generator().manual_seed(0), num_classes if predict == "label" else num_experts
    fuser = nn.Sequential(_linear(num_experts * num_classes, width, generator), nn.ReLU(), _linear(width, outputs, generator))
    optimizer = torch.optim.Adam(fuser.to(said[0][0].device).parameters(), lr=lr)
    for step in range(num_steps):
        answers, targets = said[step % len(said)]
        if predict == "expert":  # who was least surprised by the label
            targets = answers[torch.arange(len(targets)), :, targets].argmax(dim=1)
        loss = F.cross_entropy(fuser(answers.flatten(1)), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    return FusedExperts(networks, fuser, predict).eval()


class FusedExperts(nn.Module):
    """Experts with the fuser that reads their answers."""

    def __init__(self, experts: Sequence[nn.Module], fuser: nn.Module, predict: str) -> None:
        super().__init__()
        self.experts, self.fuser, self.predict = nn.ModuleList(experts), fuser, predict

    def forward(self, inputs: Tensor) -> Tensor:
        answers = _answers(self.experts, inputs)
        fused = self.fuser(answers.flatten(1))
        return fused if self.predict == "label" else answers[torch.arange(len(inputs)), fused.argmax(dim=1)].log()


def frugal_fusion_of_experts(
    networks: Sequence[nn.Module],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    costs: Sequence[float] | None = None,
    price: float = 0.01,
    num_neighbors: int = 9,
) -> nn.Module:
    r"""Return a network that asks as few experts as their cost warrants (FrugalFoE); nothing is trained.

    $$ \min_{T \supseteq S}\ \mathbb{E}\big[\mathbb{1}\{F_T(X) \ne Y\} \mid f_S(X) = f_S(x)\big] + \lambda \sum_{k \in T} c_k $$

    The expectation is a mean over the nearest validation inputs. The search starts from S = {}, asks an expert of the best T, and
    ends when the best T is S. The result's `asked` (n, K) says who was asked for each input of the last call.

    Args:
        networks, batches: as for `fusion_of_experts`; K <= 10.
        costs: $c_k \ge 0$. Default None: 1 each.
        price: $\lambda \ge 0$, the error that one unit of cost must remove. Default 0.01: for toys.
        num_neighbors: validation inputs per expectation and per vote, >= 1. Default 9: for toys.
    """
    data = _check(networks, batches)
    if len(networks) > 10:
        raise ValueError(f"received {len(networks)} experts; the look-ahead over all sets allows at most 10")
    prices = price * (torch.ones(len(networks)) if costs is None else torch.as_tensor(costs, dtype=torch.float32))
    if prices.shape != (len(networks),) or (prices < 0).any():
        raise ValueError(f"received costs {costs} at price {price} for {len(networks)} experts; one cost >= 0 for each is needed")
    return FrugalExperts(networks, data, prices, num_neighbors)


class FrugalExperts(nn.Module):
    """Experts that are asked one after another, with the validation answers that say when to stop."""

    def __init__(self, experts: Sequence[nn.Module], data: list[tuple[Tensor, Tensor]], prices: Tensor, num_neighbors: int):
        super().__init__()
        self.experts, self.num_neighbors = nn.ModuleList(experts), num_neighbors
        self.register_buffer("answers", torch.cat([_answers(experts, x) for x, _ in data]))  # (m, K, C)
        self.register_buffer("targets", torch.cat([y for _, y in data]))
        self.register_buffer("votes", F.one_hot(self.targets, self.answers.shape[2]).float())  # (m, C)
        self.sets = [set_ for size in range(1, len(experts) + 1) for set_ in combinations(range(len(experts)), size)]
        voted = [self.votes[self._neighbors(self.answers, set_, skip=1)].mean(1).argmax(1) for set_ in self.sets]
        self.register_buffer("errors", (torch.stack(voted) != self.targets).float())  # (sets, m), no input its own neighbour
        self.register_buffer("prices", torch.stack([prices[list(set_)].sum() for set_ in self.sets]).to(self.answers.device))

    def _neighbors(self, answers: Tensor, set_: tuple[int, ...], skip: int = 0) -> Tensor:
        """Validation inputs on which the experts of the set answered most alike, (n, K, C) -> (n, neighbours)."""
        if not set_:  # nothing is known yet: all are neighbours
            return torch.arange(len(self.answers), device=answers.device).expand(len(answers), -1)
        a, b = answers[:, list(set_)].flatten(1), self.answers[:, list(set_)].flatten(1)
        return torch.cdist(a, b).argsort(dim=1, stable=True)[:, skip : skip + self.num_neighbors]

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        self.asked = torch.zeros(len(inputs), len(self.experts), dtype=torch.bool, device=inputs.device)
        return torch.stack([self._search(inputs[i : i + 1], self.asked[i]) for i in range(len(inputs))])

    def _search(self, x: Tensor, asked: Tensor) -> Tensor:
        """Ask experts about one input, mark them, and return log-probabilities (C,)."""
        answers, known = self.answers.new_zeros(1, *self.answers.shape[1:]), ()
        while True:
            neighbors = self._neighbors(answers, known)[0]
            totals = self.errors[:, neighbors].mean(dim=1) + self.prices  # expected error and price of stopping with each set
            total = {set_: value for set_, value in zip(self.sets, totals.tolist()) if set(known) <= set(set_)}
            best = min(total, key=total.__getitem__)
            if best == known:
                return self.votes[neighbors].mean(dim=0).clamp_min(1e-9).log()
            k = min(set(best) - set(known), key=lambda k: total[tuple(sorted((*known, k)))])  # on the way to the best set
            answers[0, k] = self.experts[k](x)[0].softmax(dim=-1)
            known, asked[k] = tuple(sorted((*known, k))), True


def _check(networks: Sequence[nn.Module], batches: Iterable[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    data = list(batches)
    if not networks or not data:
        raise ValueError(f"received {len(networks)} networks and {len(data)} batches; at least one of each is needed")
    return data


@torch.no_grad()
def _answers(experts: Iterable[nn.Module], inputs: Tensor) -> Tensor:
    """Probabilities of all experts, (n, K, C)."""
    return torch.stack([expert(inputs).softmax(dim=-1) for expert in experts], dim=1)


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer
