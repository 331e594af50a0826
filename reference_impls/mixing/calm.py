r"""CALM, composition to augment language models (bansal2024calm).

A large anchor model and a small augmenting model that knows something else are both kept as they are. Between some of
their layers new parameters are put: what a layer of the augmenting model makes of the input is projected to the
anchor's width, the anchor's layer looks it up by cross-attention, and what it finds is added to the anchor's own
representation. Only the new parameters are trained, on a little data that asks for both skills.

Notation: A the augmenting model, B the anchor, H_A and H_B the outputs of the connected layers, D_A and D_B their
widths.

Departures: the attention starts with an output of zero, so that the composition starts as the anchor; positions of the
augmenting model that lie in the future are hidden where `causal`, which the paper does not spell out. Both models read
the same inputs unless `translate` is given.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn


def calm(
    anchor: nn.Module,
    augmenting: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    connections: Sequence[tuple[str, str]],
    *,
    num_heads: int = 2,
    causal: bool = True,
    translate: Callable[[Tensor], Tensor] | None = None,
    num_steps: int = 100,
    lr: float = 3e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Train cross-attention from layers of an anchor model to layers of an augmenting model, both frozen.

    $$
    H_{A \oplus B} = H_B + \mathrm{softmax}\Big( \frac{(H_B W_Q)(P W_K)^\top}{\sqrt{D_B / \text{heads}}} \Big)\, (P
    W_V)\, W_O, \qquad P = H_A W_{\mathrm{proj}}
    $$

    Args:
        anchor: $B$, whose outputs the composition gives.
        augmenting: $A$.
        batches: (inputs, targets) that ask for both models' skills, one a step, cycled through.
        connections: pairs (layer of A, layer of B) of module names, whose outputs (batch, tokens, width) are connected;
            outputs of shape (batch, width) count as one token. The paper connects every fourth layer or so.
        num_heads: attention heads, a divisor of $D_B$. Default 2: a toy's.
        causal: hides positions of A after that of B. Default True: for models of the next token.
        translate: the anchor's inputs as the augmenting model reads them (another tokenizer). Default None: the same
            inputs.
        num_steps: steps of Adam on the new parameters; 0 leaves the anchor's function. Default 100: a toy's.
        lr: learning rate. Default 0.003: a toy's.
        generator: source of the initial weights. Default None: a fresh generator with seed 0.
        progress: called with the step and its loss. Default None.

    Returns:
        A `Composition`: a network in evaluation mode that reads the anchor's inputs.

    Raises:
        ValueError: no connections, a module that does not exist, heads that do not divide the anchor's width, no data
            to train on.

    Example:
        Before training the composition is the anchor.

        >>> three, five = (nn.Sequential(nn.Linear(2, 2, bias=False)) for _ in range(2))
        >>> for net, value in ((three, 3.0), (five, 5.0)):
        ...     _ = nn.init.constant_(net[0].weight, value)
        >>> data = [(torch.ones(1, 2), torch.tensor([0]))]
        >>> calm(three, five, data, [("0", "0")], num_steps=0)(torch.ones(1, 2)).tolist()
        [[6.0, 6.0]]

    References:
        bansal2024calm, the layers of the composition and their training.
    """
    if not connections:
        raise ValueError("received no connections; at least one pair of layers is needed")
    data = list(batches)
    if not data:
        raise ValueError("received no batches; one is needed to see the widths of the layers, more to train")
    generator = torch.Generator().manual_seed(0) if generator is None else generator

    # 1. listen to the layers of A, add to the layers of B
    composition = Composition(anchor, augmenting, translate)
    attentions = []
    for name_a, name_b in connections:
        for which, network, name in (
            ("augmenting", composition.augmenting, name_a),
            ("anchor", composition.anchor, name_b),
        ):
            if not name or name not in dict(network.named_modules()):
                raise ValueError(f"the {which} model has no module {name!r}")
        source = composition.augmenting.get_submodule(name_a)
        if not isinstance(source, Listener):
            source = Listener(source)
            composition.augmenting.set_submodule(name_a, source)
        attentions.append(CrossAttention(source, num_heads, causal))
        composition.anchor.set_submodule(name_b, Augmented(composition.anchor.get_submodule(name_b), attentions[-1]))

    # 2. the widths show in one pass; then draw and train the new parameters
    for attention in attentions:
        attention.generator = generator
    with torch.no_grad():
        composition(data[0][0])
    parameters = [parameter for attention in attentions for parameter in attention.weights]
    optimizer = torch.optim.Adam([p.requires_grad_() for p in parameters], lr=lr)
    for step in range(num_steps):
        inputs, targets = data[step % len(data)]
        outputs = composition(inputs)
        loss = nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    return composition.requires_grad_(False)


class Composition(nn.Module):
    """The anchor, whose connected layers look at what the augmenting model makes of the same input."""

    def __init__(self, anchor: nn.Module, augmenting: nn.Module, translate: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__()
        self.anchor, self.augmenting = copy.deepcopy(anchor), copy.deepcopy(augmenting)
        self.translate = translate
        self.eval().requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            self.augmenting(inputs if self.translate is None else self.translate(inputs))
        return self.anchor(inputs)


class Listener(nn.Module):
    """A layer that keeps its last output."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.heard = layer, torch.zeros(())

    def forward(self, *inputs: Tensor) -> Tensor:
        self.heard = self.layer(*inputs)
        return self.heard


class Augmented(nn.Module):
    """A layer of the anchor plus what cross-attention finds."""

    def __init__(self, layer: nn.Module, attention: CrossAttention) -> None:
        super().__init__()
        self.layer, self.attention = layer, attention

    def forward(self, *inputs: Tensor) -> Tensor:
        h = self.layer(*inputs)
        return h + self.attention(h)


class CrossAttention(nn.Module):
    """Queries from the anchor, keys and values from the projected representation of the augmenting model."""

    def __init__(self, source: Listener, num_heads: int, causal: bool) -> None:
        super().__init__()
        self.source = [source]  # in a list: it belongs to the other model
        self.num_heads, self.causal = num_heads, causal
        self.weights = nn.ParameterList()  # projection, query, key, value, output
        self.generator: torch.Generator | None = None

    def _draw(self, d_a: int, d_b: int, like: Tensor) -> None:
        if d_b % self.num_heads:
            raise ValueError(f"num_heads is {self.num_heads}; it must divide the anchor's width {d_b}")
        draw = lambda rows: torch.randn(rows, d_b, generator=self.generator) / rows**0.5  # noqa: E731
        matrices = [draw(d_a), draw(d_b), draw(d_b), draw(d_b), torch.zeros(d_b, d_b)]
        self.weights.extend([nn.Parameter(matrix.to(like), requires_grad=False) for matrix in matrices])

    def forward(self, h_b: Tensor) -> Tensor:
        h_a, flat = self.source[0].heard, h_b.ndim == 2
        h_a, h_b = (h.unsqueeze(1) if h.ndim == 2 else h for h in (h_a, h_b))  # (batch, tokens, width)
        if not len(self.weights):
            self._draw(h_a.shape[-1], h_b.shape[-1], h_b)
        projection, query, key, value, output = self.weights
        p = h_a @ projection
        q, k, v = (self._heads(x) for x in (h_b @ query, p @ key, p @ value))  # (batch, heads, tokens, width of a head)
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        if self.causal and scores.shape[-1] > 1:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1) > 0, -torch.inf)
        found = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2) @ output
        return found.squeeze(1) if flat else found

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
