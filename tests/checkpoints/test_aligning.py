"""Methods that permute units, on files: what a file of patterns means, and that the models come out right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import reference_impls as ri
from reference_impls.__main__ import main
from reference_impls.checkpoints.aligning import parse_patterns, read_patterns, spec_of
from reference_impls.checkpoints.files import Checkpoint
from reference_impls.core.paths import interpolate
from reference_impls.core.permutation import PermutationSpec, apply_permutation, permutation_spec, random_permutations
from tests.checkpoints.models import HEAD, HEADS, KEYS, TOKENS, llama, mlp, save
from tests.checkpoints.test_guide import blocks
from tests.core.test_permutation import CASES

MLP = """
axes:
  "0.weight": [first, null]
  "0.bias": [first]
  "2.weight": [second, first]
  "2.bias": [second]
  "4.weight": [null, second]
"""


def mlp_spec(model: dict[str, Tensor]) -> PermutationSpec:
    """What `MLP` says, written by hand, in the order of the model's tensors."""
    axes = {"0.weight": ("first", None), "0.bias": ("first",), "2.weight": ("second", "first"), "2.bias": ("second",)}
    axes |= {"4.weight": (None, "second"), "4.bias": (None,), "steps": ()}
    return PermutationSpec({name: axes[name] for name in model}, {"first": 9, "second": 7})


@pytest.fixture
def models(tmp_path: Path, monkeypatch) -> list[dict[str, Tensor]]:
    """Three perceptrons a, b and c in the working folder, beside mlp.yml, and in memory."""
    monkeypatch.chdir(tmp_path)
    Path("mlp.yml").write_text(MLP)
    for seed, name in enumerate("abc"):
        save_file(mlp(seed), f"{name}.safetensors")
    return [Checkpoint.open(f"{name}.safetensors").state_dict() for name in "abc"]


def merged(method: str, *arguments: str, models: str = "ab", spec: str = "mlp.yml") -> dict[str, Tensor]:
    """Run a merge to ./out and read it."""
    files = [f"{name}.safetensors" if Path(f"{name}.safetensors").exists() else name for name in models]
    assert main(["merge", method, "--models", *files, "--spec", spec, *arguments, "-o", "out", "--quiet", "--force"]) == 0
    return Checkpoint.open("out").state_dict()


def assert_same(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype and torch.equal(got[name], tensor), name


# --- the models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options"), [("c2m3", {}), ("c2m3", {"tol": 0.01}), ("gamf", {}), ("gamf", {"temperature": 1.0, "decay": 0.5})]
)
def test_a_method_that_returns_a_model_is_the_reference_function(models: list, method: str, options: dict) -> None:
    arguments = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    got = merged(method, *arguments, models="abc")
    assert_same(got, getattr(ri, method)(models, mlp_spec(models[0]), **options))
    assert not torch.allclose(got["2.weight"], ri.uniform_soup(models)["2.weight"], atol=0.1)  # there is something to permute


@pytest.mark.parametrize("t", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("method", "options"),
    [("weight_matching", {}), ("frank_wolfe_matching", {}), ("frank_wolfe_matching", {"start": "random"})],
)
def test_where_permutations_are_found_the_model_at_t_is_written(models: list, method: str, options: dict, t: Any) -> None:
    a, b, _ = models
    spec = mlp_spec(a)
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    got = merged(method, *arguments, "--seed", "3", *([] if t is None else ["--t", str(t)]))
    found = getattr(ri, method)(a, b, spec, **options, generator=torch.Generator().manual_seed(3))
    assert any(not torch.equal(p, torch.arange(len(p))) for p in found.values())
    assert_same(got, interpolate(a, apply_permutation(spec, found, b), 0.5 if t is None else t))
    assert got["steps"] == a["steps"]


