r"""`python -m reference_impls extract BASE FINETUNED -o OUT --rank 16`: the difference of two models as a LoRA adapter.

For each matrix (and kernel, flattened) that differs, the nearest matrix of rank r to the difference is written as factors,

$$ B A \approx W - W_0, \qquad \min_{B, A}\, \lVert W - W_0 - B A \rVert_F, $$

in PEFT's format. The report says for each layer which part of the difference is lost,
$\lVert W - W_0 - BA\rVert / \lVert W - W_0\rVert$. What is no module's matrix (biases, norms) has no factors: where it differs,
the report names it, and the adapter leaves it as in the base.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reference_impls.checkpoints.adapters import open_model
from reference_impls.checkpoints.checks import cheap_check
from reference_impls.checkpoints.combine import Factors, each, nearest, write_adapter
from reference_impls.checkpoints.errors import CheckpointError
from reference_impls.checkpoints.files import Checkpoint

TRANSPOSED = ("gpt2", "openai-gpt", "imagegpt")  # model types whose linear layers keep their weights the other way round
EXACT = 256  # rows or columns up to which a difference is decomposed exactly; there are hundreds of them, and they are large
_EMBEDDING = re.compile(r"(^|\.)(?!embed_out)(\w*embed\w*|wte|wpe)\.weight$|^shared\.weight$")


@dataclass(frozen=True)
class Extracted:
    """The difference of two models.

    Attributes:
        factors: module -> A and B.
        errors: module -> part of the difference that is lost, in [0, 1].
        norms: module -> norm of the difference.
        left_out: tensors that differ but are no matrices -> norm of the difference.
    """

    factors: dict[str, Factors]
    errors: dict[str, float]
    norms: dict[str, float]
    left_out: dict[str, float]

    @property
    def error(self) -> float:
        """The part of the whole difference that is lost, with what was left out."""
        total = math.hypot(*self.norms.values(), *self.left_out.values())
        lost = math.hypot(*(self.errors[module] * self.norms[module] for module in self.norms), *self.left_out.values())
        return lost / total if total else 0.0


def extract(base: Checkpoint, finetuned: Checkpoint, rank: int = 16, threads: int | None = None) -> Extracted:
    """Return the difference of two models, layer by layer as factors of a rank.

    Args:
        base: theta_0.
        finetuned: theta.
        rank: r, at least 1; a smaller matrix gets its own smaller rank.
        threads: layers worked on at once. Default None: one a core.

    Raises:
        CheckpointError: two models that don't go together, or that don't differ.
    """
    if rank < 1:
        raise CheckpointError(f"rank is {rank}; at least 1 is needed")
    if reasons := cheap_check([base, finetuned]):
        raise CheckpointError(reasons[0])
    names = [name for name, entry in base.items() if entry.dtype.is_floating_point and name in finetuned and entry.numel]
    found = dict(zip(names, each(lambda name: _difference(base, finetuned, name, rank), names, threads)))
    matrices = {name.removesuffix(".weight"): part for name, part in found.items() if part.norm and part.factors}
    if not matrices:
        raise CheckpointError(f"{finetuned.path}: no matrix differs from {base.path}; there is nothing to extract")
    return Extracted(
        factors={module: part.factors for module, part in matrices.items()},
        errors={module: part.error for module, part in matrices.items()},
        norms={module: part.norm for module, part in matrices.items()},
        left_out={name: part.norm for name, part in found.items() if part.norm and not part.factors},
    )


@dataclass(frozen=True)
class _Part:
    norm: float
    factors: Factors | None = None
    error: float = 1.0


def _difference(base: Checkpoint, finetuned: Checkpoint, name: str, rank: int) -> _Part:
    before, after = base.tensor(name), finetuned.tensor(name)
    dtype = torch.promote_types(torch.promote_types(before.dtype, after.dtype), torch.float32)
    delta = after.to(dtype, copy=True).sub_(before)  # an embedding fills gigabytes: no copy too many
    norm = float(torch.linalg.vector_norm(delta, dtype=torch.float64))
    if norm == 0 or delta.ndim < 2 or not name.endswith(".weight"):
        return _Part(norm)
    matrix = delta.flatten(1)
    A, B = nearest(matrix, rank, EXACT)
    rows = zip(matrix.split(1024), B.split(1024))
    lost = math.hypot(*(float(torch.linalg.vector_norm(part - b @ A, dtype=torch.float64)) for part, b in rows))
    transposed = _EMBEDDING.search(name) or (base.config or {}).get("model_type") in TRANSPOSED
    if transposed and delta.ndim == 2:  # PEFT then adds (B A)^T
        A, B = B.T, A.T
    return _Part(norm, (A, B), lost / norm)


# --- command ---------------------------------------------------------------------------------------------------------


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("extract", help="write the low-rank difference of two models as a LoRA adapter")
    parser.add_argument("base", metavar="BASE", help="a folder or a .safetensors file")
    parser.add_argument("finetuned", metavar="FINETUNED", help="a model fine-tuned from it")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="OUT", help="the folder to write")
    parser.add_argument("--rank", type=int, default=16, metavar="R", help="of each matrix; default 16")
    parser.add_argument("--force", action="store_true", help="replace what is at OUT, once the new one is complete")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    parser.set_defaults(run=run)


def run(args: Any) -> int:
    base, finetuned = open_model(args.base), open_model(args.finetuned)
    found = extract(base, finetuned, args.rank)
    write(args.out, found, base, finetuned, force=args.force)
    if not args.quiet:
        print("\n".join(report(found, args.out)))
    return 0


def write(path: Path, found: Extracted, base: Checkpoint, finetuned: Checkpoint, *, force: bool = False) -> None:
    """Write what was extracted as an adapter's folder, in the fine-tuned model's dtype."""
    transposed = (base.config or {}).get("model_type") in TRANSPOSED
    kernels = {module: base[f"{module}.weight"].shape[1:] for module in found.factors}
    shapes = {m: kernel if len(kernel) > 1 else (found.factors[m][0].shape[1],) for m, kernel in kernels.items()}
    write_adapter(
        path,
        found.factors,
        shapes,
        embeddings=[module for module in found.factors if _EMBEDDING.search(f"{module}.weight")],
        dtype=finetuned[f"{next(iter(found.factors))}.weight"].dtype,
        config={"base_model_name_or_path": str(base.path), "fan_in_fan_out": transposed},
        force=force,
    )


def report(found: Extracted, path: Path) -> Sequence[str]:
    """Return the lines that say what was extracted and what was lost."""
    lines = [f"{'module':48}{'rank':>6}{'|difference|':>14}{'lost':>8}"]
    for module, (A, _) in found.factors.items():
        lines.append(f"{module[-47:]:48}{A.shape[0]:6}{found.norms[module]:14.4g}{found.errors[module]:8.2%}")
    for name, norm in found.left_out.items():
        lines.append(f"{name[-47:]:48}{'-':>6}{norm:14.4g}{1:8.2%}")
    lines.append(f"{path}: {len(found.factors)} modules; {found.error:.2%} of the whole difference is lost")
    return lines
