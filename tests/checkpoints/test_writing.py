"""The output folder appears whole or not at all, whatever happens while it is written."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reference_impls.checkpoints import writing
from reference_impls.checkpoints.errors import CheckpointError
from reference_impls.checkpoints.files import Checkpoint
from reference_impls.checkpoints.writing import JOURNAL, Output, layout

MODEL = {
    f"layers.{i}.{name}": torch.randn(shape, generator=torch.Generator().manual_seed(7 * i)).to(dtype)
    for i in range(12)
    for name, shape, dtype in (
        ("weight", (32, 16), torch.bfloat16),
        ("bias", (32,), torch.float32),
        ("scale", (), torch.float64),
        ("none", (0, 3), torch.float16),
        ("mask", (5,), torch.bool),
    )
}
TENSORS = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in MODEL.items()}
FILES = {"config.json": b'{"model_type": "toy"}', "README.md": b"# Toy\n"}


def write(path: Path, pause: float = 0.0, tensors: dict | None = None, **options) -> None:
    """Write the model in blocks of 100 entries, in another order than that of the file."""
    with Output(path, TENSORS, **{"identity": "toy", "shard_size": 4000} | options) as output:
        for name, tensor in reversed((tensors or MODEL).items()):
            if name in output.done:
                continue
            flat = tensor.reshape(-1)
            for start in range(0, flat.numel(), 100):
                output.write(name, start, flat[start : start + 100])
                time.sleep(pause)
            output.finish(name)
        output.publish(FILES)


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """The bytes of an undisturbed run."""
    write(tmp_path / "undisturbed")
    return content(tmp_path / "undisturbed")


def test_what_is_written_is_read_back_by_the_safetensors_library_and_by_us(tmp_path: Path) -> None:
    write(tmp_path / "out")
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 2
    read = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    assert read.keys() == MODEL.keys() and all(torch.equal(read[name], tensor) for name, tensor in MODEL.items())
    assert all(torch.equal(tensor, MODEL[name]) for name, tensor in Checkpoint.open(tmp_path / "out").state_dict().items())
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    assert list(index["weight_map"]) == list(MODEL)
    assert index["metadata"]["total_size"] == sum(t.numel() * t.itemsize for t in MODEL.values())


def test_one_file_where_it_fits_and_everybody_may_read_it(tmp_path: Path) -> None:
    previous = os.umask(0o022)
    try:
        write(tmp_path / "out", shard_size=10**6)
    finally:
        os.umask(previous)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"model.safetensors", *FILES}
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "out").iterdir()} == {0o644}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


def test_no_file_holds_more_than_the_shard_size_unless_one_tensor_does() -> None:
    shards = layout({name: (torch.float32, (size,)) for name, size in zip("abcde", (10, 10, 5, 100, 1))}, shard_size=100)
    assert [list(shard.starts) for shard in shards] == [["a", "b", "c"], ["d"], ["e"]]


def test_every_tensor_is_aligned_to_its_own_dtype() -> None:
    for shard in layout(TENSORS):
        assert all(start % TENSORS[name][0].itemsize == 0 for name, start in shard.starts.items())


def test_nothing_stands_under_the_name_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out"
    with Output(path, TENSORS) as output:
        for name, tensor in MODEL.items():
            output.write(name, 0, tensor)
            output.finish(name)
            assert not path.exists()
        output.publish()
    assert path.exists() and os.listdir(path.parent) == ["out"]


def test_an_existing_output_is_refused_and_with_force_replaced_only_at_the_end(tmp_path: Path, whole: dict) -> None:
    path = tmp_path / "out"
    path.mkdir()
    (path / "precious.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="exists; --force"):
        write(path)
    with pytest.raises(ZeroDivisionError), Output(path, TENSORS, force=True):
        raise ZeroDivisionError
    assert content(path) == {"precious.txt": b"mine"}
    write(path, force=True)
    assert content(path) == whole and not hidden(path).exists()


def test_where_names_cannot_be_exchanged_two_renames_replace_the_old(tmp_path: Path, whole: dict, monkeypatch) -> None:
    monkeypatch.setattr(writing, "_exchange", lambda a, b: False)
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").write_text("old")
    write(path, force=True)
    assert content(path) == whole and sorted(os.listdir(tmp_path)) == ["out", "undisturbed"]


def test_an_empty_folder_gives_way_and_a_file_does_not(tmp_path: Path, whole: dict) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    assert content(tmp_path / "empty") == whole
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="is not a folder"):
        write(tmp_path / "file", force=True)


# --- stopped on the way -------------------------------------------------------------------------------------------


def forked(action: Callable[..., None], *args: object, **options: object) -> int:
    """Run in a child process, which costs no import; return its process id."""
    child = os.fork()
    if child == 0:
        try:
            action(*args, **options)
        finally:
            os._exit(0)
    return child


def test_killed_at_random_points_it_leaves_nothing_or_all_and_can_go_on(tmp_path: Path, whole: dict, monkeypatch) -> None:
    monkeypatch.setattr(writing, "SYNC_EVERY", 0.002)  # so that runs differ in what the journal holds
    began = time.perf_counter()
    write(tmp_path / "timed", pause=0.0005)
    duration = time.perf_counter() - began
    seen = set()
    for point in range(20):
        path = tmp_path / f"out{point}"
        child = forked(write, path, pause=0.0005)
        time.sleep(random.Random(point).uniform(0, 1.1 * duration))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if path.exists():
            assert {name: data for name, data in content(path).items() if name != JOURNAL} == whole
            seen.add("complete")
            continue
        journal = hidden(path) / JOURNAL
        seen.add(min(len(journal.read_bytes().splitlines()), 3) if journal.exists() else "no journal")
        write(path, resume=True)
        assert content(path) == whole and not hidden(path).exists()
    assert 3 in seen  # some were killed with tensors in the journal


def test_killed_again_and_again_it_still_arrives(tmp_path: Path, whole: dict, monkeypatch) -> None:
    monkeypatch.setattr(writing, "SYNC_EVERY", 0.002)
    path = tmp_path / "out"
    for attempt in range(100):
        child = forked(write, path, pause=0.001, resume=True)
        time.sleep(0.02 + 0.005 * attempt)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if path.exists():
            break
    if (path / JOURNAL).exists():
        write(path, resume=True)
    assert content(path) == whole


def killed_at(where: object, function: str, path: Path) -> None:
    """Replace the output at `path` and be killed on reaching a function."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(where, function, die)
    write(path, force=True)


