"""A small part of the fuzzer in every run; the whole is `python -m tests.checkpoints.fuzz --inputs 1000000`."""

from __future__ import annotations

import pytest

from tests.checkpoints import fuzz


def test_nothing_escapes_from_damaged_files():
    counts = fuzz.fuzz(20_000, seed=1)
    for target in fuzz.TARGETS:  # both ways out are taken often
        assert counts[target, "read"] > 200 and counts[target, "refused"] > 1_000


def test_the_fuzzer_sees_what_escapes(monkeypatch):
    def careless(data: bytes) -> None:
        if len(data) > 8:
            raise KeyError("w")

    monkeypatch.setitem(fuzz.TARGETS, "header", (fuzz.header, careless))
    with pytest.raises(AssertionError, match="header number 0 of seed 0 escaped with KeyError"):
        fuzz.fuzz(100, targets=("header",))
