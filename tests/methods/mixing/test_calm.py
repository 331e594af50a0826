import copy
import math

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.mixing.calm import CrossAttention, Listener

X = [(torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(3, 4, dtype=torch.long))]


def linear(width, value, inputs=2):
    net = nn.Sequential(nn.Linear(inputs, width, bias=False))
    nn.init.constant_(net[0].weight, value)
    return net


def attention(weights, heard, causal=False):
    module = CrossAttention(Listener(nn.Identity()), 1, causal)
    module.source[0].heard = torch.tensor(heard)[None, :, None]
    module.weights.extend([nn.Parameter(torch.full((1, 1), w)) for w in weights])
    return module


def loss_on(network, task):
    outputs = network(task.test[0])
    return nn.functional.cross_entropy(outputs.flatten(0, -2), task.test[1].flatten()).item()


def test_attention_by_hand():
    # heard 1 and 2, projected to 2 and 4; query 3 times the anchor's ln 3 / 6; keys equal, values 10 times: 20 and 40;
    # output 5
    # scores ln 3 / 2 * 2 and * 4 = ln 3, 2 ln 3: weights 1/4 and 3/4: 5 + 30 = 35, times 5
    module = attention([2.0, 3.0, 1.0, 10.0, 5.0], [1.0, 2.0])
    h_b = torch.tensor([[[math.log(3) / 6]]])
    assert module(h_b).item() == pytest.approx(175, rel=1e-5)


def test_later_positions_are_hidden():
    module = attention([1.0, 1.0, 1.0, 1.0, 1.0], [7.0, 100.0], causal=True)
    out = module(torch.zeros(1, 2, 1)).flatten().tolist()
    assert out == pytest.approx([7, 53.5])  # the first sees only 7, the second both alike
    assert attention([1.0] * 5, [7.0, 100.0])(torch.zeros(1, 2, 1)).flatten().tolist() == pytest.approx([53.5, 53.5])


def test_without_training_it_is_the_anchor_and_training_leaves_both_models_alone():
    anchor, augmenting = linear(4, 1.0), linear(6, 2.0)
    assert torch.equal(ri.calm(anchor, augmenting, X, [("0", "0")], num_steps=0)(X[0][0]), anchor(X[0][0]))
    trained = ri.calm(anchor, augmenting, X, [("0", "0")], num_steps=5)
    assert not torch.allclose(trained(X[0][0]), anchor(X[0][0]))
    assert torch.equal(trained.anchor[0].layer.weight, anchor[0].weight)
    assert torch.equal(trained.augmenting[0].layer.weight, augmenting[0].weight)


def test_translation_is_what_the_augmenting_model_reads():
    anchor, augmenting = linear(4, 1.0), linear(6, 2.0)

    def build(**options):
        return ri.calm(anchor, augmenting, X, [("0", "0")], num_steps=5, **options)(X[0][0])

    assert torch.allclose(build(translate=lambda x: x), build())
    assert not torch.allclose(build(translate=lambda x: -x), build())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_composition_has_both_skills_and_more_than_its_new_parameters_explain(seed):
    # measured, mean of code and rhymes: 0.92 to 0.94; anchor 1.85 to 1.96, augmenting model 1.93 to 2.35;
    # on code 1.09 to 1.15 (the same new parameters from the anchor to itself: 1.22 to 1.24)
    family = toy_zoo.language_models(seed)

    def network(state_dict):
        net = copy.deepcopy(family.network)
        net.load_state_dict(state_dict)
        return net.eval()

    rhymes, code = family.tasks[1:]
    anchor, augmenting = network(family.finetuned[1]), network(family.finetuned[2])
    data = toy_zoo.batches(toy_zoo.join([code, rhymes]).train, 32, torch.Generator().manual_seed(0))[:20]
    compose = lambda other: ri.calm(anchor, other, data, [("blocks.1", "blocks.1")])  # noqa: E731
    both, alone = compose(augmenting), compose(anchor)
    mean = lambda net: (loss_on(net, code) + loss_on(net, rhymes)) / 2  # noqa: E731
    assert mean(both) < 0.65 * min(mean(anchor), mean(augmenting))
    assert loss_on(both, code) < loss_on(alone, code) - 0.04


def test_bad_input_is_refused():
    anchor, augmenting = linear(4, 1.0), linear(6, 2.0)
    with pytest.raises(ValueError, match="no connections"):
        ri.calm(anchor, augmenting, X, [])
    with pytest.raises(ValueError, match="augmenting model has no module '1'"):
        ri.calm(anchor, augmenting, X, [("1", "0")])
    with pytest.raises(ValueError, match="num_heads is 3"):
        ri.calm(anchor, augmenting, X, [("0", "0")], num_heads=3)
    with pytest.raises(ValueError, match="no batches"):
        ri.calm(anchor, augmenting, [], [("0", "0")])