def test_killed_while_an_old_output_is_replaced_it_leaves_the_old_or_the_new(tmp_path: Path, whole: dict) -> None:
    for where, function, left in ((writing, "_exchange", {"old": b"old"}), (Output, "_tidy", whole)):
        path = tmp_path / function
        path.mkdir()
        (path / "old").write_text("old")
        os.waitpid(forked(killed_at, where, function, path), 0)
        assert {name: data for name, data in content(path).items() if name != JOURNAL} == left
        write(path, force=function == "_exchange", resume=True)
        assert content(path) == whole and not hidden(path).exists()


def interrupted(path: Path, after: int = 20, error: BaseException | None = None, **options) -> None:
    """Stop a run after some tensors."""
    with Output(path, TENSORS, identity="toy", shard_size=4000, **options) as output:
        for name, tensor in list(MODEL.items())[:after]:
            output.write(name, 0, tensor.reshape(-1))
            output.finish(name)
        if error is not None:
            raise error


def test_an_interrupted_run_is_not_begun_anew_unasked(tmp_path: Path, whole: dict) -> None:
    path = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        interrupted(path, error=KeyboardInterrupt())
    assert not path.exists()
    with pytest.raises(CheckpointError, match="--resume goes on with it, --force begins anew"):
        write(path)
    wrong = {name: torch.zeros_like(tensor) for name, tensor in MODEL.items()}
    write(path, resume=True, tensors=wrong)  # what was complete is not written again
    resumed = Checkpoint.open(path).state_dict()
    assert [name for name in MODEL if torch.equal(resumed[name], MODEL[name]) and MODEL[name].any()] == [
        name for name in list(MODEL)[:20] if MODEL[name].any()
    ]
    interrupted(tmp_path / "again")
    write(tmp_path / "again", force=True)
    assert content(tmp_path / "again") == whole


def test_another_recipe_or_a_damaged_file_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "out"
    interrupted(path)
    with pytest.raises(CheckpointError, match="other inputs, another recipe"):
        write(path, resume=True, identity="other")
    with pytest.raises(CheckpointError, match="other inputs, another recipe"):
        write(path, resume=True, shard_size=5000)
    shard = min(hidden(path).glob("*.safetensors"))
    os.truncate(shard, 100)
    with pytest.raises(CheckpointError, match=f"{shard.name}: is not as the journal"):
        write(path, resume=True)
    assert hidden(path).exists()


