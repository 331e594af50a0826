"""Models and outputs in storage that is no folder."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
import torch
from torch import Tensor

from reference_impls.__main__ import main
from reference_impls.checkpoints import remote, storage
from reference_impls.checkpoints.errors import CheckpointError
from reference_impls.checkpoints.files import Checkpoint
from tests.checkpoints.models import family, language_model, save

OPTIONS = ("--density", "0.5", "--shard-size", "6kB", "--quiet")
DARE = ("merge", "dare", "--base", "memory://in/base", "--models", "memory://in/a", *OPTIONS)


@pytest.fixture
def memory(tmp_path: Path, monkeypatch) -> fsspec.AbstractFileSystem:
    """A storage with a family of models in memory://in; the same in the working folder."""
    monkeypatch.chdir(tmp_path)
    family(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.rm("/", recursive=True) if memory.find("/") else None
    for file in tmp_path.rglob("*"):
        if file.is_file():
            memory.pipe_file(f"/in/{file.relative_to(tmp_path)}", file.read_bytes())
    memory.pipe_file("/in/base/modeling.py", b"raise SystemExit")
    remote.fetch.cache_clear()
    return memory


def found(memory: fsspec.AbstractFileSystem, folder: str) -> dict[str, bytes]:
    return {path.removeprefix(f"{folder}/"): memory.cat_file(path) for path in memory.find(folder)}


def weights(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if "safetensors" in name or name == "config.json"}


def in_folder(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_from_a_storage_to_a_storage_it_is_the_same_as_in_folders(memory) -> None:
    assert main([*DARE, "-o", "memory://out"]) == 0
    assert main([word.replace("memory://in/", "") for word in DARE] + ["-o", "out"]) == 0
    assert weights(found(memory, "/out")) == weights(in_folder(Path("out"))) != {}
    assert "`memory://in/a`" in memory.cat_file("/out/README.md").decode()
    assert not memory.exists("/.out.partial") and "modeling.py" not in found(memory, "/out")


def test_tied_weights_get_the_same_values_in_other_files(memory, tmp_path: Path) -> None:
    base = language_model(0)
    for name, model in {"base": base, "a": language_model(1, base)}.items():
        save(tmp_path / "tied" / name, model | {"lm_head.weight": model["model.embed_tokens.weight"].clone()})
    arguments = ("merge", "dare", "--base", "tied/base", "--models", "tied/a", *OPTIONS, "--shard-size", "1kB")
    assert main([*arguments, "-o", "memory://out"]) == 0
    for name, data in found(memory, "/out").items():
        (tmp_path / "got" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "got" / name).write_bytes(data)
    got: dict[str, Tensor] = Checkpoint.open("got").state_dict()
    assert torch.equal(got["lm_head.weight"], got["model.embed_tokens.weight"])
    assert main([*arguments, "-o", "out"]) == 0
    assert weights(found(memory, "/out")) == weights(in_folder(Path("out")))


def test_interrupted_it_leaves_nothing_under_the_name_and_goes_on(memory, monkeypatch, capsys) -> None:
    made: list[str] = []
    make = storage.make

    def stop(shard: storage.Shard, *rest: object) -> None:
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(shard.name)
        make(shard, *rest)

    monkeypatch.setattr(storage, "make", stop)
    assert main([*DARE, "-o", "memory://out"]) == 130
    assert not memory.exists("/out") and sorted(found(memory, "/.out.partial")) == ["identity", *made]
    again: list[str] = []
    monkeypatch.setattr(storage, "make", lambda shard, *rest: (again.append(shard.name), make(shard, *rest)))
    for more, message in {(): "--resume goes on with it", ("--resume", "--seed", "1"): "left by a run with other inputs"}.items():
        assert main([*DARE, "-o", "memory://out", *more]) == 1
        assert message in capsys.readouterr().err
    memory.pipe_file("/out/README.md", b"stopped while files were moved")
    assert main([*DARE, "-o", "memory://out", "--resume"]) == 0
    assert again and made[0] not in again
    assert main([word.replace("memory://in/", "") for word in DARE] + ["-o", "out"]) == 0
    assert weights(found(memory, "/out")) == weights(in_folder(Path("out")))


def test_an_existing_output_is_refused_and_with_force_replaced(memory, capsys) -> None:
    memory.pipe_file("/out/old", b"old")
    assert main([*DARE, "-o", "memory://out"]) == 1
    assert "memory://out: exists; --force" in capsys.readouterr().err and found(memory, "/out") == {"old": b"old"}
    assert main([*DARE, "-o", "memory://out", "--force"]) == 0
    assert "old" not in found(memory, "/out")


def test_what_a_storage_refuses_is_said_in_one_line(memory, capsys, monkeypatch) -> None:
    for url, code, message in (
        ("nothing://x/y", 1, "Protocol not known: nothing"),
        ("s3://bucket/model", 1, "Install s3fs"),
        ("memory://in/none", 1, "memory://in/none: doesn't exist"),
    ):
        assert main(["merge", "uniform_soup", "--models", url, "-o", "out"]) == code
        shown = capsys.readouterr().err
        assert message in shown and shown.count("\n") == 1

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the cloud is away")

    monkeypatch.setattr(type(memory), "put_file", broken)
    assert main([*DARE, "-o", "memory://out"]) == 3
    assert "RuntimeError: the cloud is away" in capsys.readouterr().err and not memory.exists("/out")


def test_adapters_after_a_plus_sign_are_fetched_too(memory) -> None:
    folder = remote.fetch("memory://in/a")
    assert remote.local("base+memory://in/a*0.5+b") == f"base+{folder}*0.5+b"
    assert remote.local("base+a*0.5") == "base+a*0.5" and remote.fetch("memory://in/a") == folder
    with pytest.raises(CheckpointError, match="doesn't exist"):
        remote.fetch("memory://in/z")
