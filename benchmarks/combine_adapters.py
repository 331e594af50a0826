"""How long it takes to combine LoRA adapters, beside PEFT: `python benchmarks/combine_adapters.py`.

Three adapters of rank 16 for 12 layers of 1024 x 1024 are combined by `reference_impls.checkpoints.combine`, which reads them
from disk, and by `add_weighted_adapter` of PEFT, which has them in memory; in turn, A B A B. The table gives medians of CPU and
wall time, and the largest difference of the resulting updates relative to the largest entry. Where PEFT isn't installed, it holds
our times only.

PEFT sorts small tensors with all of torch's threads, which wait for each other actively; `--threads 1` (with OMP_NUM_THREADS=1)
shows both without that, and the distance is then much smaller for all ways but those that end in svd.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from reference_impls.checkpoints.adapters import Adapter
from reference_impls.checkpoints.combine import combine, write_adapter

CASES = {  # way -> density
    "linear": 1.0, "cat": 1.0, "svd": 1.0, "magnitude_prune": 0.5, "ties": 0.5, "dare_linear": 0.5, "dare_ties": 0.5,
    "magnitude_prune_svd": 0.5, "ties_svd": 0.5,
}  # fmt: skip
RANDOM = ("dare_linear", "dare_ties")  # no two draws are alike


def factors(layers: int, width: int, rank: int, adapters: int) -> list[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator) / 32  # noqa: E731
    return [{str(i): (draw(rank, width), draw(width, rank)) for i in range(layers)} for _ in range(adapters)]


def theirs(made: list[dict], layers: int, width: int, rank: int):
    """Return a function that combines with PEFT and returns the update of each layer; None where PEFT is missing."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraModel
    except ImportError:
        return None
    model = torch.nn.Sequential(*(torch.nn.Linear(width, width, bias=False) for _ in range(layers)))
    names = [f"a{i}" for i in range(len(made))]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=[str(i) for i in range(layers)])
    peft = LoraModel(model, config, names[0])
    for name in names[1:]:
        peft.peft_config[name] = LoraConfig(r=rank, lora_alpha=rank, target_modules=[str(i) for i in range(layers)])
        inject_adapter_in_model(peft.peft_config[name], model, name)
    for name, adapter in zip(names, made):
        for layer, (A, B) in adapter.items():
            model[int(layer)].lora_A[name].weight.data.copy_(A)
            model[int(layer)].lora_B[name].weight.data.copy_(B)

    def run(how: str, density: float) -> Callable[[], dict]:
        weights = [1.0] * len(names)
        peft.add_weighted_adapter(names, weights, "merged", how, svd_rank=rank if "svd" in how else None, density=density)
        return lambda: {str(i): model[i].get_delta_weight("merged") for i in range(layers)}

    def forget() -> None:
        if "merged" in peft.peft_config:
            peft.delete_adapter("merged")

    return run, forget


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--adapters", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ways", nargs="+", default=list(CASES), choices=CASES)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    made = factors(args.layers, args.width, args.rank, args.adapters)
    other = theirs(made, args.layers, args.width, args.rank)
    version = importlib.metadata.version("peft") if other else "not installed"
    size = f"{args.layers} layers of {args.width} x {args.width}"
    print(f"{args.adapters} adapters of rank {args.rank}, {size}, {args.threads} threads")
    print(f"torch {torch.__version__}, PEFT {version}; medians of {args.runs} runs in turn, milliseconds\n")
    print(f"{'':20}{'ours':>18}{'PEFT':>18}{'ratio':>14}{'largest':>12}")
    print(f"{'way':20}{'CPU':>9}{'wall':>9}{'CPU':>9}{'wall':>9}{'CPU':>7}{'wall':>7}{'difference':>12}")
    with tempfile.TemporaryDirectory() as folder:
        adapters = []
        for i, adapter in enumerate(made):
            write_adapter(Path(folder) / str(i), adapter, {layer: (args.width,) for layer in adapter})
            adapters.append(Adapter.open(Path(folder) / str(i)))
        for how in args.ways:
            print(row(how, CASES[how], adapters, other, args))


def row(how: str, density: float, adapters: list[Adapter], other, args: argparse.Namespace) -> str:
    rank = args.rank if "svd" in how else None
    mine, yours, difference = [], [], float("nan")
    for _ in range(args.runs):
        with stopwatch(mine):
            found = combine(adapters, how, weights=[1.0] * len(adapters), rank=rank, density=density, threads=args.threads)
        if other:
            run, forget = other
            forget()
            with stopwatch(yours):
                result = run(how, density)
            pairs = [(found[layer][1] @ found[layer][0], delta) for layer, delta in result().items()]
            difference = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    cpu, wall = (statistics.median(times) * 1000 for times in zip(*mine))
    if not other:
        return f"{how:20}{cpu:9.1f}{wall:9.1f}{'-':>9}{'-':>9}{'-':>7}{'-':>7}{'-':>12}"
    their_cpu, their_wall = (statistics.median(times) * 1000 for times in zip(*yours))
    apart = "random" if how in RANDOM else f"{difference:.1e}"
    ratios = f"{their_cpu / cpu:7.1f}{their_wall / wall:7.1f}"
    return f"{how:20}{cpu:9.1f}{wall:9.1f}{their_cpu:9.1f}{their_wall:9.1f}{ratios}{apart:>12}"


class stopwatch:
    """Append CPU and wall seconds of a block to a list."""

    def __init__(self, times: list[tuple[float, float]]) -> None:
        self.times = times

    def __enter__(self) -> None:
        self.began = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.times.append((time.process_time() - self.began[0], time.perf_counter() - self.began[1]))


if __name__ == "__main__":
    main()
