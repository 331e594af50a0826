"""Random masks that don't depend on how a model is cut: every block of every tensor has a source of its own.

The sources are seeded with one number drawn from the caller's generator, the name of the tensor and the place of the block. A
model that lies in memory and one that is read in blocks, by any number of workers, thus get the same masks.
"""

from __future__ import annotations

import math
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from .blocks import Stored, Streamed, ranges
from .state_dict import Vector, zip_entries

LEVELS = 65_536  # probabilities are resolved to one part in 65,536


def bernoulli(like: Vector, probability: float | Vector, generator: torch.Generator) -> Vector:
    r"""Draw $m_j \sim \mathrm{Bernoulli}(p_j)$ for every entry: ones and zeros.

    Args:
        like: a vector; its names, shapes and dtypes matter.
        probability: p in [0, 1], one for all entries or one each; counted in steps of 1/65536.
        generator: one number is drawn from it.

    Example:
        >>> like = {"w": torch.zeros(2)}
        >>> bernoulli(like, {"w": torch.tensor([0.0, 1.0])}, torch.Generator().manual_seed(0))
        {'w': tensor([0., 1.])}
    """
    seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
    draws = {key: _random_integers(f"{seed} {key}", tensor) for key, tensor in like.items()}
    if isinstance(probability, float):
        count = math.ceil(LEVELS * probability - 0.5) - LEVELS // 2  # whole numbers below it are kept
        return zip_entries(lambda r: (count - r).clamp(0, 1), draws)
    return zip_entries(lambda r, p: (LEVELS * p - LEVELS / 2 - 0.5 - r).sign().relu(), draws, probability)


def _random_integers(source: str, like: Tensor | Streamed) -> Tensor | Streamed:
    """Whole numbers from -32768 to 32767, all equally likely."""

    def block(start: int, stop: int) -> Tensor:
        digest = blake2b(f"{source} {start}".encode(), digest_size=8).digest()
        words = np.random.SFC64(int.from_bytes(digest, "little")).random_raw((stop - start + 3) // 4)  # of 64 bits
        whole = words.view(np.int16)[: stop - start].astype(np.float32)  # drawn on the CPU: the same anywhere
        return torch.from_numpy(whole).to(like.dtype).to(like.device)

    if isinstance(like, Streamed):
        return Stored(block, like.shape, like.dtype, like.device)
    return torch.cat([block(start, stop) for start, stop in ranges(like.shape)]).reshape(like.shape)
