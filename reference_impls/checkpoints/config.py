"""Read a merge from a configuration file in mergekit's format.

`parse_config` turns the text into a `Config`, or says in one line what in it can't be used: it knows every key, method and
parameter, so that a slip of the pen is found before a byte of a model is read. It touches no file. Values keep mergekit's
freedom: a parameter is a number, a list (a gradient over the layers), or a list of such with filters on tensor names.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reference_impls.checkpoints.errors import CheckpointError, quoted
from reference_impls.checkpoints.mergekit import METHODS, VARIANTS, Method, Parameter

MAX_TEXT = 1_000_000  # characters
MAX_NODES = 100_000  # values in a file, each mention of an anchor counted
MAX_DEPTH = 20

DTYPES = ("float32", "float16", "bfloat16", "float64")

KEYS = (
    "merge_method", "base_model", "models", "slices", "parameters", "dtype", "out_dtype", "tokenizer_source", "variant",
)  # fmt: skip
REFUSED = {
    "modules": "only models with one stack of layers can be sliced; use models or slices",
    "tokenizer": "only the base model's tokenizer is kept; leave it out, and give all models one vocabulary beforehand",
    "chat_template": "the base model's template is kept; edit tokenizer_config.json of the output",
}

Number = float | int | bool


@dataclass(frozen=True)
class Setting:
    """What a parameter is set to: the values in the order in which their filters are tried."""

    conditions: tuple[tuple[str | None, Number | tuple[Number, ...]], ...]

    def at(self, tensor: str, t: float) -> Number | None:
        """Return the value for a tensor at the place t in [0, 1] of the stack of layers; None where no filter fits.

        Example:
            >>> Setting(((None, (0.0, 1.0, 0.5)),)).at("w", 0.25)
            0.5
            >>> Setting((("mlp", 0.2), (None, 0.7))).at("layers.0.mlp.w", 0.0)
            0.2
        """
        for wanted, value in self.conditions:
            if wanted is None or wanted == "*" or wanted in tensor:
                return _along(value, t) if isinstance(value, tuple) else value
        return None


def _along(values: tuple[Number, ...], t: float) -> Number:
    """Interpolate between the two nearest values of a list; of truth values take the nearest below."""
    place = t * (len(values) - 1)
    below = int(place)
    if isinstance(values[0], bool):
        return values[below]
    above, share = min(below + 1, len(values) - 1), place - below
    return (1 - share) * values[below] + share * values[above]


Settings = Mapping[str, Setting]


@dataclass(frozen=True)
class Input:
    """One model in a slice of the output, all of its layers where `layers` is None."""

    model: str
    layers: tuple[int, int] | None
    parameters: Settings


@dataclass(frozen=True)
class Slice:
    """A part of the output's layers, and what it is made from."""

    inputs: tuple[Input, ...]
    base: str | None
    parameters: Settings

    @property
    def length(self) -> int:
        """How many layers it has, where they are named."""
        start, stop = self.inputs[0].layers or (0, 0)
        return stop - start


@dataclass(frozen=True)
class Config:
    """A merge, as the file says it."""

    method: str
    slices: tuple[Slice, ...]
    base: str | None
    parameters: Settings
    dtype: str | None
    variant: str

    def models(self) -> tuple[str, ...]:
        """All models named, the base first."""
        inputs = [part.base for part in self.slices] + [given.model for part in self.slices for given in part.inputs]
        return tuple(dict.fromkeys(model for model in [self.base, *inputs] if model is not None))


