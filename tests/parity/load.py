"""Read the recorded cases: each has a peer, its parameters, inputs, outputs and tolerances."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """One call of a peer. `inputs` and `outputs` hold tensors where the file names them."""

    id: str
    method: str
    peer: str
    function: str
    params: dict[str, Any]
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    rtol: float
    atol: float
    deterministic: bool
    note: str = ""

    @property
    def adapter(self) -> str:
        """The name of the function in `adapters` that reproduces the case: the id without number."""
        library, method = self.id.split(".")[:2]
        return f"{library}_{method}"


@lru_cache
def cases() -> list[Case]:
    tensors = load_file(HERE / "cases.safetensors")

    def resolve(value: Any) -> Any:
        if isinstance(value, str):
            return tensors[value].clone()
        if isinstance(value, list):
            return [resolve(v) for v in value]
        if set(value) == {"value"}:
            return value["value"]
        return {key: resolve(v) for key, v in value.items()}

    rows = json.loads((HERE / "cases.json").read_text())["cases"]
    return [Case(**{**row, "inputs": resolve(row["inputs"]), "outputs": resolve(row["outputs"])}) for row in rows]
