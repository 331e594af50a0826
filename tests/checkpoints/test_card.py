"""The model card says what was done, and no text in it does anything."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown import markdown
from safetensors.torch import save_file

from reference_impls.__main__ import main
from reference_impls.checkpoints.card import PAPERS, bibtex, code, fenced, fingerprint, paper_of
from reference_impls.checkpoints.methods import METHODS

HOSTILE = "`</code><script>alert(1)</script> | [x](javascript:alert(1)) ``` ---\u202e"


def papers() -> str:
    """The entries of the papers behind all methods that merge checkpoints, from the catalog."""
    from tools.bibtex import bibliography
    from tools.catalog import load

    catalog = load()
    cited = sorted({paper for method in METHODS if (paper := paper_of(method))})
    return bibliography([(catalog.papers[paper], catalog.venues.get(catalog.papers[paper].venue)) for paper in cited])


def test_the_papers_are_those_of_the_catalog() -> None:
    """Write them anew with `python -m tests.checkpoints.test_card`."""
    assert PAPERS.read_text("utf-8") == papers()


def test_every_method_with_a_paper_is_cited() -> None:
    for method in METHODS:
        entries = bibtex([method])
        assert entries.count("@") == (paper_of(method) is not None), method
    assert bibtex(["ties_merging", "task_arithmetic", "ties_merging"]).count("\n@") == 1


def test_a_hash_of_samples_tells_apart_what_one_entry_makes_different(tmp_path: Path) -> None:
    w = torch.zeros(100_000)
    for name, change in (("a", None), ("b", 0), ("c", 99_999)):
        v = w.clone()
        if change is not None:
            v[change] = 1
        save_file({"w": v}, tmp_path / name)
    assert len({fingerprint(tmp_path / name) for name in "abc"}) == 3
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "a")
    assert fingerprint(tmp_path / "a", whole=True) == hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()


def test_a_small_file_is_hashed_whole(tmp_path: Path) -> None:
    save_file({"w": torch.arange(500.0)}, tmp_path / "a")
    data = bytearray((tmp_path / "a").read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    before = fingerprint(tmp_path / "a")
    for place in range(start, len(data), 37):
        changed = data.copy()
        changed[place] ^= 1
        (tmp_path / "b").write_bytes(changed)
        assert fingerprint(tmp_path / "b") != before


@given(st.text(alphabet="`|<>\\*_[]()! \n#-ab\u202e", max_size=30) | st.just(HOSTILE))
def test_code_spans_and_blocks_keep_what_is_in_them(text: str) -> None:
    html = markdown(f"before {code(text)} after\n\n| a | b |\n| --- | --- |\n| {code(text)} | end |\n", extensions=["tables"])
    assert "<script" not in html and "<a " not in html and "\n" not in code(text)
    block = fenced(text, "yaml")
    assert block[-1] not in block[1:-1] and set(block[-1]) == {"`"}


def test_the_card_of_a_merge_with_hostile_names(tmp_path: Path) -> None:
    hostile = tmp_path / "a`|<script>alert(1)<!-- ```"
    for folder in (tmp_path / "base", hostile):
        os.mkdir(folder)
        save_file({"w": torch.randn(4, 4)}, folder / "model.safetensors")
    config = tmp_path / "c.yml"
    config.write_text(
        f"merge_method: ties\nbase_model: {tmp_path / 'base'}\n# s3://user:secret@host/x ``` </code><script>alert(1)</script>\n"
        f"models: [{{model: '{hostile}', parameters: {{weight: 0.5, density: 0.5}}}}]\n"
    )
    out = tmp_path / "x`<img src=x onerror=alert(1)>"
    assert main(["merge", str(config), str(out), "--quiet", "--hash-inputs"]) == 0
    text = (out / "README.md").read_text()
    head, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL).groups()
    assert yaml.safe_load(head) == {"tags": ["merge", "ties_merging"]}
    html = markdown(body, extensions=["tables", "fenced_code"])
    assert "<script" not in html and "<img" not in html and "<!--" not in html
    for wanted in ("ties_merging(density=0.5", "@inproceedings{yadav2023ties", "Trim scope: one ranking", torch.__version__):
        assert wanted in body
    assert hashlib.sha256((hostile / "model.safetensors").read_bytes()).hexdigest() in body
    assert "SHA-256 of the whole file" in body and "secret" not in body and "s3://host/x" in body


def test_two_methods_are_cited_where_one_follows_the_other(tmp_path: Path) -> None:
    for name in ("base", "a"):
        save_file({"w": torch.randn(4, 4)}, tmp_path / f"{name}.safetensors")
    base, a, out = (str(tmp_path / name) for name in ("base.safetensors", "a.safetensors", "out"))
    assert main(["merge", "dare", "--base", base, "--models", a, "-o", out, "--merge", "ties", "--quiet"]) == 0
    text = (tmp_path / "out/README.md").read_text()
    assert "yu2024dare" in text and "yadav2023ties" in text and "merge: \"ties\"" in text


if __name__ == "__main__":
    PAPERS.write_text(papers(), "utf-8")