def parse_config(text: str) -> Config:
    """Return what a configuration file says.

    Raises:
        CheckpointError: it isn't YAML, or something in it is unknown, missing, impossible or not available here.
    """
    top = _mapping(read_yaml(text), "the configuration", (*KEYS, *REFUSED))
    for key, why in REFUSED.items():
        if top.get(key) is not None:
            raise CheckpointError(f"{key} is not available: {why}")
    name = _text(_need(top, "merge_method", "the configuration"), "merge_method")
    if name not in METHODS:
        near = _suggestion(name, METHODS) or f"; it is one of {', '.join(METHODS)}"
        raise CheckpointError(f"merge_method is {quoted(name)}, which is not available{near}")
    method = METHODS[name]
    base = None if top.get("base_model") is None else _text(top["base_model"], "base_model")
    if (tokenizer := top.get("tokenizer_source")) not in (None, "base"):
        way_out = "give all models one vocabulary beforehand, or leave it out"
        raise CheckpointError(f"tokenizer_source is {quoted(tokenizer)}; only base is available: {way_out}")
    dtypes = [None if top.get(key) is None else _choice(top[key], key, DTYPES) for key in ("out_dtype", "dtype")]
    parts = [key for key in ("models", "slices") if top.get(key)]
    if len(parts) != 1:
        found = " and ".join(parts) or "neither models nor slices"
        raise CheckpointError(f"the configuration has {found}; exactly one of the two is needed")
    if parts == ["models"]:
        inputs = tuple(_input(given, f"models[{i}]", name, ()) for i, given in enumerate(_list(top["models"], "models")))
        if base is not None and base not in [given.model for given in inputs]:
            inputs += (Input(base, None, {}),)  # as in mergekit, where it comes last
        slices = (Slice(inputs, None, {}),)
    else:
        slices = tuple(_slice(given, f"slices[{i}]", name) for i, given in enumerate(_list(top["slices"], "slices")))
    for i, part in enumerate(slices):
        _check_inputs(part, part.base or base, method, name, "models" if parts == ["models"] else f"slices[{i}].sources")
    variant = _choice(top.get("variant") or "paper", "variant", VARIANTS)
    return Config(name, slices, base, _settings(top.get("parameters"), "parameters", name), dtypes[0] or dtypes[1], variant)


def _slice(given: Any, where: str, method: str) -> Slice:
    members = _mapping(given, where, ("sources", "base_model", "parameters"))
    sources = _list(_need(members, "sources", where), f"{where}.sources")
    inputs = tuple(_input(source, f"{where}.sources[{i}]", method, ("layer_range",)) for i, source in enumerate(sources))
    lengths = {given.layers[1] - given.layers[0] for given in inputs}
    if len(lengths) > 1:
        raise CheckpointError(f"{where}: the layer_ranges have {sorted(lengths)} layers; all sources of a slice need as many")
    base = None if members.get("base_model") is None else _text(members["base_model"], f"{where}.base_model")
    return Slice(inputs, base, _settings(members.get("parameters"), f"{where}.parameters", method))


def _input(given: Any, where: str, method: str, more: tuple[str, ...]) -> Input:
    members = _mapping(given, where, ("model", "parameters", *more))
    layers = None
    if "layer_range" in more:
        ends = _list(_need(members, "layer_range", where), f"{where}.layer_range")
        if len(ends) != 2 or any(type(end) is not int for end in ends) or not 0 <= ends[0] < ends[1]:
            raise CheckpointError(f"{where}.layer_range is {quoted(ends)}; it is [first, one past the last], counted from 0")
        layers = (ends[0], ends[1])
    model = _text(_need(members, "model", where), f"{where}.model")
    return Input(model, layers, _settings(members.get("parameters"), f"{where}.parameters", method, each=True))


def _check_inputs(part: Slice, base: str | None, method: Method, name: str, where: str) -> None:
    """How many models a method takes, and whether it has a base."""
    models = [given.model for given in part.inputs]
    if twice := [model for i, model in enumerate(models) if model in models[:i]]:
        raise CheckpointError(f"{where}: {quoted(twice[0])} is there twice; give it one entry with a larger weight")
    if method.base != "none" and base is not None and base not in models:
        raise CheckpointError(f"{where}: base_model {quoted(base)} is not among them; add it with its layer_range")
    if method.base in ("needed", "first") and base is None:
        raise CheckpointError(f"base_model is missing; {name} needs it")
    count = len(models) - (method.base != "none" and base is not None)
    least, most = method.models
    if count < least or (most is not None and count > most):
        need = f"at least {least}" if most is None else f"{least}" if least == most else f"{least} to {most}"
        besides = "" if method.base == "none" else " besides the base model"
        raise CheckpointError(f"{where}: there are {count} models{besides}; {name} takes {need}")


