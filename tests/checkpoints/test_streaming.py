"""A model merged in memory and the same model merged from disk give the same bits, for every method and number of workers."""

from __future__ import annotations

import inspect
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import reference_impls as ri
from reference_impls.checkpoints import streaming
from reference_impls.checkpoints.errors import CheckpointError
from reference_impls.checkpoints.files import Checkpoint
from reference_impls.checkpoints.methods import METHODS, function
from reference_impls.checkpoints.recipe import Recipe, Source, Task
from reference_impls.checkpoints.streaming import jobs, run
from reference_impls.core import blocks, selection
from reference_impls.core.paths import interpolate
from reference_impls.core.permutation import PermutationSpec, apply_permutation

SHAPES = {
    "embed.weight": ((30, 12), torch.bfloat16),
    "blocks.0.w": ((40, 16), torch.bfloat16),
    "blocks.0.bias": ((150,), torch.float32),
    "blocks.1.w": ((16, 24), torch.float16),
    "blocks.1.conv": ((4, 3, 5, 5), torch.float32),
    "blocks.1.scale": ((), torch.float32),
    "nothing": ((0, 4), torch.float32),
    "head.weight": ((3, 200), torch.float32),
}
TIED = {"tied.weight": "embed.weight"}
PATTERNS = {
    "axes": {
        "*.weight": [None, "width.*"],
        "blocks.0.w": ["rows", "inner"],
        "blocks.1.w": ["inner", None],
        "blocks.*.bias": ["bias.*"],
        "blocks.1.conv": ["filters", None, None, None],
    },
    "units": {"bias.*": 50},
    "blocks": [{"permutations": ["rows", "filters"], "count": 4}],
    "buffers": ["blocks.1.w"],
}
SPEC = PermutationSpec(
    {name: (None,) * len(shape) for name, (shape, _) in SHAPES.items()}
    | {"embed.weight": (None, "width.embed"), "head.weight": (None, "width.head"), "tied.weight": (None, "width.embed")}
    | {"blocks.0.w": ("rows", "inner"), "blocks.1.w": ("inner", None), "blocks.0.bias": ("bias.0",)}
    | {"blocks.1.conv": ("filters", None, None, None), "steps": (), "flags": (None,)},
    {"width.embed": 12, "rows": 40, "inner": 16, "bias.0": 50, "filters": 4, "width.head": 200},
    repeats={("blocks.0.bias", 0): 3},
    buffers=frozenset({"blocks.1.w"}),
    blocks={("rows", "filters"): 4},
)


