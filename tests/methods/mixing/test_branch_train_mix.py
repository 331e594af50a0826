import copy
import math

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from tests.methods.mixing.toy_values import MLPS, BlockNet

NET = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))


def model(a, b):
    return {"0.weight": torch.tensor([[a]]), "1.weight": torch.tensor([[b]])}


def mix(*models, **options):
    return ri.branch_train_mix(NET, models[0], models[1:], [], ["0"], num_steps=0, **options)


def test_weights_of_the_chosen_experts_by_hand():
    # experts 2, 4, 8; scores for x = 1: 0, ln 3, ln 9. The best two: weights 1/4 and 3/4 of 4 and 8: 7; the other
    # layer's average: 3
    mixed = mix(model(2.0, 1.0), model(4.0, 3.0), model(8.0, 5.0))
    mixed[0].router.weight.data = torch.tensor([[0.0], [math.log(3)], [math.log(9)]])
    assert mixed(torch.ones(1, 1)).item() == pytest.approx(7 * 3)
    # x = -1 turns the order round: scores 0, -ln 3, -ln 9: 3/4 of -2 and 1/4 of -4
    assert mixed(-torch.ones(1, 1)).item() == pytest.approx(-(1.5 + 1) * 3)


def test_balance_is_one_for_equal_loads_and_grows_with_a_favourite():
    # one token goes to expert 0, the other to expert 1, probabilities mirrored: u = (1/2, 1/2), p = (1/2, 1/2): 2 *
    # 1/2 = 1
    mixed = mix(model(2.0, 1.0), model(4.0, 3.0), top_k=1)
    mixed[0].router.weight.data = torch.tensor([[1.0], [-1.0]])
    mixed(torch.tensor([[1.0], [-1.0]]))
    assert mixed[0].balance.item() == pytest.approx(1)
    # both tokens to expert 0 with probability 1 / (1 + e^-2): 2 * 1 * 0.881
    mixed(torch.tensor([[1.0], [1.0]]))
    assert mixed[0].balance.item() == pytest.approx(2 / (1 + math.exp(-2)), abs=1e-4)


def test_one_expert_is_the_model_itself_and_equal_experts_do_not_care():
    family = toy_zoo.multitask("residual", 0)
    inputs = family.task.test[0][:50]
    build = lambda models, **o: ri.branch_train_mix(  # noqa: E731
        family.network, models[0], models, [], ["blocks.0"], include_base=False, num_steps=0, **o
    )
    expected = toy_zoo.logits(family.network, family.finetuned[0], inputs)
    assert torch.allclose(build(family.finetuned[:1], top_k=1)(inputs), expected, atol=1e-4)
    assert torch.allclose(build([family.finetuned[0]] * 3)(inputs), expected, atol=1e-4)


def test_tokens_are_routed_one_by_one():
    mixed = mix(model(2.0, 1.0), model(4.0, 3.0), top_k=1)
    x = torch.randn(2, 3, 1, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(mixed(x)[1, 2], mixed(x[1, 2][None])[0])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mix_beats_dense_training_of_the_seed_and_of_the_average_with_the_same_data(seed):
    # measured after 60 steps: 0.95; the seed 0.89 to 0.91, the average of the models 0.93 to 0.94, both trained alike
    network = BlockNet().eval()
    tasks = [toy_zoo.digits(name, flat=True) for name in ("rotate90", "invert", "mirror")]
    generator = lambda s: torch.Generator().manual_seed(s)  # noqa: E731
    mixture, joint = toy_zoo.join([toy_zoo.digits(flat=True), *tasks]), toy_zoo.join(tasks)
    base = toy_zoo.train(network, None, mixture.train, num_steps=60, lr=2e-3, generator=generator(seed))
    models = [
        toy_zoo.train(network, base, task.train, num_steps=150, lr=2e-3, generator=generator(10 * seed + i))
        for i, task in enumerate(tasks)
    ]
    batches = [b for i in range(2) for b in toy_zoo.batches(joint.train, 64, generator(1000 + 10 * seed + i))][:60]

    def accuracy(trained):
        return sum((trained(t.test[0]).argmax(1) == t.test[1]).float().mean().item() for t in tasks) / 3

    def dense(start):
        trained = copy.deepcopy(network)
        trained.load_state_dict(start)
        optimizer = torch.optim.Adam(trained.parameters(), lr=1e-3)
        for inputs, targets in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(trained(inputs), targets).backward()
            optimizer.step()
        return accuracy(trained)

    mixed = accuracy(ri.branch_train_mix(network, base, models, batches, MLPS, num_steps=60, generator=generator(seed)))
    assert mixed > dense(base) + 0.025 and mixed > dense(ri.uniform_soup(models)) + 0.003


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no fine-tuned models"):
        mix(model(1.0, 1.0))
    with pytest.raises(ValueError, match="top_k is 3"):
        mix(model(1.0, 1.0), model(1.0, 1.0), top_k=3)
    with pytest.raises(ValueError, match="no module 'mlp'"):
        ri.branch_train_mix(NET, model(1.0, 1.0), [model(1.0, 1.0)], [], ["mlp"])
    with pytest.raises(ValueError, match="no batches"):
        ri.branch_train_mix(NET, model(1.0, 1.0), [model(1.0, 1.0)], [], ["0"])
