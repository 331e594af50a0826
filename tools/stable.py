"""Ids stay: what was published under an id is found under it for ever, as a record or as a redirect to one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tools.catalog import TABLES, Catalog, CatalogError, Problem, parse
from tools.records import KINDS, nearest

FILE = "redirects.yaml"
TARGETS = [*KINDS, "taxonomy", "venues"]


def redirects(catalog: Catalog) -> Iterator[Problem]:
    """A redirect leads from an id that is no record to one that is."""
    for key, redirect in catalog.redirects.items():
        source = catalog.source("redirects", key)
        kind, _, id = key.partition("/")
        if kind not in TARGETS:
            yield Problem(source.path, source.line(key), f"unknown kind {kind!r}", f"begin with one of {', '.join(TARGETS)}")
        elif id in catalog.ids(kind):
            yield Problem(source.path, source.line(key), f"{key} is a record", "delete the redirect or the record")
        target, _, name = redirect.to.partition("/")
        known = catalog.ids(target) if target in TARGETS else set()
        if name not in known:
            near = nearest(redirect.to, [f"{target}/{id}" for id in known])
            if redirect.to in catalog.redirects:
                near = catalog.redirects[redirect.to].to
            mend = f"did you mean {near!r}?" if near else "write kind and id of a record: papers/doe2021new"
            yield Problem(source.path, source.line(key, "to"), f"{redirect.to} is no record", mend)


def gone(catalog: Catalog, revision: str) -> Iterator[Problem]:
    """Ids that a revision of the project has and the catalog no longer knows."""
    yield from lost(published(catalog.root, catalog.folder.name, revision), catalog, revision)


def ids(catalog: Catalog) -> set[str]:
    """kind/id of everything that is found under an id."""
    return {f"{kind}/{id}" for kind in TARGETS for id in catalog.ids(kind)} | catalog.ids("redirects")


def lost(before: set[str], catalog: Catalog, revision: str) -> Iterator[Problem]:
    for reference in sorted(before - ids(catalog)):
        kind, _, id = reference.partition("/")
        near = nearest(id, catalog.ids(kind))
        mend = f"restore it, or add `{reference}:` with `to:` and `why:`"
        mend += f" (to {kind}/{near}?)" if near else ""
        yield Problem(catalog.folder / FILE, 1, f"{reference} was published in {revision} and is gone", mend)


def published(root: Path, folder: str, revision: str) -> set[str]:
    """kind/id of every record and redirect in a revision."""
    if not revision or revision.startswith("-"):
        raise CatalogError(f"{revision!r} is no revision; name a branch, a tag or a commit")
    listed = _git(root, "ls-tree", "-r", "-z", "--name-only", f"{revision}^{{commit}}", "--", f"./{folder}/")
    found = set()
    for line in listed.split("\0"):
        path = PurePosixPath(line)
        inside = path.parts[path.parts.index(folder) + 1 :] if folder in path.parts else ()
        if path.suffix == ".yaml" and len(inside) > 1 and inside[0] in KINDS:
            found.add(f"{inside[0]}/{path.stem}")
        elif len(inside) == 1 and path.stem in TABLES and path.suffix == ".yaml" and path.stem != "people":
            text = _git(root, "show", f"{revision}:./{folder}/{path.name}")
            source, problems = parse(Path(f"{revision}:{folder}/{path.name}"), text)
            if problems or not isinstance(source.value, dict):
                raise CatalogError(f"{revision}: {folder}/{path.name} cannot be read; name a revision whose catalog is sound")
            found |= set(source.value) if path.stem == "redirects" else {f"{path.stem}/{id}" for id in source.value}
    if not found:
        raise CatalogError(f"{revision} has no catalog in {folder}/; name a revision that has one")
    return found


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=False)
    except OSError as error:
        raise CatalogError(f"git cannot be run ({error.strerror}); install it to compare with a revision") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise CatalogError(f"git: {said[0] if said else 'failed'}; name a revision that `git log` shows")
    return done.stdout.decode("utf-8", "replace")
