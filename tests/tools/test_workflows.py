"""Workflows are pinned, have the least rights, and put nobody's text into a command. actionlint runs beside this in CI."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yml"))
WRITES = {  # workflow -> job -> what it may write; everything else reads at most
    "catalog-comment": {"comment": {"pull-requests"}},
    "from-issue": {"propose": {"contents", "issues", "pull-requests"}},
    "weekly": {"report": {"issues"}},
    "pages": {"publish": {"contents"}},
}


def steps(file: Path) -> list[tuple[str, dict]]:
    """(job, step) of a workflow or an action."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    jobs = content.get("jobs") or {"action": content["runs"]}
    return [(name, step) for name, job in jobs.items() for step in job.get("steps", [])]


@pytest.mark.parametrize("file", [*WORKFLOWS, *ACTIONS], ids=lambda file: file.stem)
def test_actions_are_pinned_and_commands_hold_no_expression(file):
    for job, step in steps(file):
        if "uses" in step and not step["uses"].startswith("./"):
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False, job
        assert "${{" not in step.get("run", ""), f"{job}: pass it through env"
    for line in file.read_text(encoding="utf-8").splitlines():
        assert "uses: " not in line or "./" in line or re.search(r"@[0-9a-f]{40} # v\d", line), line


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_rights_are_the_least(file):
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert content["permissions"] in ({}, {"contents": "read"})
    for name, job in content["jobs"].items():
        assert job["timeout-minutes"] <= 90
        writes = {scope for scope, right in job.get("permissions", {}).items() if right == "write"}
        assert writes <= WRITES.get(file.stem, {}).get(name, set()), name
        reads_strangers = any(re.search("tools (issue|report)", step.get("run", "")) for step in job["steps"])
        assert not (reads_strangers and writes), f"{name} reads what strangers wrote and may write"


def test_what_pull_requests_start_has_no_rights_and_runs_none_of_their_code_with_any():
    for file in WORKFLOWS:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        events = content[True]  # YAML reads `on` as true
        assert "pull_request_target" not in events, file
        if "workflow_run" in events:
            assert all("ref" not in step.get("with", {}) for _, step in steps(file) if "checkout" in step.get("uses", "")), file
        if "pull_request" in events:
            assert all("write" not in job.get("permissions", {}).values() for job in content["jobs"].values()), file


def test_zizmor_finds_nothing():
    command = [Path(sys.executable).with_name("zizmor"), "--offline", "--quiet", "--no-progress", ROOT / ".github"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_would_find_something(tmp_path):
    bad = tmp_path / ".github" / "workflows" / "bad.yml"
    bad.parent.mkdir(parents=True)
    bad.write_text("on: issues\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo ${{ github.event.issue.title }}\n")
    command = [Path(sys.executable).with_name("zizmor"), "--offline", "--quiet", "--no-progress", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "template-injection" in done.stdout


def test_hooks_run_what_is_here():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    hooks = {hook["id"]: hook for hook in repository["hooks"]}
    assert repository["repo"] == "local" and set(hooks) == {"tools-fmt", "tools-check", "ruff"}
    assert re.fullmatch(r"ruff==[\d.]+", hooks["ruff"]["additional_dependencies"][0])