@pytest.mark.parametrize("method", ["weight_matching", "frank_wolfe_matching"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_shuffled_model_comes_back_exactly(models: list, method: str, dtype: torch.dtype) -> None:
    a = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in models[0].items()}
    shuffled = apply_permutation(mlp_spec(a), random_permutations(mlp_spec(a), torch.Generator().manual_seed(5)), a)
    assert not torch.equal(shuffled["2.weight"], a["2.weight"])
    save_file(a, "a.safetensors")
    save_file(shuffled, "b.safetensors")
    assert_same(merged(method, "--t", "1"), a)
    assert_same(merged(method), a)


def test_tied_weights_are_permuted_once_and_stay_tied(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seed in (("a", 0), ("b", 1)):
        embed = torch.randn(10, 6, generator=torch.Generator().manual_seed(seed))
        save_file({"embed": embed, "head": embed.clone(), "mix": embed[:6].exp()}, f"{name}.safetensors")
    Path("spec.yml").write_text("axes: {embed: [null, w], head: [null, w], mix: [w, w]}")
    a, b = (Checkpoint.open(f"{name}.safetensors").state_dict() for name in "ab")
    got = merged("weight_matching", spec="spec.yml")
    assert torch.equal(got["embed"], got["head"])
    tied_a, tied_b = ({**model, "head": model["embed"]} for model in (a, b))
    spec = PermutationSpec({"embed": (None, "w"), "head": (None, "w"), "mix": ("w", "w")}, {"w": 6})
    found = ri.weight_matching(tied_a, tied_b, spec)
    assert_same(got, interpolate(tied_a, apply_permutation(spec, found, tied_b), 0.5))
    for other in ("", "head: [null, null],"):
        Path("spec.yml").write_text(f"axes: {{embed: [null, w], {other} mix: [w, w]}}")
        message = refusal(capsys, "merge", "weight_matching", "--models", "a.safetensors", "b.safetensors", "--spec", "spec.yml")
        assert "spec.yml: axes: 'head' has " in message and "the two are tied and need the same axes" in message


# --- a language model ---------------------------------------------------------------------------------------------


def logits(model: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """A Llama's forward pass in float64."""
    model = {name: tensor.double() for name, tensor in model.items()}
    length = len(tokens)
    angles = torch.arange(length)[:, None] / 100 ** (torch.arange(HEAD // 2) / (HEAD // 2))  # (length, HEAD / 2)
    cos, sin = (f(angles).double().repeat(1, 2) for f in (torch.cos, torch.sin))
    norm = lambda x, w: x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * w  # noqa: E731

    def turned(x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-second, first], dim=-1) * sin

    x = model["model.embed_tokens.weight"][tokens]
    for layer in range(1 + max(int(name.split(".")[2]) for name in model if "layers" in name)):
        w = {name.split(".", 3)[3]: tensor for name, tensor in model.items() if name.startswith(f"model.layers.{layer}.")}
        y = norm(x, w["input_layernorm.weight"])
        q, k, v = ((y @ w[f"self_attn.{name}_proj.weight"].T).unflatten(1, (-1, HEAD)).transpose(0, 1) for name in "qkv")
        k, v = (heads.repeat_interleave(HEADS // KEYS, dim=0) for heads in (k, v))  # (HEADS, length, HEAD)
        y = F.scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True)
        x = x + y.transpose(0, 1).flatten(1) @ w["self_attn.o_proj.weight"].T
        y = norm(x, w["post_attention_layernorm.weight"])
        up = F.silu(y @ w["mlp.gate_proj.weight"].T) * (y @ w["mlp.up_proj.weight"].T)
        x = x + up @ w["mlp.down_proj.weight"].T
    return norm(x, model["model.norm.weight"]) @ model["lm_head.weight"].T


STREAM = """\
  model.embed_tokens.weight: [null, stream]
  lm_head.weight: [null, stream]
  model.norm.weight: [stream]
  model.layers.*.*_layernorm.weight: [stream]
"""


def guide_patterns() -> str:
    (text,) = [block for block in blocks("yaml") if "mlp.gate_proj" in block]
    return text


@pytest.fixture
def llamas(tmp_path: Path, monkeypatch) -> list[dict[str, Tensor]]:
    """Two models a and b in the working folder, beside the guide's patterns, and in memory."""
    monkeypatch.chdir(tmp_path)
    Path("llama.yml").write_text(guide_patterns())
    models = [llama(seed, layers=3) for seed in (0, 1)]
    for name, model in zip("ab", models):
        save(Path(name), model, layers=3)
    return models


@pytest.mark.parametrize("method", ["weight_matching", "frank_wolfe_matching"])
def test_a_language_model_computes_the_same_in_another_models_order(llamas: list, method: str) -> None:
    a, b = llamas
    tokens = torch.arange(12) % TOKENS
    got = merged(method, "--t", "1", spec="llama.yml")
    moved = [name for name in b if not torch.equal(got[name], b[name])]
    assert {name.split(".", 3)[3] for name in moved} >= {f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")}
    assert {name.split(".", 3)[3] for name in moved} >= {f"self_attn.{name}_proj.weight" for name in "qkvo"}
    torch.testing.assert_close(logits(got, tokens), logits(b, tokens))
    assert not torch.allclose(logits(a, tokens), logits(b, tokens), atol=1)
    middle = merged(method, spec="llama.yml")
    assert_same(middle, {name: interpolate(a, got, 0.5)[name] for name in middle})
    assert sum((got[name] - a[name]).norm() for name in moved) < sum((b[name] - a[name]).norm() for name in moved)


def test_all_that_a_language_model_bears_is_found_again(llamas: list) -> None:
    """Units of the MLPs, heads, and the residual stream that all layers read and write."""
    a, _ = llamas
    text = guide_patterns().replace("[mlp.*, null]", "[mlp.*, stream]").replace("[null, mlp.*]", "[stream, mlp.*]")
    text = text.replace("[heads.*, null]", "[heads.*, stream]").replace("[null, heads.*]", "[stream, heads.*]")
    Path("all.yml").write_text(text.replace("units:", STREAM + "units:"))
    model = Checkpoint.open("a")
    spec = spec_of(read_patterns(Path("all.yml"), model), {name: entry.shape for name, entry in model.items()})
    assert spec.sizes == {"stream": 16} | {f"{what}.{i}": n for i in range(3) for what, n in (("mlp", 48), ("heads", KEYS))}
    shuffled = apply_permutation(spec, random_permutations(spec, torch.Generator().manual_seed(1)), a)
    tokens = torch.arange(12) % TOKENS
    torch.testing.assert_close(logits(shuffled, tokens), logits(a, tokens))
    save(Path("shuffled"), shuffled, layers=3)
    arguments = ["--models", "a", "shuffled", "--spec", "all.yml", "--t", "1", "-o", "out", "--quiet"]
    assert main(["merge", "weight_matching", *arguments]) == 0
    assert_same(Checkpoint.open("out").state_dict(), {name: a[name] for name in Checkpoint.open("out")})


# --- patterns -----------------------------------------------------------------------------------------------------


def written(spec: PermutationSpec) -> str:
    """A traced spec as a file, as JSON."""
    units = {name: size for name, size in spec.sizes.items() if any(spec.repeats.get(place) for place in spec.places(name))}
    sections = {"axes": {name: list(row) for name, row in spec.axes.items() if any(row)}, "units": units}
    sections["blocks"] = [{"permutations": list(names), "count": count} for names, count in spec.blocks.items()]
    return json.dumps(sections | {"buffers": sorted(spec.buffers)}, indent="\t")


@pytest.mark.parametrize("case", CASES)
def test_every_spec_that_tracing_finds_can_be_written(case: str) -> None:
    network, example = CASES[case]()
    spec = permutation_spec(network, example)
    found = spec_of(parse_patterns(written(spec)), {name: tensor.shape for name, tensor in network.state_dict().items()})
    assert found.axes == spec.axes and found.sizes == spec.sizes and list(found.sizes) == list(spec.sizes)
    assert found.repeats == spec.repeats and found.buffers == spec.buffers and found.blocks == spec.blocks


def test_stars_stand_for_parts_of_names_without_dots() -> None:
    text = 'axes: {"h.*.w*.out": ["p*.*", null], "experts.*.*.up": [e.*, null], "*": [all]}'
    shapes = {"h.0.w12.out": (4, 2), "h.0.w.out": (4, 2), "h.0.1.w2.out": (4, 2), "experts.3.7.up": (5, 1), "norm": (6,)}
    spec = spec_of(parse_patterns(text), shapes)
    assert spec.axes == {"h.0.w12.out": ("p0.12", None), "h.0.w.out": (None, None), "h.0.1.w2.out": (None, None),
                         "experts.3.7.up": ("e.3", None), "norm": ("all",)}  # fmt: skip
    assert spec.sizes == {"p0.12": 4, "e.3": 5, "all": 6}


def test_neighbours_of_one_unit_and_units_in_blocks() -> None:
    text = """
    axes: {"*.q": [qk.*, null], "*.v": [v.*, null], "*.o": [null, v.*], flat: [null, c], conv: [c, null], mean: [c]}
    units: {"qk.*": 3, c: 2}
    blocks: [{permutations: [qk.*, v.*], count: 3}]
    buffers: [me*n]
    """
    shapes = {"0.q": (6, 4), "0.v": (9, 4), "0.o": (4, 9), "1.q": (3, 4), "1.v": (3, 4)}
    shapes |= {"flat": (5, 8), "conv": (2, 1), "mean": (2,)}
    spec = spec_of(parse_patterns(text), shapes)
    assert spec.sizes == {"qk.0": 3, "v.0": 9, "qk.1": 3, "v.1": 3, "c": 2}
    assert spec.repeats == {("0.q", 0): 2, ("flat", 1): 4}
    assert spec.blocks == {("qk.0", "v.0"): 3, ("qk.1", "v.1"): 3} and spec.buffers == {"mean"}


BIAS = "axes: {0.bias: [p]}\n"
REFUSED = {
    "nothing": ("", "the file holds None; sections are needed"),
    "a list": ("- a", "the file holds ['a']; sections are needed: axes, units, blocks, buffers"),
    "no axes": ("units: {a: 2}", "axes is missing"),
    "empty axes": ("axes: {}", "axes is missing"),
    "axes a list": ("axes: [a]", "axes is ['a']; names with values is needed"),
    "an unknown section": ("axis: {w: [a]}", "'axis' is no section; there are axes, units, blocks, buffers"),
    "a row that is no list": ("axes: {0.bias: first}", "axes, '0.bias': is 'first'; a list with a permutation's name or null"),
    "a number as a name": ("axes: {0.bias: [0]}", "axes, '0.bias': 0 is no name; numbers, true and false"),
    "an empty name": ("axes: {0.bias: ['']}", "axes, '0.bias': '' is no name"),
    "a number as a key": ("axes: {0: [first]}", "line 1: 0 is a key; keys are text"),
    "stars side by side": ("axes: {'*a*.bias': [p]}", "axes, '*a*.bias': '*a*.bias' has two stars that no dot parts"),
    "a star too many": ("axes: {'*.bias': [p.*.*]}", "axes, '*.bias': 'p.*.*' has more stars than the tensor's name"),
    "a pattern that fits nothing": ("axes: {'*.bais': [p]}", "axes, '*.bais': fits no tensor of a.safetensors"),
    "a name that fits nothing": ("axes: {bias: [p]}", "axes, 'bias': fits no tensor of a.safetensors"),
    "two patterns for a tensor": ("axes: {0.bias: [p], '*.bias': [q.*]}", "'*.bias': '0.bias' is described by '0.bias' too"),
    "a missing axis": ("axes: {0.weight: [p]}", "axes, '0.weight': describes 1 axes; '0.weight' has shape [9, 5]"),
    "an axis too many": ("axes: {'*.bias': [p.*, null]}", "axes, '*.bias': describes 2 axes; '0.bias' has shape [9]"),
    "sizes that disagree": ("axes: {0.bias: [p], 2.bias: [p]}",
                            "axes, '2.bias': 'p' has 7 units on axis 0 of '2.bias', but 9 on axis 0 of '0.bias'"),
    "no permutation": ("axes: {0.bias: [null]}", "axes names no permutation"),
    "an integer": ("axes: {count*: [p]}", "axes, 'count*': 'counts' is torch.int64, which is copied from the first model"),
    "an axis of nothing": ("axes: {none: [p, null]}", "axes, 'none': axis 0 of 'none' has no entries that 'p' could permute"),
    "units of another size": (BIAS + "units: {p: 4}",
                              "axes, '0.bias': axis 0 of '0.bias' has 9 entries, which 4 units of 'p' can't share"),
    "units of nothing": (BIAS + "units: {q: 3}", "units, 'q': fits no permutation; axes has 'p'"),
    "units twice": (BIAS + "units: {p: 3, '*': 3}", "units, '*': 'p' is described by 'p' too"),
    "units of no number": (BIAS + "units: {p: true}", "units, 'p': is True; a whole number of 1 or more is needed"),
    "no units": (BIAS + "units: {p: 0}", "units, 'p': is 0; a whole number of 1 or more is needed"),
    "a block without count": (BIAS + "blocks: [{permutations: [p]}]", "blocks[0] is {'permutations': ['p']}; permut"),
    "a block of text": (BIAS + "blocks: [p]", "blocks[0] is 'p'; permutations and count are needed"),
    "a block of nothing": (BIAS + "blocks: [{permutations: [], count: 3}]", "blocks[0].permutations is []; a list"),
    "a block of other stars": (BIAS + "blocks: [{permutations: [p, q.*], count: 3}]", "all need the same number of"),
    "a block that fits nothing": (BIAS + "blocks: [{permutations: [q], count: 3}]", "blocks[0]: fits no permutation"),
    "a block half of which fits": (BIAS + "blocks: [{permutations: [p, q], count: 3}]", "'q' is under no axis; 3 equal"),
    "a block of another size": (BIAS + "blocks: [{permutations: [p], count: 2}]", "'p' has 9 units; 2 equal blocks"),
    "a block twice": (BIAS + "blocks: [{permutations: [p, p], count: 3}]", "blocks[0]: 'p' is there twice"),
    "a buffer that fits nothing": (BIAS + "buffers: [mean]", "buffers[0]: 'mean' fits no tensor of a.safetensors"),
    "a buffer that is no name": (BIAS + "buffers: [1]", "buffers[0]: 1 is no name"),
    "buffers alone": (BIAS + "buffers: [0.bias]", "buffers: 'p' acts on buffers only"),
    "too many": (json.dumps({"axes": {f"w{i}": [None] for i in range(1001)}}), "axes has 1001 entries; at most 1000 are read"),
    "a key twice": ("axes:\n  0.bias: [p]\n  0.bias: [p]", "line 3: '0.bias' is there twice"),
    "a section twice": (BIAS + "axes: {2.bias: [p]}", "line 2: 'axes' is there twice"),
    "no YAML": ("axes: [", "the file is no YAML: line 2, column 1"),
    "a star without quotes": ("axes: {*.bias: [p]}", "the file is no YAML: line 1"),
    "a tag": ("axes: !!python/object/apply:os.system [id]", "line 1: 'tag:yaml.org,2002:python/object/apply:os.system' is a tag"),
    "two documents": (BIAS + "---\n", "line 2: a second document begins; one file holds one"),
    "depth": ("axes: " + "[" * 30, "line 1: is nested more than 20 deep"),
    "anchors": ("a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join(['*' + a] * 10)}]\n" for a, b in zip("abcdef", "bcdefg")), "more than 100000 values"),
    "length": ("#" * 1_000_001, "is longer than 1000000 bytes"),
    "not UTF-8": (b"axes: \xff", "is no UTF-8 text"),
}  # fmt: skip


def refusal(capsys, *arguments: str) -> str:
    assert main([*arguments, "-o", "out"]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "Traceback" not in message
    return message


ASKED = ("merge", "weight_matching", "--models", "a.safetensors", "b.safetensors", "--spec", "spec.yml")


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_says_nothing_sound_is_refused_before_a_byte_is_read(models: list, capsys, monkeypatch, case: str) -> None:
    text, message = REFUSED[case]
    for name, model in zip("ab", models):
        save_file(model | {"counts": torch.arange(9), "none": torch.zeros(0, 2)}, f"{name}.safetensors")
    Path("spec.yml").write_bytes(text if isinstance(text, bytes) else text.encode())

    def read(*_: object) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(Checkpoint, "read", read)
    said = refusal(capsys, *ASKED)
    assert said.startswith("spec.yml: ") and message in said and said.count("spec.yml") == 1
    assert not Path("out").exists()


def test_a_file_that_is_not_there_and_options_that_are_out_of_range_are_refused(models: list, capsys, monkeypatch) -> None:
    assert "spec.yml: can't be read (No such file or directory)" in refusal(capsys, *ASKED)
    Path("spec.yml").mkdir()
    assert "spec.yml: is no regular file" in refusal(capsys, *ASKED)
    asked = (*ASKED[:-1], "mlp.yml")
    for arguments, message in {
        ("--t", "1.5"): "weight_matching: t is 1.5; it goes from model A at 0 to model B at 1",
        ("--t", "nan"): "weight_matching: t is nan",
        ("--max-iter", "-1"): "weight_matching: max_iter is -1 and tol 1e-12",
        ("--base", "c.safetensors"): "weight_matching has no base model; name it among --models",
    }.items():
        assert message in refusal(capsys, *asked, *arguments)
    assert "weight_matching takes two models" in refusal(capsys, *asked[:4], *asked[5:])
    monkeypatch.setitem(__import__("sys").modules, "scipy.optimize", None)
    assert "the assignment problem needs SciPy: pip install" in refusal(capsys, *asked)
    with pytest.raises(SystemExit) as caught:  # wrong usage
        main([*ASKED[:-2], "-o", "out"])
    assert caught.value.code == 2
    with pytest.raises(SystemExit):
        main(["merge", "c2m3", *asked[2:], "--t", "0.5", "-o", "out"])


def test_without_pyyaml_the_way_out_is_named(models: list, capsys, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    assert "mlp.yml: reading the file needs PyYAML: pip install" in refusal(capsys, *ASKED[:-1], "mlp.yml")


# --- what is said -------------------------------------------------------------------------------------------------


def test_a_plan_says_what_is_permuted(llamas: list, capsys) -> None:
    assert main(["plan", "frank_wolfe_matching", "--models", "a", "b", "--spec", "llama.yml", "--t", "0.5"]) == 0
    text = capsys.readouterr().out
    for wanted in (
        "30 tensors: frank_wolfe_matching(spec={axes, units}, t=0.5)",
        "permuted\n",
        "  mlp.0: 48 units in 3 places\n",
        "  heads.2: 2 units in 4 places\n",
        "frank_wolfe_matching: the whole model at once",
    ):
        assert wanted in text, (wanted, text)


def test_the_card_holds_the_patterns_and_cites_the_paper(models: list) -> None:
    merged("weight_matching", "--t", "0.25")
    text = Path("out/README.md").read_text()
    assert 'spec: {"axes": {"0.weight": ["first", null], "0.bias": ["first"],' in text and "t: 0.25" in text
    assert "@inproceedings{ainsworth2023gitrebasin" in text and "mlp.yml" not in text


def test_a_run_with_other_patterns_is_not_gone_on_with(models: list, capsys, monkeypatch) -> None:
    asked = (*ASKED[:-1], "mlp.yml", "--quiet")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("reference_impls.checkpoints.merge.card", stop)
        assert main([*asked, "-o", "out"]) == 130
    capsys.readouterr()
    Path("mlp.yml").write_text(MLP.replace('"4.weight": [null, second]', '"4.weight": [null, null]'))
    assert "other inputs, another recipe" in refusal(capsys, *asked, "--resume")
    Path("mlp.yml").write_text(MLP)
    assert main([*asked, "-o", "out", "--resume"]) == 0
