"""Whatever a file claims, reading it ends in the right tensors or in one line that says what is wrong."""

from __future__ import annotations

import json
import os
import re
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from reference_impls.checkpoints import header
from reference_impls.checkpoints.errors import CheckpointError
from reference_impls.checkpoints.files import Checkpoint, parse_json
from reference_impls.checkpoints.header import DTYPES, header_length, parse_header

WEIGHT = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
BIAS = {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}


def written(folder: Path, claims: object, size: int = 32, name: str = "model.safetensors", length: int | None = None) -> Path:
    """Write a file with any header (an object, or its bytes) and `size` bytes of zeros after it."""
    text = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    length = len(text) if length is None else length
    (folder / name).write_bytes(length.to_bytes(8, "little") + text + bytes(size))
    return folder


def refusal(path: Path, **options) -> str:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(path, **options).state_dict()
    message = str(caught.value)
    assert message.isprintable() and len(message) < 600, message
    return message


def test_a_sound_file_is_read(tmp_path):
    checkpoint = Checkpoint.open(written(tmp_path, {"w": WEIGHT, "b": BIAS, "__metadata__": {"format": "pt", "note": '{"}'}}))
    assert list(checkpoint) == ["w", "b"] and checkpoint["w"].shape == (2, 3) and checkpoint["b"].dtype == torch.bfloat16
    assert checkpoint.metadata == {"format": "pt", "note": '{"}'} and checkpoint.config is None
    assert torch.equal(checkpoint.tensor("w"), torch.zeros(2, 3))