# --- parameters ---------------------------------------------------------------------------------------------------


def _settings(given: Any, where: str, name: str, each: bool = False) -> Settings:
    """The parameters at one place; those of the whole merge have none at a single model."""
    if given is None:
        return {}
    parameters = METHODS[name].parameters
    members = _mapping(given, where, parameters, f"; {name} has {', '.join(parameters) or 'no parameters'}")
    for key in members:
        if each and not parameters[key].each:
            raise CheckpointError(f"{where}.{key}: holds for all models at once; write it into the parameters of the merge")
    return {key: _setting(value, f"{where}.{key}", parameters[key]) for key, value in members.items()}


def _setting(given: Any, where: str, parameter: Parameter) -> Setting:
    if isinstance(given, Mapping):
        given = [given]
    if not isinstance(given, list) or not any(isinstance(value, Mapping) for value in given):
        return Setting(((None, _values(given, where, parameter)),))
    conditions = []
    for i, condition in enumerate(given):
        members = _mapping(condition, f"{where}[{i}]", ("filter", "value"))
        wanted = None if members.get("filter") is None else _text(members["filter"], f"{where}[{i}].filter")
        conditions.append((wanted, _values(_need(members, "value", f"{where}[{i}]"), f"{where}[{i}].value", parameter)))
    return Setting(tuple(conditions))


def _values(given: Any, where: str, parameter: Parameter) -> Number | tuple[Number, ...]:
    if not isinstance(given, list):
        return _number(given, where, parameter)
    if not given:
        raise CheckpointError(f"{where} is an empty list; a gradient needs at least one value")
    return tuple(_number(value, f"{where}[{i}]", parameter) for i, value in enumerate(given))


def _number(given: Any, where: str, parameter: Parameter) -> Number:
    kind = parameter.kind
    if isinstance(given, str) and kind is not bool:  # in YAML 1e-5 is text, as the point is missing
        try:
            given = float(given)
        except ValueError:
            pass
    if kind is bool:
        if isinstance(given, bool):
            return given
    elif isinstance(given, (int, float)) and not isinstance(given, bool) and abs(given) < 1e300:
        if kind is float:
            return float(given)
        if given == int(given):
            return int(given)
    what = {bool: "true or false", int: "a whole number", float: "a finite number"}[kind]
    raise CheckpointError(f"{where} is {quoted(given)}; it is {what}")


# --- YAML ---------------------------------------------------------------------------------------------------------


