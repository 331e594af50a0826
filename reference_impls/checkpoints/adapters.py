r"""LoRA adapters in PEFT's format: read, and merged into their base while that is read.

An adapter is a folder with adapter_config.json and adapter_model.safetensors. For each module that it changes it holds two
factors, $A \in \mathbb{R}^{r \times n}$ and $B \in \mathbb{R}^{m \times r}$, and the module's weight becomes $W_0 + s\,B A$ with
$s = \alpha / r$ (or $\alpha / \sqrt r$, rank-stabilised). For embeddings, and where a module keeps its weight the other way round
(`fan_in_fan_out`), the update is $(B A)^\top$; the factors of a convolution are kernels that are flattened.

Merging reads the base block by block and adds the rows of the update that a block needs, so that a model with its adapter is one
more `Checkpoint`: it can be merged, compared or copied like any other, in little memory.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reference_impls.checkpoints.checks import tied_groups
from reference_impls.checkpoints.errors import CheckpointError, quoted
from reference_impls.checkpoints.files import CONVERT, Checkpoint, check_finite, check_inside, read_json
from reference_impls.core.lora import ROWS, low_rank_update

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

KNOWN = {  # settings that leave the mathematics alone, or that are read below
    "peft_type", "r", "lora_alpha", "use_rslora", "alpha_pattern", "rank_pattern", "fan_in_fan_out", "bias", "modules_to_save",
    "init_lora_weights", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "lora_dropout",
    "base_model_name_or_path", "revision", "task_type", "auto_mapping", "inference_mode", "peft_version", "megatron_core",
    "loftq_config", "eva_config", "corda_config", "lora_ga_config", "runtime_config", "qalora_group_size", "ensure_weight_tying",
    "merge_weights",
}  # fmt: skip
MOVES_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # initialisations that also change the base's weights

_KEY = re.compile(r"^(?:base_model\.model\.)?(.+?)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B)(?:\.weight)?$")
_WHOLE = re.compile(r"^(?:base_model\.model\.)?(.+?)(?:\.base_layer|\.modules_to_save)?\.(weight|bias)$")
_PLAIN = re.compile(r"^\^?([\w.\-]+)\$?$")


@dataclass(frozen=True)
class Layer:
    """One module of an adapter.

    Attributes:
        A, B: names of the factors in the adapter's file.
        scaling: s.
        embedding: whether the module is an embedding, whose update is transposed.
    """

    A: str
    B: str
    scaling: float
    embedding: bool


@dataclass(frozen=True, eq=False)
class Adapter:
    """A LoRA adapter on disk.

    Attributes:
        path: its folder.
        checkpoint: its tensors.
        config: adapter_config.json.
        layers: module -> its factors.
        whole: tensor of the base -> tensor of the adapter that takes its place (trained biases, modules to save).
    """

    path: Path
    checkpoint: Checkpoint
    config: Mapping[str, Any]
    layers: Mapping[str, Layer]
    whole: Mapping[str, str]

    @classmethod
    def open(cls, path: str | Path) -> Adapter:
        """Open an adapter's folder.

        Raises:
            CheckpointError: it is no sound adapter, or one of a kind that isn't plain LoRA.
        """
        path = Path(path)
        names = os.listdir(path) if path.is_dir() else []
        if CONFIG not in names:
            raise CheckpointError(f"{path}: holds no {CONFIG}; a folder with a LoRA adapter in PEFT's format is needed")
        if WEIGHTS not in names:
            pickled = f"; {path / 'adapter_model.bin'}: {CONVERT}" if "adapter_model.bin" in names else ""
            raise CheckpointError(f"{path}: holds no {WEIGHTS}{pickled}")
        config = read_json(path / CONFIG)
        check_config(config, path / CONFIG)
        check_inside(path / WEIGHTS, path)
        checkpoint = Checkpoint.open(path / WEIGHTS)
        layers, whole = read_layers(checkpoint, config)
        return cls(path, checkpoint, config, layers, whole)

    def factors(self, module: str) -> tuple[Tensor, Tensor]:
        """Return A (r, n) and B (m, r) of a module in at least float32, kernels flattened."""
        layer = self.layers[module]
        A, B = (self.checkpoint.tensor(name).flatten(1) for name in (layer.A, layer.B))
        dtype = torch.promote_types(torch.promote_types(A.dtype, B.dtype), torch.float32)
        return A.to(dtype), B.to(dtype)


def is_adapter(path: str | Path) -> bool:
    """Return whether a folder looks like an adapter's."""
    return (Path(path) / CONFIG).exists()


