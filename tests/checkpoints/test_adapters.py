"""LoRA adapters in PEFT's format: what merging them gives, and what is refused."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import save_file

import reference_impls as ri
from reference_impls.__main__ import main
from reference_impls.checkpoints.adapters import Adapted, Adapter, open_model
from reference_impls.checkpoints.checks import cheap_check
from reference_impls.checkpoints.errors import CheckpointError
from reference_impls.checkpoints.files import Checkpoint
from reference_impls.core.lora import merge_adapter

CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q", "v"], "bias": "none", "use_rslora": False}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def base(tmp_path):
    model = {
        "layers.0.q.weight": random(70, 50, seed=1).bfloat16(), "layers.1.q.weight": random(70, 50, seed=2).bfloat16(),
        "layers.0.v.bias": random(3, seed=3), "embed.weight": random(9, 6, seed=4), "conv.weight": random(5, 3, 2, 2, seed=5),
        "square.weight": random(6, 6, seed=6), "steps": torch.tensor(7),
    }  # fmt: skip
    (tmp_path / "base").mkdir()
    save_file(model, tmp_path / "base" / "model.safetensors")
    return Checkpoint.open(tmp_path / "base")


@pytest.fixture
def adapter(tmp_path):
    """Return a function that writes an adapter's folder and opens it."""
    count = iter(range(100))

    def save(tensors: dict, **config) -> Adapter:
        folder = tmp_path / f"adapter{next(count)}"
        folder.mkdir()
        tensors = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in tensors.items()}
        save_file(tensors, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
        return Adapter.open(folder)

    return save


def pair(module: str, m: int, n: int, r: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    return {f"{module}.lora_A.weight": random(r, n, seed=seed), f"{module}.lora_B.weight": random(m, r, seed=seed + 1)}


def test_the_merge_has_the_bits_of_the_reference_whatever_the_blocks(base, adapter):
    lora = adapter(pair("layers.0.q", 70, 50) | pair("layers.1.q", 70, 50, seed=5))
    merged = Adapted(base, [lora])
    expected = merge_adapter(base.state_dict(), {f"{module}.weight": lora.factors(module) for module in lora.layers}, 8 / 4)
    assert list(merged) == list(base) and len(merged.files) == 3
    for name, tensor in expected.items():
        assert torch.equal(merged.tensor(name), tensor)
        for size in (1, 7, 130, 1600, 3500):
            parts = [merged.read(name, start, min(start + size, tensor.numel())) for start in range(0, tensor.numel(), size)]
            assert torch.equal(torch.cat(parts), tensor.flatten())
    assert not torch.equal(merged.tensor("layers.0.q.weight"), base.tensor("layers.0.q.weight"))
    assert torch.equal(base.tensor("layers.0.q.weight"), random(70, 50, seed=1).bfloat16())


def test_models_with_adapters_are_inputs_of_a_merge_like_others(base, adapter, tmp_path):
    loras = [adapter(pair("layers.0.q", 70, 50, seed=seed) | pair("square", 6, 6, seed=seed)) for seed in (1, 5)]
    names = [f"{base.path}+{lora.path}" for lora in loras]
    out = ["-o", str(tmp_path / "out"), "--quiet", "--force"]
    adapters = [{f"{module}.weight": lora.factors(module) for module in lora.layers} for lora in loras]
    models = [merge_adapter(base.state_dict(), factors, 2.0) for factors in adapters]
    assert main(["merge", "ties_merging", "--base", str(base.path), "--models", *names, "--density", "0.3", *out]) == 0
    expected = ri.ties_merging(base.state_dict(), models, density=0.3)
    for name, tensor in Checkpoint.open(tmp_path / "out").state_dict().items():
        assert torch.equal(tensor, expected[name])
    assert main(["merge", "uniform_soup", "--models", names[0], *out]) == 0  # of one model: the adapter merged into its base
    for name, tensor in Checkpoint.open(tmp_path / "out").state_dict().items():
        assert torch.equal(tensor, models[0][name])


def test_a_buffer_of_the_caller_is_filled(base, adapter):
    merged = Adapted(base, [adapter(pair("layers.0.q", 70, 50))])
    buffer = torch.empty(1000, dtype=torch.bfloat16)
    block = merged.read("layers.0.q.weight", 100, 900, buffer)
    assert block.data_ptr() == buffer.data_ptr() and torch.equal(block, merged.tensor("layers.0.q.weight").flatten()[100:900])


@pytest.mark.parametrize(
    ("config", "scaling"),
    [
        ({}, 8 / 4),
        ({"use_rslora": True}, 8 / 2),
        ({"lora_alpha": 3}, 3 / 4),
        ({"alpha_pattern": {"0.q": 2}}, 2 / 4),
        ({"alpha_pattern": {"^layers.0.q$": 2}}, 2 / 4),
        ({"alpha_pattern": {"^0.q": 2, "1.q": 5}}, 8 / 4),
        ({"r": 2, "rank_pattern": {"layers.0.q": 4}}, 8 / 4),
    ],
)
def test_the_scaling_is_alpha_over_the_rank_or_its_root(base, adapter, config, scaling):
    lora = adapter(pair("layers.0.q", 70, 50), **config)
    A, B = lora.factors("layers.0.q")
    assert lora.layers["layers.0.q"].scaling == pytest.approx(scaling)
    expected = base.tensor("layers.0.q.weight").float() + scaling * B @ A
    assert torch.allclose(Adapted(base, [lora]).tensor("layers.0.q.weight").float(), expected, atol=0.05, rtol=0.01)


def test_embeddings_convolutions_and_weights_stored_the_other_way_round(base, adapter):
    A, B = random(4, 9, seed=1), random(6, 4, seed=2)
    embedding = adapter({"embed.lora_embedding_A": A, "embed.lora_embedding_B": B})
    expected = base.tensor("embed.weight") + 2 * (B @ A).T
    assert torch.allclose(Adapted(base, [embedding]).tensor("embed.weight"), expected, atol=1e-5)

    A, B = random(4, 3, 2, 2, seed=1), random(5, 4, 1, 1, seed=2)
    convolution = adapter({"conv.lora_A.weight": A, "conv.lora_B.weight": B})
    expected = base.tensor("conv.weight") + 2 * torch.einsum("or,rikl->oikl", B[:, :, 0, 0], A)
    assert torch.allclose(Adapted(base, [convolution]).tensor("conv.weight"), expected, atol=1e-5)

    for tensors, transposed in ((pair("square", 6, 6), True), (pair("embed", 6, 9), True)):  # the second tells by its shape
        lora = adapter(tensors, fan_in_fan_out=transposed)
        (module,) = lora.layers
        A, B = lora.factors(module)
        expected = base.tensor(f"{module}.weight") + 2 * (B @ A).T
        assert torch.allclose(Adapted(base, [lora]).tensor(f"{module}.weight"), expected, atol=1e-5)


def test_several_adapters_are_added_with_their_weights(base, adapter):
    one, two = adapter(pair("square", 6, 6, seed=1)), adapter(pair("square", 6, 6, r=2, seed=3), r=2)
    (A, B), (C, D) = one.factors("square"), two.factors("square")
    expected = base.tensor("square.weight") + 2 * B @ A - 0.5 * 4 * D @ C
    assert torch.allclose(Adapted(base, [one, two], [1.0, -0.5]).tensor("square.weight"), expected, atol=1e-5)
    named = open_model(f"{base.path}+{one.path}+{two.path}*-0.5")
    assert torch.equal(named.tensor("square.weight"), Adapted(base, [one, two], [1.0, -0.5]).tensor("square.weight"))
    assert cheap_check([base, named]) == []


def test_trained_biases_take_the_place_of_the_base_s(base, adapter):
    lora = adapter(pair("square", 6, 6) | {"layers.0.v.base_layer.bias": torch.tensor([1.0, 2.0, 3.0]).half()}, bias="lora_only")
    assert Adapted(base, [lora]).tensor("layers.0.v.bias").tolist() == [1, 2, 3]
    assert Adapted(base, [lora]).read("layers.0.v.bias", 1, 2, torch.empty(5)).tolist() == [2]
    assert Adapted(base, [lora, lora]).tensor("layers.0.v.bias").tolist() == [1, 2, 3]
    other = adapter(pair("square", 6, 6) | {"layers.0.v.bias": torch.zeros(3)})
    with pytest.raises(CheckpointError, match="replaces 'layers.0.v.bias' otherwise than another"):
        Adapted(base, [lora, other])


def test_an_update_beyond_the_range_of_the_base_is_refused(base, adapter):
    lora = adapter(pair("square", 6, 6) | {"layers.0.q.weight": torch.full((70, 50), 3.4e38)})
    with pytest.raises(CheckpointError, match=r"tensor 'layers.0.q.weight' holds inf at \[0, 0\]"):  # 3.4e38 rounds to infinity
        Adapted(base, [lora]).tensor("layers.0.q.weight")
    lora = adapter({name: 1e25 * tensor for name, tensor in pair("square", 6, 6).items()})
    with pytest.raises(CheckpointError, match="tensor 'square.weight' holds"):
        Adapted(base, [lora]).tensor("square.weight")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA"),
        ({"use_dora": True}, "'use_dora' is True; only plain LoRA"),
        ({"layer_replication": [[0, 2]]}, "'layer_replication' is"),
        ({"target_parameters": ["mlp.experts"]}, "'target_parameters'"),
        ({"something_of_next_year": 3}, "'something_of_next_year' is 3"),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights is 'pissa_niter_16', which changes the base's weights"),
        ({"r": 0}, "r is 0"),
        ({"r": True}, "r is True"),
        ({"r": 5}, "'square' has rank 4, which adapter_config.json doesn't name"),
        ({"lora_alpha": "8"}, "lora_alpha is '8'"),
        ({"lora_alpha": math.inf}, "lora_alpha is inf"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"alpha_pattern": {"(a+)+$": 3}}, r"alpha_pattern has the pattern '\(a\+\)\+\$'"),
        ({"alpha_pattern": {"q": -1}}, "alpha_pattern of 'q' is -1"),
        ({"rank_pattern": ["q"]}, "rank_pattern is"),
        ({"use_rslora": "yes"}, "use_rslora is 'yes'"),
    ],
)
def test_what_is_not_plain_lora_is_refused_by_name(adapter, config, message):
    with pytest.raises(CheckpointError, match=message):
        adapter(pair("square", 6, 6), **config)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"q.lora_A.weight": torch.ones(4, 3)}, "'q' has lora_A; lora_A and lora_B are needed"),
        ({"q.lora_A.weight": torch.ones(4, 3), "q.lora_B.weight": torch.ones(3, 5)}, "'q' has factors of shapes"),
        ({"q.lora_A.weight": torch.ones(4), "q.lora_B.weight": torch.ones(3, 4)}, "'q' has factors of shapes"),
        ({"q.lora_A.weight": torch.ones(4, 3), "q.lora_magnitude_vector": torch.ones(3)}, r"q.lora_magnitude_vector' is no part"),
        ({"q.weight": torch.ones(4, 3)}, "holds no factors"),
    ],
)
def test_tensors_that_are_no_pairs_of_factors_are_refused(adapter, tensors, message):
    with pytest.raises(CheckpointError, match=message):
        adapter(tensors)


