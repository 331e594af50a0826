"""Feed made-up headers, indices and configs to whatever reads files from strangers: `python -m tests.checkpoints.fuzz`.

Each input is sound at first and is then damaged, as bytes (bits turned, pieces cut, doubled or put in) or in its structure (a
value replaced by one that is known to hurt: huge, negative, deep, of another kind). Whatever comes out, the reader either returns
what holds together, which for headers the safetensors library confirms, or raises `CheckpointError` with one line. Anything else
stops the run and is printed with the seed that brings it back.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import safetensors
import torch
import yaml

from reference_impls.checkpoints.adapters import check_config, read_layers
from reference_impls.checkpoints.aligning import check_patterns, parse_patterns, spec_of
from reference_impls.checkpoints.config import parse_config
from reference_impls.checkpoints.errors import MAX_LINE, CheckpointError
from reference_impls.checkpoints.files import Checkpoint, parse_index, parse_json
from reference_impls.checkpoints.header import DTYPES, Entry, header_length, parse_header
from reference_impls.checkpoints.mergekit import METHODS
from reference_impls.core.permutation import check_permutations, random_permutations

HUGE = b"0x" + b"f" * 5000  # in YAML a number that can't even be printed
PIECES = (b'"', b"{", b"}", b"[" * 50, b",", b":", b"\\", b"\\u", b"null", b"1e999", b"\xff", b"\0", b"&a ", b"*a", b"- ", HUGE)
FILE = Path("model.safetensors")
SECONDS = 1.0  # of CPU; no input may take longer

HURTFUL = [
    None, True, False, 0, -1, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30, 10**300, -(2**63), 1 << 4000,
    0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "F32", "f32", "F8_E4M3", "F8_E5M2", "BOOL", "C64", "w", "\0", "\n", "\ud800", "\u202e", "💥" * 50, "x" * 5000,
    "../w", "/etc/passwd", "a/../b.safetensors", "__metadata__", "model.safetensors", "model.bin",
    [], {}, [[]], [0, 0], [1, 0], [0, 2**62], [2**32, 2**32, 2**32], [1] * 70, [-1, -1], ["a", 1], {"a": {}},
]  # fmt: skip


def header(random: random.Random) -> bytes:
    """Return a whole small file, sound or nearly so."""
    entries: dict[str, object] = {}
    place = 0
    for number in range(random.randrange(4)):
        code = random.choice(["F32", "BF16", "I64", "BOOL", "F16", "U8"])
        shape = [random.randrange(4) for _ in range(random.randrange(3))]
        size = DTYPES[code].itemsize
        for n in shape:
            size *= n
        entries[f"t{number}"] = {"dtype": code, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    if random.random() < 0.3:
        entries["__metadata__"] = {"format": "pt"}
    if random.random() < 0.5:
        damage(entries, random)
    text = dumped(entries, random)
    return len(text).to_bytes(8, "little") + text + bytes(place)


def index(random: random.Random) -> bytes:
    shards = [f"model-{i}.safetensors" for i in range(random.randrange(1, 4))]
    value = {"metadata": {"total_size": 10}, "weight_map": {f"t{i}": random.choice(shards) for i in range(random.randrange(5))}}
    if random.random() < 0.5:
        damage(value, random)
    return dumped(value, random)


def adapter(random: random.Random) -> bytes:
    """Return adapter_config.json and the shapes of an adapter's tensors, in one object."""
    r = random.randrange(1, 5)
    config = {"peft_type": "LORA", "r": r, "lora_alpha": 8, "use_rslora": False, "bias": "none", "target_modules": ["q"]}
    if random.random() < 0.3:
        config |= {"alpha_pattern": {"0.q": 4, "^v$": 2.5}, "rank_pattern": {"v": 3}}
    tensors = {}
    for module in random.choices(["layers.0.q", "layers.1.q", "v", "embed"], k=random.randrange(3)):
        letters = ("lora_embedding_A", "lora_embedding_B") if module == "embed" else ("lora_A.weight", "lora_B.weight")
        tensors |= {f"base_model.model.{module}.{letters[0]}": [r, 6], f"base_model.model.{module}.{letters[1]}": [5, r]}
    value = {"config": config, "tensors": tensors}
    if random.random() < 0.7:
        damage(value, random)
    return dumped(value, random)