def check_config(config: Mapping[str, Any], file: Path) -> None:
    """Refuse what isn't plain LoRA, by the name of the setting, and values of the wrong kind."""
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{file}: peft_type is {quoted(config.get('peft_type'))}; only LORA can be merged")
    for key, value in config.items():
        if key not in KNOWN and value not in (None, False, [], {}):
            raise CheckpointError(f"{file}: {quoted(key)} is {quoted(value)}; only plain LoRA can be merged, without it")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(MOVES_THE_BASE):
        raise CheckpointError(
            f"{file}: init_lora_weights is {quoted(start)}, which changes the base's weights too; convert the adapter to plain "
            "LoRA with PEFT (path_initial_model_for_weight_conversion) first"
        )
    if type(config.get("r")) is not int or config["r"] < 1:
        raise CheckpointError(f"{file}: r is {quoted(config.get('r'))}; a positive whole number is needed")
    for key in ("rank_pattern", "alpha_pattern"):
        pattern = config.get(key) or {}
        if not isinstance(pattern, dict):
            raise CheckpointError(f"{file}: {key} is {quoted(pattern)}; names of modules with numbers are needed")
        for module, value in pattern.items():
            if not _PLAIN.match(module):
                raise CheckpointError(f"{file}: {key} has the pattern {quoted(module)}; only plain names of modules can be read")
            _positive(value, f"{file}: {key} of {quoted(module)}")
    _positive(config.get("lora_alpha"), f"{file}: lora_alpha")
    for key in ("use_rslora", "fan_in_fan_out"):
        if not isinstance(config.get(key) or False, bool):
            raise CheckpointError(f"{file}: {key} is {quoted(config[key])}; true or false is needed")


def read_layers(checkpoint: Checkpoint, config: Mapping[str, Any]) -> tuple[dict[str, Layer], dict[str, str]]:
    """Sort an adapter's tensors into pairs of factors and whole tensors; each factor needs the other, of the same rank."""
    found: dict[str, dict[str, str]] = {}
    whole: dict[str, str] = {}
    for name in checkpoint:
        if match := _KEY.match(name):
            found.setdefault(match[1], {})[match[2]] = name
        elif "lora_" not in name and (match := _WHOLE.match(name)):
            whole[f"{match[1]}.{match[2]}"] = name
        else:
            raise CheckpointError(f"{checkpoint.path}: tensor {quoted(name)} is no part of a plain LoRA adapter")
    layers = {}
    for module, names in found.items():
        embedding = "lora_embedding_A" in names or "lora_embedding_B" in names
        A, B = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
        if set(names) != {A, B}:
            raise CheckpointError(f"{checkpoint.path}: {quoted(module)} has {', '.join(sorted(names))}; {A} and {B} are needed")
        a, b = checkpoint[names[A]], checkpoint[names[B]]
        kernel = len(b.shape) > 2 and math.prod(b.shape[2:]) != 1
        if len(a.shape) < 2 or len(b.shape) < 2 or kernel or a.shape[0] != b.shape[1] or a.shape[0] == 0:
            shapes = f"{list(a.shape)} and {list(b.shape)}"
            raise CheckpointError(f"{checkpoint.path}: {quoted(module)} has factors of shapes {shapes}; [r, n] and [m, r] needed")
        rank, allowed = a.shape[0], {config["r"], *(config.get("rank_pattern") or {}).values()}
        if rank not in allowed:
            raise CheckpointError(f"{checkpoint.path}: {quoted(module)} has rank {rank}, which {CONFIG} doesn't name")
        scaling = alpha(config, module) / (math.sqrt(rank) if config.get("use_rslora") else rank)
        layers[module] = Layer(names[A], names[B], scaling, embedding)
    if not layers:
        raise CheckpointError(f"{checkpoint.path}: holds no factors")
    return layers, whole


