"""What headers, configs and tokenizers say about checkpoints: tied weights, vocabularies, and why models can't be merged.

Weights are read only where two tensors of one checkpoint look the same, to tell whether they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from reference_impls.checkpoints.errors import CheckpointError, quoted
from reference_impls.checkpoints.files import Checkpoint, read_bytes, read_json

MAX_TOKENIZER = 128_000_000  # bytes

_EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|lm_head|embed_out)\.weight$|^shared\.weight$"
)
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_DECISIVE = ("model_type", "num_attention_heads", "num_key_value_heads", "hidden_act")  # what a tensor means depends on them
_IMMATERIAL = ("_name_or_path", "transformers_version", "torch_dtype", "dtype")


def cheap_check(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Return the reasons why checkpoints can't be merged, one line each; none if nothing speaks against it.

    Each is compared with the first: names, shapes, kinds of numbers, the settings that decide what a tensor means, and the tokens
    that the rows of an embedding stand for. It takes a moment at any size.

    Args:
        checkpoints: the base first, or the first model where there is no base.
    """
    reasons = [f"{checkpoint.path}: {lie}" for checkpoint in checkpoints for lie in config_lies(checkpoint)]
    first, *others = checkpoints
    for other in others:
        reasons += _names(first, other) + _shapes(first, other)
        for key, (a, b) in config_differences(first, other).items():
            if key in _DECISIVE:
                reasons.append(f"{other.path}: {key} is {quoted(b)} in config.json, {quoted(a)} in {first.path}; one is needed")
        if clash := vocabulary_difference(first, other).clash:
            reasons.append(
                f"{other.path}: {clash} rows of the embedding stand for other tokens than in {first.path}; bring both to one "
                "tokenizer first"
            )
    return reasons


def _names(first: Checkpoint, other: Checkpoint) -> list[str]:
    """Say which tensors only one of two checkpoints has, apart from those that merely repeat another tensor."""
    parts = []
    for what, here, there in (("lacks", first, other), ("adds", other, first)):
        names = [name for name in here if name not in there]
        if names:
            groups = {name: group for group in tied_groups(here) for name in group}
            names = [name for name in names if not any(twin in there for twin in groups.get(name, ()))]
        if names:
            parts.append(f"{what} {len(names)} tensors, {quoted(names[0])} first")
    return [f"{other.path}: {' and '.join(parts)}, compared with {first.path}; one architecture is needed"] if parts else []


def _shapes(first: Checkpoint, other: Checkpoint) -> list[str]:
    reasons, vocabulary = [], False
    for name in first:
        if name not in other:
            continue
        a, b = first[name], other[name]
        if a.shape != b.shape and _EMBEDDING.search(name) and a.shape[1:] == b.shape[1:]:
            if not vocabulary:
                reasons.append(
                    f"{other.path}: has {b.shape[0]} tokens (rows of {quoted(name)}), {first.path} has {a.shape[0]}; bring both "
                    "to one vocabulary first, for instance with model.resize_token_embeddings of transformers"
                )
            vocabulary = True
        elif a.shape != b.shape:
            reasons.append(
                f"{other.path}: tensor {quoted(name)} has shape {list(b.shape)}, and {list(a.shape)} in {first.path}; "
                "one architecture is needed"
            )
        elif a.dtype.is_floating_point != b.dtype.is_floating_point:
            reasons.append(f"{other.path}: tensor {quoted(name)} is {b.dtype}, and {a.dtype} in {first.path}; one kind is needed")
    return reasons if len(reasons) <= 5 else [*reasons[:5], f"{other.path}: {len(reasons) - 5} more tensors differ"]


# --- tied weights ----------------------------------------------------------------------------------------------------


def tied_groups(checkpoint: Checkpoint) -> list[tuple[str, ...]]:
    """Return the groups of names whose tensors hold the same bytes.

    On disk that is all that is left of names that share memory. A tensor of one value throughout (a fresh bias or norm) is no
    evidence of sharing and belongs to no group.
    """
    alike: dict[tuple, list[str]] = {}
    for name, entry in checkpoint.items():
        if entry.numel > 1:
            alike.setdefault((entry.dtype, entry.shape), []).append(name)
    groups: list[list[str]] = []
    for names in alike.values():
        found: dict[bytes, list[list[str]]] = {}
        for name in names if len(names) > 1 else ():
            candidates = found.setdefault(_sample(checkpoint, name), [])
            group = next((group for group in candidates if _same(checkpoint, group[0], name)), None)
            if group is None:
                candidates.append([name])
            else:
                group.append(name)
        groups += [group for candidates in found.values() for group in candidates if len(group) > 1]
    return [tuple(group) for group in groups if not _constant(checkpoint, group[0])]


def common_ties(checkpoints: Sequence[Checkpoint]) -> dict[str, str]:
    """Return name -> the name that it repeats, for what is tied in the first checkpoint and in all others.

    A checkpoint that holds only one of two tied names agrees; the name that is repeated is one that all have. What is computed
    for that name holds for the other.
    """
    first, *others = checkpoints
    ties = {}
    for group in tied_groups(first):
        owner = next((name for name in group if all(name in other for other in others)), None)
        for name in group if owner is not None else ():
            if name != owner and all(name not in other or _same(other, owner, name) for other in others):
                ties[name] = owner
    return ties


def _blocks(checkpoint: Checkpoint, name: str, size: int = 1 << 16) -> Iterator[torch.Tensor]:
    """Read a tensor as bytes, block by block."""
    numel = checkpoint[name].numel
    return (checkpoint.read(name, start, min(start + size, numel)).view(torch.uint8) for start in range(0, numel, size))


