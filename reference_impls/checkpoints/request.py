"""What `merge` and `plan` are asked for: from the command line to a recipe, with everything checked that headers can tell."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import json
import os
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import reference_impls
from reference_impls.checkpoints import adapters, aligning, mergekit, remote
from reference_impls.checkpoints.checks import cheap_check
from reference_impls.checkpoints.config import DTYPES, MAX_TEXT, Config, parse_config
from reference_impls.checkpoints.errors import CheckpointError, quoted
from reference_impls.checkpoints.expand import apply, expand
from reference_impls.checkpoints.files import Checkpoint, read_bytes
from reference_impls.checkpoints.methods import METHODS, function, streaming
from reference_impls.checkpoints.recipe import Recipe
from reference_impls.checkpoints.streaming import jobs
from reference_impls.checkpoints.writing import SHARD_SIZE

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "B": 1}


@dataclass(frozen=True)
class Request:
    """A merge that has been checked as far as headers go.

    Attributes:
        recipe: what is to be done.
        method: the name it was asked for by: mergekit's in a configuration, ours on the command line.
        config: the configuration, None where there was none.
        text: the configuration's text, or the arguments that took its place.
        models: the inputs' names as given, in the order of the recipe's checkpoints.
        lead: the checkpoint whose config.json and tokenizer the output takes: the base, or the first model.
        base: whether `lead` is a base.
        dtype: of the output, None where it is that of the lead.
    """

    recipe: Recipe
    method: str
    config: Config | None
    text: str
    models: tuple[str, ...]
    lead: Checkpoint
    base: bool
    dtype: str | None

    @property
    def tensors(self) -> dict[str, tuple[Any, tuple[int, ...]]]:
        """dtype and shape of every tensor of the output, in the order of the lead's file."""
        tasks = {task.name: (task.dtype, self.recipe.like(task).shape) for task in self.recipe.tasks}
        if not self.recipe.ties:
            return tasks
        return {name: tasks[self.recipe.ties.get(name, name)] for name in self.lead}


# --- arguments ----------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Add what `merge` and `plan` have in common, with the options of the method that `argv` names."""
    parser.add_argument("what", metavar="CONFIG|METHOD", help="a configuration file, or a method such as ties_merging")
    parser.add_argument("out", nargs="?", metavar="OUT", help="the folder to write, or a URL such as s3://bucket/model")
    parser.add_argument("-o", "--out", dest="out_option", metavar="OUT", help="the same, as an option")
    parser.add_argument("--base", metavar="DIR", help="the base model (with METHOD)")
    parser.add_argument("--models", nargs="+", default=[], metavar="DIR", help="the models (with METHOD)")
    parser.add_argument("--dtype", "--out-dtype", choices=DTYPES, help="of the output; default: the base's")
    parser.add_argument("--variant", choices=mergekit.VARIANTS, help="with CONFIG: the paper's methods (default) or mergekit's")
    parser.add_argument("--seed", type=int, default=0, help="of methods with random masks; default 0")
    parser.add_argument("--shard-size", type=size, default=SHARD_SIZE, metavar="SIZE", help="most in one file; default 5GB")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--workers", type=int, default=cores, help="tensors worked on at once; default: one a core")
    parser.add_argument("--device", default="cpu", help="where to compute; default cpu")
    method = next((word for word in argv if word in METHODS), None)
    if method is not None:
        group = parser.add_argument_group(f"options of {method}", f"see help(reference_impls.{method})")
        for name, settings in options_of(method).items():
            group.add_argument(f"--{name.replace('_', '-')}", dest=f"option_{name}", default=None, **settings)