def config(random: random.Random) -> bytes:
    """Return a configuration in mergekit's format; JSON is YAML, too."""
    name = random.choice(list(METHODS))
    method = METHODS[name]

    def settings(each: bool) -> dict[str, object]:
        number = random.choice([0.5, 1, [0.1, 0.5, 1], [{"filter": "mlp", "value": 0.2}, {"value": [1, 0.5]}]])
        values = {float: number, int: 3, bool: True}
        return {key: values[p.kind] for key, p in method.parameters.items() if p.each == each}

    others = range(max(method.models[0], random.randrange(3)))
    models = [{"model": "base"}] * (method.base in ("needed", "first"))
    models += [{"model": f"model{i}", "parameters": settings(True)} for i in others]
    base = None if method.base == "none" else "base"
    value = {"merge_method": name, "base_model": base, "models": models, "parameters": settings(False), "dtype": "bfloat16"}
    if random.random() < 0.3:
        value["slices"] = [{"sources": [model | {"layer_range": [0, 4]} for model in models]}]
        del value["models"]
    if random.random() < 0.7:
        damage(value, random)
    if random.random() < 0.3:
        return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")
    return dumped(value, random)


def patterns(random: random.Random) -> bytes:
    """Return a file that says which axes share a permutation, for the tensors of `read_patterns`."""
    axes = {"layers.*.up": ["mlp.*", None], "layers.*.down": [None, "mlp.*"], "layers.*.v": ["v.*", None], "mean": ["m"]}
    chosen = random.sample(list(axes), random.randrange(1, 5))
    value: dict[str, object] = {"axes": {name: axes[name] for name in chosen}}
    if random.random() < 0.5:
        value["units"] = {"mlp.*": random.choice([2, 4, 8])}
    if random.random() < 0.3:
        value["blocks"] = [{"permutations": ["mlp.*", "v.*"], "count": random.choice([1, 2])}]
    if random.random() < 0.3:
        value["buffers"] = random.choice([["norm"], ["me*"], []])
    if random.random() < 0.5:
        damage(value, random)
    if random.random() < 0.3:
        return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")
    return dumped(value, random)


def dumped(value: object, random: random.Random) -> bytes:
    spread = {"indent": 1} if random.random() < 0.1 else {"separators": (",", ":")}
    return json.dumps(value, ensure_ascii=random.random() < 0.5, **spread).encode("utf-8", "surrogatepass")


def damage(value: object, random: random.Random) -> None:
    """Replace, remove, rename or double one member somewhere in a structure."""
    places = [value]
    for place in places:
        places += [x for x in (place.values() if isinstance(place, dict) else place) if isinstance(x, dict | list) and x]
    place = random.choice(places)
    if not place:
        return
    key = random.choice(list(place)) if isinstance(place, dict) else random.randrange(len(place))
    kind = random.randrange(4)
    if kind == 0:
        del place[key]
    elif kind == 1 and isinstance(place, dict):
        place[str(random.choice(HURTFUL))] = place.pop(key)
    elif kind == 2 and isinstance(place[key], int) and not isinstance(place[key], bool):
        place[key] += random.choice([-8, -1, 1, 8])
    else:
        place[key] = random.choice(HURTFUL)


def scratched(data: bytes, random: random.Random) -> bytes:
    """Damage bytes: a few places, each in one of six ways."""
    data = bytearray(data)
    for _ in range(random.choice((0, 1, 1, 1, 2, 5))):
        i = random.randrange(len(data) + 1)
        j = min(len(data), i + random.choice((1, 1, 2, 8, 30)))
        kind = random.randrange(6)
        if kind == 0 and i < len(data):
            data[i] ^= 1 << random.randrange(8)
        elif kind == 1:
            del data[i:j]
        elif kind == 2:
            data[i:i] = data[i:j]
        elif kind == 3:
            data[i:i] = bytes(random.randrange(256) for _ in range(random.randrange(6)))
        elif kind == 4:
            data[i:i] = random.choice(PIECES)
        else:
            del data[i:]
    return bytes(data)


