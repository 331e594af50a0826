"""Merge synthetic checkpoints with this project and with mergekit, whole processes in turn, and print one table.

    python benchmarks/merge_checkpoints.py --size 200MB --mergekit PATH/TO/mergekit-yaml
    python benchmarks/merge_checkpoints.py --size 1GB --methods linear ties --runs 3
    python benchmarks/merge_checkpoints.py --size 4GB --methods linear ties         # ours alone: memory and time by size

Both programs read the same configuration file and run on their defaults (one process or thread a core), the import of torch included;
ours with `--variant mergekit`. The floor reads all inputs and copies one, with a plain loop of system calls; the naive loop
holds whole models in memory. CPU seconds are steadier than wall seconds on a machine that others use, and ratios taken in turn
steadier than either.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
UNITS = {"MB": 10**6, "GB": 10**9}

# method of mergekit -> (parameters of the merge, parameters of each model, models read beside the base, whether it has a base)
PARAMETERS = {
    "passthrough": ({}, {}, 1, False),
    "linear": ({}, {"weight": 0.33}, 3, False),
    "task_arithmetic": ({}, {"weight": 0.33}, 3, True),
    "slerp": ({"t": 0.4}, {}, 1, True),
    "nuslerp": ({}, {"weight": 0.33}, 2, True),
    "multislerp": ({}, {"weight": 0.33}, 3, False),
    "karcher": ({}, {}, 3, False),
    "model_stock": ({}, {}, 3, True),
    "nearswap": ({"t": 0.001}, {}, 1, True),
    "ties": ({}, {"weight": 0.33, "density": 0.5}, 3, True),
    "dare_linear": ({}, {"weight": 0.33, "density": 0.5}, 3, True),
    "dare_ties": ({}, {"weight": 0.33, "density": 0.5}, 3, True),
    "breadcrumbs": ({}, {"weight": 0.33, "density": 0.5, "gamma": 0.01}, 3, True),
    "breadcrumbs_ties": ({}, {"weight": 0.33, "density": 0.5, "gamma": 0.01}, 3, True),
    "della": ({}, {"weight": 0.33, "density": 0.5, "epsilon": 0.1}, 3, True),
    "della_linear": ({}, {"weight": 0.33, "density": 0.5, "epsilon": 0.1}, 3, True),
    "sce": ({"select_topk": 0.5}, {}, 3, True),
    "ram": ({}, {}, 3, True),
    "ramplus_tl": ({}, {}, 3, True),
    "arcee_fusion": ({}, {}, 1, True),
}

REFERENCES = ("floor", "naive-linear", "naive-ties")


@dataclass(frozen=True)
class Measured:
    wall: float  # s
    cpu: float  # s, of the process and its children
    memory: float  # MB, the most that all its processes held together


# --- checkpoints --------------------------------------------------------------------------------------------------


def write_models(folder: Path, size: int, shard_size: int = 500 * 10**6) -> None:
    """Write a Llama-like base and three fine-tunes in bfloat16, of about `size` bytes each; what is there is left."""
    import torch
    from safetensors.torch import save_file

    hidden, vocab = (512, 8192) if size < 300 * 10**6 else (1024, 32_000) if size < 3 * 10**9 else (2048, 32_000)
    inner, shared = hidden * 11 // 4, hidden // 2
    layer = {"self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (shared, hidden), "self_attn.v_proj": (shared, hidden),
             "self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
             "mlp.down_proj": (hidden, inner), "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,)}  # fmt: skip
    ends = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}
    layers = round((size / 2 - 2 * vocab * hidden) / sum(map(math.prod, layer.values())))
    shapes = ends | {f"model.layers.{i}.{name}.weight": shape for i in range(layers) for name, shape in layer.items()}
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": inner,
              "num_hidden_layers": layers, "num_attention_heads": hidden // 32, "num_key_value_heads": hidden // 64,
              "vocab_size": vocab, "torch_dtype": "bfloat16", "rms_norm_eps": 1e-5, "hidden_act": "silu",
              "tie_word_embeddings": False}  # fmt: skip
    for number in range(4):
        model = folder / ("base" if number == 0 else f"ft{number}")
        if model.exists():
            continue
        partial = model.with_suffix(".partial")
        partial.mkdir(parents=True)
        shard, held, files, index = {}, 0, 0, {}
        for i, (name, shape) in enumerate(shapes.items()):
            draw = lambda seed: torch.randn(shape, generator=torch.Generator().manual_seed(seed))  # noqa: B023, E731
            tensor = 0.02 * draw(i)
            if number:
                tensor += 0.001 * draw(i + number * 10**6) * (0.5 * draw(i + number * 10**7)).exp()  # a heavy-tailed update
            shard[name] = tensor.bfloat16()
            held += 2 * tensor.numel()
            if held >= shard_size or i == len(shapes) - 1:
                files += 1
                save_file(shard, partial / f"model-{files:05}.safetensors", metadata={"format": "pt"})
                index |= dict.fromkeys(shard, f"model-{files:05}.safetensors")
                shard, held = {}, 0
        (partial / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
        (partial / "config.json").write_text(json.dumps(config))
        partial.rename(model)


def write_config(folder: Path, method: str) -> Path:
    """Write the configuration of a merge for both programs."""
    merge, model, models, has_base = PARAMETERS[method]
    lines = [f"merge_method: {method}", "dtype: bfloat16", "models:"]
    if has_base:
        lines += [f"  - model: {folder / 'base'}"]
    for number in range(1, models + 1):
        lines += [f"  - model: {folder / f'ft{number}'}"] + (["    parameters:"] if model else [])
        lines += [f"      {key}: {value}" for key, value in model.items()]
    lines += [f"base_model: {folder / 'base'}"] if has_base else []
    lines += ["parameters:", *(f"  {key}: {value}" for key, value in merge.items())] if merge else []
    file = folder / f"{method}.yml"
    file.write_text("\n".join(lines) + "\n")
    return file


# --- what is measured ---------------------------------------------------------------------------------------------


def measure(command: Sequence[str], log: Path) -> Measured:
    """Run a program to its end, with the number of threads or workers that it takes by default."""
    env = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | {"PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    most = 0
    with open(log, "wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, cwd=ROOT, env=env)
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            most = max(most, held(process.pid))
            time.sleep(0.25)
    _, status, usage = ended
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text(errors='replace')[-2000:]}")
    return Measured(time.monotonic() - began, usage.ru_utime + usage.ru_stime, max(most, usage.ru_maxrss) / 1024)


def held(process: int) -> int:
    """Return the kB that a process and those that it forked hold; what they share counts once. 0 where the system doesn't say."""
    try:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        children = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return 0
    share = next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return share + sum(held(int(child)) for child in children.split())


