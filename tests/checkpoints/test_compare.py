"""Comparing checkpoints: the figures by hand, the verdict on networks whose history is known, and what stands against a merge."""

from __future__ import annotations

import argparse
import json
import math

import pytest
import torch
from safetensors.torch import save_file

from reference_impls.checkpoints import compare as module
from reference_impls.checkpoints.checks import cheap_check, common_ties, tied_groups, vocabulary_difference
from reference_impls.checkpoints.compare import add_parser, as_json, as_text, compare, verdict
from reference_impls.checkpoints.errors import CheckpointError
from reference_impls.checkpoints.files import Checkpoint
from reference_impls.core import toy_zoo


@pytest.fixture
def saved(tmp_path):
    """Return a function that writes a state dict, and any JSON files beside it, and opens the folder."""
    count = iter(range(100))

    def save(state_dict, **files) -> Checkpoint:
        folder = tmp_path / f"model{next(count)}"
        folder.mkdir()
        save_file({name: t.detach().clone().contiguous() for name, t in state_dict.items()}, folder / "model.safetensors")
        for name, content in files.items():
            (folder / f"{name}.json").write_text(json.dumps(content))
        return Checkpoint.open(folder, allow_nonfinite=True)

    return save


W = torch.arange(12.0).reshape(4, 3)


def test_the_figures_by_hand(saved):
    a = saved({"layers.0.w": torch.tensor([[1.0, 2.0], [0.0, -2.0]]), "steps": torch.tensor(3)})
    b = saved({"layers.0.w": torch.tensor([[1.0, -2.0], [4.0, -2.0]]), "steps": torch.tensor(9)})
    found = compare(a, b).layers["layers.0"]
    # norms 3 and 5; a.b = 1 - 4 + 4 = 1; a - b = (0, 4, -4, 0); of three entries not zero in both, two have one sign
    assert (found.norm_a, found.norm_b, found.distance) == (3, 5, pytest.approx(math.sqrt(32)))
    assert (found.cosine, found.same_sign, found.equal) == (pytest.approx(1 / 15), pytest.approx(2 / 3), 0.5)
    assert found.entries == 4  # the counter is no weight


def test_with_a_base_task_vectors_are_compared(saved):
    base = saved({"w": torch.full((2, 2), 10.0)})
    a, b = saved({"w": torch.tensor([[13.0, 10.0], [10.0, 14.0]])}), saved({"w": torch.tensor([[13.0, 6.0], [10.0, 14.0]])})
    found = compare(a, b, base).whole  # task vectors (3, 0, 0, 4) and (3, -4, 0, 4)
    assert (found.norm_a, found.norm_b, found.distance) == (5, pytest.approx(math.sqrt(41)), 4)
    assert (found.cosine, found.same_sign, found.equal) == (pytest.approx(25 / (5 * math.sqrt(41))), 1, 0.75)


