import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def stack(value, blocks=3):
    return {
        "embed.weight": torch.tensor([value]),
        **{f"blocks.{i}.{kind}.weight": torch.tensor([value]) for i in range(blocks) for kind in ("attn", "mlp")},
    }


def ratios_of(blocks=3, **options):
    return values(ri.block_merge(stack(0.0, blocks), stack(1.0, blocks), **options))


def values(model):
    return {key: tensor.item() for key, tensor in model.items()}


def test_anchors_are_spread_evenly_by_hand():
    # five blocks and anchors 0, 1, 0.5: block 1 lies half way to the second anchor, block 3 half way to the third
    got = ratios_of(5, ratios=(0.0, 1.0, 0.5), others=0.25)
    assert [got[f"blocks.{i}.mlp.weight"] for i in range(5)] == [0.0, 0.5, 1.0, 0.75, 0.5]
    assert got["embed.weight"] == 0.25


def test_attention_may_have_a_curve_of_its_own():
    got = ratios_of(3, ratios=(1.0, 0.0), by_kind={"attn": (0.0, 0.5, 1.0)})
    assert [got[f"blocks.{i}.attn.weight"] for i in range(3)] == [0.0, 0.5, 1.0]
    assert [got[f"blocks.{i}.mlp.weight"] for i in range(3)] == [1.0, 0.5, 0.0]


def test_one_ratio_is_plain_interpolation_and_the_ends_are_the_models():
    a, b = stack(2.0), stack(6.0)
    even = values(ri.uniform_soup([a, b], weights=[0.7, 0.3]))
    assert values(ri.block_merge(a, b, ratios=[0.3], others=0.3)) == pytest.approx(even)
    assert ri.block_merge(a, b, ratios=[0.0], others=0.0) == a and ri.block_merge(a, b, ratios=[1.0], others=1.0) == b


def test_blocks_are_ordered_by_number_and_not_by_name():
    got = ratios_of(11, ratios=(0.0, 1.0))
    assert got["blocks.10.mlp.weight"] == 1.0 and got["blocks.2.mlp.weight"] == pytest.approx(0.2)


def test_swapping_the_models_mirrors_the_ratios():
    a, b = stack(2.0), stack(6.0)
    swapped = values(ri.block_merge(b, a, ratios=(0.9, 0.2)))
    assert values(ri.block_merge(a, b, ratios=(0.1, 0.8))) == pytest.approx(swapped)


def test_along_the_arc_it_is_slerp():
    a, b = {"h.0.w": torch.tensor([1.0, 0.0])}, {"h.0.w": torch.tensor([0.0, 1.0])}
    assert ri.block_merge(a, b, ratios=[0.5], along="arc")["h.0.w"].tolist() == pytest.approx([0.70710678] * 2)
    assert ri.block_merge(a, b, ratios=[0.5])["h.0.w"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_reunites_models_that_were_trained_in_different_blocks(seed):
    family = toy_zoo.multitask("mlp", seed)
    task, g = family.tasks[0], torch.Generator().manual_seed(seed)
    first = toy_zoo.train(
        family.network, family.base, task.train, num_steps=80, lr=2e-3, generator=g, trainable=lambda name: "layers.0" in name
    )
    last = toy_zoo.train(
        family.network, first, task.train, num_steps=80, lr=2e-3, generator=g, trainable=lambda name: "layers.2" in name
    )
    other = {key: family.base[key] if "layers.0" in key else tensor for key, tensor in last.items()}  # only the last layer
    score = lambda model: toy_zoo.accuracy(family.network, model, task.test)  # noqa: E731
    merged = ri.block_merge(first, other, ratios=(0.0, 1.0))
    assert score(merged) == score(last) > score(ri.uniform_soup([first, other])) + 0.05


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"ratios are \[1.5\]"):
        ratios_of(ratios=[1.5])
    with pytest.raises(ValueError, match="ratios of 'attn' are"):
        ratios_of(by_kind={"attn": ()})
    with pytest.raises(ValueError, match="along is 'curve'"):
        ratios_of(along="curve")
