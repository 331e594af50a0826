import functools

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.mixing.mixda import DomainMixture
from tests.methods.mixing.toy_values import MLPS, BlockNet

NET, BASE = nn.Sequential(nn.Linear(2, 2, bias=False)), {"0.weight": torch.eye(2)}


def accuracy(network, task):
    return (network(task.test[0]).argmax(-1) == task.test[1]).float().mean().item()


@functools.cache
def base_and_data(seed):
    generator = lambda s: torch.Generator().manual_seed(s)  # noqa: E731
    network, upright = BlockNet().eval(), toy_zoo.digits(flat=True)
    tasks = [toy_zoo.digits(name, flat=True) for name in ("rotate90", "invert", "mirror")]
    base = toy_zoo.train(network, None, upright.train, num_steps=150, lr=2e-3, generator=generator(seed))
    joint = toy_zoo.join(tasks)
    few = torch.randperm(len(joint.train[0]), generator=generator(seed))[:100]
    labelled = toy_zoo.batches((joint.train[0][few], joint.train[1][few]), 50, generator(6))
    domains = [toy_zoo.batches(task.train, 64, generator(i)) for i, task in enumerate(tasks)]
    return network, base, tasks, domains, labelled, upright


def test_gated_sum_and_task_adapter_by_hand():
    mixture = DomainMixture(nn.Linear(1, 1, bias=False), 2, 1, torch.Generator())
    mixture.module.weight.data.fill_(10.0)
    for adapter, up in zip(mixture.adapters, (1.0, 5.0)):  # A_1 = relu(x), A_2 = 5 relu(x)
        adapter.down.data.fill_(1.0)
        adapter.up.data.fill_(up)
    x = torch.ones(1, 1)
    assert mixture(x).item() == 10 + 0.5 * 1 + 0.5 * 5
    mixture.gate[0].data = torch.tensor([[torch.tensor(3.0).log()], [0.0]])  # weights 3/4 and 1/4
    assert mixture(x).item() == pytest.approx(10 + 0.75 + 1.25)
    mixture.task.down.data.fill_(1.0)
    mixture.task.up.data.fill_(2.0)  # y + 2 y
    assert mixture(x).item() == pytest.approx(3 * 12)
    mixture.only = 1  # stage 1: one adapter alone, without gate and task
    assert mixture(x).item() == 15 and mixture.adapted.item() == 5


def test_without_training_the_network_does_what_it_did():
    network, base, tasks, domains, labelled, _ = base_and_data(0)
    mixed = ri.mixda(network, base, domains, labelled, MLPS, num_steps=0)
    inputs = tasks[0].test[0]
    assert torch.allclose(mixed(inputs), toy_zoo.logits(network, base, inputs), atol=1e-5)


def test_base_stays_frozen_and_equal_adapters_need_no_gate():
    data = [(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1] * 4))]
    mixed = ri.mixda(NET, BASE, [data, data], data, ["0"], num_steps=5)
    assert torch.equal(mixed[0].module.weight, torch.eye(2))
    mixed[0].adapters[1].load_state_dict(mixed[0].adapters[0].state_dict())
    before = mixed(data[0][0])
    mixed[0].gate[0].data = mixed[0].gate[0].data + 3 * torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert torch.allclose(mixed(data[0][0]), before, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_domain_adapters_make_few_labels_go_further(seed):
    # measured, 100 labels for three domains together: 0.71 to 0.75; adapters that saw only those labels 0.55 to 0.62;
    # base 0.18 to 0.21
    network, base, tasks, domains, labelled, _ = base_and_data(seed)
    mean = lambda model: sum(accuracy(model, task) for task in tasks) / len(tasks)  # noqa: E731
    mixed = mean(ri.mixda(network, base, domains, labelled, MLPS))
    assert mixed > mean(ri.mixda(network, base, [labelled], labelled, MLPS)) + 0.06


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_preservation_keeps_what_the_network_could_do(seed):
    # measured, the contrast adapter on upright digits: 0.21 to 0.32 without preservation, 0.94 to 0.96 with it; its
    # own domain 0.81 or more
    network, base, tasks, domains, labelled, upright = base_and_data(seed)
    old = toy_zoo.batches(upright.train, 64, torch.Generator().manual_seed(5))

    def alone(**options):
        model = ri.mixda(network, base, domains, labelled, MLPS, **options)
        for module in model.modules():
            if isinstance(module, DomainMixture):
                module.only = 1
        return accuracy(model, upright), accuracy(model, tasks[1])

    (forgets, _), (keeps, own) = alone(), alone(old_batches=old, preserve_coef=5.0)
    assert keeps > forgets + 0.3 and keeps > 0.85 and own > 0.7


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="received 0 domains"):
        ri.mixda(NET, BASE, [], [], ["0"])
    with pytest.raises(ValueError, match="bottleneck=0"):
        ri.mixda(NET, BASE, [[]], [], ["0"], bottleneck=0)
    with pytest.raises(ValueError, match="no module 'mlp'"):
        ri.mixda(NET, BASE, [[]], [], ["mlp"])
