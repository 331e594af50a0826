"""The guide's configurations and command lines do what the guide says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from safetensors.torch import save_file

from reference_impls.__main__ import EXIT_CODES, main
from reference_impls.checkpoints.config import REFUSED
from reference_impls.checkpoints.mergekit import METHODS, NO_EFFECT
from tests.checkpoints.models import language_model, llama, mlp, save

GUIDE = Path(__file__).parents[2] / "docs/guide/checkpoints.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_every_command_of_the_guide_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    base = language_model(0)
    for seed, name in enumerate(("base", "code", "math")):
        save(tmp_path / name, language_model(seed, base) if seed else base)
    for seed in (1, 2, 3):
        save(tmp_path / f"run-{seed}", llama(seed), layers=2)
        (tmp_path / f"net-{seed}").mkdir()
        save_file(mlp(seed), tmp_path / f"net-{seed}" / "model.safetensors")
    for file, text in zip(("merge.yml", "llama.yml", "perceptron.yml"), blocks("yaml"), strict=True):
        Path(file).write_text(text)
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("python -m reference_impls ")]
    assert len(commands) >= 13
    for command in commands:
        assert main(shlex.split(command)[3:]) == 0, command
    assert {path.name for path in tmp_path.iterdir()} == {
        "base", "code", "math", "merge.yml", "by-ties", "merged", "merged-again", "code-lora", "math-lora", "both-lora",
        "merged-lora", "llama.yml", "perceptron.yml", *(f"{name}-{i}" for name in ("run", "net") for i in (1, 2, 3)),
        "midpoint", "run-2-reordered", "universe",
    }  # fmt: skip
    assert not capsys.readouterr().err.count("Traceback")


def test_the_tables_of_the_guide_are_complete() -> None:
    text = GUIDE.read_text("utf-8")
    rows = re.findall(r"^\| (`.*?) \| \[", text, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(METHODS)
    codes = re.findall(r"^\| (\d+) \| ", text, re.MULTILINE)
    assert codes == re.findall(r"^  (\d+) ", EXIT_CODES, re.MULTILINE)
    assert all(f"`{key}" in text for key in (*REFUSED, "int8_mask", "eps")) and {"int8_mask", "eps"} <= set(NO_EFFECT)
