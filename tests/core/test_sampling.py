"""Masks are fair, independent from entry to entry, and don't depend on how the model is cut."""

from __future__ import annotations

import pytest
import torch

from reference_impls.core.blocks import Stored
from reference_impls.core.sampling import bernoulli


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 0.999])
def test_the_share_of_ones_is_the_probability(p: float) -> None:
    n = 1_000_000
    mask = bernoulli({"w": torch.zeros(n)}, p, seeded())["w"]
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert abs(mask.mean().item() - p) < 5 * (p * (1 - p) / n) ** 0.5 + 1e-5
    for lane in mask.reshape(-1, 4).mean(dim=0).tolist():  # four entries come from one random word
        assert abs(lane - p) < 10 * (p * (1 - p) / n) ** 0.5 + 1e-5


def test_neighbours_blocks_names_and_models_are_independent() -> None:
    n, generator = 262_144, seeded()
    first, second = (bernoulli({"a": torch.zeros(n), "b": torch.zeros(n)}, 0.5, generator) for _ in range(2))
    a = first["a"] - 0.5
    blocks = a.reshape(4, -1)
    pairs = [(a[1:], a[:-1]), (a, first["b"] - 0.5), (a, second["a"] - 0.5), (blocks[0], blocks[1]), (blocks[2], blocks[3])]
    for x, y in pairs:
        assert abs((x * y).mean().item()) < 5 * 0.25 / len(x) ** 0.5


def test_every_entry_may_have_a_probability_of_its_own() -> None:
    p = torch.tensor([0.0, 0.25, 0.75, 1.0]).repeat(50_000)
    mask = bernoulli({"w": p}, {"w": p}, seeded())["w"].reshape(-1, 4).mean(dim=0)
    assert mask[0] == 0
    assert mask[3] == 1
    assert mask[1:3].tolist() == pytest.approx([0.25, 0.75], abs=0.01)


def test_one_tensor_of_a_model_gets_the_mask_that_it_has_in_the_whole() -> None:
    whole = bernoulli({"a": torch.zeros(10), "b": torch.zeros(200_000)}, 0.3, seeded(5))["b"]
    alone = bernoulli({"b": torch.zeros(200_000)}, 0.3, seeded(5))["b"]
    like = Stored(lambda start, stop: torch.zeros(stop - start), (200_000,), torch.float32, torch.device("cpu"))
    assert torch.equal(whole, alone)
    assert torch.equal(whole, bernoulli({"b": like}, 0.3, seeded(5))["b"].materialize())
    assert not torch.equal(whole, bernoulli({"b": torch.zeros(200_000)}, 0.3, seeded(6))["b"])


def test_the_callers_generator_moves_on() -> None:
    generator = seeded()
    first, second = (bernoulli({"w": torch.zeros(1000)}, 0.5, generator)["w"] for _ in range(2))
    assert not torch.equal(first, second)