class Collected:
    """An output in a folder of its own, as it is written from several processes."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.finished: list[str] = []

    def write(self, name: str, start: int, block: Tensor) -> None:
        torch.save(block.clone(), Path(self.folder.name) / f"{name} {start}")

    def finish(self, name: str) -> None:
        self.finished.append(name)

    def parts(self, name: str) -> list[Path]:
        return sorted(Path(self.folder.name).glob(f"{name} *"), key=lambda file: int(file.name.split()[1]))

    def tensor(self, name: str) -> Tensor:
        return torch.cat([torch.load(part) for part in self.parts(name)])


def model(seed: int, start: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for name, (shape, dtype) in SHAPES.items():
        noise = torch.randn(shape, generator=generator)
        noise = noise if start is None else 0.1 * noise * (noise.abs() > 0.4)  # many entries stay as they are
        out[name] = (noise if start is None else start[name].float() + noise).to(dtype)
    out |= {"steps": torch.tensor(seed), "flags": torch.tensor([seed > 0, True])}
    return out


def tied(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state_dict, **{name: state_dict[owner] for name, owner in TIED.items()}}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Tensor]], tuple[Checkpoint, ...]]:
    """A base and three fine-tunes, in memory with tied weights and on disk in two shards."""
    folder = tmp_path_factory.mktemp("models")
    base = model(0)
    held = [base, *(model(seed, base) for seed in (1, 2, 3))]
    return [tied(each) for each in held], tuple(stored(each, folder / str(number)) for number, each in enumerate(held))


def stored(state_dict: dict[str, Tensor], folder: Path) -> Checkpoint:
    folder.mkdir()
    names = list(state_dict)
    index = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: state_dict[name].contiguous() for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return Checkpoint.open(folder)


def recipe(checkpoints: tuple[Checkpoint, ...], method: str, options: dict[str, Any]) -> Recipe:
    names = inspect.signature(function(method)).parameters
    based = names.get("base") is not None and names["base"].default is inspect.Parameter.empty
    chosen = (1, 2) if "model_a" in names else (1, 2, 3)
    tasks = [
        Task(name, method, Source(0, name) if based else None, tuple(Source(n, name) for n in chosen), options, entry.dtype)
        for name, entry in checkpoints[0].items()
    ]
    return Recipe(checkpoints, tuple(tasks), TIED, seed=7)


def in_memory(models: list[dict[str, Tensor]], method: str, options: dict[str, Any]) -> dict[str, Tensor]:
    names, options = inspect.signature(function(method)).parameters, dict(options)
    task = options.pop("task", None)
    inputs: dict[str, Any] = {"base": models[0]} if "base" in names and names["base"].default is inspect.Parameter.empty else {}
    if "model_a" in names:
        inputs |= {"model_a": models[1], "model_b": models[2]}
    else:
        inputs["finetuned" if "finetuned" in names else "models"] = models[1:]
    if "generator" in names:
        inputs["generator"] = torch.Generator().manual_seed(7)
    if "spec" in options:
        options["spec"] = SPEC
    t = options.pop("t", 0.5) if "spec" in options else None
    merged = function(method)(**inputs, **options)
    if "spec" in options and "model_a" in names:
        return interpolate(models[1], apply_permutation(SPEC, merged, models[2]), t)
    return merged if task is None else merged.model(task)


def on_disk(checkpoints: tuple[Checkpoint, ...], method: str, options: dict[str, Any], workers: int) -> Collected:
    output = Collected()
    run(recipe(checkpoints, method, options), output, workers=workers)
    return output


WEIGHTS = {"weights": [0.5, 0.3, 0.7]}
TENSOR = {"trim": "tensor", "zero_sum": "plus"}
CASES: dict[str, list[dict[str, Any]]] = {
    "c2m3": [{"spec": PATTERNS}],
    "frank_wolfe_matching": [{"spec": PATTERNS}, {"spec": PATTERNS, "start": "random", "t": 0.25}],
    "gamf": [{"spec": PATTERNS}],
    "weight_matching": [{"spec": PATTERNS}, {"spec": PATTERNS, "t": 1.0}],
    "block_merge": [{}, {"along": "arc", "ratios": (0.1, 0.8)}],
    "geometric_median": [{}, {"scope": "tensor"}],
    "karcher_mean": [WEIGHTS, {"scope": "model"}],
    "model_stock": [{}, {"scope": "row"}, {"scope": "model", "mean_of": "cosines"}],
    "multislerp": [WEIGHTS],
    "nearswap": [{"t": 0.05}],
    "nuslerp": [{"weights": (1, 3)}, {"scope": "row"}, {"scope": "model"}],
    "slerp": [{"t": 0.3}, {"scope": "row"}, {"scope": "column"}, {"scope": "model"}, {"length": "interpolated"}],
    "uniform_soup": [{}, WEIGHTS | {"normalize": False}],
    "arcee_fusion": [{}, {"whiskers": 0.5}],
    "breadcrumbs": [{}, {"scope": "row"}, {"merge": "ties", **WEIGHTS},
                    {"merge": "ties", "zero_sum": "plus", "density": [0.2, 0.3, 0.5]}],  # fmt: skip
    "consensus_merging": [{}, {"merge": "ties"}],
    "dare": [{"density": 0.5, **WEIGHTS}, {"merge": "ties"}, {"merge": "ties", "ties_density": 1.0, "zero_sum": "plus"},
             {"rescale": "mass", "density": [0.2, 0.5, 0.9]}, {"merge": "average", "rescale": "none"}],  # fmt: skip
    "della": [{}, {"zero_sum": "plus", "rescale": "mass", **WEIGHTS}, {"merge": "sum", "density": [0.5, 0.6, 1.0]}],
    "emr_merging": [{"task": 0}, {"task": 2, "rescale": "tensor"}],
    "iso_c": [{"scaling_coef": 0.5}],
    "iso_cts": [{"common_fraction": 0.5}],
    "ram_plus": [{}, {"scope": "tensor", "eps": 0.01}],
    "sce": [{}, {"density": 0.3}],
    "tall_masks": [{"task": 1}, {"task": 0, "merge": "ties"}],
    "task_arithmetic": [{"scaling_coef": 0.3, **WEIGHTS}],
    "ties_merging": [{}, TENSOR, {"trim": "tensor"}, TENSOR | WEIGHTS | {"elect": "count"}, {"aggregate": "max"},
                     {"density": 1.0}, {"aggregate": "sum", "density": [0.2, 0.5, 1.0]}],  # fmt: skip
}  # fmt: skip


@pytest.mark.parametrize(("block", "workers", "keep"), [(64, 1, streaming.KEEP), (96, 3, 0)])
@pytest.mark.parametrize(
    ("method", "options"),
    [pytest.param(m, o, id=f"{m}-{i}") for m in METHODS if m != "passthrough" for i, o in enumerate(CASES.get(m, [{}]))],
)
def test_merged_from_disk_and_in_memory_the_bits_are_the_same(
    models: Any, monkeypatch: pytest.MonkeyPatch, method: str, options: dict[str, Any], block: int, workers: int, keep: int
) -> None:
    held, checkpoints = models
    monkeypatch.setattr(blocks, "BLOCK", block)
    monkeypatch.setattr(selection, "SMALL", block)
    monkeypatch.setattr(streaming, "KEEP", keep)
    expected = in_memory(held, method, options)
    got = on_disk(checkpoints, method, options, workers)
    assert sorted(got.finished) == sorted(checkpoints[0])
    for name in checkpoints[0]:
        tensor = got.tensor(name)
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name].reshape(-1)), name


def test_blocks_of_any_size_give_the_entries_of_an_entrywise_method(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held, checkpoints = models
    expected = ri.task_arithmetic(held[0], held[1:])  # in blocks of the usual size: each tensor is one
    monkeypatch.setattr(blocks, "BLOCK", 7)
    got = on_disk(checkpoints, "task_arithmetic", {}, workers=2)
    assert len(got.parts("blocks.0.bias")) > 20
    assert all(torch.equal(got.tensor(name), expected[name].reshape(-1)) for name in checkpoints[0])


def test_another_seed_draws_other_masks(models: Any) -> None:
    _, checkpoints = models
    outputs = []
    for seed in (1, 1, 2):
        chosen = recipe(checkpoints, "dare", {"density": 0.5})
        run(Recipe(chosen.checkpoints, chosen.tasks, chosen.ties, seed), collected := Collected())
        outputs.append(collected.tensor("head.weight"))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_integers_come_from_the_base(models: Any) -> None:
    held, checkpoints = models
    got = on_disk(checkpoints, "ties_merging", {}, workers=1)
    assert got.tensor("steps").tolist() == [0]
    assert got.tensor("flags").tolist() == [False, True]


def test_a_block_is_copied_as_passthrough_does(models: Any) -> None:
    held, checkpoints = models
    scale = {"": 0.3}
    expected = ri.passthrough([{f"blocks.0.{name}": tensor for name, tensor in held[1].items()}], [(0, 0, 1, scale)])
    floats = {name: entry.dtype for name, entry in checkpoints[0].items() if entry.dtype.is_floating_point}
    tasks = [Task(name, "passthrough", None, (Source(1, name),), {"scale": 0.3}, dtype) for name, dtype in floats.items()]
    tasks.append(Task("copy", "passthrough", None, (Source(2, "embed.weight"),), {}, torch.bfloat16))
    run(Recipe(checkpoints, tuple(tasks)), got := Collected())
    assert torch.equal(got.tensor("copy"), held[2]["embed.weight"].reshape(-1))
    assert all(torch.equal(got.tensor(task.name), expected[f"blocks.0.{task.name}"].reshape(-1)) for task in tasks[:-1])


def test_the_output_may_have_another_dtype(models: Any) -> None:
    held, checkpoints = models
    tasks = [Task("w", "uniform_soup", None, tuple(Source(n, "blocks.0.w") for n in (0, 1)), {}, torch.float32)]
    run(Recipe(checkpoints, tuple(tasks)), got := Collected())
    exact = (held[0]["blocks.0.w"].float() + held[1]["blocks.0.w"].float()) / 2
    assert torch.equal(got.tensor("w"), exact.reshape(-1))  # not rounded to bfloat16 on the way


def test_options_may_differ_from_tensor_to_tensor_but_not_where_one_number_is_of_the_whole_model(models: Any) -> None:
    held, checkpoints = models
    different = [{"density": 0.2}, {"density": 0.9}]
    tasks = [Task(name, "ties_merging", Source(0, name), (Source(1, name), Source(2, name)), options, torch.float32)
             for name, options in zip(("blocks.0.bias", "head.weight"), different)]  # fmt: skip
    with pytest.raises(CheckpointError, match="looks at the whole model.*'head.weight' has other ones than 'blocks.0.bias'"):
        jobs(Recipe(checkpoints, tuple(tasks)))
    local = [Task(t.name, t.method, t.base, t.models, t.options | TENSOR, t.dtype) for t in tasks]
    run(Recipe(checkpoints, tuple(local)), got := Collected())
    for task in local:
        alone = [{task.name: model[task.name]} for model in held[:3]]
        expected = ri.ties_merging(alone[0], alone[1:], **task.options)[task.name]
        assert torch.equal(got.tensor(task.name), expected.reshape(-1))


def test_the_global_trim_ranks_the_tensors_against_each_other(models: Any) -> None:
    held, checkpoints = models
    by_model = on_disk(checkpoints, "ties_merging", {"density": 0.1}, workers=2)
    by_tensor = on_disk(checkpoints, "ties_merging", {"density": 0.1} | TENSOR, workers=2)
    moved = {name: int((by_model.tensor(name) != held[0][name].reshape(-1)).sum()) for name in SHAPES}
    assert moved != {name: int((by_tensor.tensor(name) != held[0][name].reshape(-1)).sum()) for name in SHAPES}


def test_what_is_left_of_a_global_merge_is_as_in_the_whole(models: Any) -> None:
    _, checkpoints = models
    whole = on_disk(checkpoints, "ties_merging", {}, workers=1)
    chosen = recipe(checkpoints, "ties_merging", {})
    run(chosen, got := Collected(), tasks=[task for task in chosen.tasks if task.name == "head.weight"])
    assert got.finished == ["head.weight"]
    assert torch.equal(got.tensor("head.weight"), whole.tensor("head.weight"))


class Full(Collected):
    def write(self, name: str, start: int, block: Tensor) -> None:
        if name == "blocks.0.w":
            raise OSError(28, "No space left on device")
        super().write(name, start, block)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("method", ["uniform_soup", "ties_merging"])  # one by one, and together
def test_a_failure_in_one_tensor_ends_the_run(models: Any, method: str, workers: int) -> None:
    _, checkpoints = models
    with pytest.raises(OSError, match="No space left"):
        run(recipe(checkpoints, method, {}), Full(), workers=workers)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_interrupt_while_the_numbers_of_a_model_are_sought_ends_the_run(
    models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    _, checkpoints = models
    read, log = Checkpoint.read, tmp_path / "reads"

    def interrupted(self: Checkpoint, name: str, *args: Any, **kwargs: Any) -> Tensor:
        with open(log, "a") as file:  # of all processes
            file.write(".")
        if log.stat().st_size == 10:
            raise KeyboardInterrupt
        return read(self, name, *args, **kwargs)

    monkeypatch.setattr(blocks, "BLOCK", 16)
    monkeypatch.setattr(Checkpoint, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(recipe(checkpoints, "ties_merging", {}), output := Collected(), workers=workers)
    assert {*output.finished} <= {"steps", "flags"}  # no float was written
    assert log.stat().st_size < 50  # of some 300


def test_the_number_of_torch_threads_is_left_as_it_was(models: Any) -> None:
    _, checkpoints = models
    before = torch.get_num_threads()
    on_disk(checkpoints, "uniform_soup", {}, workers=2)
    assert torch.get_num_threads() == before


def test_progress_adds_up_to_the_size_of_the_model(models: Any) -> None:
    _, checkpoints = models
    done: list[int] = []
    run(recipe(checkpoints, "sce", {}), Collected(), workers=3, progress=done.append)
    assert sum(done) == sum(entry.numel for entry in checkpoints[0].values())
