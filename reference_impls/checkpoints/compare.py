r"""`python -m reference_impls compare A B [--base C] [--json]`: how two checkpoints differ, and whether they can be merged.

The report says what only one of them has, which shapes, dtypes, settings and tokens differ, how far the weights are apart layer
by layer, and whether the two share a base. Files are read block by block, so that memory stays small at any size.

The verdict rests on the correlation of the weights in matrices and larger tensors,

$$
r = \frac{\sum_l \sum_j (a_{lj} - \bar a_l)(b_{lj} - \bar b_l)}
         {\sqrt{\sum_l \sum_j (a_{lj} - \bar a_l)^2}\,\sqrt{\sum_l \sum_j (b_{lj} - \bar b_l)^2}}
$$

with the mean of each tensor taken away, so that a common offset is no likeness. Networks trained from different initialisations
have r near 0 (below 0.05 in size among the pairs that our tests measure), a fine-tuned model and its base r near 1 (0.93 and
more), and two models fine-tuned from one base not much less (0.88 and more). From 0.5 the two count as of one base, below 0.25 as
trained apart, and between the report says that it can't tell. Models of one base that were trained on for very long, or whose
units were permuted, can fall below 0.25 too: the verdict says that their entries don't correspond, not how that came about.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

from reference_impls.checkpoints.adapters import open_model
from reference_impls.checkpoints.checks import (
    cheap_check,
    config_differences,
    config_lies,
    special_tokens,
    tied_groups,
    vocabulary_difference,
)
from reference_impls.checkpoints.errors import quoted
from reference_impls.checkpoints.files import Checkpoint

SHARED, APART = 0.5, 0.25  # correlations from which and below which the verdict is certain
BLOCK = 1 << 16  # entries read at a time

_LAYER = re.compile(r"^(.*?\b\d+)(?:\.|$)")


@dataclass(frozen=True)
class Distance:
    r"""How two models (or with a base, two task vectors) lie to each other in a layer or as a whole.

    Attributes:
        entries: how many weights were compared.
        norm_a, norm_b: norms of both models' weights; with a base, of both task vectors.
        distance: $\lVert a - b \rVert$.
        cosine: of the angle between the two; NaN where one is zero.
        same_sign: fraction of the entries that are not zero in both and have one sign.
        equal: fraction of the entries that are equal.
    """

    entries: int
    norm_a: float
    norm_b: float
    distance: float
    cosine: float
    same_sign: float
    equal: float


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        a, b, base: the paths.
        missing, extra: tensors that B lacks, and that only B has.
        shapes, dtypes: tensor -> both values, where they differ.
        tied_a, tied_b: groups of names that hold the same bytes.
        config: key of config.json -> both values, where they differ.
        special_tokens: name -> both tokens, where they differ.
        vocabulary: tokens that only one has, and rows of the embedding that stand for different tokens.
        nonfinite: tensors that hold NaN or infinity; they are left out of the numbers.
        lies: what a config.json says that the tensors contradict.
        correlation: of the weights of A and B, the r of the verdict; `correlation_base` of A and B with the base.
        whole: all layers together.
        layers: layer by layer.
        verdict: whether the two (and the base) belong together, in a sentence.
        obstacles: why they can't be merged.
    """

    a: str
    b: str
    base: str | None
    missing: list[str]
    extra: list[str]
    shapes: dict[str, list]
    dtypes: dict[str, list]
    tied_a: list[list[str]]
    tied_b: list[list[str]]
    config: dict[str, list]
    special_tokens: dict[str, list]
    vocabulary: dict[str, int]
    nonfinite: list[str]
    lies: list[str]
    correlation: float
    correlation_base: list[float] | None
    whole: Distance
    layers: dict[str, Distance]
    verdict: str
    obstacles: list[str] = field(default_factory=list)


