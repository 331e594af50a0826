"""Configurations for property tests: mostly sound ones, and sound ones with something broken."""

from __future__ import annotations

import yaml
from hypothesis import strategies as st

from reference_impls.checkpoints.mergekit import METHODS, Parameter

MODELS = ("a", "b", "c", "base")
STRANGE = (None, True, -1, 10**30, 1e308, "", "1e-3", "x" * 300, [], [[]], {}, {"value": 1}, [{"filter": 3}], "\u202e", "<b>\n")


@st.composite
def _setting(draw, parameter: Parameter) -> object:
    numbers = {float: st.floats(0.05, 0.95), int: st.integers(1, 20), bool: st.booleans()}[parameter.kind]
    values = numbers | st.lists(numbers, min_size=1, max_size=3)
    conditions = st.fixed_dictionaries({"value": values}, optional={"filter": st.sampled_from(["mlp", "*", "layers.0."])})
    return draw(values | st.lists(conditions, min_size=1, max_size=3))


@st.composite
def trees(draw) -> dict:
    """A configuration as plain data."""
    name = draw(st.sampled_from(sorted(METHODS)))
    method = METHODS[name]
    each = {key: _setting(p) for key, p in method.parameters.items() if p.each}
    shared = {key: _setting(p) for key, p in method.parameters.items() if not p.each}
    least, most = method.models
    count = draw(st.integers(least, 3 if most is None else most))
    models = [{"model": model} | ({"parameters": draw(st.fixed_dictionaries(each))} if each else {}) for model in MODELS[:count]]
    config = {"merge_method": name, "parameters": draw(st.fixed_dictionaries({}, optional=shared))}
    if name in ("slerp", "nearswap"):
        config["parameters"]["t"] = draw(_setting(method.parameters["t"]))
    if method.base != "none":
        config["base_model"] = "base"
    if draw(st.booleans()):
        inputs = models + ([{"model": "base"}] if method.base != "none" else [])
        length = draw(st.integers(1, 3))
        starts = [draw(st.integers(0, 3 - length)) for _ in inputs]
        config["slices"] = [{"sources": [given | {"layer_range": [i, i + length]} for given, i in zip(inputs, starts)]}]
        config["slices"] *= draw(st.integers(1, 2))
    else:
        config["models"] = models
    optional = {"dtype": st.sampled_from(["float32", "bfloat16"]), "variant": st.sampled_from(["paper", "mergekit"])}
    return config | draw(st.fixed_dictionaries({}, optional=optional))


@st.composite
def configs(draw) -> str:
    """The text of a configuration."""
    return yaml.safe_dump(draw(trees()), sort_keys=False, allow_unicode=True)


@st.composite
def mangled(draw) -> str:
    """The text of a configuration in which a value was replaced, or a few characters."""
    tree = draw(trees())
    places: list[tuple] = []

    def collect(value: object) -> None:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            places.append((value, key))
            if isinstance(inner, (dict, list)):
                collect(inner)

    collect(tree)
    holder, key = draw(st.sampled_from(places))
    holder[key] = draw(st.sampled_from(STRANGE))
    text = yaml.dump(tree, Dumper=yaml.SafeDumper, sort_keys=False)
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.sampled_from(["", "", "]", "}", ": ", "&a ", "*a", "\t", "!!x ", "- ", "\x00", "'"])) + text[at:]
