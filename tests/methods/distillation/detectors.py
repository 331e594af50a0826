"""A small transformer detector, and images of coloured rectangles for it to find."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reference_impls.core.toy_zoo.networks import Attention, TransformerBlock
from reference_impls.distillation.sequence_task_amalgamation import Detection, Objects, generalised_iou
from tests.methods.distillation.helpers import initialised

COLOURS = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1]])


class Detector(nn.Module):
    """The sixteen 3x3 patches of a 12x12 image, encoder blocks, and learned queries that look at the encoded tokens.

    With several streams an image becomes as many sequences, each by its own projection, one after the other.
    """

    def __init__(self, classes: int, *, width: int = 24, depth: int = 1, queries: int = 4, streams: int = 1) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Linear(27, width) for _ in range(streams))
        self.position = nn.Embedding(16, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, 2, 2 * width) for _ in range(depth))
        self.query = nn.Embedding(queries, width)
        self.look = Attention(width, 2)
        self.hidden = nn.Linear(width, 2 * width)
        self.score, self.box = nn.Linear(2 * width, 1 + classes), nn.Linear(2 * width, 4)

    def forward(self, x: Tensor) -> Detection:
        patches = x.unflatten(2, (4, 3)).unflatten(4, (4, 3)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        tokens = torch.cat([embed(patches) + self.position.weight for embed in self.embed], dim=1)
        sequences = []
        for block in self.blocks:
            tokens = block(tokens)
            sequences.append(tokens)
        a, q = self.look, self.query.weight.expand(len(x), -1, -1)
        keys = tokens + self.position.weight.repeat(len(self.embed), 1)
        weights = a._split(a.q(q)) @ a._split(a.k(keys)).transpose(-2, -1) / a.head_width**0.5
        seen = a.out((weights.softmax(-1) @ a._split(a.v(keys))).transpose(-3, -2).flatten(-2))
        h = torch.relu(self.hidden(q + seen))
        return Detection(sequences, self.score(h), self.box(h).sigmoid())


def detector(classes: int, seed: int, **sizes: int) -> Detector:
    with torch.random.fork_rng(devices=[]):
        network = Detector(classes, **sizes)
    return initialised(network, seed)


def scenes(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy images with a rectangle of whole patches in the left half, the right half or both, of one of four colours.

    Images, colours (n, 2), boxes (n, 2, 4), and which of the two exist (n, 2).
    """
    generator = torch.Generator().manual_seed(seed)
    draw = lambda low, high: torch.randint(low, high, (count, 2), generator=generator)  # noqa: E731
    colours, width, height, which = draw(0, 4), 3 * draw(1, 3), 3 * draw(1, 4), draw(0, 3)[:, :1]
    left = 3 * (torch.rand(count, 2, generator=generator) * (3 - width // 3)).long() + torch.tensor([0, 6])
    top = 3 * (torch.rand(count, 2, generator=generator) * (5 - height // 3)).long()
    exist = which != torch.tensor([0, 1])
    x, y = torch.arange(12), torch.arange(12)[:, None]
    images = 0.2 * torch.randn(count, 3, 12, 12, generator=generator)
    for k in range(2):
        at = lambda t: t[:, k, None, None]  # noqa: B023, E731
        inside = (x >= at(left)) & (x < at(left + width)) & (y >= at(top)) & (y < at(top + height)) & at(exist)
        images += inside[:, None] * COLOURS[colours[:, k]][:, :, None, None]
    boxes = torch.stack([left + width / 2, top + height / 2, width, height], dim=2) / 12
    return images, colours, boxes, exist


def targets(scene: tuple[Tensor, ...], classes: range) -> Objects:
    """The objects of some classes, with scores that are sure of them."""
    _, colours, boxes, exist = scene
    mine = (colours >= classes[0]) & (colours <= classes[-1])
    label = 1 + (colours - classes[0]).clamp(0, len(classes) - 1)
    return Objects(10.0 * nn.functional.one_hot(label, 1 + len(classes)) - 5, boxes, exist & mine)


@torch.no_grad()
def f1_score(network: nn.Module, scene: tuple[Tensor, ...], classes: range, first: int = 0) -> float:
    """Of the objects of some classes: found if a finding has their colour and overlaps them by a (generalised) third."""
    images, colours, boxes, exist = scene
    out = network(images)
    told = out.scores.argmax(dim=2) - 1 + first
    told = torch.where((told >= classes[0]) & (told <= classes[-1]), told, -1)
    real = exist & (colours >= classes[0]) & (colours <= classes[-1])
    match = (generalised_iou(boxes[:, :, None], out.boxes[:, None]) > 1 / 3) & (colours[:, :, None] == told[:, None])
    hits = (match.any(dim=2) & real).sum()
    return (2 * hits / ((told >= 0).sum() + real.sum())).item()