def compare(a: Checkpoint, b: Checkpoint, base: Checkpoint | None = None, threads: int | None = None) -> Comparison:
    """Compare two checkpoints; with their base, the task vectors are compared instead of the weights.

    Args:
        a: one model; open it with `allow_nonfinite` to have NaN reported instead of refused.
        b: the other.
        base: what both may have been fine-tuned from.
        threads: tensors looked at at once. Default None: one a core.

    Raises:
        CheckpointError: a file that can't be read.
    """
    models = [a, b] if base is None else [a, b, base]
    names = [n for n in a if all(n in m and m[n].shape == a[n].shape and m[n].dtype.is_floating_point for m in models)]
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # small operations are fastest on one thread each, and their sums don't depend on the machine
    try:
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            measured = dict(zip(names, pool.map(lambda name: _measure(models, name), names), strict=True))
    finally:
        torch.set_num_threads(before)
    nonfinite = [name for name, sums in measured.items() if sums is None]
    sums = {name: found for name, found in measured.items() if found is not None}
    layers: dict[str, list[_Sums]] = {}
    for name, found in sums.items():
        layers.setdefault(layer_of(name), []).append(found)
    matrices = [found for name, found in sums.items() if len(a[name].shape) > 1] or list(sums.values())
    correlation = _correlation(matrices, 0, 1)
    with_base = None if base is None else [_correlation(matrices, 0, 2), _correlation(matrices, 1, 2)]
    tokens, tokens_b = special_tokens(a), special_tokens(b)
    return Comparison(
        a=str(a.path),
        b=str(b.path),
        base=None if base is None else str(base.path),
        missing=[name for name in a if name not in b],
        extra=[name for name in b if name not in a],
        shapes={n: [list(a[n].shape), list(b[n].shape)] for n in a if n in b and a[n].shape != b[n].shape},
        dtypes={n: [_dtype(a[n].dtype), _dtype(b[n].dtype)] for n in a if n in b and a[n].dtype != b[n].dtype},
        tied_a=[list(group) for group in tied_groups(a)],
        tied_b=[list(group) for group in tied_groups(b)],
        config={key: list(values) for key, values in config_differences(a, b).items()},
        special_tokens={
            key: [tokens.get(key), tokens_b.get(key)] for key in tokens | tokens_b if tokens.get(key) != tokens_b.get(key)
        },
        vocabulary=vocabulary_difference(a, b)._asdict(),
        nonfinite=nonfinite,
        lies=[f"{model.path}: {lie}" for model in models for lie in config_lies(model)],
        correlation=correlation,
        correlation_base=with_base,
        whole=_distance(list(sums.values())),
        layers={layer: _distance(layers[layer]) for layer in sorted(layers, key=_natural)},
        verdict=verdict(correlation, with_base, _distance(list(sums.values())).equal),
        obstacles=cheap_check([base, a, b] if base is not None else [a, b]),
    )


def verdict(correlation: float, with_base: Sequence[float] | None = None, equal: float = 0.0) -> str:
    """Say in a sentence what correlations mean: of two models, and of each with the base.

    Example:
        >>> verdict(0.02)
        "these two don't share a base: their weights are unrelated (correlation 0.02); align them before you average"
        >>> verdict(0.98, [0.99, 0.01])
        "B wasn't fine-tuned from this base (correlation 0.01)"
    """
    if math.isnan(correlation):
        return "there are no common weights to judge by"
    for name, r in zip("AB", with_base or ()):
        if not r >= APART:
            return f"{name} wasn't fine-tuned from this base (correlation {r:.2f})"
    if equal == 1:
        return "these two hold the same weights"
    if correlation < APART:
        return (
            f"these two don't share a base: their weights are unrelated (correlation {correlation:.2f}); "
            "align them before you average"
        )
    if correlation < SHARED:
        return f"it can't be told whether these two share a base (correlation {correlation:.2f})"
    return f"these two share a base, or one is fine-tuned from the other (correlation {correlation:.2f})"


def layer_of(name: str) -> str:
    """Return the part of a tensor's name that names its layer: up to the first number, or else up to the last dot.

    Example:
        >>> layer_of("model.layers.12.self_attn.q_proj.weight"), layer_of("lm_head.weight"), layer_of("scale")
        ('model.layers.12', 'lm_head', 'scale')
    """
    match = _LAYER.match(name)
    return match[1] if match else name.rpartition(".")[0] or name