def read_yaml(text: str, what: str = "the configuration") -> Any:
    """Return what a YAML document holds: mappings with text as keys, lists, text, numbers, truth values and null.

    Built from the events of libyaml's parser, so that depth, keys that stand twice and what anchors swell to are seen on the way.
    """
    try:
        import yaml
    except ImportError:
        raise CheckpointError(f'reading {what} needs PyYAML: pip install "model-fusion-atlas[checkpoints]"') from None
    if len(text) > MAX_TEXT:
        raise CheckpointError(f"{what} has {len(text)} characters; at most {MAX_TEXT} are read")
    try:
        return _Builder().build(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise CheckpointError(f"{what} is no YAML: {place}{getattr(error, 'problem', None) or error}") from None


class _Open:
    """A mapping or list that is being filled."""

    def __init__(self, value: Any, before: int, anchor: str | None) -> None:
        self.value, self.before, self.anchor = value, before, anchor
        self.key: str | None = None  # of a mapping, the key that waits for its value
        self.depth = 0  # how deep what is in it goes


class _Builder:
    """Builds values from parser events, without recursion."""

    def __init__(self) -> None:
        import yaml

        self.yaml = yaml
        self.scalars = yaml.SafeLoader("")
        self.open: list[_Open] = []
        self.anchors: dict[str, tuple[Any, int, int]] = {}  # value, how many nodes it is, how deep it goes
        self.nodes = 0
        self.documents = 0
        self.result: Any = None

    def build(self, events: Iterable[Any]) -> Any:
        yaml = self.yaml
        for event in events:
            where = f"line {event.start_mark.line + 1}"
            if isinstance(event, yaml.DocumentStartEvent):
                self.documents += 1
                if self.documents > 1:
                    raise CheckpointError(f"{where}: a second document begins; one file holds one")
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in self.anchors:
                    raise CheckpointError(f"{where}: *{event.anchor} stands for nothing complete")
                value, size, depth = self.anchors[event.anchor]
                self._put(value, None, size, depth, where)
            elif isinstance(event, yaml.ScalarEvent):
                self._put(self._scalar(event, where), event.anchor, 1, 0, where)
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                if event.tag not in (None, "!"):
                    raise CheckpointError(f"{where}: {quoted(event.tag)} is a tag; none is needed")
                value = {} if isinstance(event, yaml.MappingStartEvent) else []
                self.open.append(_Open(value, self.nodes, event.anchor))
                self._check(where)
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                filled = self.open.pop()
                size = self.nodes - filled.before + 1
                self.nodes = filled.before
                self._put(filled.value, filled.anchor, size, filled.depth + 1, where)
        return self.result

    def _check(self, where: str, deeper: int = 0) -> None:
        if self.nodes > MAX_NODES:
            raise CheckpointError(f"{where}: more than {MAX_NODES} values, with what anchors repeat")
        if len(self.open) + deeper > MAX_DEPTH:
            raise CheckpointError(f"{where}: is nested more than {MAX_DEPTH} deep")

    def _put(self, value: Any, anchor: str | None, size: int, depth: int, where: str) -> None:
        """Place a value of `size` nodes and `depth` levels where the document is."""
        self.nodes += size
        self._check(where, depth)
        if anchor:
            self.anchors[anchor] = (value, size, depth)
        if not self.open:
            self.result = value
            return
        parent = self.open[-1]
        parent.depth = max(parent.depth, depth)
        if isinstance(parent.value, list):
            parent.value.append(value)
        elif parent.key is None:
            if not isinstance(value, str):
                raise CheckpointError(f"{where}: {quoted(value)} is a key; keys are text")
            if value in parent.value:
                raise CheckpointError(f"{where}: {quoted(value)} is there twice")
            parent.key = value
        else:
            parent.value[parent.key], parent.key = value, None

    def _scalar(self, event: Any, where: str) -> Any:
        tag = event.tag
        if tag is None or tag == "!":
            tag = self.scalars.resolve(self.yaml.ScalarNode, event.value, event.implicit)
        kind = tag.removeprefix("tag:yaml.org,2002:")
        if kind in ("timestamp", "value", "merge"):
            kind = "str"
        if kind not in ("str", "int", "float", "bool", "null"):
            raise CheckpointError(f"{where}: {quoted(event.tag)} is a tag; none is needed")
        node = self.yaml.ScalarNode(f"tag:yaml.org,2002:{kind}", event.value, event.start_mark)
        try:
            value = self.scalars.construct_object(node)
        except (ValueError, KeyError, IndexError, OverflowError):
            raise CheckpointError(f"{where}: {quoted(event.value)} is no {kind}") from None
        if kind == "int" and abs(value) >= 2**63:  # in hexadecimal it may be too long to print
            raise CheckpointError(f"{where}: {quoted(event.value)} is too large")
        return value


# --- what stands in a mapping -------------------------------------------------------------------------------------


def _mapping(value: Any, where: str, keys: Collection[str], known: str = "") -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{where} is {quoted(value)}; keys with values are needed")
    for key in value:
        if key not in keys:
            raise CheckpointError(f"{where}: {quoted(key)} is unknown{_suggestion(key, keys) or known}")
    return value


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name[:80], list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _need(members: Mapping[str, Any], key: str, where: str) -> Any:
    if members.get(key) is None:
        raise CheckpointError(f"{where}: {key} is missing")
    return members[key]


def _list(value: Any, where: str) -> list:
    if not isinstance(value, list) or not value:
        raise CheckpointError(f"{where} is {quoted(value)}; a list is needed")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise CheckpointError(f"{where} is {quoted(value)}; text is needed")
    return value


def _choice(value: Any, where: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise CheckpointError(f"{where} is {quoted(value)}; it is one of {', '.join(choices)}")
    return value
