import functools

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo

BASE, MODELS = {"0.weight": torch.ones(1, 1)}, [{"0.weight": torch.tensor([[v]])} for v in (3.0, 0.0)]


def one_weight(**options):
    return ri.wemoe(nn.Sequential(nn.Linear(1, 1, bias=False)), BASE, MODELS, [], ["0"], num_steps=0, **options)


class CosineNet(nn.Module):
    """Like CLIP in little: a residual MLP, and logits that are 10 times the cosine with a class vector."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(64, 64), nn.Linear(64, 10, bias=False)
        self.mlp = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))

    def forward(self, x):
        x = torch.relu(self.embed(x))
        x = x + self.mlp(x)
        return 10 * nn.functional.normalize(x, dim=-1) @ nn.functional.normalize(self.head.weight, dim=-1).T


@functools.cache
def cosine_family(seed):
    network, generator = CosineNet().eval(), lambda i: torch.Generator().manual_seed(100 * seed + i)
    tasks = tuple(toy_zoo.digits(name, flat=True) for name in ("rotate90", "mirror", "invert"))
    mixture = toy_zoo.join([toy_zoo.digits(flat=True), *tasks])
    base = toy_zoo.train(network, None, mixture.train, num_steps=60, lr=2e-3, generator=generator(0))
    options = dict(num_steps=150, lr=2e-3, trainable=lambda name: name.startswith("mlp"))
    models = tuple(
        toy_zoo.train(network, base, t.train, generator=generator(i), **options) for i, t in enumerate(tasks, 1)
    )
    return toy_zoo.Family(network, base, models, tasks)


def accuracy(network, tasks):
    return sum((network(t.test[0]).argmax(-1) == t.test[1]).float().mean().item() for t in tasks) / len(tasks)


def test_mixture_of_task_vectors_by_hand():
    # theta_0 = 1, task vectors 2 and -1; the router says r = (x, 0) + (0.5, 0.5): weight 1 + 2 (x + 0.5) - 0.5 = 1.5 +
    # 2 x
    moe = one_weight(scaling_coef=0.5, router_layers=1)
    moe[0].router.weight.data = torch.tensor([[1.0], [0.0]])
    assert moe(torch.tensor([[10.0], [2.0]])).flatten().tolist() == [10 * 21.5, 2 * 5.5]
    # one input of two tokens, 10 and 2: the router's mean is (6.5, 0.5), the weight 1 + 13 - 0.5 = 13.5 for both tokens
    assert moe(torch.tensor([[[10.0], [2.0]]])).flatten().tolist() == [135, 27]


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_untrained_routers_start_at_task_arithmetic(layers):
    family = toy_zoo.multitask("mlp", 0)
    moe = ri.wemoe(
        family.network, family.base, family.finetuned, [], ["layers.0", "layers.1"], router_layers=layers, num_steps=0
    )
    merged = ri.task_arithmetic(family.base, family.finetuned, scaling_coef=0.3)
    inputs = family.task.test[0]
    expected = toy_zoo.logits(family.network, merged, inputs)
    difference = (moe(inputs) - expected).norm() / expected.norm()
    assert difference < (
        1e-5 if layers == 0 else 0.15
    )  # the random weights of standard deviation 0.01 say a little more


def test_each_input_has_its_own_weights_whatever_else_is_in_the_batch():
    family = toy_zoo.multitask("vit", 0)
    moe = ri.wemoe(family.network, family.base, family.finetuned, [], ["blocks.0.expand"], num_steps=0)
    inputs = family.task.test[0][:6]
    assert torch.allclose(moe(inputs)[2:4], moe(inputs[2:4]), atol=1e-5)
    assert moe.blocks[0].expand.mixture(torch.randn(6, 16, 32)).shape == (6, 3)


def test_order_of_models_does_not_matter_to_a_constant_router():
    forward, backward = (
        ri.wemoe(nn.Sequential(nn.Linear(1, 1, bias=False)), BASE, m, [], ["0"], router_layers=0, num_steps=0)
        for m in (MODELS, MODELS[::-1])
    )
    assert forward(torch.ones(1, 1)) == backward(torch.ones(1, 1))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_routers_trained_without_labels_beat_every_static_merge(seed):
    # measured: WEMoE 0.94 to 0.95; best task arithmetic 0.83 to 0.88; learned constant coefficients 0.76 to 0.83
    family = cosine_family(seed)
    batches = toy_zoo.batches(family.task.val, 96, torch.Generator().manual_seed(0))
    options = dict(modules=["mlp"], num_steps=100, lr=3e-3)
    moe = accuracy(ri.wemoe(family.network, family.base, family.finetuned, batches, **options), family.tasks)
    constant = ri.wemoe(family.network, family.base, family.finetuned, batches, router_layers=0, **options)
    merges = [ri.task_arithmetic(family.base, family.finetuned, scaling_coef=c) for c in (0.2, 0.3, 0.5, 1.0)]
    best_static = max(toy_zoo.mean_accuracy(family.network, m, family.tasks) for m in merges)
    assert moe > best_static + 0.04 and moe > accuracy(constant, family.tasks) + 0.04


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_low_entropy_alone_says_nothing_where_logits_can_grow(seed):
    # unnormalised logits: the routers find large weights instead of the right task; the entropy falls, and so does the
    # accuracy
    family = toy_zoo.multitask("residual", seed)
    batches = toy_zoo.batches(family.task.val, 96, torch.Generator().manual_seed(0))
    entropies = []
    build = functools.partial(
        ri.wemoe, family.network, family.base, family.finetuned, batches, ["blocks.0", "blocks.1"]
    )
    trained = build(num_steps=60, lr=1e-3, progress=lambda step, loss: entropies.append(loss))
    assert entropies[-1] < 0.3 * entropies[0]
    assert accuracy(trained, family.tasks) < accuracy(build(num_steps=0), family.tasks) - 0.1


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no fine-tuned models"):
        ri.wemoe(nn.Linear(1, 1), BASE, [], [], ["0"])
    with pytest.raises(ValueError, match="no module 'mlp'"):
        ri.wemoe(nn.Sequential(nn.Linear(1, 1, bias=False)), BASE, MODELS, [], ["mlp"])
    with pytest.raises(ValueError, match="router_layers is 3"):
        one_weight(router_layers=3)
