"""Configurations in mergekit's format: what they mean, and that nothing in them gets past."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.checkpoints import config as module
from reference_impls.checkpoints.config import Setting, parse_config, read_yaml
from reference_impls.checkpoints.errors import CheckpointError
from reference_impls.checkpoints.mergekit import DIFFERENCES, METHODS
from tests.checkpoints.configs import configs, mangled

LINEAR = "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 2}}]\n"
TIES = """
merge_method: ties
base_model: base
models:
  - model: a
    parameters: {weight: [0, 0.5, 1], density: 0.5}
  - model: b
    parameters:
      weight:
        - {filter: mlp, value: 1e-2}
        - value: 0.7
parameters: {normalize: true, int8_mask: true}
dtype: float32
out_dtype: bfloat16
tokenizer_source: base
"""
SLICES = """
merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, 3]}]
  - sources:
      - model: b
        layer_range: [2, 4]
        parameters: {scale: [{filter: down_proj, value: 0.0}, {value: 1.0}]}
"""


def test_a_configuration_is_read() -> None:
    config = parse_config(TIES)
    assert (config.method, config.base, config.dtype, config.variant) == ("ties", "base", "bfloat16", "paper")
    assert config.models() == ("base", "a", "b")
    (part,) = config.slices
    assert [given.model for given in part.inputs] == ["a", "b", "base"]  # the base last, as in mergekit
    weight = part.inputs[0].parameters["weight"]
    assert [weight.at("w", t) for t in (0, 0.25, 0.5, 1)] == [0, 0.25, 0.5, 1]
    weight = part.inputs[1].parameters["weight"]
    assert (weight.at("layers.0.mlp.up", 0), weight.at("layers.0.attn", 0)) == (0.01, 0.7)  # text 1e-2 is a number


def test_slices_are_read() -> None:
    config = parse_config(SLICES)
    assert [part.inputs[0].layers for part in config.slices] == [(0, 3), (2, 4)]
    assert config.slices[1].inputs[0].parameters["scale"].at("layers.3.mlp.down_proj.weight", 1.0) == 0.0


@pytest.mark.parametrize(
    ("values", "t", "expected"),
    [((1.0, 2.0, 4.0), 0.75, 3.0), ((1.0,), 0.3, 1.0), ((True, False, False), 0.4, True), ((True, False), 1.0, False)],
)
def test_a_list_runs_over_the_layers_and_truth_values_do_not_mix(values: tuple, t: float, expected: object) -> None:
    assert Setting(((None, values),)).at("w", t) == expected


REFUSED = {
    "no merge": ("", "the configuration is None"),
    "unknown key": (LINEAR + "merge_metod: x", "'merge_metod' is unknown (did you mean merge_method?)"),
    "unknown method": ("merge_method: tie\nmodels: [{model: a}]", "'tie', which is not available (did you mean ties?)"),
    "method of another library": ("merge_method: fisher\nmodels: [{model: a}]", "is not available; it is one of linear, slerp"),
    "key twice": (LINEAR + "merge_method: ties", "line 3: 'merge_method' is there twice"),
    "unknown parameter": (
        "merge_method: linear\nmodels: [{model: a, parameters: {weigth: 1}}]",
        "models[0].parameters: 'weigth' is unknown (did you mean weight?)",
    ),
    "parameter of another method": (LINEAR + "parameters: {density: 1}", "'density' is unknown; linear has weight, normalize"),
    "parameter of the merge at a model": (
        "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b, parameters: {t: 1}}]",
        "models[1].parameters.t: holds for all models at once",
    ),
    "no number": (LINEAR + "parameters: {normalize: 3}", "parameters.normalize is 3; it is true or false"),
    "not finite": ("merge_method: linear\nmodels: [{model: a, parameters: {weight: .inf}}]", "it is a finite number"),
    "empty gradient": ("merge_method: linear\nmodels: [{model: a, parameters: {weight: []}}]", "is an empty list"),
    "modules": (LINEAR + "modules: {x: 1}", "modules is not available: "),
    "tokenizer of a union": (LINEAR + "tokenizer_source: union", "tokenizer_source is 'union'; only base is available: give all"),
    "tokenizer": (LINEAR + "tokenizer: {source: base}", "tokenizer is not available: "),
    "chat template": (LINEAR + "chat_template: auto", "chat_template is not available: "),
    "integers as dtype": (LINEAR + "dtype: int64", "dtype is 'int64'; it is one of float32"),
    "variant": (LINEAR + "variant: x", "variant is 'x'; it is one of paper, mergekit"),
    "nothing to merge": ("merge_method: linear", "neither models nor slices"),
    "models and slices": (LINEAR + "slices: [1]", "has models and slices"),
    "no base": ("merge_method: ties\nmodels: [{model: a}]", "base_model is missing; ties needs it"),
    "too many models": (
        "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}, {model: c}]",
        "models: there are 2 models besides the base model; slerp takes 1",
    ),
    "too few models": (
        "merge_method: model_stock\nbase_model: a\nmodels: [{model: b}]",
        "models: there are 1 models besides the base model; model_stock takes at least 2",
    ),
    "a model twice": (LINEAR.replace("model: b", "model: a"), "models: 'a' is there twice"),
    "layers of a model": ("merge_method: linear\nmodels: [{model: a, layer_range: [0, 1]}]", "'layer_range' is unknown"),
    "no layers": ("merge_method: passthrough\nslices: [{sources: [{model: a}]}]", "slices[0].sources[0]: layer_range is missing"),
    "layers the wrong way round": (
        "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [3, 3]}]}]",
        "layer_range is [3, 3]; it is [first, one past the last]",
    ),
    "slices of different length": (
        "merge_method: linear\nslices: [{sources: [{model: a, layer_range: [0, 1]}, {model: b, layer_range: [0, 2]}]}]",
        "slices[0]: the layer_ranges have [1, 2] layers",
    ),
    "base outside of a slice": (
        "merge_method: ties\nbase_model: c\nslices: [{sources: [{model: a, layer_range: [0, 1]}]}]",
        "slices[0].sources: base_model 'c' is not among them",
    ),
    "not YAML": ("a: [", "the configuration is no YAML: line 2, column 1"),
    "a tag": ("a: !!python/object/apply:os.system [id]\n", "is a tag; none is needed"),
    "a tag on text": ("a: !!binary x", "'tag:yaml.org,2002:binary' is a tag"),
    "a number of many digits": ("a: " + "9" * 10_000, "is no int"),
    "a number of many hexadecimal digits": ("a: 0x" + "f" * 10_000, "is too large"),
    "two documents": (LINEAR + "---\n" + LINEAR, "a second document begins"),
    "deep": ("a: " + "[" * 100_000, "is nested more than 20 deep"),
    "deep by anchors": (
        "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [[[[[[*a{i - 1}]]]]]]\n" for i in range(1, 9)),
        "is nested more than 20 deep",
    ),
    "swelling anchors": (
        "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]\n" for i in range(1, 9)),
        "more than 100000 values",
    ),
    "an anchor in itself": ("a: &a [*a]", "*a stands for nothing complete"),
    "a list as key": ("? [a]\n: 1", "['a'] is a key; keys are text"),
    "long": ("#" * 1_000_001, "has 1000001 characters; at most"),
    "control character": ("a: \x07", "the configuration is no YAML"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        parse_config(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_parameter_of_all_methods_is_one_that_mergekit_has() -> None:
    """Taken from mergekit 0.1.5: the methods that it registers, with their parameters."""
    task_vectors = {"weight", "density", "normalize", "rescale", "lambda", "int8_mask"}
    known = {
        "linear": {"weight", "normalize"}, "slerp": {"t"}, "nuslerp": {"weight", "nuslerp_flatten", "nuslerp_row_wise"},
        "passthrough": {"scale"}, "model_stock": {"filter_wise"}, "arcee_fusion": set(), "karcher": {"max_iter", "tol"},
        "multislerp": {"weight", "normalize_weights", "eps"}, "nearswap": {"t"}, "ram": {"epsilon"},
        "ramplus_tl": {"r", "alpha", "epsilon"}, "sce": {"int8_mask", "select_topk"}, "task_arithmetic": task_vectors,
        "ties": task_vectors, "dare_ties": task_vectors, "dare_linear": task_vectors, "breadcrumbs": task_vectors | {"gamma"},
        "breadcrumbs_ties": task_vectors | {"gamma"}, "della": task_vectors | {"epsilon"},
        "della_linear": task_vectors | {"epsilon"},
    }  # fmt: skip
    assert {name: set(method.parameters) for name, method in METHODS.items()} == known


def test_the_differences_named_are_those_of_the_method_pages() -> None:
    from tools.catalog import load

    catalog = load()
    for name, differences in DIFFERENCES.items():
        for difference in differences:
            topics = {entry.topic: entry for entry in catalog.methods[difference.page].differs}
            assert any("mergekit" in variant.who for variant in topics[difference.topic].variants), (name, difference.topic)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(plain)
def test_yaml_is_read_as_the_library_reads_it(value: object) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)
    assert read_yaml(text) == yaml.safe_load(text)


def test_without_libyaml_the_same_is_read(monkeypatch) -> None:
    monkeypatch.delattr(yaml, "CSafeLoader")
    assert parse_config(TIES).models() == ("base", "a", "b")
    with pytest.raises(CheckpointError, match="is no YAML"):
        parse_config("a: [")


def test_without_yaml_the_way_out_is_named(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(CheckpointError, match="needs PyYAML: pip install"):
        parse_config(TIES)


@settings(max_examples=300, deadline=None)
@given(configs() | mangled() | st.text(max_size=200))
def test_nothing_but_the_documented_error_comes_of_any_text(text: str) -> None:
    try:
        config = module.parse_config(text)
    except CheckpointError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
    else:
        assert config.method in METHODS and config.models()