def test_an_adapter_of_another_base_is_refused(base, adapter, tmp_path):
    for tensors, message in (
        (pair("layers.9.q", 70, 50), "changes 'layers.9.q.weight', which .* lacks"),
        (pair("layers.0.q", 70, 40), r"by a matrix of shape \[70, 40\], but .* has \[70, 50\]"),
        (pair("square", 6, 6) | {"embed.weight": torch.ones(10, 6)}, r"replaces 'embed.weight' by a tensor of shape \[10, 6\]"),
    ):
        with pytest.raises(CheckpointError, match=message):
            Adapted(base, [adapter(tensors)])
    tied = {"embed_tokens.weight": random(6, 6), "lm_head.weight": random(6, 6)}
    (tmp_path / "tied").mkdir()
    save_file(tied, tmp_path / "tied" / "model.safetensors")
    (tmp_path / "tied" / "config.json").write_text('{"tie_word_embeddings": true}')
    with pytest.raises(CheckpointError, match="ties 'embed_tokens.weight' and 'lm_head.weight'; untie them"):
        Adapted(Checkpoint.open(tmp_path / "tied"), [adapter(pair("lm_head", 6, 6))])


def test_folders_that_are_no_adapters_are_refused(base, adapter, tmp_path):
    with pytest.raises(CheckpointError, match="holds no adapter_config.json"):
        Adapter.open(base.path)
    lora = adapter(pair("square", 6, 6))
    (lora.path / "adapter_model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (lora.path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="holds no adapter_model.safetensors.*weights_only=True"):
        Adapter.open(lora.path)
    (lora.path / "adapter_model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(CheckpointError, match="leads out of its folder"):
        Adapter.open(lora.path)
    for weight in ("x", "nan", "inf"):
        with pytest.raises(CheckpointError, match="needs a finite number after"):
            open_model(f"{base.path}+{tmp_path / 'a'}*{weight}")
    with pytest.raises(CheckpointError, match="is a LoRA adapter, not a model"):
        Checkpoint.open(lora.path)
