import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo


def linear(*rows):
    return nn.Linear(len(rows[0]), len(rows), bias=False), {"weight": torch.tensor(rows)}


def test_a_weight_that_speaks_against_the_label_is_switched_off_after_fifty_steps():
    # Adam moves a score by the learning rate at each step while the gradient keeps its sign: 0.01 - 50 * 1e-4 = 0.005, still kept
    network, base = linear([0.0, 0.0], [1.0, -2.0])
    batch = [(torch.ones(1, 2), torch.tensor([1]))]
    kept = lambda steps: ri.piggyback(network, base, batch, num_steps=steps).masks["weight"].tolist()  # noqa: E731
    assert kept(48) == [[True, True], [True, True]]
    assert kept(52) == [[True, True], [True, False]]  # zeros have no gradient, and 1 speaks for the label


def test_a_weight_that_is_off_keeps_learning_and_comes_back():
    # the first task of the two batches turns the weight off, the second one back on
    network, base = linear([0.0], [-2.0])
    against, for_it = (torch.ones(1, 1), torch.tensor([1])), (torch.ones(1, 1), torch.tensor([0]))
    off = ri.piggyback(network, base, [against] * 60, num_steps=60)
    back = ri.piggyback(network, base, [against] * 60 + [for_it] * 240, num_steps=300)
    assert not off.masks["weight"][1].any() and back.masks["weight"][1].all()


def test_without_steps_it_is_the_base_and_kept_weights_are_never_changed():
    family = toy_zoo.multitask("mlp", 0)
    batches = toy_zoo.batches(family.tasks[0].train, 64)
    untouched = ri.piggyback(family.network, family.base, batches, num_steps=0).model()
    assert all(torch.equal(untouched[k], family.base[k]) for k in family.base)
    task = ri.piggyback(family.network, family.base, batches, num_steps=100)
    for name, mask in task.masks.items():
        assert torch.equal(task.model()[name], torch.where(mask, family.base[name], 0)) and not mask.all()
    assert torch.equal(task.model()["layers.0.bias"], family.base["layers.0.bias"])  # biases are not masked


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_masks_are_nearly_as_good_as_fine_tuning_and_better_than_a_new_output_layer(seed):
    family = toy_zoo.multitask("mlp", seed)
    task, head = family.tasks[0], ["layers.2.weight", "layers.2.bias"]
    generator = torch.Generator().manual_seed(seed)
    batches = [b for _ in range(20) for b in toy_zoo.batches(task.train, 64, generator)]
    score = lambda model: toy_zoo.accuracy(family.network, model, task.test)  # noqa: E731
    masks = ri.piggyback(family.network, family.base, batches, num_steps=300)
    both = ri.piggyback(family.network, family.base, batches, num_steps=300, trainable=head)
    options = {"num_steps": 300, "lr": 1e-3, "generator": generator}
    only_head = toy_zoo.train(family.network, family.base, task.train, trainable=lambda name: name in head, **options)
    assert score(both.model()) > score(family.finetuned[0]) - 0.04  # measured: 2 points below
    assert score(masks.model()) > score(only_head) + 0.15  # measured: 20 to 22 points
    share_off = 1 - sum(m.sum() for m in masks.masks.values()) / sum(m.numel() for m in masks.masks.values())
    assert 0.15 < share_off < 0.35  # measured: about a quarter


def test_bad_input_is_refused():
    network, base = linear([0.0], [1.0])
    batch = [(torch.ones(1, 1), torch.tensor([1]))]
    with pytest.raises(ValueError, match="no batches"):
        ri.piggyback(network, base, [])
    with pytest.raises(ValueError, match="initial is 0.001"):
        ri.piggyback(network, base, batch, initial=0.001)
    with pytest.raises(ValueError, match=r"trainable names \['head'\]"):
        ri.piggyback(network, base, batch, trainable=["head"])