def alpha(config: Mapping[str, Any], module: str) -> float:
    """Return the alpha of a module: that of the first name in alpha_pattern that it ends with, or else lora_alpha.

    Example:
        >>> alpha({"lora_alpha": 16, "alpha_pattern": {"1.q": 4, "q": 8}}, "layers.1.q")
        4
    """
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        name = _PLAIN.match(pattern)[1]
        if module == name or (module.endswith("." + name) and not pattern.startswith("^")):
            return value
    return config["lora_alpha"]


def _positive(value: object, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise CheckpointError(f"{what} is {quoted(value)}; a positive number is needed")


# --- merged into the base --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Update:
    """What one adapter does to one tensor of the base."""

    adapter: Adapter
    module: str
    weight: float
    transposed: bool


class Adapted(Checkpoint):
    r"""A base with adapters merged into it, which happens while it is read; otherwise like any other checkpoint.

    Each block is the base's plus $\sum_i w_i s_i B_i A_i$, summed in at least float32 and rounded once to the base's dtype, as
    `core.lora.merge_adapter` does it: whatever the blocks, the bits are the same.
    """

    def __init__(self, base: Checkpoint, adapters: Sequence[Adapter], weights: Sequence[float] | None = None) -> None:
        """Prepare the merge.

        Args:
            base: the model that the adapters were trained on.
            adapters: one or several.
            weights: w, one an adapter. Default None: all 1.

        Raises:
            CheckpointError: an adapter that doesn't belong to this base.
        """
        weights = [1.0] * len(adapters) if weights is None else list(weights)
        if len(weights) != len(adapters):
            raise CheckpointError(f"received {len(weights)} weights for {len(adapters)} adapters; one each is needed")
        self.path, self.config, self.metadata, self.allow_nonfinite = base.path, base.config, base.metadata, base.allow_nonfinite
        self.files = (*base.files, *(file for adapter in adapters for file in (*adapter.checkpoint.files, adapter.path / CONFIG)))
        self._base, self._adapters, self._entries = base, list(adapters), dict(base)
        self._updates: dict[str, list[_Update]] = {}
        self._whole: dict[str, tuple[Checkpoint, str]] = {}
        self._factors = lru_cache(maxsize=8)(self._factors)
        tied = {}
        if (base.config or {}).get("tie_word_embeddings"):
            tied = {name: group for group in tied_groups(base) for name in group}
        for adapter, weight in zip(adapters, weights):
            for module in adapter.layers:
                name = f"{module}.weight"
                if name in tied:
                    group = " and ".join(map(quoted, tied[name]))
                    raise CheckpointError(f"{adapter.path}: changes {quoted(name)}, but {base.path} ties {group}; untie them")
                self._updates.setdefault(name, []).append(_Update(adapter, module, weight, self._transposed(adapter, module)))
            for name, own in adapter.whole.items():
                self._replace(adapter, name, own)

    def _transposed(self, adapter: Adapter, module: str) -> bool:
        """Return whether an update is (B A)^T: by its shape, or by what the adapter says where that fits both ways."""
        name, layer = f"{module}.weight", adapter.layers[module]
        if name not in self._base:
            raise CheckpointError(f"{adapter.path}: changes {quoted(name)}, which {self._base.path} lacks; use its own base")
        entry = self._base[name]
        a, b = adapter.checkpoint[layer.A].shape, adapter.checkpoint[layer.B].shape
        m, n = b[0], math.prod(a[1:])
        shape = (entry.shape[0], math.prod(entry.shape[1:])) if entry.shape else ()
        if not entry.dtype.is_floating_point or shape not in ((m, n), (n, m)):
            raise CheckpointError(
                f"{adapter.path}: updates {quoted(name)} by a matrix of shape {[m, n]}, but {self._base.path} has "
                f"{list(entry.shape)} of {entry.dtype}; use its own base"
            )
        return shape != (m, n) or (m == n and (layer.embedding or bool(adapter.config.get("fan_in_fan_out"))))

    def _replace(self, adapter: Adapter, name: str, own: str) -> None:
        if name in self._whole:
            checkpoint, other = self._whole[name]
            if not torch.equal(adapter.checkpoint.tensor(own), checkpoint.tensor(other)):
                raise CheckpointError(f"{adapter.path}: replaces {quoted(name)} otherwise than another adapter; only one can")
        if name not in self._base or self._base[name].shape != adapter.checkpoint[own].shape:
            there = list(self._base[name].shape) if name in self._base else "none"
            raise CheckpointError(
                f"{adapter.path}: replaces {quoted(name)} by a tensor of shape {list(adapter.checkpoint[own].shape)}, but "
                f"{self._base.path} has {there}; use its own base"
            )
        self._whole[name] = (adapter.checkpoint, own)

    def read(
        self, name: str, start: int = 0, stop: int | None = None, out: Tensor | None = None, checked: bool = False
    ) -> Tensor:
        if name in self._whole:
            checkpoint, own = self._whole[name]
            values = checkpoint.read(own, start, stop)
            block = torch.empty_like(values, dtype=self[name].dtype) if out is None else out.view(-1)[: len(values)]
            block.copy_(values)
        else:
            block = self._base.read(name, start, stop, out, checked)
        if name in self._updates and len(block):
            values = block.to(torch.promote_types(block.dtype, torch.float32))
            total = sum(self._rows(update, name, start, start + len(block)) for update in self._updates[name])
            block.copy_(values + total)
        ours = name in self._updates or name in self._whole
        if ours and not checked and not self.allow_nonfinite:  # rounding may have left the range
            check_finite(block, self[name], start)
        return block

    def _rows(self, update: _Update, name: str, start: int, stop: int) -> Tensor:
        """Return the entries from start to stop of an update laid out flat, from the rows that hold them."""
        A, B = self._factors(update)
        n = A.shape[1]
        first = start // n // ROWS * ROWS  # rows are computed in the same groups, whatever part of them is wanted
        last = -(-stop // n)
        scaling = update.adapter.layers[update.module].scaling * update.weight
        rows = low_rank_update(A, B[first : -(-last // ROWS) * ROWS], scaling)
        return rows.reshape(-1)[start - first * n : stop - first * n]

    def _factors(self, update: _Update) -> tuple[Tensor, Tensor]:
        """Return A and B such that B A has the shape of the base's tensor."""
        A, B = update.adapter.factors(update.module)
        return (B.T.contiguous(), A.T.contiguous()) if update.transposed else (A, B)

    def close(self) -> None:
        self._base.close()
        for adapter in self._adapters:
            adapter.checkpoint.close()


def open_model(text: str, allow_nonfinite: bool = False) -> Checkpoint:
    """Open a model by its path, or a base with adapters by their paths joined by "+"; each may have a weight: base+adapter*0.5.

    Args:
        text: the path or paths.
        allow_nonfinite: as of `Checkpoint.open`.

    Raises:
        CheckpointError: as `Checkpoint.open` and `Adapter.open`.
    """
    if "+" not in text or Path(text).exists():
        return Checkpoint.open(text, allow_nonfinite)
    base, *adapters = text.split("+")
    opened, weights = [], []
    for adapter in adapters:
        path, _, weight = adapter.rpartition("*") if "*" in adapter and not Path(adapter).exists() else (adapter, "", "1")
        try:
            weights.append(float(weight))
        except ValueError:
            weights.append(math.nan)
        if not math.isfinite(weights[-1]):
            raise CheckpointError(f"{quoted(adapter)} needs a finite number after the *")
        opened.append(Adapter.open(path))
    return Adapted(Checkpoint.open(base, allow_nonfinite), opened, weights)
