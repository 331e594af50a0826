"""The model card of an output: what was merged, how, after which papers, with which versions.

Names and configurations come from anywhere, so none of their characters reaches Markdown, HTML or YAML with a meaning of its own.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from reference_impls.checkpoints.mergekit import DIFFERENCES
from reference_impls.checkpoints.methods import function

if TYPE_CHECKING:
    from reference_impls.checkpoints.request import Request

PAPERS = Path(__file__).with_name("papers.bib")
SAMPLES, SAMPLE = 64, 4096
MOST = 20  # settings listed

_PAPER = re.compile(r"\(([a-z]+\d{4}[a-z]\w*)\)")
_SECRET = re.compile(r"://[^/@\s]*@")  # user and password in a URL
_RUN = re.compile(r"`+")

SAMPLED = (
    f"Each hash is the SHA-256 of a file's size, its header and {SAMPLES} samples of {SAMPLE} bytes spread over the rest: it "
    "tells models apart; a change between the samples goes unseen. `--hash-inputs` takes whole files instead."
)
WHOLE = "Each hash is the SHA-256 of the whole file."


def fingerprint(file: Path, whole: bool = False) -> str:
    """Return a hash of a safetensors file: of its size, header and samples of its data, or of all of it."""
    with open(file, "rb") as stream:
        if whole:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(8)
        header = stream.read(min(size, int.from_bytes(head, "little")))
        digest = hashlib.sha256(size.to_bytes(8, "little") + head + header)
        start = stream.tell()
        for i in range(SAMPLES):
            digest.update(os.pread(stream.fileno(), SAMPLE, start + i * max(0, size - start - SAMPLE) // (SAMPLES - 1)))
        return digest.hexdigest()


def card(request: Request, name: str, prints: Mapping[Path, str], whole: bool) -> str:
    """Return the README.md of an output.

    Args:
        request: what was done.
        name: of the output.
        prints: the hash of every input file.
        whole: whether these are hashes of whole files.
    """
    transformers = ["library_name: transformers"] if "architectures" in (request.lead.config or {}) else []
    methods = dict.fromkeys(task.method for task in request.recipe.tasks)
    lines = ["---", *transformers, "tags:", "- merge", *(f"- {method}" for method in methods), "---", "", f"# {code(name)}", ""]
    lines += [f"A merge of {len(request.models)} models by {', '.join(code(method) for method in methods)}.", ""]
    lines += ["## Models", "", "| model | file | bytes | hash |", "| --- | --- | --- | --- |"]
    for model, checkpoint in zip(request.models, request.recipe.checkpoints):
        model = _SECRET.sub("://", model)
        what = f"{code(model)} (base)" if request.base and checkpoint is request.lead else code(model)
        lines += [f"| {what} | {code(file.name)} | {file.stat().st_size} | `{prints[file]}` |" for file in checkpoint.files]
    lines += ["", WHOLE if whole else SAMPLED, "", "## Method", ""]
    lines += [f"- {count} tensors: {code(settings)}" for settings, count in settings_of(request)[:MOST]]
    if (more := len(settings_of(request)) - MOST) > 0:
        lines.append(f"- and {more} more settings, as the configuration gives them")
    if request.config is not None:
        lines += ["", f"The configuration, read with the variant {code(request.config.variant)}:"]
    lines += ["", *fenced(_SECRET.sub("://", request.text), "yaml"), ""]
    if differences := differences_of(request):
        lines += ["Where this departs from mergekit 0.1.5:", "", *(f"- {text}" for text in differences), ""]
    if entries := bibtex(methods_cited(request)):
        lines += ["## Papers", "", *fenced(entries, "bibtex"), ""]
    lines += ["## Versions", "", *(f"- {what} {version}" for what, version in versions().items()), ""]
    return "\n".join(lines)


def settings_of(request: Request) -> list[tuple[str, int]]:
    """Return every call that was made, with the number of tensors it was made for, the commonest first."""

    def call(method: str, options: Mapping[str, Any]) -> str:
        return f"{method}({', '.join(f'{key}={shown(value)}' for key, value in options.items())})"

    return Counter(call(task.method, task.options) for task in request.recipe.tasks).most_common()


def shown(value: Any) -> str:
    """Return an option's value, without the digits that an interpolation leaves."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, Mapping):  # patterns of tensors' names, which the arguments below have in full
        return f"{{{', '.join(value)}}}"
    return repr(value)


def differences_of(request: Request) -> list[str]:
    """Return where the result departs from mergekit's, for a configuration in its format."""
    if request.config is None:
        return []
    found = DIFFERENCES.get(request.config.method, ())
    return [f"{d.topic}: {d.text}" for d in found if request.config.variant in d.variants]


def methods_cited(request: Request) -> list[str]:
    """Return the methods behind the tasks; a drop that TIES follows rests on both."""
    methods = {task.method: None for task in request.recipe.tasks}
    ties = any("ties" in (task.options.get("merge"),) for task in request.recipe.tasks)
    return [*methods, *(["ties_merging"] if ties and "ties_merging" not in methods else [])]


def paper_of(method: str) -> str | None:
    """Return the id of the paper that a method's module names in its first line."""
    first = (sys.modules[function(method).__module__].__doc__ or "").partition("\n")[0]
    match = _PAPER.search(first)
    return match[1] if match else None


def bibtex(methods: list[str]) -> str:
    """Return the BibTeX entries of the papers behind methods."""
    papers = dict.fromkeys(paper for method in methods if (paper := paper_of(method)))
    entries = {entry.partition(",")[0].partition("{")[2]: entry for entry in re.split(r"\n(?=@)", PAPERS.read_text("utf-8"))}
    return "\n".join(entries[paper].rstrip("\n") for paper in papers if paper in entries)


def versions() -> dict[str, str]:
    try:
        atlas = metadata.version("model-fusion-atlas")
    except metadata.PackageNotFoundError:
        atlas = "(not installed)"
    return {"model-fusion-atlas": atlas, "torch": torch.__version__, "Python": platform.python_version()}


# --- strangers' text ----------------------------------------------------------------------------------------------


def printable(text: str, keep: str = "") -> str:
    """Return text with every character that doesn't show, or reorders others, written as its code."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def code(text: str) -> str:
    """Return text as a Markdown code span that it can't leave, in a table either.

    Example:
        >>> code("a|b"), code("x`</code><script>`y")
        ('`a\\\\|b`', '``x`</code><script>`y``')
    """
    text = printable(text).replace("|", "\\|")
    ticks = "`" * (max((len(run) for run in _RUN.findall(text)), default=0) + 1)
    space = " " if text.startswith("`") or text.endswith("`") or not text.strip() else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def fenced(text: str, language: str) -> list[str]:
    """Return text as a Markdown code block that it can't leave."""
    fence = "`" * max(3, max((len(run) for run in _RUN.findall(text)), default=0) + 1)
    return [fence + language, *printable(text, keep="\n").rstrip("\n").split("\n"), fence]