def test_blocks_and_threads_change_nothing(saved, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    models = [saved({f"layers.{i}.w": torch.randn(37, 11, generator=generator) for i in range(4)}) for _ in range(3)]
    whole = compare(*models, threads=1)
    assert compare(*models, threads=3) == whole
    monkeypatch.setattr(module, "BLOCK", 50)
    sizes = []
    monkeypatch.setattr(Checkpoint, "read", lambda *a, read=Checkpoint.read: sizes.append(a[3] - a[2]) or read(*a))
    blocks = compare(*models)
    assert max(sizes) <= 50 and list(blocks.layers) == list(whole.layers)
    for layer, found in whole.layers.items():
        assert blocks.layers[layer].cosine == pytest.approx(found.cosine, abs=1e-6)
        assert blocks.layers[layer].norm_a == pytest.approx(found.norm_a, rel=1e-6)
        assert blocks.layers[layer].same_sign == found.same_sign


def test_the_correlation_is_that_of_numpy_with_each_mean_taken_away(saved):
    generator = torch.Generator().manual_seed(0)
    a = {"v": torch.randn(6, 5, generator=generator) + 3, "w": torch.randn(4, 3, generator=generator) - 7, "b": torch.ones(9)}
    b = {name: 0.5 * tensor + torch.randn(tensor.shape, generator=generator) for name, tensor in a.items()}
    flat = [torch.cat([(m[n] - m[n].mean()).flatten() for n in ("v", "w")]) for m in (a, b)]
    expected = torch.corrcoef(torch.stack(flat))[0, 1].item()
    assert compare(saved(a), saved(b)).correlation == pytest.approx(expected, abs=1e-5)


def test_what_only_one_has_and_what_differs_is_listed(saved):
    configs = [{"hidden_act": "relu", "rope_theta": theta, "dtype": dtype} for theta, dtype in ((1e4, "float"), (5e5, "half"))]
    tokens = {"eos_token": "</s>", "pad_token": {"content": "<pad>"}}, {"eos_token": "<|end|>", "pad_token": "<pad>"}
    a = saved({"w": W, "v": W, "h": torch.ones(3, 2)}, config=configs[0], tokenizer_config=tokens[0])
    b = saved({"w": W.half(), "u": W, "h": torch.ones(2, 2)}, config=configs[1], tokenizer_config=tokens[1])
    report = compare(a, b)
    assert (report.missing, report.extra) == (["v"], ["u"])
    assert report.shapes == {"h": [[3, 2], [2, 2]]} and report.dtypes == {"w": ["float32", "float16"]}
    assert report.config == {"rope_theta": [1e4, 5e5]} and report.special_tokens == {"eos_token": ["</s>", "<|end|>"]}
    assert report.tied_a == [["v", "w"]] and report.whole.equal == 1
    text = as_text(report)
    for line in ("only in A (1)\n  v", "h: [3, 2] [2, 2]", "w: float32 float16", "v = w", "rope_theta: 10000", "'<|end|>'"):
        assert line in text


def test_nan_is_reported_and_left_out(saved):
    broken = W.clone()
    broken[1, 1] = math.nan
    report = compare(saved({"v": broken, "w": 2 * W}), saved({"v": W, "w": W}))
    assert report.nonfinite == ["v"] and report.whole.entries == 12 and report.whole.cosine == pytest.approx(1)


def test_nothing_in_common_gives_a_report_too(saved):
    report = compare(saved({"a": W}), saved({"b": W, "empty": torch.zeros(0, 3)}))
    assert report.verdict == "there are no common weights to judge by"
    assert json.loads(as_json(report))["correlation"] is None and "nan" in as_text(report)


# --- the verdict -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["mlp", "residual", "conv", "vit"])
def test_models_of_one_base_and_models_trained_apart_are_told_apart(saved, architecture):
    family = toy_zoo.multitask(architecture)
    base, a, b, *_ = (saved(model) for model in (family.base, *family.finetuned))
    stranger = saved(toy_zoo.independent(architecture).finetuned[0])
    related = compare(a, b, base)
    assert related.correlation > 0.85 and min(related.correlation_base) > 0.9
    assert related.verdict.startswith("these two share a base")
    assert abs(compare(a, stranger).correlation) < 0.05
    assert compare(a, stranger).verdict.startswith("these two don't share a base")
    assert compare(a, stranger, base).verdict.startswith("B wasn't fine-tuned from this base")
    assert compare(stranger, a, base).verdict.startswith("A wasn't fine-tuned from this base")
    assert compare(a, a).verdict == "these two hold the same weights"


def test_an_offset_that_two_strangers_share_is_no_likeness(saved):
    generator = torch.Generator().manual_seed(0)
    a, b = (saved({"w": 10 + torch.randn(40, 40, generator=generator)}) for _ in range(2))
    report = compare(a, b)
    assert report.whole.cosine > 0.98 and report.verdict.startswith("these two don't share a base")


def test_between_the_thresholds_the_verdict_is_open():
    assert verdict(0.4).startswith("it can't be told") and verdict(0.5).startswith("these two share")
    assert verdict(0.24).startswith("these two don't")


# --- what stands against a merge -------------------------------------------------------------------------------------


def test_nothing_stands_against_models_of_one_architecture(saved):
    config = {"vocab_size": 4, "model_type": "llama"}
    assert cheap_check([saved({"lm_head.weight": W, "n": torch.tensor(1)}, config=config) for _ in range(3)]) == []


def test_each_obstacle_is_one_line_with_names(saved):
    base = saved({"w": W, "v": W + 1, "model.embed_tokens.weight": W}, config={"num_attention_heads": 8})
    same = {"w": W, "v": W + 1, "model.embed_tokens.weight": W}
    for other, config, message in (
        ({"w": W, "model.embed_tokens.weight": W}, {}, "lacks 1 tensors, 'v' first"),
        (same | {"u": W + 2}, {}, "adds 1 tensors, 'u' first"),
        (same | {"w": W.T}, {}, "tensor 'w' has shape [3, 4], and [4, 3] in"),
        (same | {"w": W.int()}, {}, "tensor 'w' is torch.int32, and torch.float32 in"),
        (same | {"model.embed_tokens.weight": W[:3]}, {}, "has 3 tokens (rows of 'model.embed_tokens.weight')"),
        (same, {"num_attention_heads": 4}, "num_attention_heads is 4 in config.json"),
    ):
        (reason,) = cheap_check([base, saved(other, config=config)])
        assert message in reason and "\n" not in reason and ("first" in reason or "needed" in reason)


def test_many_obstacles_stay_few_lines(saved):
    many = {str(i): torch.zeros(2) for i in range(50)}
    reasons = cheap_check([saved(many), saved({name: torch.zeros(3) for name in many})])
    assert len(reasons) == 6 and "45 more tensors differ" in reasons[-1]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vocab_size": 5}, "vocab_size 5, but the embedding has 4 rows"),
        ({"vocab_size": "4"}, "vocab_size '4'"),
        ({"vocab_size": True}, "vocab_size True"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings 'yes'"),
    ],
)
def test_a_config_that_lies_stops_a_merge(saved, config, message):
    good, bad = saved({"wte.weight": W}), saved({"wte.weight": W}, config=config)
    assert any(message in reason for reason in cheap_check([good, bad]))
    assert any(message in lie for lie in compare(good, bad).lies)