def _sample(checkpoint: Checkpoint, name: str) -> bytes:
    """Return a few bytes from the beginning, the middle and the end of a tensor."""
    n = checkpoint[name].numel
    places = ((start, min(start + 16, n)) for start in (0, n // 2, max(0, n - 16)))
    return b"".join(checkpoint.read(name, *place).view(torch.uint8).numpy().tobytes() for place in places)


def _same(checkpoint: Checkpoint, a: str, b: str) -> bool:
    if (checkpoint[a].dtype, checkpoint[a].shape) != (checkpoint[b].dtype, checkpoint[b].shape):
        return False
    return all(torch.equal(x, y) for x, y in zip(_blocks(checkpoint, a), _blocks(checkpoint, b), strict=True))


def _constant(checkpoint: Checkpoint, name: str) -> bool:
    value = checkpoint.read(name, 0, 1).view(torch.uint8)
    return all(bool((block.view(-1, len(value)) == value).all()) for block in _blocks(checkpoint, name))


# --- configs and tokenizers ------------------------------------------------------------------------------------------


def config_differences(a: Checkpoint, b: Checkpoint) -> dict[str, tuple[Any, Any]]:
    """Return key -> both values, for the keys of config.json that both checkpoints have with other values."""
    if a.config is None or b.config is None:
        return {}
    return {k: (v, b.config[k]) for k, v in a.config.items() if k in b.config and v != b.config[k] and k not in _IMMATERIAL}


def config_lies(checkpoint: Checkpoint) -> list[str]:
    """Return what config.json says that the tensors contradict."""
    config, lies = checkpoint.config or {}, []
    rows = [entry.shape[0] for name, entry in checkpoint.items() if _EMBEDDING.search(name) and len(entry.shape) == 2]
    size = config.get("vocab_size")
    if size is not None and (type(size) is not int or size < 1):
        lies.append(f"config.json gives vocab_size {quoted(size)}; a positive whole number is needed")
    elif size is not None and rows and size > max(rows):
        lies.append(f"config.json gives vocab_size {size}, but the embedding has {max(rows)} rows; one of them is wrong")
    if not isinstance(config.get("tie_word_embeddings", False), bool):
        lies.append(f"config.json gives tie_word_embeddings {quoted(config['tie_word_embeddings'])}; true or false is needed")
    return lies


def vocabulary(checkpoint: Checkpoint) -> dict[str, int] | None:
    """Return token -> row of the embedding from tokenizer.json, vocab.json or vocab.txt; None where there is none of them.

    Raises:
        CheckpointError: a file that isn't what its name promises.
    """
    for name, read in (("tokenizer.json", _tokenizer_json), ("vocab.json", _vocab_json), ("vocab.txt", _vocab_txt)):
        if checkpoint.path.is_dir() and (file := checkpoint.path / name).exists():
            return read(file)
    return None


class VocabularyDifference(NamedTuple):
    """How many tokens only one of two tokenizers has, and how many rows of an embedding they give to different tokens."""

    missing: int = 0
    extra: int = 0
    clash: int = 0


def vocabulary_difference(a: Checkpoint, b: Checkpoint) -> VocabularyDifference:
    """Compare the tokenizers of two checkpoints; without a vocabulary in one of them nothing is known to differ."""
    files = [checkpoint.path / "tokenizer.json" for checkpoint in (a, b)]
    if all(file.exists() for file in files):
        if read_bytes(files[0], MAX_TOKENIZER) == read_bytes(files[1], MAX_TOKENIZER):
            return VocabularyDifference()
    first, second = vocabulary(a), vocabulary(b)
    if first is None or second is None or first == second:
        return VocabularyDifference()
    tokens_first, tokens_second = ({id: token for token, id in tokens.items()} for tokens in (first, second))
    clash = {id for id, token in tokens_first.items() if tokens_second.get(id, token) != token}
    clash |= {id for token, id in first.items() if second.get(token, id) != id}
    return VocabularyDifference(len(first.keys() - second.keys()), len(second.keys() - first.keys()), len(clash))


def special_tokens(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the special tokens (bos_token, eos_token, ...) from tokenizer_config.json and special_tokens_map.json."""
    found = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if checkpoint.path.is_dir() and (file := checkpoint.path / name).exists():
            for key, value in read_json(file).items():
                value = value.get("content") if isinstance(value, dict) else value
                if key in _SPECIAL and isinstance(value, str):
                    found[key] = value
    return found


def _tokenizer_json(file: Path) -> dict[str, int]:
    tokenizer = read_json(file, MAX_TOKENIZER)
    model, added = tokenizer.get("model"), tokenizer.get("added_tokens") or []
    tokens = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(tokens, list):  # unigram: token and score, in the order of ids
        tokens = {pair[0]: id for id, pair in enumerate(tokens) if isinstance(pair, list) and pair and isinstance(pair[0], str)}
    tokens = _ids(tokens, file)
    for token in added if isinstance(added, list) else ():
        if not isinstance(token, dict) or not isinstance(token.get("content"), str) or type(token.get("id")) is not int:
            raise CheckpointError(f"{file}: has an added token {quoted(token)} without content and id")
        tokens[token["content"]] = token["id"]
    return tokens


def _vocab_json(file: Path) -> dict[str, int]:
    return _ids(read_json(file, MAX_TOKENIZER), file)


def _vocab_txt(file: Path) -> dict[str, int]:
    try:
        return {line: id for id, line in enumerate(read_bytes(file, MAX_TOKENIZER).decode("utf-8").split("\n")) if line}
    except UnicodeDecodeError:
        raise CheckpointError(f"{file}: is no UTF-8 text") from None


def _ids(tokens: object, file: Path) -> dict[str, int]:
    if not isinstance(tokens, Mapping) or any(type(id) is not int for id in tokens.values()):
        raise CheckpointError(f"{file}: has no vocabulary from tokens to whole numbers")
    return dict(tokens)
