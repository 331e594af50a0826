"""Combining LoRA adapters: the exact ways are exact, and PEFT's recorded results come out where both compute the same thing."""

from __future__ import annotations

import argparse
import json
import math

import pytest
import torch
from safetensors.torch import save_file

import reference_impls as ri
from reference_impls.checkpoints.adapters import Adapted, Adapter
from reference_impls.checkpoints.combine import WAYS, add_parser, combine, nearest
from reference_impls.checkpoints.errors import CheckpointError
from reference_impls.checkpoints.files import Checkpoint
from tests.parity.load import cases

CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def adapter(tmp_path):
    """Return a function that writes an adapter with the factors given, module -> (A, B), and opens it."""
    count = iter(range(100))

    def save(factors: dict, **config) -> Adapter:
        folder = tmp_path / f"adapter{next(count)}"
        folder.mkdir()
        tensors = {}
        for name, pair in factors.items():
            for letter, tensor in zip("AB", pair):
                part = f"lora_embedding_{letter}" if name == "embed" else f"lora_{letter}.weight"
                tensors[f"base_model.model.{name}.{part}"] = tensor
        save_file(tensors, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
        return Adapter.open(folder)

    return save


@pytest.fixture
def three(adapter):
    return [adapter({"q": (random(4, 20, seed=i), random(12, 4, seed=i + 50))}) for i in range(3)]


def updates(adapters) -> list[torch.Tensor]:
    return [a.layers["q"].scaling * a.factors("q")[1] @ a.factors("q")[0] for a in adapters]


def product(pair) -> torch.Tensor:
    return pair[1] @ pair[0]


def test_cat_is_the_exact_sum_of_adapters_of_any_rank_and_scaling(adapter, three):
    other = adapter({"q": (random(2, 20, seed=7), random(12, 2, seed=8))}, r=2, lora_alpha=1, use_rslora=True)
    A, B = combine([*three, other], "cat", weights=[1.0, -0.5, 0.25, 2.0])["q"]
    assert A.shape == (14, 20) and B.shape == (12, 14)
    x, y, z, u = updates([*three, other])
    torch.testing.assert_close(B @ A, x - 0.5 * y + 0.25 * z + 2 * u)
    assert other.layers["q"].scaling == pytest.approx(1 / math.sqrt(2))
    torch.testing.assert_close(product(combine(three)["q"]), (x + y + z) / 3)  # the mean by default


@pytest.mark.parametrize("rank", [1, 5, 12])
def test_svd_is_the_best_approximation_of_the_sum(three, rank):
    total = sum(updates(three))
    A, B = combine(three, "svd", weights=[1.0] * 3, rank=rank)["q"]
    assert A.shape[0] == rank
    lost = torch.linalg.svdvals(total)[rank:].norm()
    torch.testing.assert_close((total - B @ A).norm(), lost, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", [case for case in cases() if case.adapter.startswith("peft_lora")], ids=lambda case: case.id)
def test_the_result_is_peft_s(adapter, case):
    p = case.params
    how, weights = p["combination_type"], p["weights"]
    adapters = [adapter({"q": (m["lora_A"], m["lora_B"])}, lora_alpha=p["lora_alpha"]) for m in case.inputs["models"]]
    A, B = combine(adapters, how, weights=weights, rank=p.get("svd_rank"), density=p.get("density", 1.0))["q"]
    if "ties" in how:  # recorded with unequal weights, by which PEFT elects otherwise
        expected = peft_ties(adapters, how, weights, p["density"])
        assert not torch.allclose(B @ A, case.outputs["delta_weight"], rtol=case.rtol, atol=case.atol)
        torch.testing.assert_close(expected, case.outputs["delta_weight"], rtol=case.rtol, atol=case.atol)
        equal = combine(adapters, how, weights=[0.5] * 3, density=p["density"])["q"]
        expected = peft_ties(adapters, how, [0.5] * 3, p["density"])
        torch.testing.assert_close(product(equal), expected, rtol=case.rtol, atol=case.atol)
        return
    torch.testing.assert_close(B @ A, case.outputs["delta_weight"], rtol=case.rtol, atol=case.atol)
    assert A.shape[0] == case.outputs["rank"]
    if "lora_A" in case.outputs:
        torch.testing.assert_close(A, case.outputs["lora_A"], rtol=case.rtol, atol=case.atol)
        torch.testing.assert_close(B, case.outputs["lora_B"], rtol=case.rtol, atol=case.atol)


def peft_ties(adapters, how, weights, density) -> torch.Tensor:
    """PEFT's rule, which elects by the values before their weights and divides by the number of those that agree."""

    def trim(t):
        return t * (t.abs() >= t.abs().flatten().sort(descending=True)[0][int(density * t.numel()) - 1])

    def ties(tensors, factors):
        trimmed = torch.stack([trim(t) for t in tensors])
        agree = trimmed.sign() == torch.where(trimmed.sum(0) >= 0, 1, -1)
        scaled = trimmed * torch.tensor(factors).view(-1, *[1] * tensors[0].ndim)
        return (scaled * agree).sum(0) / agree.sum(0).clamp(min=1)

    if how == "ties_svd":
        return product(nearest(ties(updates(adapters), weights), 4))
    roots = [math.sqrt(w * a.layers["q"].scaling) for w, a in zip(weights, adapters)]
    A, B = (ties([a.factors("q")[i] for a in adapters], roots) for i in (0, 1))
    return B @ A


def test_dare_is_right_on_average_and_repeats_with_its_seed(three):
    exact = sum(updates(three))
    options = {"weights": [1.0] * 3, "density": 0.5, "rank": 12}
    draws = torch.stack([product(combine(three, "dare_linear_svd", seed=s, **options)["q"]) for s in range(400)])
    error = (draws.mean(0) - exact) / (draws.std(0) / 20)  # in standard errors
    assert error.abs().mean() < 1.1 and error.abs().max() < 5
    again = combine(three, "dare_linear_svd", seed=3, **options)["q"]
    assert torch.equal(product(again), draws[3])


@pytest.mark.parametrize("how", ["dare_linear", "magnitude_prune"])
def test_what_drops_nothing_is_linear(three, how):
    weights = [0.7, -0.3, 0.5]
    for mine, linear in zip(combine(three, how, weights=weights)["q"], combine(three, "linear", weights=weights)["q"]):
        torch.testing.assert_close(mine, linear)


def test_dare_ties_is_ties_without_trimming_where_nothing_is_dropped(three):
    for mine, other in zip(combine(three, "dare_ties")["q"], combine(three, "ties")["q"]):
        torch.testing.assert_close(mine, other)


def test_a_module_that_only_some_change_is_combined_from_those(adapter):
    a = adapter({"q": (random(4, 6, seed=1), random(5, 4, seed=2)), "v": (random(4, 6, seed=3), random(5, 4, seed=4))})
    b = adapter({"q": (random(4, 6, seed=5), random(5, 4, seed=6))})
    found = combine([a, b], "cat", weights=[0.5, 0.5])
    assert list(found) == ["q", "v"] and found["q"][0].shape[0] == 8 and found["v"][0].shape[0] == 4
    torch.testing.assert_close(product(found["v"]), 0.5 * 2 * a.factors("v")[1] @ a.factors("v")[0])


@pytest.mark.parametrize("rank", [None, 2, 6])
def test_lego_is_the_reference_function(adapter, rank):
    adapters = []
    for seed in range(3):  # of other ranks, and with a scaling of 1
        r = 3 + seed
        factors = {name: (random(r, 20, seed=seed + i), random(12, r, seed=seed - i)) for i, name in enumerate("qkv", 10)}
        adapters.append(adapter(factors, r=r, lora_alpha=r))
    for seed in (0, 4):
        got = combine(adapters, "lego", rank=rank, seed=seed, weights=[0.5] * 3)
        parts = [{name: each.factors(name) for name in each.layers} for each in adapters]
        want = ri.lora_lego(parts, rank=rank, generator=torch.Generator().manual_seed(seed))
        assert list(got) == list(want)
        assert all(torch.equal(mine, theirs) for name in want for mine, theirs in zip(got[name], want[name]))
    first = combine(adapters, "lego", rank=rank)
    assert all(torch.equal(first[name][0], A) for name, (A, _) in ri.lora_lego(parts, rank=rank).items())  # its own seed is 0


def test_lego_finds_shuffled_units_again_and_keeps_the_scaling(adapter, three):
    A, B = three[0].factors("q")
    order = torch.tensor([2, 0, 3, 1])
    shuffled = adapter({"q": (A[order], B[:, order])})
    torch.testing.assert_close(product(combine([three[0], shuffled], "lego")["q"]), updates([three[0]])[0])
    alone = adapter({"q": (A, B), "v": (A.clone(), B.clone())}, lora_alpha=2)  # a module that one has alone, and another scaling
    found = combine([three[0], alone], "lego", rank=4)
    torch.testing.assert_close(product(found["v"]), 0.5 * B @ A)
    assert found["q"][0].shape == (4, 20)


def test_linear_with_squared_weights_is_the_composition_of_the_paper(three):
    paper = ri.pem_composition([{"q": each.factors("q")} for each in three], weights=[0.5, 0.3, 0.2])["q"]
    found = combine(three, "linear", weights=[0.25, 0.09, 0.04])["q"]
    torch.testing.assert_close(product(found), 2 * product(paper))  # their scaling


def test_threads_change_nothing(adapter):
    adapters = [adapter({f"l{i}": (random(4, 20, seed=i + j), random(12, 4, seed=i - j)) for i in range(9)}) for j in (10, 20)]
    for how in WAYS:
        options = {"density": 0.5} if how not in ("cat", "svd", "linear", "lego") else {}
        one, four = (combine(adapters, how, threads=n, **options) for n in (1, 4))
        assert all(torch.equal(x, y) for name in one for x, y in zip(one[name], four[name]))


def test_refusals(adapter, three, tmp_path):
    other = adapter({"q": (random(2, 20), random(12, 2))}, r=2)
    wide = adapter({"q": (random(4, 21), random(12, 4))})
    for adapters, options, message in (
        ([], {}, "received no adapters"),
        (three, {"how": "mean"}, "how is 'mean'; it is one of cat"),
        (three, {"weights": [1.0]}, "received 1 weights for 3 adapters"),
        (three, {"weights": [1.0, 2.0, math.nan]}, "finite numbers are needed"),
        (three, {"rank": 3}, "rank is 3 with cat"),
        (three, {"how": "svd", "rank": 0}, "rank is 0 with svd"),
        (three, {"density": 0.5}, "density is 0.5, but cat drops nothing"),
        (three, {"how": "ties", "density": 0.0}, "density is 0.0; it is the fraction"),
        (three, {"how": "lego", "weights": [0.5, 0.5, 0.4]}, r"weights are \[0.5, 0.5, 0.4\]; lego has none"),
        (three, {"how": "lego", "weights": [-1.0] * 3}, "lego has none"),
        (three, {"how": "lego", "density": 0.5}, "density is 0.5, but lego drops nothing"),
        (three, {"how": "lego", "rank": 0}, "rank is 0 with lego"),
        (three, {"how": "lego", "rank": 13}, "rank is 13, but lego has 12 units of 'q' to cluster"),
        ([three[0], other], {"how": "ties"}, r"'q' has ranks \[4, 2\]; ties needs one rank"),
        ([three[0], wide], {}, "'q' has another shape than in"),
        ([three[0], adapter({"q": (random(4, 20), random(12, 4))}, fan_in_fan_out=True)], {}, "fan_in_fan_out differs"),
    ):
        with pytest.raises(CheckpointError, match=message):
            combine(adapters, **options)


def test_what_adapters_hold_whole_is_kept_where_it_is_the_same(three, tmp_path):
    def with_whole(adapter: Adapter, tensor: torch.Tensor) -> Adapter:
        tensors = {**adapter.checkpoint.state_dict(), "base_model.model.q.base_layer.weight": tensor}
        save_file(tensors, adapter.path / "adapter_model.safetensors")
        return Adapter.open(adapter.path)

    one, two, three = with_whole(three[0], random(12, 20)), with_whole(three[1], random(12, 20)), three[2]
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["combine", str(one.path), str(two.path), "-o", str(tmp_path / "out"), "--quiet"])
    assert args.run(args) == 0
    written = Adapter.open(tmp_path / "out")
    assert torch.equal(written.checkpoint.tensor(written.whole["q.weight"]), random(12, 20))
    for others in ([one, three], [three, one], [one, with_whole(two, random(12, 20, seed=3))]):
        with pytest.raises(CheckpointError, match="holds 'q.weight' whole, and not all others hold the same"):
            combine(others)


def test_the_command_writes_an_adapter_that_gives_the_sum(adapter, tmp_path, capsys):
    base = {"q.weight": random(12, 20, seed=9), "embed.weight": random(7, 5, seed=8), "conv.weight": random(6, 3, 2, 2, seed=7)}
    (tmp_path / "base").mkdir()
    save_file(base, tmp_path / "base" / "model.safetensors")
    adapters = []
    for seed in (1, 2):
        shapes = {"q": ((4, 20), (12, 4)), "embed": ((4, 7), (5, 4)), "conv": ((4, 3, 2, 2), (6, 4, 1, 1))}
        factors = {name: tuple(random(*shape, seed=seed) for shape in pair) for name, pair in shapes.items()}
        adapters.append(adapter(factors, base_model_name_or_path=f"base{seed}", task_type="CAUSAL_LM"))
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    paths = [str(a.path) for a in adapters]
    args = parser.parse_args(["combine", *paths, "-o", str(tmp_path / "out"), "--weights", "1", "-0.5"])
    assert args.run(args) == 0
    assert "different bases: 'base1', 'base2'" in (said := capsys.readouterr().out) and "3 modules, rank 8" in said
    written = Adapter.open(tmp_path / "out")
    assert written.config["r"] == written.config["lora_alpha"] == 8 and written.config["task_type"] == "CAUSAL_LM"
    assert written.config["target_modules"] == ["conv", "embed", "q"] and written.layers["embed"].embedding
    assert written.checkpoint["base_model.model.conv.lora_B.weight"].shape == (6, 8, 1, 1)
    open_base = Checkpoint.open(tmp_path / "base")
    merged, summed = Adapted(open_base, [written]), Adapted(open_base, adapters, [1.0, -0.5])
    for name in base:
        torch.testing.assert_close(merged.tensor(name), summed.tensor(name))
    with pytest.raises(CheckpointError, match="--force"):
        args.run(args)
    again = ["--how", "svd", "--rank", "6", "--force", "--quiet"]
    args = parser.parse_args(["combine", *paths, "-o", str(tmp_path / "out"), *again])
    assert args.run(args) == 0 and capsys.readouterr().out == ""
    written = Adapter.open(tmp_path / "out")  # an embedding of five columns has no rank of six
    assert written.config["r"] == 6 and written.config["rank_pattern"] == written.config["alpha_pattern"] == {"embed": 5}
    assert {layer.scaling for layer in written.layers.values()} == {1}


def test_large_matrices_are_cut_by_the_randomized_method():
    matrix = random(60, 4) @ random(4, 50) + 0.01 * random(60, 50, seed=3)
    exact = (matrix - product(nearest(matrix, 4))).norm()
    A, B = nearest(matrix, 4, exact=20)
    assert 0.9999 * exact < (matrix - B @ A).norm() < 1.01 * exact
    assert torch.allclose(A.norm(), B.norm(), rtol=1e-3)