def floor(folder: Path, out: Path) -> None:
    """Read three models and copy one of them: what any merge of three has to do."""
    buffer = bytearray(2**17)
    shutil.copytree(folder / "ft1", out)
    for number in (1, 2, 3):
        for file in sorted((folder / f"ft{number}").glob("*.safetensors")):
            with open(file, "rb", buffering=0) as source:
                while source.readinto(buffer):
                    pass


def naive(folder: Path, out: Path, method: str) -> None:
    """Merge three models as one would at first: all in memory, in float32."""
    import torch
    from safetensors.torch import load_file, save_file

    def load(name: str) -> dict:
        return {key: tensor for file in sorted((folder / name).glob("*.safetensors")) for key, tensor in load_file(file).items()}

    models, merged = [load(f"ft{number}") for number in (1, 2, 3)], {}
    base = load("base") if method == "ties" else {}
    for key, tensor in models[0].items():
        stack = torch.stack([model[key].float() for model in models])
        if method == "linear":
            merged[key] = stack.mean(dim=0).to(tensor.dtype)
            continue
        taus = stack - base[key].float()
        rows = taus.reshape(3, -1)
        threshold = rows.abs().sort(dim=1).values[:, rows.shape[1] // 2, None]
        rows = torch.where(rows.abs() >= threshold, rows, 0)
        agree = rows * (rows.sign() == rows.sum(dim=0).sign())
        mean = agree.sum(dim=0) / agree.ne(0).sum(dim=0).clamp(min=1)
        merged[key] = (base[key].float() + mean.reshape(tensor.shape)).to(tensor.dtype)
    out.mkdir()
    save_file(merged, out / "model.safetensors")


def compare(folder: Path, method: str, mergekit: str | None, runs: int, workers: int) -> tuple[list[Measured], list[Measured]]:
    """Measure ours and mergekit's."""
    config, out = str(write_config(folder, method)), str(folder / "out")
    ours = [sys.executable, "-m", "reference_impls", "merge", config, out, "--variant", "mergekit", "--quiet"]
    ours += ["--workers", str(workers)]
    results = in_turn(folder, [ours, [mergekit, config, out, "--quiet"]] if mergekit else [ours], runs)
    return results[0], results[1] if mergekit else []


def in_turn(folder: Path, commands: Sequence[Sequence[str]], runs: int) -> list[list[Measured]]:
    """Run every program, then every program again, and so on."""
    results: list[list[Measured]] = [[] for _ in commands]
    for _ in range(runs):
        for command, measured in zip(commands, results):
            shutil.rmtree(folder / "out", ignore_errors=True)
            measured.append(measure(command, folder / "log.txt"))
            shutil.rmtree(folder / "out")
    return results


def middle(results: Sequence[Measured]) -> Measured:
    return Measured(*(statistics.median(getattr(r, name) for r in results) for name in ("wall", "cpu", "memory")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="200MB", help="of each model; default 200MB")
    rows = [*REFERENCES, *PARAMETERS]
    parser.add_argument("--methods", nargs="*", choices=rows, default=rows, help="default: all")
    parser.add_argument("--runs", type=int, default=1, help="of each program and method, in turn; medians are shown")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--mergekit", help="path of the program mergekit-yaml, version 0.1.5")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "atlas-benchmark", help="keeps the models")
    parser.add_argument("--alone", choices=["models", *REFERENCES], help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder, size = args.work / args.size, int(float(args.size[:-2]) * UNITS[args.size[-2:].upper()])
    if args.alone == "models":
        return write_models(folder, size)
    if args.alone:
        return floor(folder, folder / "out") if args.alone == "floor" else naive(folder, folder / "out", args.alone[6:])
    myself = [sys.executable, __file__, "--size", args.size, "--work", str(args.work), "--alone"]
    subprocess.run([*myself, "models"], check=True)  # a process of its own: the memory of this one counts for those it starts

    version = importlib.metadata.version
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {version('torch')}"
    print(f"{args.size} of bfloat16 a model, a base and three fine-tunes; {args.runs} runs each")
    print(f"{machine}; load {os.getloadavg()[0]:.1f}")
    if args.mergekit is None:
        print("mergekit isn't measured: install mergekit==0.1.5 in an environment of its own, and pass --mergekit mergekit-yaml")
    print("\n| | wall s | CPU s | MB | mergekit wall s | CPU s | MB | wall ratio | CPU ratio |\n| --- |" + " ---: |" * 8)
    for method in args.methods:
        if method in REFERENCES:
            ours, theirs = in_turn(folder, [[*myself, method]], args.runs)[0], []
        else:
            ours, theirs = compare(folder, method, args.mergekit, args.runs, args.workers)
        mine = middle(ours)
        line = f"| {method} | {mine.wall:.1f} | {mine.cpu:.1f} | {mine.memory:.0f} |"
        if theirs:
            other = middle(theirs)
            line += f" {other.wall:.1f} | {other.cpu:.1f} | {other.memory:.0f} |"
            line += f" {other.wall / mine.wall:.1f} | {other.cpu / mine.cpu:.1f} |"
        else:
            line += " | | | | |"
        print(line, flush=True)


if __name__ == "__main__":
    main()
