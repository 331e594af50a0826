"""A method as a Jupyter notebook: what it does, its source on its own, and its example with the output that a test confirms."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Sequence

from tools.docstrings import Implementation
from tools.records import Method

BRANCH = "gh-pages"  # where the deployment puts the built site, notebooks among it


def notebook(method: Method, code: Implementation, source: str, paper: str | None) -> str:
    """The notebook as JSON in the format of Jupyter, version 4.5; the same method gives the same bytes."""
    about = [f"# {method.name}", method.summary, code.main.description, f"Introduced in: {paper}" if paper else ""]
    cells = [_words("about", "\n\n".join(part for part in about if part)), _code("source", source.strip("\n"), None)]
    for number, (words, example, output) in enumerate(code.main.examples, start=1):
        if words:
            cells.append(_words(f"words-{number}", words))
        if example:
            cells.append(_code(f"example-{number}", example.strip("\n"), output))
    return _written(cells)


def demo_notebook(title: str, reading: str, before: str, own: str) -> str:
    """A demo likewise: what it shows, the modules that it uses, and the demo in a cell of its own."""
    return _written(
        [
            _words("about", f"# {title}\n\n{reading}"),
            _code("modules", before.strip("\n"), None),
            _code("demo", own.strip("\n"), None),
        ]
    )


def colab(path: str) -> str | None:
    """Where Colab opens a file of the deployed site; only a deployment knows its repository (ATLAS_REPOSITORY=owner/name)."""
    repository = os.environ.get("ATLAS_REPOSITORY", "")
    if not repository:
        return None
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"ATLAS_REPOSITORY is {repository!r}; it is the owner and name of a repository on GitHub: owner/name")
    return f"https://colab.research.google.com/github/{repository}/blob/{BRANCH}/{path}"


def _written(cells: list[dict]) -> str:
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return (
        json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}, indent=1, ensure_ascii=False)
        + "\n"
    )


def _words(id: str, text: str) -> dict:
    return {"cell_type": "markdown", "id": id, "metadata": {}, "source": _lines(text)}


def _code(id: str, text: str, output: str | None) -> dict:
    outputs: list[dict] = []
    if output and _prints(text):
        outputs = [{"name": "stdout", "output_type": "stream", "text": _lines(output + "\n")}]
    elif output:
        outputs = [
            {"data": {"text/plain": _lines(output)}, "execution_count": None, "metadata": {}, "output_type": "execute_result"}
        ]
    return {"cell_type": "code", "execution_count": None, "id": id, "metadata": {}, "outputs": outputs, "source": _lines(text)}


def _prints(text: str) -> bool:
    """Whether what the code shows is printed, rather than the value of its last expression."""
    last = ast.parse(text).body[-1]
    return not isinstance(last, ast.Expr) or (isinstance(last.value, ast.Call) and ast.unparse(last.value.func) == "print")


def _lines(text: str) -> Sequence[str]:
    return text.splitlines(keepends=True)
