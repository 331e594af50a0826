"""PyTorch's random numbers on a CPU, drawn with NumPy: a seed gives the numbers here that it gives there.

The generator is the Mersenne Twister. A uniform float takes the low 24 bits of one word, a double the low 53 of two; normals
come from pairs of uniforms (Box and Muller), in blocks of 16 from 16 numbers on; what is drawn by chance without replacement
is what is largest after division by exponential numbers. A test compares every kind with PyTorch, for many sizes and seeds.
"""

import math

import numpy as np


class Generator:
    """`torch.Generator`."""

    def __init__(self, device="cpu"):
        import torch

        self.device = torch.device("cpu")
        self.manual_seed(67280421310721)  # PyTorch's default seed

    def manual_seed(self, seed):
        self.given = seed
        self.words = np.random.RandomState(seed & 0xFFFFFFFF)._bit_generator
        self.waiting = None  # the second of a pair of normals
        return self

    def initial_seed(self):
        return self.given

    def rng(self):
        """For what is not listed here: NumPy's numbers, which are not PyTorch's."""
        return np.random.default_rng(self.raw(1))

    def get_state(self):
        return self.words.state, self.waiting

    def set_state(self, state):
        self.words.state, self.waiting = state
        return self

    def raw(self, count):
        """Words of 32 bits."""
        return self.words.random_raw(count).astype(np.uint64)

    def pairs(self, count):
        """Words of 64 bits."""
        halves = self.raw(2 * count).reshape(count, 2)
        return (halves[:, 0] << np.uint64(32)) | halves[:, 1]

    def uniform(self, count, double=False):
        if double:
            return (self.pairs(count) & np.uint64(2**53 - 1)).astype(np.float64) * 2.0**-53
        return (self.raw(count) & np.uint64(2**24 - 1)).astype(np.float32) * np.float32(2.0**-24)

    def normal(self, count, double=False):
        if count < 16:
            return np.array([self._one_normal() for _ in range(count)])
        values = self.uniform(count, double)
        whole = count // 16 * 16
        values[:whole] = _normals(values[:whole])
        if count % 16:
            values[-16:] = _normals(self.uniform(16, double))
        return values

    def _one_normal(self):
        if self.waiting is not None:
            value, self.waiting = self.waiting, None
            return value
        angle, chance = self.uniform(2, double=True)
        radius = math.sqrt(-2 * math.log1p(-chance))
        self.waiting = radius * math.sin(2 * math.pi * angle)
        return radius * math.cos(2 * math.pi * angle)

    def exponential(self, count):
        return -np.log1p(-self.uniform(count, double=True)).astype(np.float32)

    def integers(self, low, high, count):
        words = self.raw(count) if high - low < 2**28 else self.pairs(count)
        return (words % np.uint64(high - low)).astype(np.int64) + low

    def permutation(self, count):
        order = np.arange(count)
        for i, word in enumerate(self.raw(max(count - 1, 0))):
            other = i + int(word) % (count - i)
            order[[i, other]] = order[[other, i]]
        return order

    def choice(self, weights, num_samples):
        """Indices by weight without replacement, row by row."""
        exponentials = self.exponential(weights.size).reshape(weights.shape)
        return np.argsort(-weights / exponentials, axis=-1, kind="stable")[..., :num_samples]


def _normals(uniforms):
    """Blocks of 16 uniforms to normals: radii from the first eight, angles from the others."""
    blocks = uniforms.reshape(-1, 2, 8)
    radius, angle = np.sqrt(-2 * np.log(1 - blocks[:, 0])), uniforms.dtype.type(2 * np.pi) * blocks[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
