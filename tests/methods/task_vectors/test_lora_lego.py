import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.lora import merge_adapter

OFF = {"reweight_parameters": False, "reweight_output": False}


def lora(A, B):
    return {"w": (torch.tensor(A), torch.tensor(B))}


def units(adapter):
    """The units [a; b] of a LoRA, sorted."""
    A, B = adapter["w"]
    return sorted(torch.cat([A, B.T], dim=1).tolist())


def shuffled(adapter, seed):
    generator = torch.Generator().manual_seed(seed)
    order = {name: torch.randperm(A.shape[0], generator=generator) for name, (A, _) in adapter.items()}
    return {name: (A[order[name]], B[:, order[name]]) for name, (A, B) in adapter.items()}


def random_adapters(count, rank=3):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    return [{"w": (draw(rank, 5), draw(6, rank))} for _ in range(count)]


def test_centres_of_clusters_by_hand():
    # four units [a; b] in two tight groups: (10, 1), (10, 3) and (-4, 0), (-6, 0); the centres are (10, 2) and (-5, 0)
    one, two = lora([[10.0], [-4.0]], [[1.0, 0.0]]), lora([[-6.0], [10.0]], [[0.0, 3.0]])
    assert units(ri.lora_lego([one, two], **OFF)) == [[-5.0, 0.0], [10.0, 2.0]]


def test_a_centre_gets_the_mean_norm_of_its_members():
    # members (3, 4) and (3, -4): centre (3, 0) of norm 3, members of norm 5
    one, two = lora([[3.0]], [[4.0]]), lora([[3.0]], [[-4.0]])
    assert units(ri.lora_lego([one, two], **OFF)) == [[3.0, 0.0]]
    assert units(ri.lora_lego([one, two])) == [[5.0, 0.0]]


def test_the_output_is_scaled_by_the_root_of_old_rank_over_new():
    adapters = random_adapters(2, rank=3)
    plain, scaled = (ri.lora_lego(adapters, rank=6, reweight_output=on)["w"] for on in (False, True))
    assert torch.allclose(scaled[1] @ scaled[0], 0.5**0.5 * plain[1] @ plain[0], atol=1e-5)


def test_with_as_many_clusters_as_units_it_is_the_exact_sum():
    adapters = random_adapters(3)
    A, B = ri.lora_lego(adapters, rank=9, reweight_output=False)["w"]
    assert torch.allclose(B @ A, sum(b @ a for a, b in (x["w"] for x in adapters)), atol=1e-4)


def test_the_order_of_units_does_not_matter():
    adapter = random_adapters(1)[0]
    merged = ri.lora_lego([shuffled(adapter, s) for s in range(4)])
    assert torch.allclose(torch.tensor(units(merged)), torch.tensor(units(adapter)), atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shuffled_copies_of_a_lora_come_back_where_a_sum_of_factors_mixes_them(seed):
    family = toy_zoo.adapters("mlp", seed)
    merged = lambda adapter: merge_adapter(family.base, adapter)  # noqa: E731
    score = lambda adapter: toy_zoo.accuracy(family.network, merged(adapter), family.tasks[0].test)  # noqa: E731
    copies = [shuffled(family.adapters[0], s) for s in range(3)]
    assert score(ri.lora_lego(copies)) == pytest.approx(score(family.adapters[0]), abs=0.005)
    assert score(ri.pem_composition(copies)) < score(family.adapters[0]) - 0.08  # measured: 10 to 18 points
    # LoRAs of three tasks: 12 units in 8 clusters against the sum of factors of rank 4
    several = lambda adapter: toy_zoo.mean_accuracy(family.network, merged(adapter), family.tasks)  # noqa: E731
    assert several(ri.lora_lego(family.adapters, rank=8)) > several(ri.pem_composition(family.adapters)) + 0.05  # 10 to 15 points


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no adapters"):
        ri.lora_lego([])
    with pytest.raises(ValueError, match="rank is 7"):
        ri.lora_lego(random_adapters(2), rank=7)
    with pytest.raises(ValueError, match="same names"):
        ri.lora_lego([{"w": random_adapters(1)[0]["w"]}, {"v": random_adapters(1)[0]["w"]}])
    with pytest.raises(ValueError, match="need common n and m"):
        ri.lora_lego([lora([[1.0]], [[1.0]]), lora([[1.0, 2.0]], [[1.0]])])
