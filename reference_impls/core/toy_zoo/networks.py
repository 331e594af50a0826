"""Small networks in plain PyTorch: traceable by torch.fx, readable parameter names, no dropout, no hidden state."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with ReLU in between: `layers.0`, `layers.1`, ... Inputs are flattened first.

    Args:
        sizes: widths from input to output, for example `(64, 32, 10)`.
    """

    def __init__(self, sizes: tuple[int, ...] | list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)


class ConvNet(nn.Module):
    """Three blocks of convolution, batch normalisation and ReLU, mean over the image, linear head.

    Parameters: `conv1`, `norm1`, `conv2`, `norm2`, `conv3`, `norm3`, `head`; `conv2` has stride 2.
    """

    def __init__(self, width: int = 12, num_classes: int = 10, channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.norm2 = nn.BatchNorm2d(2 * width)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.norm3 = nn.BatchNorm2d(2 * width)
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1(x)))
        x = torch.relu(self.norm2(self.conv2(x)))
        x = torch.relu(self.norm3(self.conv3(x)))
        return self.head(x.mean((2, 3)))


class ResidualBlock(nn.Module):
    """`x + contract(relu(expand(x)))`: the residual stream keeps its axes, the hidden units are the block's own."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.contract(torch.relu(self.expand(x)))


class ResidualNet(nn.Module):
    """Multilayer perceptron with a residual stream: `embed`, `blocks.i.expand`, `blocks.i.contract`, `head`."""

    def __init__(
        self, width: int = 32, hidden: int = 32, depth: int = 2, inputs: int = 64, num_classes: int = 10
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(ResidualBlock(width, hidden) for _ in range(depth))
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.embed(x.flatten(1)))
        for block in self.blocks:
            x = block(x)
        return self.head(torch.relu(x))


class Attention(nn.Module):
    """Multi-head attention written out: `q`, `k`, `v`, `out` are linear layers of the full width."""

    def __init__(self, width: int, num_heads: int, causal: bool = False) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width must be a multiple of num_heads, got width={width}, num_heads={num_heads}")
        self.num_heads, self.head_width, self.causal = num_heads, width // num_heads, causal
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def _split(self, x: Tensor) -> Tensor:  # (batch, tokens, width) -> (batch, heads, tokens, head width)
        return x.unflatten(-1, (self.num_heads, self.head_width)).transpose(-3, -2)

    def forward(self, x: Tensor) -> Tensor:
        scores = self._split(self.q(x)) @ self._split(self.k(x)).transpose(-2, -1) / math.sqrt(self.head_width)
        if self.causal:  # a token sees itself and earlier tokens
            scores = scores.masked_fill(torch.ones_like(scores).triu(1) > 0, -math.inf)
        mixed = scores.softmax(-1) @ self._split(self.v(x))
        return self.out(mixed.transpose(-3, -2).flatten(-2))


class TransformerBlock(nn.Module):
    """Pre-norm block: attention and a two-layer perceptron (`expand`, `contract`), each added to the stream."""

    def __init__(self, width: int, num_heads: int, hidden: int, causal: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads, causal)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.contract(torch.relu(self.expand(self.norm2(x))))


class VisionTransformer(nn.Module):
    """Transformer on the sixteen 2x2 patches of an 8x8 image, mean over patches, linear head."""

    def __init__(self, width: int = 32, num_heads: int = 2, depth: int = 2, num_classes: int = 10) -> None:
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.position = nn.Embedding(16, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, num_heads, 2 * width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1).unflatten(1, (4, 2, 4, 2))  # (batch, row, y, column, x)
        x = x.transpose(2, 3).flatten(3).flatten(1, 2)  # (batch, patches, pixels)
        x = self.embed(x) + self.position.weight
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class CharLM(nn.Module):
    """Causal transformer on token ids (batch, time): logits (batch, time, vocabulary) of the next token.

    Args:
        vocabulary: number of tokens.
        context: longest sequence; shorter ones are accepted.
        tied: True makes `head.weight` and `embed.weight` one tensor (both names stay in the state dict).
    """

    def __init__(
        self, vocabulary: int, context: int = 32, width: int = 32, num_heads: int = 2, depth: int = 2,
        tied: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, num_heads, 2 * width, causal=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.scale = 1.0
        if tied:  # embeddings start with variance 1, an output matrix should start with 1 / width
            self.head.weight = self.embed.weight
            self.scale = width**-0.5

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.ones_like(tokens).cumsum(-1) - 1
        x = self.embed(tokens) + self.position(positions)
        for block in self.blocks:
            x = block(x)
        return self.scale * self.head(self.norm(x))


class RecurrentLM(nn.Module):
    """One-layer gated recurrent language model, the second architecture: same interface as `CharLM`."""

    def __init__(self, vocabulary: int, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.recurrent = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.recurrent(self.embed(tokens))[0])
