"""The difference of two models as an adapter: what is of low rank comes back, and what is lost is said."""

from __future__ import annotations

import argparse
import json

import pytest
import torch
from safetensors.torch import save_file

from reference_impls.checkpoints.adapters import Adapted, Adapter
from reference_impls.checkpoints.errors import CheckpointError
from reference_impls.checkpoints.extract import add_parser, extract
from reference_impls.checkpoints.files import Checkpoint


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def saved(tmp_path):
    count = iter(range(100))

    def save(model: dict, config: dict | None = None) -> Checkpoint:
        folder = tmp_path / f"model{next(count)}"
        folder.mkdir()
        save_file(model, folder / "model.safetensors")
        if config is not None:
            (folder / "config.json").write_text(json.dumps(config))
        return Checkpoint.open(folder)

    return save


BASE = {
    "layers.0.q.weight": random(40, 30, seed=1), "layers.1.q.weight": random(40, 30, seed=2),
    "embed_tokens.weight": random(20, 8, seed=3), "conv.weight": random(6, 3, 2, 2, seed=4),
    "norm.weight": random(30, seed=5), "scale": random(4, 4, seed=6), "steps": torch.tensor(3),
}  # fmt: skip


def changed(rank: int) -> dict:
    """The base with an update of a rank in every matrix but one."""
    model = dict(BASE)
    for seed, name in enumerate(("layers.0.q.weight", "embed_tokens.weight", "conv.weight")):
        m, n = BASE[name].flatten(1).shape
        model[name] = BASE[name] + (random(m, rank, seed=seed + 10) @ random(rank, n, seed=seed + 20)).reshape(BASE[name].shape)
    return model


@pytest.mark.parametrize("config", [None, {"model_type": "gpt2"}])
def test_an_update_of_low_rank_comes_back(saved, tmp_path, config, capsys):
    base, finetuned = saved(BASE, config), saved(changed(3), config)
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["extract", str(base.path), str(finetuned.path), "-o", str(tmp_path / "lora"), "--rank", "3"])
    assert args.run(args) == 0
    assert "3 modules; 0.00% of the whole difference is lost" in capsys.readouterr().out
    lora = Adapter.open(tmp_path / "lora")
    assert set(lora.layers) == {"layers.0.q", "embed_tokens", "conv"} and lora.layers["embed_tokens"].embedding
    assert lora.config["r"] == 3 and lora.config["fan_in_fan_out"] == (config is not None)
    merged = Adapted(base, [lora])
    for name, tensor in finetuned.state_dict().items():
        torch.testing.assert_close(merged.tensor(name), tensor, atol=1e-4, rtol=1e-4)


def test_what_is_lost_is_the_tail_of_the_singular_values(saved):
    found = extract(saved(BASE), saved(changed(3) | {"norm.weight": BASE["norm.weight"] + 2, "scale": BASE["scale"] + 1}), rank=2)
    delta = changed(3)["layers.0.q.weight"] - BASE["layers.0.q.weight"]
    S = torch.linalg.svdvals(delta)
    assert found.errors["layers.0.q"] == pytest.approx(float(S[2:].norm() / S.norm()), rel=1e-3)
    assert found.norms["layers.0.q"] == pytest.approx(float(delta.norm()), rel=1e-5)
    assert found.left_out == {"norm.weight": pytest.approx(2 * 30**0.5), "scale": pytest.approx(4)}
    lost = sum((found.errors[m] * found.norms[m]) ** 2 for m in found.norms) + 4 * 30 + 16
    total = sum(n**2 for n in found.norms.values()) + 4 * 30 + 16
    assert found.error == pytest.approx((lost / total) ** 0.5)


def test_factors_share_the_update_evenly_and_threads_change_nothing(saved):
    base, finetuned = saved(BASE), saved(changed(3))
    one, two = (extract(base, finetuned, 2, threads=n) for n in (1, 3))
    for module, (A, B) in one.factors.items():
        assert torch.allclose(A.norm(), B.norm(), rtol=1e-4)
        assert torch.equal(A, two.factors[module][0]) and torch.equal(B, two.factors[module][1])


def test_half_precision_is_kept(saved, tmp_path):
    base = saved({name: t.bfloat16() if t.is_floating_point() else t for name, t in BASE.items()})
    finetuned = saved({name: t.bfloat16() if t.is_floating_point() else t for name, t in changed(2).items()})
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["extract", str(base.path), str(finetuned.path), "-o", str(tmp_path / "lora"), "--quiet"])
    assert args.run(args) == 0
    lora = Adapter.open(tmp_path / "lora")
    assert {entry.dtype for entry in lora.checkpoint.values()} == {torch.bfloat16}
    error = (Adapted(base, [lora]).tensor("layers.0.q.weight").float() - finetuned.tensor("layers.0.q.weight").float()).norm()
    assert error < 0.02 * finetuned.tensor("layers.0.q.weight").float().norm()


def test_refusals(saved):
    base = saved(BASE)
    with pytest.raises(CheckpointError, match="no matrix differs"):
        extract(base, saved(BASE | {"norm.weight": BASE["norm.weight"] + 1}))
    with pytest.raises(CheckpointError, match="rank is 0"):
        extract(base, base, 0)
    with pytest.raises(CheckpointError, match="'scale' has shape"):
        extract(base, saved(BASE | {"scale": random(5)}))