def size(text: str) -> int:
    """Read a number of bytes, such as 500MB.

    Example:
        >>> size("5GB"), size("1.5 KiB")
        (5000000000, 1536)
    """
    digits = text.upper().rstrip("BIKMGT ")
    unit = text.upper()[len(digits) :].strip() or "B"
    try:
        found = int(float(digits) * UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        found = 0
    if found < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write a number with KB, MB, GB or TB")
    return found


class _OneOrEach(argparse.Action):
    """Keep one value by itself, several as a list."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, values[0] if len(values) == 1 else values)


def options_of(method: str) -> dict[str, dict[str, Any]]:
    """Return the options of a reference function with what argparse needs to read them."""
    types = typing.get_type_hints(function(method))
    readers: dict[str, dict[str, Any]] = {}
    for name, parameter in inspect.signature(function(method)).parameters.items():
        wanted = types[name]
        parts = typing.get_args(wanted)
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or name == "base":
            continue
        if typing.get_origin(wanted) is Literal:
            readers[name] = {"choices": parts}
        elif wanted is bool:
            readers[name] = {"action": argparse.BooleanOptionalAction}
        elif wanted in (int, float, str):
            readers[name] = {"type": wanted, "metavar": wanted.__name__.upper()}
        elif Sequence[float] in parts or wanted == Sequence[float]:
            one = {"action": _OneOrEach} if float in parts else {}
            readers[name] = {"type": float, "nargs": "+", "metavar": "FLOAT", **one}
    if "spec" in types:
        readers["spec"] = {"type": Path, "metavar": "FILE", "required": True, "help": "which axes share a permutation"}
        if "model_a" in types:  # what it returns are permutations
            readers["t"] = {"type": float, "metavar": "FLOAT", "help": "0: model A, 1: model B in A's units; default 0.5"}
    if "task" in METHODS[method].note:  # makes one model for each of the inputs
        readers["task"] = {"type": int, "metavar": "INT", "required": True}
    return readers


def takes(method: str) -> tuple[bool, bool, bool]:
    """Return whether a reference function needs a base, may have one, and is of two models."""
    if method == "passthrough":
        raise CheckpointError("passthrough puts layers together: which ones stands in a configuration, under slices")
    parameters = inspect.signature(function(method)).parameters
    base = parameters.get("base")
    return base is not None and base.default is base.empty, base is not None, "model_a" in parameters


# --- the request --------------------------------------------------------------------------------------------------


def understand(args: argparse.Namespace) -> Request:
    """Open the models and expand what is asked for.

    Raises:
        CheckpointError: something can't be done; no tensor has been read then.
    """
    if args.workers < 1:
        raise CheckpointError(f"--workers is {args.workers}; at least one is needed")
    request = _by_method(args) if args.what in METHODS or args.what in reference_impls.methods() else _by_file(args)
    try:
        jobs(request.recipe)
    except CheckpointError as error:
        hint = "; or take mergekit's rule: --variant mergekit" if request.config and request.config.variant == "paper" else ""
        raise CheckpointError(f"{error}{hint}") from None
    return request


def output(args: argparse.Namespace) -> str:
    """Return where the output is to be."""
    outs = [out for out in (args.out, args.out_option) if out is not None]
    if len(outs) != 1:
        raise CheckpointError(f"{'no output' if not outs else 'two outputs'} given; name one folder, as OUT or with --out")
    return outs[0]


def _by_file(args: argparse.Namespace) -> Request:
    file = Path(args.what)
    if args.base is not None or args.models:
        raise CheckpointError("--base and --models go with a method; with a configuration the models stand in the file")
    if not file.exists():
        near = difflib.get_close_matches(args.what, METHODS, n=1) or [name for name in METHODS if args.what in name][:1]
        hint = f" (did you mean {near[0]}?)" if near else ""
        ours = " (mergekit's names of methods belong in a configuration)" if args.what in mergekit.METHODS else ""
        raise CheckpointError(f"{args.what}: is neither a file nor a method{hint}{ours}")
    try:
        text = read_bytes(file, MAX_TEXT).decode("utf-8")
    except UnicodeDecodeError:
        raise CheckpointError(f"{file}: is no UTF-8 text") from None
    try:
        config = parse_config(text)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    config = dataclasses.replace(config, variant=args.variant or config.variant, dtype=args.dtype or config.dtype)
    checkpoints = {model: open_model(model) for model in config.models()}
    check([*checkpoints.values()])
    first = config.slices[0]
    lead = checkpoints[config.base or first.base or first.inputs[0].model]
    recipe = expand(config, checkpoints, seed=args.seed)
    return Request(recipe, config.method, config, text, config.models(), lead, lead is checkpoints.get(config.base), config.dtype)


def _by_method(args: argparse.Namespace) -> Request:
    method = args.what
    streaming(method)
    needs_base, has_base, pair = takes(method)
    if args.variant is not None:
        raise CheckpointError("--variant goes with a configuration; a method has options instead")
    if args.base is None and needs_base:
        raise CheckpointError(f"{method} needs a base model: --base DIR")
    if args.base is not None and not has_base:
        raise CheckpointError(f"{method} has no base model; name it among --models if it is to take part")
    if not args.models or (pair and len(args.models) != 2):
        raise CheckpointError(f"{method} takes {'two models' if pair else 'models'}: --models {'A B' if pair else 'A B ...'}")
    if twice := [model for i, model in enumerate(args.models) if model in args.models[:i]]:
        raise CheckpointError(f"--models names {quoted(twice[0])} twice; give it a larger weight instead")
    names = ([] if args.base is None else [args.base]) + args.models
    options = {name: getattr(args, f"option_{name}") for name in options_of(method)}
    options = {name: value for name, value in options.items() if value is not None}
    checkpoints = [open_model(name) for name in names]
    file = options.get("spec")
    if file is not None:
        options["spec"] = aligning.read_patterns(file, checkpoints[0])
    check(checkpoints)
    recipe = apply(method, checkpoints, options, has_base=args.base is not None, dtype=args.dtype, seed=args.seed)
    if file is not None:
        aligning.check_ties(file, options["spec"], recipe)
    said = {"method": method, "base": args.base, "models": args.models, **options, "dtype": args.dtype, "seed": args.seed}
    text = "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in said.items() if value is not None)
    return Request(recipe, method, None, text, tuple(names), checkpoints[0], args.base is not None, args.dtype)


def open_model(name: str) -> Checkpoint:
    """Open a model by the name that it was given: a folder, a file or a URL, with adapters after plus signs."""
    name = remote.local(name)
    path = name.partition("+")[0]
    if not Path(name).exists() and not Path(path).exists():
        hub = f"; models of a hub are downloaded first: hf download {path} --local-dir DIR" if path.count("/") == 1 else ""
        raise CheckpointError(f"{path}: doesn't exist{hub}")
    return adapters.open_model(name)


def check(checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse models that can't be merged, with all the reasons that headers, configs and tokenizers give."""
    if reasons := cheap_check(checkpoints):
        more = f" (and {len(reasons) - 1} more reasons: python -m reference_impls compare A B)" if len(reasons) > 1 else ""
        raise CheckpointError(reasons[0] + more)