def tokenizer(*tokens, added=()):
    vocabulary = {token: id for id, token in enumerate(tokens)}
    return {"model": {"vocab": vocabulary}, "added_tokens": [{"id": id, "content": token} for token, id in added]}


def test_tokenizers_clash_where_a_row_stands_for_another_token(saved):
    model = {"wte.weight": W}
    a = saved(model, tokenizer=tokenizer("a", "b", "c"))
    for other, expected in (
        (tokenizer("a", "b", "c"), (0, 0, 0)),
        (tokenizer("a", "b", "c", added=[("<pad>", 3)]), (0, 1, 0)),  # takes a spare row
        (tokenizer("a", "b"), (1, 0, 0)),
        (tokenizer("a", "c", "b"), (0, 0, 2)),
        (tokenizer("a", "b", "d"), (1, 1, 1)),
        ({"model": {"type": "Unigram", "vocab": [["a", 0.0], ["b", -1.0], ["c", -2.0]]}}, (0, 0, 0)),
    ):
        b = saved(model, tokenizer=other)
        assert vocabulary_difference(a, b) == expected
        assert len(cheap_check([a, b])) == (expected[2] > 0)
    assert vocabulary_difference(a, saved(model)) == (0, 0, 0)
    with pytest.raises(CheckpointError, match=r"tokenizer.json: has no vocabulary"):
        vocabulary_difference(a, saved(model, tokenizer={"model": {"vocab": {"a": "0"}}}))


# --- tied weights ----------------------------------------------------------------------------------------------------


def test_names_that_hold_the_same_bytes_are_tied_and_fresh_biases_are_not(saved):
    nearly = W.clone()
    nearly[2, 1] += 1  # not among the bytes that are sampled first
    big = torch.arange(200.0).reshape(20, 10)
    other = big.clone()
    other[3, 3] += 1
    model = {"w": W, "v": W, "nearly": nearly, "T": W.T, "big": big, "other": other, "b0": torch.zeros(6), "b1": torch.zeros(6)}
    assert tied_groups(saved(model)) == [("v", "w")]


def test_a_tie_counts_where_all_models_keep_it(saved):
    tied = {"lm_head.weight": W, "embed.weight": W, "x": W.T}
    once = {"embed.weight": W + 1, "x": W.T}
    untied = {"lm_head.weight": W, "embed.weight": W + 1, "x": W.T}
    first = saved(tied)
    assert common_ties([first, saved(tied)]) == {"lm_head.weight": "embed.weight"}  # in the order of the file
    assert common_ties([first, saved(once)]) == {"lm_head.weight": "embed.weight"}
    assert common_ties([saved(once), first]) == {}  # one name only: nothing to repeat
    assert common_ties([first, saved(untied)]) == {}
    assert cheap_check([first, saved(once)]) == cheap_check([saved(once), first]) == []
    (reason,) = cheap_check([saved(once), saved(untied)])
    assert "adds 1 tensors, 'lm_head.weight' first" in reason


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_the_report(saved, capsys):
    base, a = saved({"layers.10.w": W, "layers.2.w": W}), saved({"layers.10.w": W + 1})
    b = saved({"layers.10.w": W * 2, "x\n": W})
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["compare", str(a.path), str(b.path), "--base", str(base.path)])
    assert args.run(args) == 0
    text = capsys.readouterr().out
    assert "these can't be merged as they are" in text and "x\\n" in text and "|task vector A|" in text
    args = parser.parse_args(["compare", str(a.path), str(b.path), "--json"])
    assert args.run(args) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["extra"] == ["x\n"] and report["layers"]["layers.10"]["entries"] == 12
    assert list(compare(base, base).layers) == ["layers.2", "layers.10"]
