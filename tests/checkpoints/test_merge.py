"""`python -m reference_impls merge` and `plan`, from the arguments to the folder on disk."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import save_file
from torch import Tensor

import reference_impls as ri
from reference_impls.__main__ import main
from reference_impls.checkpoints import merge, writing
from reference_impls.checkpoints.combine import write_adapter
from reference_impls.checkpoints.expand import place
from reference_impls.checkpoints.files import Checkpoint
from tests.checkpoints.configs import configs, mangled
from tests.checkpoints.models import LAYERS, WIDTH, family, language_model, save

TIES = """
merge_method: ties
base_model: base
models:
  - {model: a, parameters: {weight: 0.5}}
  - {model: b, parameters: {weight: 0.25}}
parameters: {density: 0.4}
"""

SOUP = ("merge", "uniform_soup", "--models", "a", "b")


@pytest.fixture
def models(tmp_path: Path, monkeypatch) -> dict[str, dict[str, Tensor]]:
    """base, a, b and c in the working folder, and in memory."""
    monkeypatch.chdir(tmp_path)
    return family(tmp_path)


def merged(*arguments: str, config: str | None = None) -> dict[str, Tensor]:
    """Run a merge to ./out and read it."""
    if config is not None:
        Path("config.yml").write_text(config)
        arguments = ("config.yml", *arguments)
    assert main(["merge", *arguments, "-o", "out", "--quiet", "--force"]) == 0
    return Checkpoint.open("out").state_dict()


def assert_same(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype and torch.equal(got[name], tensor), name


# --- the numbers --------------------------------------------------------------------------------------------------


def test_a_method_without_a_file_is_the_reference_function(models: dict) -> None:
    base, a, b = (models[name] for name in ("base", "a", "b"))
    options = ("--density", "0.3", "--weights", "1", "0.5", "--trim", "tensor")
    got = merged("ties_merging", "--base", "base", "--models", "a", "b", *options)
    assert_same(got, ri.ties_merging(base, [a, b], density=0.3, weights=[1.0, 0.5], trim="tensor"))
    assert_same(merged("slerp", "--models", "a", "b", "--t", "0.25"), ri.slerp(a, b, t=0.25))
    assert_same(merged("uniform_soup", "--models", "a", "b", "--weights", "1", "-3", "--no-normalize"),
                ri.uniform_soup([a, b], weights=[1.0, -3.0], normalize=False))  # fmt: skip
    assert_same(merged("nuslerp", "--base", "base", "--models", "a", "b"), ri.nuslerp(a, b, base=base))


def test_masks_are_drawn_from_the_seed(models: dict) -> None:
    base, a = models["base"], models["a"]
    got = merged("dare", "--base", "base", "--models", "a", "--density", "0.5", "--seed", "7")
    assert_same(got, ri.dare(base, [a], density=0.5, generator=torch.Generator().manual_seed(7)))
    other = merged("dare", "--base", "base", "--models", "a", "--density", "0.5", "--seed", "8")
    assert not torch.equal(got["lm_head.weight"], other["lm_head.weight"])


def test_a_configuration_has_the_papers_method_or_mergekits(models: dict) -> None:
    base, a, b = (models[name] for name in ("base", "a", "b"))
    assert_same(merged(config=TIES), ri.ties_merging(base, [a, b], density=0.4, weights=[0.5, 0.25]))
    theirs = ri.ties_merging(base, [a, b], density=0.4, weights=[0.5, 0.25], trim="tensor", zero_sum="plus")
    assert_same(merged(config=TIES + "variant: mergekit"), theirs)
    assert_same(merged("--variant", "mergekit", config=TIES), theirs)


def test_gradients_and_filters_give_every_tensor_its_own_values(models: dict) -> None:
    config = """
    merge_method: linear
    models:
      - model: a
        parameters: {weight: [0, 1]}
      - model: b
        parameters: {weight: [{filter: mlp, value: 3}, {value: 1}]}
    """
    got = merged(config=config)
    for name in got:
        where = place(name)
        weights = [where.layer / (LAYERS - 1) if where else 0.0, 3.0 if "mlp" in name else 1.0]
        want = ri.uniform_soup([{name: models["a"][name]}, {name: models["b"][name]}], weights=weights)
        assert torch.equal(got[name], want[name]), name


def test_slices_stack_layers(models: dict) -> None:
    config = """
    merge_method: passthrough
    slices:
      - sources: [{model: a, layer_range: [0, 3]}]
      - sources:
          - model: b
            layer_range: [2, 4]
            parameters: {scale: [{filter: down_proj, value: 0}, {value: 1}]}
    """
    got = merged(config=config)
    want = ri.passthrough([models["a"], models["b"]], [(0, 0, 3), (1, 2, 4, {"down_proj.weight": 0.0})], block="model.layers.{}.")
    assert_same({name: got[name] for name in want}, dict(want))
    assert got.keys() == want.keys()
    config = json.loads(Path("out/config.json").read_text())
    assert config["num_hidden_layers"] == 5 and config["layer_types"] == ["kind0", "kind1", "kind2", "kind2", "kind3"]


def test_slices_of_several_models_are_merged(models: dict) -> None:
    config = """
    merge_method: slerp
    base_model: a
    slices:
      - sources: [{model: a, layer_range: [1, 4]}, {model: b, layer_range: [0, 3]}]
    parameters: {t: [0, 1]}
    """
    got = merged(config=config)
    name = "model.layers.{}.mlp.up_proj.weight".format
    assert torch.equal(got[name(0)], models["a"][name(1)])
    assert torch.equal(got[name(2)], models["b"][name(2)])
    assert torch.equal(got[name(1)], ri.slerp({"w": models["a"][name(2)]}, {"w": models["b"][name(1)]}, t=0.5)["w"])
    assert name(3) not in got and torch.equal(got["lm_head.weight"], models["a"]["lm_head.weight"])


def test_the_dtype_asked_for_and_rounded_once(models: dict) -> None:
    got = merged("uniform_soup", "--models", "a", "b", "--dtype", "float32")
    want = ri.uniform_soup([{k: v.float() for k, v in models[m].items()} for m in "ab"])
    assert_same(got, want)
    assert json.loads(Path("out/config.json").read_text())["torch_dtype"] == "float32"
    for name in "ab":
        save_file({k: v.float() + 1e-4 for k, v in models[name].items()}, f"{name}/model.safetensors")
    single = [Checkpoint.open(name).state_dict() for name in "ab"]
    got = merged("uniform_soup", "--models", "a", "b", "--dtype", "bfloat16")
    assert_same(got, {k: v.to(torch.bfloat16) for k, v in ri.uniform_soup(single).items()})


def test_integer_buffers_come_from_the_base_and_shards_and_threads_change_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("base", "a")):
        model = language_model(number) | {"steps": torch.tensor(number), "mask": torch.full((3,), bool(number))}
        save(tmp_path / name, model)
    one = merged("task_arithmetic", "--base", "base", "--models", "a", "--workers", "1")
    assert one["steps"].item() == 0 and not one["mask"].any()
    many = merged("task_arithmetic", "--base", "base", "--models", "a", "--workers", "3", "--shard-size", "4kB")
    assert_same(many, one)
    assert len(list(Path("out").glob("model-*-of-*.safetensors"))) > 3


def test_tied_weights_are_as_in_the_base(tmp_path: Path, monkeypatch) -> None:
    """Stored once they stay so; stored twice both are written, with the same values even where masks are drawn."""
    monkeypatch.chdir(tmp_path)
    base = language_model(0)
    models = {"base": base, "a": language_model(1, base)}
    for name, model in models.items():
        once = {key: tensor for key, tensor in model.items() if key != "lm_head.weight"}
        save(tmp_path / "once" / name, once)
        save(tmp_path / "twice" / name, once | {"lm_head.weight": once["model.embed_tokens.weight"].clone()})
    once = merged("dare", "--base", "once/base", "--models", "once/a", "--density", "0.5")
    assert "lm_head.weight" not in once
    twice = merged("dare", "--base", "twice/base", "--models", "twice/a", "--density", "0.5")
    assert list(twice) == [*Checkpoint.open("twice/base")]
    assert torch.equal(twice["lm_head.weight"], twice["model.embed_tokens.weight"])
    arguments = ("task_arithmetic", "--base", "twice/base", "--models")
    twice = merged(*arguments, "twice/a")
    assert torch.equal(twice["lm_head.weight"], twice["model.embed_tokens.weight"])
    once = merged("task_arithmetic", "--base", "once/base", "--models", "once/a")
    assert_same({name: twice[name] for name in once}, once)
    assert_same(merged(*arguments, "once/a"), twice)
    mixed = merged("task_arithmetic", "--base", "once/base", "--models", "twice/a")
    assert mixed.keys() == once.keys()


def test_what_stands_beside_the_weights_comes_from_the_base(models: dict) -> None:
    Path("base/tokenizer.model").write_bytes(b"\x00model")
    Path("base/LICENSE").write_text("licence")
    Path("base/evil.py").write_text("import os")
    merged("task_arithmetic", "--base", "base", "--models", "a")
    assert {file.name for file in Path("out").iterdir()} == {
        "model.safetensors", "config.json", "tokenizer.json", "tokenizer.model", "generation_config.json", "LICENSE", "README.md",
    }  # fmt: skip
    assert Path("out/tokenizer.model").read_bytes() == b"\x00model"
    Path("base/special_tokens_map.json").symlink_to("/etc/hostname")
    assert main(["merge", "task_arithmetic", "--base", "base", "--models", "a", "-o", "out2"]) == 1


def test_an_adapter_after_a_plus_sign_is_merged_into_its_base(models: dict) -> None:
    A, B = torch.randn(2, WIDTH), torch.randn(2 * WIDTH, 2)
    write_adapter(Path("lora"), {"model.layers.1.mlp.up_proj": (A, B)}, {"model.layers.1.mlp.up_proj": (WIDTH,)}, dtype=A.dtype)
    name = "model.layers.1.mlp.up_proj.weight"
    want = models["b"] | {name: (models["b"][name].float() + B @ A).to(torch.bfloat16)}
    config = "merge_method: linear\nmodels: [{model: a}, {model: b+lora}]\nparameters: {weight: 1}"
    got = merged(config=config)
    assert torch.allclose(got[name].float(), ri.uniform_soup([models["a"], want])[name].float(), atol=0.05, rtol=0.02)
    others = {key: tensor for key, tensor in ri.uniform_soup([models["a"], want]).items() if key != name}
    assert_same({key: got[key] for key in others}, others)
    assert "`b+lora`" in Path("out/README.md").read_text() and "adapter_model.safetensors" in Path("out/README.md").read_text()


# --- refusals and exit codes --------------------------------------------------------------------------------------


def refusal(capsys, *arguments: str) -> str:
    assert main([*arguments]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "Traceback" not in message
    return message


def test_what_cannot_be_done_is_refused_before_a_byte_is_read(models: dict, capsys, monkeypatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(Checkpoint, "read", read)
    Path("config.yml").write_text(TIES)
    for arguments, message in {
        ("ties",): "ties: is neither a file nor a method (did you mean ties_merging?) (mergekit's names of methods belong in",
        ("fisher_merging", "--models", "a"): "fisher_merging can't run on checkpoints: it needs data",
        ("ties_merging", "--models", "a"): "ties_merging needs a base model: --base DIR",
        ("slerp", "--models", "a", "b", "c"): "slerp takes two models",
        ("uniform_soup", "--base", "base", "--models", "a"): "uniform_soup has no base model",
        ("uniform_soup", "--models", "a", "a"): "--models names 'a' twice",
        ("uniform_soup",): "uniform_soup takes models: --models A B",
        ("uniform_soup", "--models", "a", "org/model"): "org/model: doesn't exist; models of a hub are downloaded first",
        ("ties_merging", "--base", "base", "--models", "a", "--density", "1.5"): "density is 1.5",
        ("config.yml", "--base", "base"): "--base and --models go with a method",
        ("passthrough", "--models", "a"): "passthrough puts layers together",
        ("uniform_soup", "--models", "a", "b", "--workers", "0"): "--workers is 0",
    }.items():
        assert message in refusal(capsys, "merge", *arguments, "-o", "out"), arguments
    assert "no output given" in refusal(capsys, "merge", "config.yml")
    assert "two outputs given" in refusal(capsys, "merge", "config.yml", "out", "-o", "out")
    Path("config.yml").write_text(TIES.replace("merge_method: ties", "merge_method: fisher"))
    assert "config.yml: merge_method is 'fisher', which is not available" in refusal(capsys, "merge", "config.yml", "out")
    Path("config.yml").write_text(TIES.replace("weight: 0.5", "density: 0.5"))
    assert "weight is missing for 'a' (tensor " in refusal(capsys, "merge", "config.yml", "out")
    Path("config.yml").write_text(TIES.replace("density: 0.4", "density: [0, 1]"))
    assert "density is 0.0" in refusal(capsys, "merge", "config.yml", "out")
    Path("config.yml").write_text(TIES.replace("density: 0.4", "rescale: true"))
    assert "rescale: true is not available" in refusal(capsys, "merge", "config.yml", "out")
    assert not Path("out").exists() and not Path(".out.partial").exists()


def test_values_that_mergekit_bends_are_refused(models: dict, capsys) -> None:
    crumbs = TIES.replace("merge_method: ties", "merge_method: breadcrumbs")
    Path("config.yml").write_text(crumbs.replace("density: 0.4", "density: 0.4, gamma: 0.7"))
    assert "gamma is 0.7 with density 0.4" in refusal(capsys, "plan", "config.yml")
    Path("config.yml").write_text(crumbs.replace("density: 0.4", "density: 1, gamma: 0.7"))  # all is kept
    assert main(["plan", "config.yml"]) == 0
    arc = TIES.replace("merge_method: ties", "merge_method: multislerp")
    Path("config.yml").write_text(arc.replace("density: 0.4", "eps: 0.1"))
    capsys.readouterr()
    assert "eps is 0.1" in refusal(capsys, "plan", "config.yml")


def test_one_ranking_over_the_model_refuses_a_gradient_and_names_the_way_out(models: dict, capsys) -> None:
    Path("config.yml").write_text(TIES.replace("density: 0.4", "density: [0.2, 0.8]"))
    assert "--variant mergekit" in refusal(capsys, "merge", "config.yml", "out")
    assert main(["merge", "config.yml", "out", "--variant", "mergekit", "--quiet"]) == 0


def test_models_that_do_not_fit_are_refused(models: dict, capsys) -> None:
    save(Path("other"), {name: tensor for name, tensor in models["a"].items() if "layers.3" not in name})
    assert "other: lacks 4 tensors" in refusal(capsys, "merge", "uniform_soup", "--models", "a", "other", "-o", "out")


def test_the_output_needs_a_place_of_its_own(models: dict, capsys) -> None:
    for out in ("a", "a/merged", ".", "c/../a"):
        assert "overlaps with the input" in refusal(capsys, *SOUP, "-o", out, "--force")


def test_nan_is_named_and_leaves_nothing(models: dict, capsys) -> None:
    models["b"]["lm_head.weight"][2, 3] = float("nan")
    save_file(models["b"], "b/model.safetensors")
    assert "tensor 'lm_head.weight' holds nan at [2, 3]" in refusal(capsys, *SOUP, "-o", "out", "--quiet")
    assert not Path("out").exists()


def test_an_unknown_device_is_refused(models: dict, capsys) -> None:
    assert "--device nowhere: " in refusal(capsys, *SOUP, "-o", "out", "--device", "nowhere")


@pytest.mark.parametrize(
    "arguments",
    ["", "fly", "merge", "merge slerp --t x", "merge slerp --density 1", "merge x --shard-size 0", "compare a"],
)
def test_wrong_usage_ends_with_two(arguments: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2


def test_the_system_ends_it_with_three(models: dict, capsys, monkeypatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert main([*SOUP, "-o", "out", "--quiet"]) == 3
    assert capsys.readouterr().err == "No space left on device\n"
    assert not Path("out").exists()


def test_an_interrupt_ends_it_with_130_and_it_goes_on(models: dict, capsys, monkeypatch) -> None:
    write, seen = writing.Output.write, []

    def interrupt(self, name: str, *rest: object) -> None:
        seen.append(name)
        if len(seen) == 9:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.05)
        write(self, name, *rest)

    arguments = [*SOUP, "-o", "out", "--workers", "1"]
    monkeypatch.setattr(writing.Output, "write", interrupt)
    assert main(arguments) == 130
    assert "interrupted" in capsys.readouterr().err and not Path("out").exists()
    monkeypatch.setattr(writing.Output, "write", write)
    assert main(arguments) == 1  # not begun anew unasked
    assert "--resume goes on with it" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0
    assert_same(Checkpoint.open("out").state_dict(), ri.uniform_soup([models["a"], models["b"]]))


def test_another_seed_or_another_input_is_not_gone_on_with(models: dict, capsys, monkeypatch) -> None:
    arguments = ["merge", "dare", "--base", "base", "--models", "a", "-o", "out", "--quiet"]

    def stop(request: object, *_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(merge, "card", stop)
    assert main(arguments) == 130
    capsys.readouterr()
    assert "other inputs, another recipe" in refusal(capsys, *arguments, "--resume", "--seed", "1")
    models["a"]["lm_head.weight"][-1, -1] += 1
    save_file(models["a"], "a/model.safetensors")
    assert "other inputs, another recipe" in refusal(capsys, *arguments, "--resume")


def test_killed_at_fifty_random_points_it_leaves_nothing_or_all_and_goes_on_to_the_same_bits(models: dict, monkeypatch) -> None:
    monkeypatch.setattr(writing, "SYNC_EVERY", 0.001)
    arguments = ["merge", "ties_merging", "--base", "base", "--models", "a", "b", "--quiet", "--shard-size", "6kB"]
    began = time.perf_counter()
    assert main([*arguments, "-o", "whole"]) == 0
    duration = time.perf_counter() - began
    whole = {file.name: file.read_bytes() for file in Path("whole").iterdir() if file.name != "README.md"}
    interrupted = 0
    for point in range(50):
        out = Path(f"out{point}")
        if (child := os.fork()) == 0:
            try:
                main([*arguments, "-o", str(out)])
            finally:
                os._exit(0)
        time.sleep(random.Random(point).uniform(0, 1.2 * duration))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if not out.exists():
            interrupted += Path(f".out{point}.partial").exists()
            assert main([*arguments, "-o", str(out), "--resume"]) == 0
        found = {file.name: file.read_bytes() for file in out.iterdir() if file.name not in ("README.md", writing.JOURNAL)}
        assert found == whole
    assert interrupted >= 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("family")
    family(found)
    return found


@settings(max_examples=60, deadline=None)
@given(text=configs() | mangled())
def test_no_configuration_brings_a_traceback(text: str, folder: Path) -> None:
    with contextlib.chdir(folder), contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()):
        Path("config.yml").write_text(text, "utf-8")
        code = main(["plan", "config.yml"])
    assert (code, err.getvalue().count("\n")) in ((0, 0), (1, 1))


# --- what is said -------------------------------------------------------------------------------------------------


def test_a_plan_says_what_would_be_done_and_reads_no_weight(models: dict, capsys, monkeypatch) -> None:
    read, amounts = Checkpoint.read, []

    def counted(self, name: str, start: int = 0, stop: int | None = None, **options: object) -> Tensor:
        amounts.append(self[name].numel if stop is None else stop - start)
        return read(self, name, start, stop, **options)

    monkeypatch.setattr(Checkpoint, "read", counted)
    Path("config.yml").write_text(TIES + "dtype: float32\nvariant: paper")
    assert main(["plan", "config.yml", "--shard-size", "20kB"]) == 0
    text = capsys.readouterr().out
    for wanted in (
        "base    base: 19 tensors, 12.96 kB in 1 file",
        "output  19 tensors,",
        "float32",
        "model-00001-of-00002.safetensors",
        "19 tensors: ties_merging(density=0.4, weights=[0.5, 0.25], scaling_coef=1, aggregate='mean')",
        "Trim scope: one ranking over the whole model",
        "passes",
        "memory",
    ):
        assert wanted in text, wanted
    assert max(amounts, default=0) <= 16  # samples of tensors that may be tied
    assert not Path("out").exists()


def test_a_plan_names_what_has_no_effect(models: dict, capsys) -> None:
    parameters = "density: [{filter: mpl, value: 0.3}, {value: 0.4}], int8_mask: true"
    Path("config.yml").write_text(TIES.replace("density: 0.4", parameters))
    assert main(["plan", "config.yml", "--variant", "mergekit"]) == 0
    text = capsys.readouterr().out
    assert "density: the filter 'mpl' fits no tensor" in text and "int8_mask has no effect" in text


def test_progress_and_summary_are_shown_unless_quiet(models: dict, capsys) -> None:
    arguments = [*SOUP, "-o", "out", "--force"]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert "merging: 100%" in shown.err and "out: 19 tensors, " in shown.out
    assert main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_without_tqdm_lines_show_progress(models: dict, capsys, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    monkeypatch.setattr(merge, "EVERY", 0.0)
    assert main([*SOUP, "-o", "out"]) == 0
    assert "100%, " in (shown := capsys.readouterr().err) and " s left" in shown


def test_help_lists_the_exit_codes(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"  {code:<5}" in text for code in (0, 1, 2, 3, 130))