def test_a_line_of_the_journal_that_was_cut_off_does_not_count(tmp_path: Path, whole: dict) -> None:
    path = tmp_path / "out"
    interrupted(path)
    journal = hidden(path) / JOURNAL
    journal.write_bytes(journal.read_bytes() + b'"layers.11.bi')
    write(path, resume=True)
    assert content(path) == whole


def test_two_runs_do_not_write_to_one_place(tmp_path: Path) -> None:
    with Output(tmp_path / "out", TENSORS):
        for options in ({"force": True}, {"resume": True}, {}):
            with pytest.raises(CheckpointError, match="another run is writing there"):
                Output(tmp_path / "out", TENSORS, **options)
        assert hidden(tmp_path / "out").exists()


def test_nothing_is_left_of_a_run_that_wrote_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Output(tmp_path / "out", TENSORS):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_a_tensor_that_was_never_finished_is_not_published(tmp_path: Path) -> None:
    with Output(tmp_path / "out", TENSORS) as output:
        for name in list(MODEL)[1:]:
            output.finish(name)
        with pytest.raises(RuntimeError, match="1 tensors were never finished, 'layers.0.weight'"):
            output.publish()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("start", "block"), [(0, torch.zeros(3)), (510, torch.zeros(3, dtype=torch.bfloat16))])
def test_a_block_of_another_dtype_or_beyond_the_end_is_refused(tmp_path: Path, start: int, block: torch.Tensor) -> None:
    with Output(tmp_path / "out", TENSORS) as output, pytest.raises(ValueError, match="don't fit 'layers.0.weight'"):
        output.write("layers.0.weight", start, block)


# --- a disk that refuses ------------------------------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_seen_before_anything_is_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match="GB are free") as caught:
        write(tmp_path / "out")
    assert caught.value.errno == errno.ENOSPC and os.listdir(tmp_path) == []


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_a_disk_that_fills_up_leaves_no_output_and_the_run_can_go_on(tmp_path: Path, whole: dict, monkeypatch, call: str) -> None:
    monkeypatch.setattr(writing, "SYNC_EVERY", 0.001)
    real, calls = getattr(os, call), []

    def full(*args: object) -> object:
        calls.append(args)
        if len(calls) > {"pwrite": 60, "fdatasync": 6}[call]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "out", pause=0.001)
    monkeypatch.undo()
    assert not (tmp_path / "out").exists() and hidden(tmp_path / "out").exists()
    write(tmp_path / "out", resume=True)
    assert content(tmp_path / "out") == whole


def test_a_real_limit_on_file_sizes_leaves_no_output(tmp_path: Path) -> None:
    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            write(tmp_path / "out")
        except OSError as error:
            os._exit(error.errno)

    _, status = os.waitpid(forked(limited), 0)
    assert os.waitstatus_to_exitcode(status) == errno.EFBIG
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system can only be mounted by root")
def test_a_real_disk_that_is_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this container may not mount a file system")
    try:
        with pytest.raises(OSError, match="free"):
            Output(disk / "out", {"w": (torch.uint8, (100_000,))})
        assert os.listdir(disk) == []
        (disk / "filler").write_bytes(bytes(20_000))
        big = {"w": (torch.uint8, (40_000,))}
        with pytest.raises(OSError, match="No space left"), Output(disk / "out", big) as output:
            (disk / "more").write_bytes(bytes(20_000))  # somebody else takes what was free
            output.write("w", 0, torch.zeros(40_000, dtype=torch.uint8))
        assert sorted(os.listdir(disk)) == ["filler", "more"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_folder_that_may_not_be_written_to() -> None:
    def as_nobody() -> None:
        if os.geteuid() == 0:  # root may write anywhere
            os.setresuid(65534, 65534, 65534)
        try:
            write(Path(target) / "out")
        except PermissionError:
            os._exit(7)

    with tempfile.TemporaryDirectory() as target:
        os.chmod(target, 0o555)
        _, status = os.waitpid(forked(as_nobody), 0)
        assert os.waitstatus_to_exitcode(status) == 7
        assert os.listdir(target) == []
