r"""`python -m reference_impls combine ADAPTER ADAPTER ... -o OUT --how svd --weights 0.5 0.5`: LoRA adapters into one.

Adapter t changes a weight by $s_t B_t A_t$. The ways to combine have the names that PEFT gives them:

- cat: stacks the factors, which gives the exact sum $\sum_t w_t s_t B_t A_t$ at the sum of the ranks;
- svd: the best approximation of that sum of a given rank, from the factors alone, without the full matrix;
- linear: sums the factors apart, $A = \sum_t \sqrt{w_t s_t}\, A_t$ and B likewise, which adds cross terms;
- magnitude_prune, ties, dare_linear, dare_ties: act on the factors so scaled, as the methods of that name do on task vectors;
- the same with _svd at the end: act on the updates, whose result is cut to the rank again;
- lego, which PEFT lacks: clusters the rank-one units of all factors, scaled by $\sqrt{s_t}$, and puts the centres together.

The reference functions do the work (`pem_composition`, `ties_merging`, `dare`, `lora_lego`), layer by layer. PEFT elects the
signs of TIES before it applies the weights, and we elect them after; with equal weights both give the same.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import reference_impls as ri
from reference_impls.checkpoints.adapters import CONFIG, Adapter
from reference_impls.checkpoints.errors import CheckpointError, quoted
from reference_impls.checkpoints.writing import Output
from reference_impls.core.lora import low_rank_update, randomized_svd, truncated_svd
from reference_impls.task_vectors.pem_composition import prune

WAYS = (
    "cat", "svd", "linear", "magnitude_prune", "ties", "dare_linear", "dare_ties",
    "magnitude_prune_svd", "ties_svd", "dare_linear_svd", "dare_ties_svd", "lego",
)  # fmt: skip
EXACT = 1024  # rows or columns up to which a matrix is decomposed exactly; beyond, a randomized method is nearly as good

Factors = tuple[Tensor, Tensor]  # A (r, n) and B (m, r)


def combine(
    adapters: Sequence[Adapter],
    how: str = "cat",
    *,
    weights: Sequence[float] | None = None,
    rank: int | None = None,
    density: float = 1.0,
    seed: int = 0,
    threads: int | None = None,
) -> dict[str, Factors]:
    """Combine adapters; a module that only some of them change is combined from those.

    Args:
        adapters: trained on one base.
        how: one of `WAYS`.
        weights: w, one an adapter. Default None: 1/n each. lego has none and takes equal ones only.
        rank: of the result of lego and of the ways that end in svd. Default None: the largest of the adapters, module by module.
        density: fraction of the entries kept, in (0, 1], where entries are dropped.
        seed: of the masks of dare, which depend on it and on the module's name, and of the first centres of lego, which are drawn
            module after module.
        threads: modules worked on at once by the ways with svd; the others would wait for each other. Default None: one a core.

    Returns:
        module -> factors, whose own scaling is 1.

    Raises:
        CheckpointError: adapters that don't go together, or a way that can't combine them.
    """
    check(adapters, how, weights, rank, density)
    weights = [1 / len(adapters)] * len(adapters) if weights is None else list(weights)
    modules = list(dict.fromkeys(module for adapter in adapters for module in adapter.layers))
    first = torch.Generator().manual_seed(seed)  # one for all modules, as the reference function has it

    def one(module: str) -> Factors:
        having = [(adapter, weight) for adapter, weight in zip(adapters, weights) if module in adapter.layers]
        factors = [adapter.factors(module) for adapter, _ in having]
        scaled = [weight * adapter.layers[module].scaling for adapter, weight in having]
        ranks = [A.shape[0] for A, _ in factors]
        if len(set(ranks)) > 1 and how not in ("cat", "lego") and not how.endswith("svd"):
            raise CheckpointError(f"{quoted(module)} has ranks {ranks}; {how} needs one rank, cat and what ends in svd don't")
        if how == "lego":
            return lego(factors, [adapter.layers[module].scaling for adapter, _ in having], rank, first)
        generator = torch.Generator().manual_seed((seed * 1_000_003 + zlib.crc32(module.encode())) % 2**63)
        return combine_layer(factors, scaled, how, max(ranks) if rank is None else rank, density, generator)

    return dict(zip(modules, each(one, modules, threads if "svd" in how else 1)))


def combine_layer(
    factors: Sequence[Factors], weights: Sequence[float], how: str, rank: int, density: float, generator: torch.Generator
) -> Factors:
    """Combine the factors of one module; `weights` are $w_t s_t$."""
    rule = how.removesuffix("_svd")
    if how in ("cat", "svd", "linear", "magnitude_prune"):
        name = {"cat": "concatenate", "svd": "svd"}.get(how, "roots")
        kept = density if how == "magnitude_prune" else 1.0
        return ri.pem_composition([{"w": pair} for pair in factors], weights=weights, combine=name, rank=rank, density=kept)["w"]
    if rule != how:
        parts = [{"w": low_rank_update(A, B, weight)} for weight, (A, B) in zip(weights, factors)]
    else:  # a negative weight changes the sign of one factor only
        roots = [math.sqrt(abs(weight)) for weight in weights]
        parts = [{"A": math.copysign(r, w) * A, "B": r * B} for r, w, (A, B) in zip(roots, weights, factors)]
    zero = {name: torch.zeros_like(tensor) for name, tensor in parts[0].items()}
    if rule == "magnitude_prune":
        merged = {"w": sum(prune(part["w"], density) for part in parts)}
    elif rule == "ties":
        merged = ri.ties_merging(zero, parts, density=density, trim="tensor")
    else:
        after = {"merge": "ties", "ties_density": 1.0} if rule == "dare_ties" else {"merge": "task_arithmetic"}
        merged = ri.dare(zero, parts, density=density, generator=generator, **after)
    return nearest(merged["w"], rank) if rule != how else (merged["A"], merged["B"])


def lego(factors: Sequence[Factors], scalings: Sequence[float], rank: int | None, generator: torch.Generator) -> Factors:
    """Put together the centres of the units of one module's factors, each scaled by the root of its scaling."""
    parts = [{"w": (math.sqrt(scaling) * A, math.sqrt(scaling) * B)} for scaling, (A, B) in zip(scalings, factors)]
    return ri.lora_lego(parts, rank=rank, generator=generator)["w"]


