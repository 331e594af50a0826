"""Small data sets with fixed splits: real digits and transformed digits, synthetic shapes, tiny text corpora."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

Split = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """A named task: each split is `(inputs, targets)`."""

    name: str
    train: Split
    val: Split
    test: Split

    @property
    def classes(self) -> tuple[int, ...]:
        """Labels that occur in the training split, in order."""
        return tuple(self.train[1].unique().tolist())


def batches(split: Split, size: int, generator: torch.Generator | None = None) -> list[Split]:
    """List of `(inputs, targets)` of at most `size` examples; shuffled if a generator is given."""
    inputs, targets = split
    order = torch.arange(len(inputs)) if generator is None else torch.randperm(len(inputs), generator=generator)
    return [(inputs[index], targets[index]) for index in order.split(size)]


def join(tasks: Sequence[Task], name: str = "joint") -> Task:
    """One task with the examples of all tasks."""

    def cat(splits: list[Split]) -> Split:
        return torch.cat([x for x, _ in splits]), torch.cat([y for _, y in splits])

    return Task(name, cat([t.train for t in tasks]), cat([t.val for t in tasks]), cat([t.test for t in tasks]))


def restrict(task: Task, classes: Sequence[int], name: str) -> Task:
    """The examples whose label is one of `classes`; labels keep their numbers."""

    def keep(split: Split) -> Split:
        mask = torch.isin(split[1], torch.tensor(list(classes)))
        return split[0][mask], split[1][mask]

    return Task(name, keep(task.train), keep(task.val), keep(task.test))


# --- digits -------------------------------------------------------------------------------------------------------

_ODD = torch.arange(8).remainder(2).bool()

TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {  # images (n, 1, 8, 8) in [-1, 1]
    "upright": lambda x: x,
    "rotate90": lambda x: x.rot90(1, (2, 3)),
    "rotate180": lambda x: x.rot90(2, (2, 3)),
    "mirror": lambda x: x.flip(3),
    "invert": lambda x: -x,
    "rows": lambda x: torch.where(_ODD[:, None], -x, x),  # contrast inverted in every other row, column, pixel
    "columns": lambda x: torch.where(_ODD, -x, x),
    "checker": lambda x: torch.where(_ODD[:, None] ^ _ODD, -x, x),
    "left": lambda x: torch.where(torch.arange(8) < 4, -x, x),
    "top": lambda x: torch.where(torch.arange(8)[:, None] < 4, -x, x),
}


@lru_cache(maxsize=1)
def _digit_images() -> Split:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits need scikit-learn: pip install scikit-learn") from error
    raw = load_digits()
    images = torch.tensor(raw.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    targets = torch.tensor(raw.target, dtype=torch.int64)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    return images[order], targets[order]


def digits(transform: str = "upright", *, flat: bool = False) -> Task:
    """Scikit-learn's 1797 handwritten digits, 8x8, values in [-1, 1]: 1000 train, 300 val, 497 test, the same always.

    Args:
        transform: a key of `TRANSFORMS`, applied to every image.
        flat: True gives inputs (n, 64), False (n, 1, 8, 8).
    """
    if transform not in TRANSFORMS:
        raise ValueError(f"transform must be one of {sorted(TRANSFORMS)}, got {transform!r}")
    images, targets = _digit_images()
    images = TRANSFORMS[transform](images).contiguous()
    inputs = images.flatten(1) if flat else images

    def part(start: int, stop: int) -> Split:
        return inputs[start:stop].clone(), targets[start:stop].clone()

    return Task(transform, part(0, 1000), part(1000, 1300), part(1300, len(inputs)))


# --- synthetic data with known answers ----------------------------------------------------------------------------


def _split(name: str, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> Task:
    order = torch.randperm(len(inputs), generator=generator)
    inputs, targets = inputs[order], targets[order]
    a, b = len(inputs) // 2, 3 * len(inputs) // 4
    return Task(name, (inputs[:a], targets[:a]), (inputs[a:b], targets[a:b]), (inputs[b:], targets[b:]))


def two_moons(seed: int = 0, *, count: int = 400, noise: float = 0.1) -> Task:
    """Two interleaved half circles in the plane, `count` points, Gaussian noise of the given standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    angle = math.pi * torch.rand(count, generator=generator)
    targets = torch.arange(count) % 2
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    inputs = torch.where(targets[:, None] == 0, upper, lower) + noise * torch.randn(count, 2, generator=generator)
    return _split("two_moons", inputs, targets, generator)


def gaussian_blobs(seed: int = 0, *, count: int = 400, centers: Tensor | None = None, std: float = 0.5) -> Task:
    """Isotropic Gaussian classes: the Bayes rule is the nearest centre.

    Args:
        centers: (classes, dimensions). Default: (-1, 0) and (1, 0), where the Bayes accuracy is Phi(1 / std).
        std: standard deviation of each coordinate, > 0.
    """
    generator = torch.Generator().manual_seed(seed)
    centers = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]) if centers is None else centers
    targets = torch.arange(count) % len(centers)
    inputs = centers[targets] + std * torch.randn(count, centers.shape[1], generator=generator)
    return _split("gaussian_blobs", inputs, targets, generator)