def _natural(layer: str) -> list:
    """Sort layer 2 before layer 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", layer)]


# --- numbers ---------------------------------------------------------------------------------------------------------


@dataclass
class _Sums:
    """Sums over the entries of one tensor, from which all the figures follow."""

    entries: int
    sums: list[float]  # of a, b and base
    products: list[list[float]]  # inner products of a, b and base
    task_products: list[float]  # aa, ab, bb of what is compared: the weights, or the task vectors
    squared_distance: float
    both: int
    same_sign: int
    equal: int


def _measure(models: Sequence[Checkpoint], name: str) -> _Sums | None:
    """Read one tensor of all models block by block; None if there is NaN or infinity."""
    numel, k = models[0][name].numel, len(models)
    stored = [torch.empty(min(BLOCK, numel), dtype=model[name].dtype) for model in models]
    dtype = torch.float64 if any(x.dtype == torch.float64 for x in stored) else torch.float32
    found = _Sums(numel, [0.0] * k, [[0.0] * k for _ in models], [0.0] * 3, 0.0, 0, 0, 0)
    for start in range(0, numel, BLOCK):
        stop = min(start + BLOCK, numel)
        blocks = [model.read(name, start, stop, out).to(dtype) for model, out in zip(models, stored)]
        for i, x in enumerate(blocks):
            total = float(x.sum(dtype=torch.float64))
            if not math.isfinite(total):
                return None
            found.sums[i] += total
            for j in range(i + 1):
                found.products[i][j] += float(torch.dot(x, blocks[j]))
        a, b = blocks[:2]
        difference = a - b
        found.squared_distance += float(torch.dot(difference, difference))
        found.equal += difference.numel() - int(torch.count_nonzero(difference))
        if k == 3:
            a, b = a - blocks[2], b - blocks[2]
        for place, (x, y) in enumerate(((a, a), (a, b), (b, b))):
            found.task_products[place] += float(torch.dot(x, y))
        signs = a.sign() * b.sign()
        both, agreement = int(torch.count_nonzero(signs)), int(signs.sum())
        found.both += both
        found.same_sign += (both + agreement) // 2
    return found


def _correlation(tensors: Sequence[_Sums], i: int, j: int) -> float:
    def centred(p: int, q: int) -> float:
        return sum(t.products[max(p, q)][min(p, q)] - t.sums[p] * t.sums[q] / t.entries for t in tensors if t.entries)

    return _ratio(centred(i, j), math.sqrt(max(centred(i, i), 0)) * math.sqrt(max(centred(j, j), 0)))


def _distance(tensors: Sequence[_Sums]) -> Distance:
    aa, ab, bb = (sum(t.task_products[i] for t in tensors) for i in range(3))
    entries = sum(t.entries for t in tensors)
    return Distance(
        entries=entries,
        norm_a=math.sqrt(aa),
        norm_b=math.sqrt(bb),
        distance=math.sqrt(sum(t.squared_distance for t in tensors)),
        cosine=_ratio(ab, math.sqrt(aa) * math.sqrt(bb)),
        same_sign=_ratio(sum(t.same_sign for t in tensors), sum(t.both for t in tensors)),
        equal=_ratio(sum(t.equal for t in tensors), entries),
    )


def _ratio(a: float, b: float) -> float:
    return a / b if b else math.nan


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# --- command ---------------------------------------------------------------------------------------------------------


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("compare", help="say how two checkpoints differ, and whether they share a base")
    parser.add_argument("a", metavar="A", help="a folder or a .safetensors file, or a base with adapters: base+adapter")
    parser.add_argument("b", metavar="B", help="the other")
    parser.add_argument("--base", metavar="C", help="what both were fine-tuned from: compares task vectors")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.set_defaults(run=run)


def run(args: Any) -> int:
    a, b, base = (None if name is None else open_model(name, allow_nonfinite=True) for name in (args.a, args.b, args.base))
    report = compare(a, b, base)
    print(as_json(report) if args.json else as_text(report))
    return 0


def as_json(report: Comparison) -> str:
    """Return the report as JSON; what isn't a number becomes null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(dataclasses.asdict(report)), indent=2, ensure_ascii=False)


def as_text(report: Comparison) -> str:
    """Return the report for reading: what differs, then the layers, then the verdict."""
    lines = [f"A     {report.a}", f"B     {report.b}"] + ([f"base  {report.base}"] if report.base else [])
    for title, items in (
        ("only in A", report.missing),
        ("only in B", report.extra),
        ("shapes differ", [f"{n}: {a} {b}" for n, (a, b) in report.shapes.items()]),
        ("dtypes differ", [f"{n}: {a} {b}" for n, (a, b) in report.dtypes.items()]),
        ("tied in A", [" = ".join(group) for group in report.tied_a]),
        ("tied in B", [" = ".join(group) for group in report.tied_b]),
        ("config differs", [f"{key}: {a} {b}" for key, (a, b) in report.config.items()]),
        ("special tokens differ", [f"{key}: {quoted(a)} {quoted(b)}" for key, (a, b) in report.special_tokens.items()]),
        ("vocabulary", [_vocabulary(report.vocabulary)] if any(report.vocabulary.values()) else []),
        ("NaN or infinity", report.nonfinite),
        ("contradictions", report.lies),
    ):
        if items:
            lines += ["", f"{title} ({len(items)})", *(f"  {_printable(item)}" for item in items[:10])]
            lines += [f"  and {len(items) - 10} more (--json has all)"] if len(items) > 10 else []
    what = ("|task vector A|", "|task vector B|") if report.base else ("|A|", "|B|")
    lines += ["", f"{'layer':32}{what[0]:>16}{what[1]:>16}{'|A - B|':>12}{'cosine':>9}{'same sign':>11}{'equal':>8}"]
    for layer, d in [*report.layers.items(), ("all", report.whole)]:
        figures = f"{d.norm_a:16.4g}{d.norm_b:16.4g}{d.distance:12.4g}{d.cosine:9.3f}{d.same_sign:11.3f}{d.equal:8.3f}"
        lines.append(f"{_printable(layer)[-31:]:32}{figures}")
    lines += ["", report.verdict]
    if report.obstacles:
        lines += ["", "these can't be merged as they are:", *(f"  {reason}" for reason in report.obstacles)]
    return "\n".join(lines)


def _vocabulary(counts: dict[str, int]) -> str:
    return f"{counts['missing']} tokens only in A, {counts['extra']} only in B, {counts['clash']} rows for different tokens"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
