"""Models in storage that is no folder: `s3://bucket/model`, or whatever else fsspec reaches, fetched into a temporary folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from reference_impls.checkpoints.errors import CheckpointError

FETCHED = (".safetensors", ".json", ".model", ".txt", ".jinja", "LICENSE", "NOTICE")  # no code, no pickled weights


def is_remote(name: str) -> bool:
    return "://" in name


def connect(url: str) -> tuple[Any, str]:
    """Return the file system that a URL is on, and the path there."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(url.rstrip("/"))
    except (ImportError, ValueError) as error:  # a protocol that is unknown, or whose package is missing
        raise CheckpointError(f"{url}: {error}") from None


@contextmanager
def said(url: str) -> Iterator[None]:
    """Turn what goes wrong in a storage, whose errors are of any kind, into one that names the URL."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise OSError(None, f"{type(error).__name__}: {error}", url) from error


@lru_cache
def fetch(url: str) -> Path:
    """Return a local folder with a model's files, fetched when first asked for and removed when the process ends."""
    storage, root = connect(url)
    with said(url):
        if not storage.exists(root):
            raise CheckpointError(f"{url}: doesn't exist")
        found = [file["name"] for file in storage.ls(root, detail=True) if file["type"] == "file"]
        folder = Path(_temporary().name) / str(len(os.listdir(_temporary().name)))
        folder.mkdir()
        for path in found:
            if path.endswith(FETCHED):
                storage.get_file(path, str(folder / os.path.basename(path)))
    return folder


@lru_cache
def _temporary() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="checkpoints-")


def local(name: str) -> str:
    """Return a model's name, adapters included, with URLs replaced by folders into which they are fetched."""
    if not is_remote(name):
        return name
    parts = (part.partition("*") for part in name.split("+"))
    return "+".join(f"{fetch(path) if is_remote(path) else path}{star}{weight}" for path, star, weight in parts)
