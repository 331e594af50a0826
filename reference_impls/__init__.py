"""Reference implementations of the methods that combine trained models, in plain PyTorch.

    import reference_impls as ri
    merged = ri.ties_merging(base, finetuned, density=0.2)

One folder a chapter, one module a method; the function is named as its module. Methods are found by listing files
and imported at first use, so that importing the package costs no more than importing torch.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

_HERE = Path(__file__).parent

CHAPTERS = ("averaging", "task_vectors", "alignment", "connectivity", "mixing", "ensembles", "distillation", "reuse")


def methods() -> dict[str, str]:
    """Return every method's name and full module path, in the order of chapters and names.

    Example:
        >>> import reference_impls as ri
        >>> ri.methods()["ties_merging"]
        'reference_impls.task_vectors.ties_merging'
    """
    return {
        file.stem: f"{__name__}.{chapter}.{file.stem}"
        for chapter in CHAPTERS
        for file in sorted((_HERE / chapter).glob("[!_]*.py"))
    }


def __getattr__(name: str) -> Any:
    if name == "core" or name in CHAPTERS:
        return import_module(f"{__name__}.{name}")
    path = None if name.startswith("_") else methods().get(name)
    if path is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module: ModuleType = import_module(path)
    return globals().setdefault(name, getattr(module, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *CHAPTERS, "core", *methods()})
