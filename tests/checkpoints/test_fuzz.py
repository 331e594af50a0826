"""A small part of the fuzzer in every run; the whole is `python -m tests.checkpoints.fuzz --inputs 1000000`."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from reference_impls.checkpoints.errors import CheckpointError
from reference_impls.checkpoints.files import Checkpoint
from tests.checkpoints import fuzz


def test_nothing_escapes_from_damaged_files():
    counts = fuzz.fuzz(20_000, seed=1)
    for target in fuzz.TARGETS:  # both ways out are taken often
        assert counts[target, "read"] > 200 and counts[target, "refused"] > 1_000


def test_nothing_escapes_from_damaged_folders(tmp_path):
    source, outcomes = random.Random(0), Counter()
    files = {"model-0.safetensors": fuzz.header, "model.safetensors.index.json": fuzz.index, "config.json": fuzz.index}
    for _ in range(500):
        for file in tmp_path.iterdir():
            file.unlink()
        for name, make in files.items():
            if source.random() < 0.7:
                data = make(source)
                (tmp_path / name).write_bytes(fuzz.scratched(data, source) if source.random() < 0.5 else data)
        try:
            with Checkpoint.open(tmp_path) as checkpoint:
                outcomes["read"] += all(checkpoint[name].shape == t.shape for name, t in checkpoint.state_dict().items())
        except CheckpointError as error:
            assert str(tmp_path) in str(error) and str(error).isprintable()
            outcomes["refused"] += 1
    assert outcomes["read"] > 30 and outcomes.total() == 500


def test_the_fuzzer_sees_what_escapes(monkeypatch):
    def careless(data: bytes) -> None:
        if len(data) > 8:
            raise KeyError("w")

    monkeypatch.setitem(fuzz.TARGETS, "header", (fuzz.header, careless))
    with pytest.raises(AssertionError, match="header number 0 of seed 0 escaped with KeyError"):
        fuzz.fuzz(100, targets=("header",))