HEADERS = {
    "shape and length disagree": ({"w": WEIGHT | {"shape": [2, 4]}, "b": BIAS}, "'w' has 24 bytes by its offsets; F32 of shape"),
    "a product beyond 64 bits": ({"w": WEIGHT | {"shape": [2**40, 2**40]}, "b": BIAS}, "'w' has shape"),
    "a size of 2**63": ({"w": WEIGHT | {"shape": [2**63, 0], "data_offsets": [0, 0]}}, "'w' has shape"),
    "a huge but consistent claim": ({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}, "'w' ends at byte"),
    "a size of a thousand digits": ({"w": WEIGHT | {"shape": [10**1000]}, "b": BIAS}, "'w' has shape"),
    "a negative size": ({"w": WEIGHT | {"shape": [-2, -3]}, "b": BIAS}, "'w' has shape"),
    "a fraction as size": ({"w": WEIGHT | {"shape": [2.0, 3]}, "b": BIAS}, "'w' has shape"),
    "true as size": ({"w": WEIGHT | {"shape": [True, 6]}, "b": BIAS}, "'w' has shape"),
    "no list as shape": ({"w": WEIGHT | {"shape": "2,3"}, "b": BIAS}, "'w' has shape"),
    "a hundred axes": ({"w": WEIGHT | {"shape": [1] * 100}, "b": BIAS}, "'w' has shape"),
    "fp8": ({"w": {"dtype": "F8_E4M3", "shape": [32], "data_offsets": [0, 32]}}, "'w' has dtype 'F8_E4M3'; convert it to one of"),
    "an unknown dtype": ({"w": WEIGHT | {"dtype": "Q4_K"}, "b": BIAS}, "'w' has dtype 'Q4_K'"),
    "a list as dtype": ({"w": WEIGHT | {"dtype": ["F32"]}, "b": BIAS}, r"'w' has dtype \['F32'\]"),
    "offsets that overlap": ({"w": WEIGHT, "b": BIAS | {"data_offsets": [16, 24]}}, "'w' and 'b' overlap"),
    "the same bytes twice": ({"w": WEIGHT, "v": WEIGHT, "b": BIAS}, "'w' and 'v' overlap"),
    "a gap": ({"w": WEIGHT | {"shape": [2, 2], "data_offsets": [0, 16]}, "b": BIAS}, "8 bytes before tensor 'b' belong to no"),
    "bytes at the end": ({"w": WEIGHT}, "8 bytes after the last tensor belong to no tensor"),
    "offsets the wrong way round": ({"w": WEIGHT | {"data_offsets": [24, 0]}, "b": BIAS}, "'w' has -24 bytes"),
    "negative offsets": ({"w": WEIGHT | {"data_offsets": [-24, 0]}, "b": BIAS}, "'w' has data_offsets"),
    "three offsets": ({"w": WEIGHT | {"data_offsets": [0, 24, 32]}, "b": BIAS}, "'w' has data_offsets"),
    "a missing member": ({"w": {"dtype": "F32", "shape": [2, 3]}, "b": BIAS}, r"'w' has \['dtype', 'shape'\]"),
    "a member too many": ({"w": WEIGHT | {"device": "cuda"}, "b": BIAS}, "'w' has .*'device'.*each once"),
    "an object in an entry": ({"w": WEIGHT | {"shape": {}}, "b": BIAS}, "'w' needs an object of dtype"),
    "no object as entry": ({"w": 3}, "'w' needs an object of dtype"),
    "metadata that isn't text": ({"w": WEIGHT, "b": BIAS, "__metadata__": {"steps": 3}}, "'steps' in __metadata__ needs text"),
    "a list as header": ([WEIGHT], "no JSON object of tensors, at byte 0"),
    "an empty header": (b"", "no JSON object of tensors, at byte 0"),
    "no JSON": (b"\x00\x01\x02", "no JSON object of tensors, at byte 0"),
    "a header that breaks off": (b'{"w":' + json.dumps(WEIGHT).encode(), "no JSON object of tensors, at byte"),
    "text after the header": (b'{"w":' + json.dumps(WEIGHT).encode() + b"} {}", "goes on after its end"),
    "a tensor twice": (b'{"w":%b,"w":%b}' % ((json.dumps(WEIGHT).encode(),) * 2), "'w' is twice in the header"),
    "metadata twice": (b'{"__metadata__":{},"__metadata__":{}}', "'__metadata__' is twice"),
    "a metadata key twice": (b'{"__metadata__":{"a":"1","a":"2"}}', "'a' is twice"),
    "a dtype twice": (b'{"w":{"dtype":"F32","dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}', "'w' has .*each once"),
    "bytes that are no UTF-8": (b'{"w\xff":' + json.dumps(WEIGHT).encode() + b"}", "no UTF-8"),
    "half a surrogate pair": (b'{"w\\ud800":' + json.dumps(WEIGHT).encode() + b"}", "no UTF-8"),
    "deep nesting": (b'{"w":' + b"[" * 100_000, "'w' needs an object"),
    "deep nesting in an entry": (b'{"w":{"dtype":' + b"[" * 4_000 + b"}}", "'w' has no JSON object"),
    "NaN as size": (b'{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,24]}}', "'w' has shape"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_lies_is_refused(tmp_path, case):
    text, message = HEADERS[case]
    folder = written(tmp_path, text)
    said = refusal(folder)
    assert re.search(message, said), said
    assert said.startswith(str(folder / "model.safetensors"))


def test_a_name_that_would_break_the_line_is_escaped(tmp_path):
    said = refusal(written(tmp_path, {"w\n\x1b[31m\u202e": WEIGHT | {"dtype": "F8"}}))
    assert "\\n" in said and "\n" not in said and "\x1b" not in said and "\u202e" not in said
    assert len(refusal(written(tmp_path, {"w" * 100_000: WEIGHT | {"dtype": "F8"}}))) < 600


@pytest.mark.parametrize("cut", [0, 3, 8, 20, -1])
def test_a_truncated_file_is_refused(tmp_path, cut):
    whole = save({"w": torch.ones(5)})
    (tmp_path / "model.safetensors").write_bytes(whole[:cut])
    assert re.search("has . bytes|is cut off", refusal(tmp_path))


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path):
    save_file({"w": torch.ones(5)}, tmp_path / "model.safetensors")
    with Checkpoint.open(tmp_path) as checkpoint:
        os.truncate(tmp_path / "model.safetensors", 80)
        with pytest.raises(CheckpointError, match="tensor 'w' was cut off"):
            checkpoint.tensor("w")


def test_a_header_of_a_gigabyte_costs_nothing(tmp_path):
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.write((2**30).to_bytes(8, "little"))
        file.truncate(2**31)  # a file of 2 GB that takes no room on the disk
    tracemalloc.start()
    began = time.process_time()
    assert "announces a header of 1073741824 bytes; the format allows 100000000" in refusal(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000 and time.process_time() - began < 1
    tracemalloc.stop()
    assert "it is cut off or damaged" in refusal(written(tmp_path, {}, length=99_000_000))


@pytest.mark.parametrize(
    "swelling",
    [
        b'{"w":' + b"[]," * 3_000_000,
        b'{"w":{' + b'"ab":1,' * 1_000_000 + b"}}",
        b'{"__metadata__":{"a":[' + b'"ab",' * 2_000_000 + b"]}}",
        b"[" * 9_000_000,
        b'{"' + b"\\n" * 4_000_000,
        b'{"' + b"w" * 17_000_000 + b'":{}}',
        b'{"__metadata__":{"a":"' + "💥".encode() * 5_000_000 + b'"}}',
    ],
    ids=["lists", "members", "metadata", "depth", "an endless name", "a long name", "a long text"],
)
def test_a_header_made_to_swell_takes_little_memory(swelling):
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        parse_header(swelling, 8 + len(swelling), Path("model.safetensors"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000 + 2 * len(swelling)  # json takes 11 to 22 bytes for each byte of the first three


def test_more_tensors_than_any_model_has_are_refused(monkeypatch):
    monkeypatch.setattr(header, "MAX_TENSORS", 3)
    text = json.dumps({str(i): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(5)}).encode()
    with pytest.raises(CheckpointError, match="more than 3 tensors"):
        parse_header(text, 8 + len(text), Path("model.safetensors"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt", "model.pkl"])
def test_pickled_weights_are_refused_with_the_safe_way_out(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04")
    for path in (tmp_path, tmp_path / name):
        said = refusal(path)
        assert name in said and "weights_only=True" in said and "save_file" in said


def sharded(folder: Path, weight_map: object = None) -> Path:
    save_file({"a": torch.ones(2)}, folder / "model-1.safetensors")
    save_file({"b": torch.zeros(3)}, folder / "model-2.safetensors")
    weight_map = {"b": "model-2.safetensors", "a": "model-1.safetensors"} if weight_map is None else weight_map
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 20}, "weight_map": weight_map}))
    return folder


def test_shards_are_read_in_the_order_of_the_index(tmp_path):
    checkpoint = Checkpoint.open(sharded(tmp_path))
    assert list(checkpoint) == ["b", "a"]
    assert [file.name for file in checkpoint.files] == ["model-2.safetensors", "model-1.safetensors"]
    assert checkpoint.tensor("a").tolist() == [1, 1]


INDICES = {
    "upwards": ({"a": "../model-1.safetensors"}, "'a' is said to be in '../model-1.safetensors'"),
    "absolute": ({"a": "/etc/model.safetensors"}, "a shard is a .safetensors file beside the index"),
    "pickled": ({"a": "model-1.bin"}, "a shard is a .safetensors file"),
    "a null byte": ({"a": "model\0.safetensors"}, "a shard is a .safetensors file"),
    "a number": ({"a": 1}, "a shard is a .safetensors file"),
    "not there": ({"a": "model-3.safetensors"}, "model-3.safetensors: can't be read"),
    "nothing": ({}, "needs a weight_map"),
    "a list": (["a"], "needs a weight_map"),
    "a tensor that its shard lacks": (
        {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"},
        "model-2.safetensors: lacks tensor 'c'",
    ),
    "the wrong shard": ({"a": "model-2.safetensors", "b": "model-1.safetensors"}, "model-2.safetensors: lacks tensor 'a'"),
    "a tensor left out": ({"a": "model-1.safetensors"}, None),
}


@pytest.mark.parametrize("case", INDICES)
def test_an_index_that_lies_is_refused(tmp_path, case):
    weight_map, message = INDICES[case]
    if message is None:  # its shard holds one more
        save_file({"a": torch.ones(2), "c": torch.ones(1)}, sharded(tmp_path, weight_map) / "model-1.safetensors")
        message = "tensor 'c' isn't in the index"
    else:
        sharded(tmp_path, weight_map)
    assert message in refusal(tmp_path)


def test_links_and_pipes_are_not_followed_out_of_the_folder(tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir(), inside.mkdir()
    save_file({"a": torch.ones(2)}, outside / "secret.safetensors")
    (inside / "model.safetensors").symlink_to(outside / "secret.safetensors")
    assert "leads out of its folder" in refusal(inside) and "cp -rL" in refusal(inside)
    (tmp_path / "link").symlink_to(outside)
    assert list(Checkpoint.open(tmp_path / "link")) == ["a"]  # the caller's own link is the caller's wish
    (inside / "model.safetensors").unlink()
    os.mkfifo(inside / "model.safetensors")
    assert "no regular file" in refusal(inside)
    (inside / "model.safetensors").unlink()
    (inside / "model.safetensors").symlink_to("model.safetensors")
    assert "model.safetensors: can't be read" in refusal(inside)
    (inside / "model.safetensors").unlink()
    save_file({"a": torch.ones(2)}, inside / "model.safetensors")
    for name, message in ((str(outside / "secret.json"), "leads out of its folder"), ("config.json", "can't be read")):
        (inside / "config.json").symlink_to(name)
        assert "config.json: " + message in refusal(inside)
        (inside / "config.json").unlink()


def test_a_config_is_an_object_of_bounded_size(tmp_path):
    written(tmp_path, {"w": WEIGHT, "b": BIAS})
    for text, message in (
        ("[]", "holds list"), ("{", "is no JSON"), ('{"a":1,"a":2}', "'a' is twice"), ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 900 + "1" + "}" * 900, "nested too deeply; 50 levels"),
        ('{"a":' + "9" * 5000 + "}", "is no JSON"), ("\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "is no JSON"),
    ):  # fmt: skip
        (tmp_path / "config.json").write_text(text, encoding="latin-1")
        assert message in refusal(tmp_path)
    with open(tmp_path / "config.json", "wb") as file:
        file.truncate(2**31)
    assert "is longer than" in refusal(tmp_path)


def test_folders_that_leave_a_choice_are_refused(tmp_path):
    assert "doesn't exist" in refusal(tmp_path / "nowhere")
    assert "holds no .safetensors file" in refusal(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    assert "is no .safetensors file" in refusal(tmp_path / "notes.txt")
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    assert list(Checkpoint.open(tmp_path)) == list(Checkpoint.open(tmp_path / "x.safetensors")) == ["a"]
    save_file({"a": torch.ones(2)}, tmp_path / "y.safetensors")
    assert "2 safetensors files without an index" in refusal(tmp_path)
    save_file({"b": torch.ones(2)}, tmp_path / "model.safetensors")
    assert list(Checkpoint.open(tmp_path)) == ["b"]
    sharded(tmp_path)
    assert "holds both model.safetensors and model.safetensors.index.json" in refusal(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "is a LoRA adapter" in refusal(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_nan_and_infinity_are_found_with_their_place(tmp_path, dtype, value):
    model = {"v": torch.ones(3, dtype=dtype), "w": torch.ones(5, 7, dtype=dtype)}
    model["w"][3, 2] = float(value)
    save_file(model, tmp_path / "model.safetensors")
    assert f"tensor 'w' holds {value} at [3, 2]" in refusal(tmp_path)
    with Checkpoint.open(tmp_path) as checkpoint:
        assert checkpoint.read("w", 0, 23).numel() == 23
        with pytest.raises(CheckpointError, match=r"at \[3, 2\]"):
            checkpoint.read("w", 21)
    assert not Checkpoint.open(tmp_path, allow_nonfinite=True).tensor("w").isfinite().all()


def test_large_finite_weights_are_no_infinity(tmp_path):
    model = {str(d): torch.full((1000,), torch.finfo(d).max, dtype=d) for d in (torch.float16, torch.bfloat16, torch.float32)}
    save_file(model, tmp_path / "model.safetensors")
    assert all(torch.equal(t, model[k]) for k, t in Checkpoint.open(tmp_path).state_dict().items())


NAMES = st.text(max_size=8).filter(lambda name: name != "__metadata__")
TENSORS = st.tuples(st.sampled_from(list(DTYPES)), st.lists(st.integers(0, 4), max_size=4))


@given(st.dictionaries(NAMES, TENSORS, max_size=5), st.data())
@settings(max_examples=60, deadline=None)
def test_what_safetensors_writes_is_read_bit_by_bit(tmp_path_factory, tensors, data):
    model = {}
    for number, (name, (code, shape)) in enumerate(tensors.items()):
        generator = torch.Generator().manual_seed(number)
        size = torch.Size(shape).numel() * DTYPES[code].itemsize
        bits = torch.randint(0, 2 if code == "BOOL" else 120, (size,), generator=generator)
        model[name] = bits.to(torch.uint8).view(DTYPES[code]).reshape(shape)
    file = tmp_path_factory.mktemp("any") / "model.safetensors"
    save_file(model, file)
    with Checkpoint.open(file, allow_nonfinite=True) as checkpoint:
        assert set(checkpoint) == set(model)
        for name, tensor in model.items():
            got = checkpoint.tensor(name)
            assert got.dtype == tensor.dtype and got.shape == tensor.shape
            flat, out = tensor.reshape(-1).view(torch.uint8), torch.empty(tensor.numel() + 3, dtype=tensor.dtype)
            assert torch.equal(got.reshape(-1).view(torch.uint8), flat)
            start = data.draw(st.integers(0, tensor.numel()))
            stop = data.draw(st.integers(start, tensor.numel()))
            size = tensor.dtype.itemsize
            assert torch.equal(checkpoint.read(name, start, stop, out).view(torch.uint8), flat[start * size : stop * size])


KEYS = st.sampled_from(["dtype", "shape", "data_offsets", "w", "__metadata__", "weight_map"])
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.just("F32"), lambda x: st.lists(x, max_size=3) | st.dictionaries(KEYS, x)
)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=300, deadline=None)
def test_any_header_is_read_or_refused(text):
    size = 8 + len(text)
    try:
        assert header_length(len(text).to_bytes(8, "little"), size, Path("f")) == len(text)
        entries, _ = parse_header(text, size, Path("f"))
        assert all(entry.start == entry.stop == size for entry in entries.values())
    except CheckpointError as error:
        assert str(error).isprintable()
    try:
        assert isinstance(parse_json(text, Path("f")), dict)
    except CheckpointError as error:
        assert str(error).isprintable()


def test_a_closed_checkpoint_reads_no_other_file(tmp_path):
    save_file({"w": torch.ones(6)}, tmp_path / "model.safetensors")
    with Checkpoint.open(tmp_path) as checkpoint:
        assert checkpoint.tensor("w").sum() == 6
    with open(tmp_path / "model.safetensors", "rb"), pytest.raises(ValueError, match="has been closed"):
        checkpoint.tensor("w")
    checkpoint.close()


def test_reading_asks_for_what_is_there(tmp_path):
    save_file({"w": torch.arange(6.0)}, tmp_path / "model.safetensors")
    checkpoint = Checkpoint.open(tmp_path)
    with pytest.raises(ValueError, match="entries 2 to 9 of 'w', which has 6"):
        checkpoint.read("w", 2, 9)
    for out in (torch.empty(3), torch.empty(9, dtype=torch.float64)):
        with pytest.raises(ValueError, match="6 entries of torch.float32 don't fit"):
            checkpoint.read("w", out=out)