def read_header(data: bytes) -> None:
    length = header_length(data[:8], len(data), FILE)
    entries, _ = parse_header(data[8 : 8 + length], len(data), FILE)
    place = 8 + length
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.stop)):
        assert entry.start == place, "tensors overlap or leave a gap"
        place = entry.stop
    assert place == len(data), "tensors don't fill the file"
    theirs = {name: tuple(value["shape"]) for name, value in safetensors.deserialize(data)}
    assert theirs == {name: entry.shape for name, entry in entries.items()}, "the safetensors library reads something else"


def read_index(data: bytes) -> None:
    for name, shard in parse_index(parse_json(data, FILE), FILE).items():
        assert isinstance(name, str) and Path(shard).name == shard and shard.endswith(".safetensors")


def read_adapter(data: bytes) -> None:
    value = parse_json(data, FILE)
    said, tensors = value.get("config"), value.get("tensors")
    if not isinstance(said, dict) or not isinstance(tensors, dict):
        raise CheckpointError("no adapter")
    check_config(said, FILE)
    entries = {}
    for name, shape in tensors.items():
        if isinstance(shape, list) and all(type(n) is int and 0 <= n < 2**63 for n in shape):  # as headers are, once read
            entries[name] = Entry(name, FILE, DTYPES["F32"], tuple(shape), 0, 0)
    layers, _ = read_layers(Checkpoint(FILE, {}, entries), said)
    assert layers and all(math.isfinite(layer.scaling) and layer.scaling > 0 for layer in layers.values())


def decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise CheckpointError("no UTF-8 text") from None  # as the command says before it parses


def read_config(data: bytes) -> None:
    found = parse_config(decoded(data))
    assert found.method in METHODS and found.models() and all(isinstance(model, str) for model in found.models())


def read_patterns(data: bytes) -> None:
    found = parse_patterns(decoded(data))
    shapes = {f"layers.{i}.{name}": shape for i in range(3) for name, shape in (("up", (8, 3)), ("down", (3, 8)), ("v", (4, 3)))}
    shapes |= {"norm": (3,), "mean": (5,), "none": (0, 3), "scale": ()}
    model = Checkpoint(FILE, {}, {name: Entry(name, FILE, DTYPES["F32"], shape, 0, 0) for name, shape in shapes.items()})
    check_patterns(found, model)
    spec = spec_of(found, shapes)
    spec.check({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    check_permutations(spec, random_permutations(spec, torch.Generator()))


TARGETS: dict[str, tuple[Callable[[random.Random], bytes], Callable[[bytes], None]]] = {
    "header": (header, read_header),
    "index": (index, read_index),
    "adapter": (adapter, read_adapter),
    "config": (config, read_config),
    "patterns": (patterns, read_patterns),
}


def fuzz(inputs: int, seed: int = 0, targets: tuple[str, ...] = tuple(TARGETS)) -> Counter[tuple[str, str]]:
    """Read damaged inputs, the targets in turn; return how many of each were read and refused.

    Raises:
        AssertionError: one that escaped, with the bytes.
    """
    counts: Counter[tuple[str, str]] = Counter()
    source = random.Random(seed)
    for number in range(inputs):
        target = targets[number % len(targets)]
        make, read = TARGETS[target]
        data = scratched(make(source), source)
        began = time.process_time()
        try:
            read(data)
            outcome = "read"
        except CheckpointError as error:
            assert str(error).isprintable() and len(str(error)) <= MAX_LINE + 3, (target, data)
            outcome = "refused"
        except BaseException as error:
            raise AssertionError(f"{target} number {number} of seed {seed} escaped with {error!r}: {data!r}") from error
        if (seconds := time.process_time() - began) > SECONDS:
            raise AssertionError(f"{target} number {number} of seed {seed} took {seconds:.1f} s: {data!r}")
        counts[target, outcome] += 1
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.checkpoints.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began, cpu = time.perf_counter(), time.process_time()
    counts = fuzz(args.inputs, args.seed)
    for (target, outcome), count in sorted(counts.items()):
        print(f"{target:10}{outcome:10}{count:>10}")
    print(f"{args.inputs} inputs, none escaped; {time.perf_counter() - began:.0f} s, {time.process_time() - cpu:.0f} s of CPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
