"""What the tests of distillation methods share: staged networks, digits cut into the classes of teachers, training and accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from reference_impls.core import toy_zoo
from reference_impls.core.toy_zoo import Split, Task


class Mean(nn.Module):
    """Mean over the places of an image."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def initialised(network: nn.Module, seed: int) -> nn.Module:
    """The network with PyTorch's own initialisation of each layer, drawn from the seed."""
    network.load_state_dict(toy_zoo.initialise(network, torch.Generator().manual_seed(seed)))
    return network


def perceptron(*widths: int, seed: int = 0) -> nn.Sequential:
    """Stages Linear and ReLU, the last one Linear; images are flattened."""
    layers = [nn.Sequential(nn.Flatten(), nn.Linear(a, b), nn.ReLU()) for a, b in zip(widths[:-2], widths[1:-1])]
    return initialised(nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1])), seed)


def convolutional(*channels: int, seed: int = 0) -> nn.Sequential:
    """Stages Conv and ReLU on images (the second halves them), then Linear on the mean over the image."""
    stages: list[nn.Module] = []
    for i, (a, b) in enumerate(zip((1, *channels[:-2]), channels[:-1])):
        stages.append(nn.Sequential(nn.Conv2d(a, b, 3, stride=1 + (i == 1), padding=1), nn.ReLU()))
    stages[-1].append(Mean())
    return initialised(nn.Sequential(*stages, nn.Linear(channels[-2], channels[-1])), seed)


def fit(network: nn.Module, split: Split, *, num_steps: int, lr: float = 3e-3, seed: int = 0, batch_size: int = 64) -> nn.Module:
    """Train with Adam on cross-entropy, in place; the smallest label is class 0."""
    optimizer, generator = torch.optim.Adam(network.parameters(), lr=lr), torch.Generator().manual_seed(seed)
    first = split[1].min()
    for _ in range(num_steps):
        index = torch.randint(len(split[0]), (batch_size,), generator=generator)
        loss = nn.functional.cross_entropy(network(split[0][index]), split[1][index] - first)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@lru_cache
def digit_parts(*, flat: bool = False) -> tuple[Task, tuple[Task, Task]]:
    """All digits, and the digits 0-4 and 5-9."""
    digits = toy_zoo.digits(flat=flat)
    return digits, tuple(toy_zoo.restrict(digits, classes, "part") for classes in (range(5), range(5, 10)))  # type: ignore[return-value]


@torch.no_grad()
def accuracy(network: nn.Module, split: Split, classes: Iterable[int] = range(10)) -> float:
    """Share of right answers among the given scores, the first of which stands for label `classes[0]`."""
    classes = list(classes)
    return (network(split[0])[:, classes].argmax(1) + classes[0] == split[1]).float().mean().item()


def parameters(networks: Sequence[nn.Module]) -> list[Tensor]:
    """Copies of all tensors of the networks."""
    return [t.clone() for network in networks for t in network.state_dict().values()]


def scenes(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Small scenes: two boxes before a sloping wall. Returns images (n, 2, 8, 8), classes of the pixels and their depths (n, 1, 8, 8).

    The first channel is the texture of the class (wall, first kind of box, second kind), the second mixes depth with texture; both are noisy.
    """
    generator = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    rows, columns = torch.arange(8)[:, None], torch.arange(8)[None, :]
    slope = rand(count, 1, 1)
    classes = torch.zeros(count, 8, 8, dtype=torch.int64)
    depth = 1 - 0.5 * slope * rows[None] / 7 + torch.zeros(count, 8, 8)
    for kind in (1, 2):
        top, left = (torch.randint(0, 5, (count, 1, 1), generator=generator) for _ in range(2))
        size = torch.randint(2, 5, (count, 1, 1), generator=generator)
        box = (rows >= top) & (rows < top + size) & (columns >= left) & (columns < left + size)
        classes = torch.where(box, kind, classes)
        depth = torch.where(box, 0.8 * rand(count, 1, 1), depth)
    stripes = ((rows + columns) % 2) * 2 - 1.0
    texture = torch.where(classes == 1, stripes, (classes == 2).float())
    noise = lambda: 0.3 * torch.randn(count, 8, 8, generator=generator)  # noqa: E731
    images = torch.stack([texture + noise(), depth + 0.5 * texture + noise()], dim=1)
    return images, classes, depth[:, None]


def dense_network(outputs: int, *, width: int = 12, blocks: int = 4, inputs: int = 2, seed: int = 0) -> nn.Sequential:
    """Blocks of 3x3 convolution and ReLU that keep the size of the image, then a 1x1 convolution to the outputs."""
    widths = [inputs] + [width] * blocks
    layers = [nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU()) for a, b in zip(widths, widths[1:])]
    return initialised(nn.Sequential(*layers, nn.Conv2d(width, outputs, 1)), seed)


def fit_dense(network: nn.Module, images: Tensor, targets: Tensor, *, num_steps: int, lr: float = 5e-3, seed: int = 0) -> nn.Module:
    """Train in place on pixel classes (integers) or depths (floats)."""
    optimizer, generator = torch.optim.Adam(network.parameters(), lr=lr), torch.Generator().manual_seed(seed)
    for _ in range(num_steps):
        index = torch.randint(len(images), (32,), generator=generator)
        out, y = network(images[index]), targets[index]
        loss = (out - y).square().mean() if y.is_floating_point() else nn.functional.cross_entropy(out, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def scene_questions(classes: Tensor, depth: Tensor) -> Tensor:
    """Six yes-or-no questions about scenes, (n, 6).

    Is the first box in sight? The second? Is the first larger? Is something near? Is the wall steep? Is the first box left of the second?
    """
    one, two = ((classes == kind).sum((1, 2)) for kind in (1, 2))
    columns = torch.arange(8.0).expand(8, 8)
    left, right = ((((classes == kind) * columns).sum((1, 2))) / n.clamp_min(1) for kind, n in ((1, one), (2, two)))
    near, steep = depth[:, 0].amin((1, 2)) < 0.3, depth[:, 0, 7].amax(1) < 0.75
    return torch.stack([one > 6, two > 6, one > two, near, steep, left < right], 1).float()


def fit_questions(network: nn.Module, images: Tensor, answers: Tensor, *, num_steps: int, lr: float = 5e-3, seed: int = 0) -> nn.Module:
    """Train in place on yes-or-no answers (or their probabilities)."""
    optimizer, generator = torch.optim.Adam(network.parameters(), lr=lr), torch.Generator().manual_seed(seed)
    for _ in range(num_steps):
        index = torch.randint(len(images), (32,), generator=generator)
        loss = nn.functional.binary_cross_entropy_with_logits(network(images[index]), answers[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def scene_network(outputs: int, *, width: int = 12, seed: int = 0) -> nn.Sequential:
    """Three blocks of convolution and ReLU, the second halves the image and the third takes its mean, then a linear head."""
    widths = [2, width, 2 * width, 2 * width]
    layers = [nn.Sequential(nn.Conv2d(a, b, 3, stride=1 + (i == 1), padding=1), nn.ReLU()) for i, (a, b) in enumerate(zip(widths, widths[1:]))]
    layers[-1].append(Mean())
    return initialised(nn.Sequential(*layers, nn.Linear(2 * width, outputs)), seed)
