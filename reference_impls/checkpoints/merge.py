"""`python -m reference_impls merge CONFIG OUT`, or `merge METHOD --base B --models A C -o OUT`: many models on disk into one."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from reference_impls.checkpoints import cluster, storage
from reference_impls.checkpoints.card import card, fingerprint, versions
from reference_impls.checkpoints.errors import CheckpointError
from reference_impls.checkpoints.expand import DEPTH, depths
from reference_impls.checkpoints.files import Checkpoint, read_bytes
from reference_impls.checkpoints.remote import is_remote
from reference_impls.checkpoints.request import Request, add_arguments, output, understand
from reference_impls.checkpoints.streaming import run as carry_out
from reference_impls.checkpoints.writing import Output, Shard, layout

BESIDE = (  # what stands beside the weights and goes with them
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json",
    "generation_config.json", "preprocessor_config.json", "processor_config.json", "LICENSE", "LICENSE.txt", "NOTICE",
)  # fmt: skip
MAX_BESIDE = 128_000_000  # bytes
EVERY = 5.0  # seconds between two lines of progress


def add_parser(commands: Any, argv: Sequence[str] = ()) -> None:
    parser = commands.add_parser("merge", help="merge checkpoints, as a configuration says or by one method")
    add_arguments(parser, argv)
    parser.add_argument("--force", action="store_true", help="replace what is at OUT, once the new one is complete")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--hash-inputs", action="store_true", help="hash whole files for the card; reads them once more")
    parser.add_argument("--dask", metavar="ADDRESS", help="spread the work over a Dask cluster, such as tcp://host:8786")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    path = output(args)
    request = understand(args)
    if args.device != "cpu":
        check_device(args.device)
    if not is_remote(path):
        check_apart(Path(path), request.recipe.checkpoints)
    prints = {file: fingerprint(file, whole=args.hash_inputs) for model in request.recipe.checkpoints for file in model.files}
    began = time.monotonic()
    shards = (to_storage if is_remote(path) else to_folder)(path, args, request, prints)
    if not args.quiet:
        count = f"{len(shards)} file{'s' * (len(shards) > 1)}"
        size = sum(shard.size for shard in shards)
        print(f"{path}: {len(request.tensors)} tensors, {size / 1e9:.2f} GB in {count}, {time.monotonic() - began:.1f} s")
    return 0


def to_folder(path: str, args: argparse.Namespace, request: Request, prints: dict[Path, str]) -> Sequence[Shard]:
    """Merge into a folder; return the files of the output."""
    options = {"shard_size": args.shard_size, "force": args.force, "resume": args.resume}
    tensors = request.tensors
    with Output(Path(path), tensors, identity=identity(request, prints), **options) as out:
        tasks = [task for task in request.recipe.tasks if task.name not in out.done]
        with progress(sum(request.recipe.like(task).numel for task in tasks), args.quiet) as show:
            if args.dask is not None:
                cluster.run(args.dask, request.recipe, request.models, out, tasks=tasks, device=args.device, progress=show)
            else:
                carry_out(request.recipe, out, tasks=tasks, workers=args.workers, device=args.device, progress=show)
        for name, owner in request.recipe.ties.items():
            if name in tensors and name not in out.done:
                out.copy(owner, name)
        out.publish(files_beside(request, out.path.name, prints, args.hash_inputs))
        return out.shards


def to_storage(path: str, args: argparse.Namespace, request: Request, prints: dict[Path, str]) -> Sequence[Shard]:
    """Merge into a storage that is no folder; return the files of the output."""
    shards = layout(request.tensors, args.shard_size)
    destination = storage.Destination(path, shards, identity(request, prints), args.force, args.resume)
    names = {name for shard in destination.left for name in shard.starts}
    left = sum(request.recipe.like(task).numel for task in request.recipe.tasks if task.name in names)
    with progress(left, args.quiet) as show:
        storage.produce(request, destination, workers=args.workers, device=args.device, dask=args.dask, progress=show)
    destination.publish(files_beside(request, path.rstrip("/").rpartition("/")[2], prints, args.hash_inputs), request.tensors)
    return shards


def check_apart(path: Path, checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse an output that is, holds or lies in one of the inputs."""
    out = path.resolve()
    for checkpoint in checkpoints:
        for place in (checkpoint.path.resolve(), *(file.resolve() for file in checkpoint.files)):
            if out == place or out in place.parents or place in out.parents:
                raise CheckpointError(f"{path}: overlaps with the input {checkpoint.path}; the output needs a place of its own")


def check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise CheckpointError(f"--device {device}: {str(error).splitlines()[0]}") from None


def identity(request: Request, prints: dict[Path, str]) -> str:
    """Return what stands for everything that the output's bytes depend on."""
    said = [
        *versions().values(),
        request.recipe.seed,
        *prints.values(),
        *([*map(str, dataclasses.astuple(task))] for task in request.recipe.tasks),
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def files_beside(request: Request, name: str, prints: dict[Path, str], whole: bool) -> dict[str, bytes]:
    """Return the model card, config.json, and the files that the lead has beside its weights."""
    readme = {"README.md": card(request, name, prints, whole).encode()}
    if not request.lead.path.is_dir():
        return readme
    files = {name: read_bytes(request.lead.path / name, MAX_BESIDE) for name in BESIDE if (request.lead.path / name).exists()}
    if request.lead.config is not None:
        files["config.json"] = json.dumps(config_of(request), indent=2, ensure_ascii=False).encode() + b"\n"
    return files | readme


def config_of(request: Request) -> dict[str, Any]:
    """Return the lead's config.json with the output's dtype and number of layers."""
    config = dict(request.lead.config)
    if request.dtype is not None:
        config |= {key: request.dtype for key in ("torch_dtype", "dtype") if key in config}
    if request.config is None or request.config.slices[0].inputs[0].layers is None:
        return config
    before = max(depths(list(request.lead)).values())
    after = sum(part.length for part in request.config.slices)
    for holder in (config, config.get("text_config")):
        if isinstance(holder, dict):
            holder |= {key: after for key in DEPTH if holder.get(key) == before}
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == before:
        config["layer_types"] = [kinds[i] for part in request.config.slices for i in range(*part.inputs[0].layers)]
    return config


@contextmanager
def progress(total: int, quiet: bool) -> Any:
    """Yield a function that is told how many entries are done, or None; it draws a bar with tqdm, or else lines now and then."""
    if quiet or total == 0:
        yield None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield _lines(total)
        return
    with tqdm(total=total, unit="", unit_scale=True, desc="merging", mininterval=0.2) as bar:
        yield bar.update


def _lines(total: int) -> Callable[[int], None]:
    began = shown = time.monotonic()
    done = 0

    def show(entries: int) -> None:
        nonlocal done, shown
        done += entries
        now = time.monotonic()
        if now - shown >= EVERY:
            shown = now
            rate = done / (now - began)
            print(f"{done / total:.0%}, {rate / 1e6:.0f} M entries/s, {(total - done) / rate:.0f} s left", file=sys.stderr)

    return show