def nearest(matrix: Tensor, rank: int, exact: int = EXACT) -> Factors:
    """Return the factors of the matrix of at most that rank that is nearest, both of the same norm.

    Exact up to `exact` rows or columns; beyond that nearly so, see `core.lora.randomized_svd`.
    """
    rank = min(rank, *matrix.shape)
    decompose = truncated_svd if min(matrix.shape) <= exact else randomized_svd
    U, S, Vh = decompose(matrix, rank)
    return S.sqrt()[:, None] * Vh, U * S.sqrt()


def each(work: Callable[[str], Any], names: Sequence[str], threads: int | None = None) -> list:
    """Work on names at once, with one thread of torch each: small matrices are done soonest so."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            return list(pool.map(work, names))
    finally:
        torch.set_num_threads(before)


def check(adapters: Sequence[Adapter], how: str, weights: Sequence[float] | None, rank: int | None, density: float) -> None:
    """Refuse what can't be combined before anything is computed."""
    if how not in WAYS:
        raise CheckpointError(f"how is {quoted(how)}; it is one of {', '.join(WAYS)}")
    if not adapters:
        raise CheckpointError("received no adapters; at least one is needed")
    if weights is not None and len(weights) != len(adapters):
        raise CheckpointError(f"received {len(weights)} weights for {len(adapters)} adapters; one each is needed")
    if not all(map(math.isfinite, weights or ())):
        raise CheckpointError(f"weights are {list(weights)}; finite numbers are needed")
    if how == "lego" and weights is not None and (len(set(weights)) > 1 or weights[0] <= 0):
        raise CheckpointError(f"weights are {list(weights)}; lego has none, all adapters count alike: leave them out")
    if rank is not None and not ((how.endswith("svd") or how == "lego") and rank >= 1):
        raise CheckpointError(f"rank is {rank} with {how}; only lego and the ways that end in svd take a rank, of 1 or more")
    if not 0 < density <= 1:
        raise CheckpointError(f"density is {density}; it is the fraction of entries kept, in (0, 1]")
    if density < 1 and how in ("cat", "svd", "linear", "lego"):
        raise CheckpointError(f"density is {density}, but {how} drops nothing; use magnitude_prune, ties or dare_linear")
    sizes: dict[str, tuple] = {}
    for adapter in adapters:
        for name, own in adapter.whole.items():  # PEFT saves embeddings whole, changed or not
            others = [other.checkpoint.tensor(other.whole[name]) for other in adapters if name in other.whole]
            if len(others) < len(adapters) or not all(torch.equal(adapter.checkpoint.tensor(own), other) for other in others):
                raise CheckpointError(f"{adapter.path}: holds {quoted(name)} whole, and not all others hold the same; merge it")
        for module, layer in adapter.layers.items():
            a, b = adapter.checkpoint[layer.A].shape, adapter.checkpoint[layer.B].shape
            size = (a[1:], b[:1], layer.embedding)
            if sizes.setdefault(module, size) != size:
                raise CheckpointError(f"{adapter.path}: {quoted(module)} has another shape than in {adapters[0].path}")
    if how == "lego" and rank is not None:
        for module in sizes:
            units = sum(adapter.checkpoint[adapter.layers[module].A].shape[0] for adapter in adapters if module in adapter.layers)
            if rank > units:
                raise CheckpointError(f"rank is {rank}, but lego has {units} units of {quoted(module)} to cluster")
    if len({bool(adapter.config.get("fan_in_fan_out")) for adapter in adapters}) > 1:
        raise CheckpointError("fan_in_fan_out differs among the adapters; they were trained on different models")


# --- writing ---------------------------------------------------------------------------------------------------------


def write_adapter(
    path: Path,
    factors: Mapping[str, Factors],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    embeddings: Sequence[str] = (),
    whole: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
    config: Mapping[str, Any] | None = None,
    force: bool = False,
) -> None:
    """Write an adapter's folder in PEFT's format; it appears under its name when it is complete.

    Args:
        path: the folder.
        factors: module -> A (r, n) and B (m, r), whose own scaling is 1.
        shapes: module -> shape of A without its first axis: (n,), or for a convolution the shape of a kernel.
        embeddings: the modules that are embeddings.
        whole: further tensors, by their names in the file.
        dtype: of the factors on disk.
        config: further settings of adapter_config.json.
        force: replace what is there.
    """
    ranks = {module: A.shape[0] for module, (A, _) in factors.items()}
    common = max(ranks.values(), key=list(ranks.values()).count)
    others = {module: rank for module, rank in ranks.items() if rank != common}
    settings = {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": None, "fan_in_fan_out": False, **(config or {}),
        "target_modules": sorted(factors), "r": common, "rank_pattern": others, "lora_alpha": common, "alpha_pattern": others,
        "use_rslora": False, "bias": "none", "lora_dropout": 0.0, "init_lora_weights": True, "inference_mode": True,
    }  # fmt: skip
    tensors: dict[str, Tensor] = {}
    for module, (A, B) in factors.items():
        B = B.reshape(*B.shape, *[1] * (len(shapes[module]) - 1))
        for letter, tensor in (("A", A.reshape(-1, *shapes[module])), ("B", B)):
            name = f"lora_embedding_{letter}" if module in embeddings else f"lora_{letter}.weight"
            tensors[f"base_model.model.{module}.{name}"] = tensor.to(dtype)
    tensors |= whole or {}
    structure = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with Output(path, structure, shard_size=2**63, stem="adapter_model", force=force) as out:  # PEFT reads one file
        for name, tensor in tensors.items():
            out.write(name, 0, tensor)
            out.finish(name)
        out.publish({CONFIG: json.dumps(settings, indent=2, ensure_ascii=False).encode() + b"\n"})


# --- command ---------------------------------------------------------------------------------------------------------


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("combine", help="combine LoRA adapters into one")
    parser.add_argument("adapters", nargs="+", type=Path, metavar="ADAPTER", help="folders in PEFT's format")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="OUT", help="the folder to write")
    parser.add_argument("--how", choices=WAYS, default="cat", metavar="WAY", help=f"{', '.join(WAYS)}; default cat, exact")
    parser.add_argument("--weights", nargs="+", type=float, metavar="W", help="one an adapter; default 1/n each; lego has none")
    parser.add_argument("--rank", type=int, metavar="R", help="of svd, *_svd and lego; default: the largest of the adapters")
    parser.add_argument("--density", type=float, default=1.0, metavar="K", help="fraction of entries kept; default 1: all")
    parser.add_argument("--seed", type=int, default=0, help="of the masks of dare and the centres of lego; default 0")
    parser.add_argument("--force", action="store_true", help="replace what is at OUT, once the new one is complete")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    parser.set_defaults(run=run)


def run(args: Any) -> int:
    adapters = [Adapter.open(path) for path in args.adapters]
    options = {"weights": args.weights, "rank": args.rank, "density": args.density, "seed": args.seed}
    factors = combine(adapters, args.how, **options)
    holder = {module: adapter for adapter in adapters for module in adapter.layers}
    first = adapters[0]
    shapes = {module: holder[module].checkpoint[holder[module].layers[module].A].shape[1:] for module in factors}
    write_adapter(
        args.out,
        factors,
        shapes,
        whole={own: first.checkpoint.tensor(own) for own in first.whole.values()},
        embeddings=[module for module in factors if holder[module].layers[module].embedding],
        dtype=first.checkpoint[next(iter(first.layers.values())).A].dtype,
        config={key: first.config.get(key) for key in ("base_model_name_or_path", "task_type", "fan_in_fan_out")},
        force=args.force,
    )
    if not args.quiet:
        bases = sorted({str(adapter.config.get("base_model_name_or_path")) for adapter in adapters})
        if len(bases) > 1:
            print(f"the adapters name different bases: {', '.join(map(quoted, bases))}")
        ranks = sorted({A.shape[0] for A, _ in factors.values()})
        print(f"{args.out}: {len(factors)} modules, rank {' to '.join(map(str, ranks[:1] + ranks[1:][-1:]))}")
    return 0
