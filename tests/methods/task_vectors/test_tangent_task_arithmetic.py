import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.state_dict import linear_combination, task_vector
from reference_impls.task_vectors.tangent_task_arithmetic import (
    LinearizedModel, disentanglement_error, linearized_outputs, tangent_fine_tuning,
)  # fmt: skip
from tests.methods.toy_values import toy_network


class Product(nn.Module):
    """x times two weights: f = u v x."""

    def __init__(self):
        super().__init__()
        self.u, self.v = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.u * self.v * x


def draw(network, seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(p.shape, generator=generator) for name, p in network.named_parameters()}


def test_first_order_expansion_by_hand():
    # u v = 2 * 3, and moving u by 1 and v by 4 adds 3 * 1 + 2 * 4 = 11; the network itself would give 3 * 7 = 21
    base, tau = {"u": torch.tensor([2.0]), "v": torch.tensor([3.0])}, {"u": torch.tensor([1.0]), "v": torch.tensor([4.0])}
    assert linearized_outputs(Product(), base, tau, torch.tensor([1.0, -2.0])).tolist() == [17.0, -34.0]


def test_of_a_linear_network_it_is_the_network_itself():
    network, x = nn.Linear(4, 3), torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    base, tau = draw(network, 1), draw(network, 2)
    exact = x @ (base["weight"] + tau["weight"]).T + base["bias"] + tau["bias"]
    assert torch.allclose(linearized_outputs(network, base, tau, x), exact, atol=1e-5)


def test_outputs_are_sums_of_the_tasks_contributions():
    network, x = toy_network(0), torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    base, one, two = (draw(network, s) for s in (1, 2, 3))
    out = lambda tau: LinearizedModel(network, base, tau)(x)  # noqa: E731
    zero, both = linear_combination([one], [0.0]), linear_combination([one, two], [1.0, 1.0])
    assert torch.allclose(out(both) - out(zero), (out(one) - out(zero)) + (out(two) - out(zero)), atol=1e-4)
    assert torch.allclose(out(zero), toy_zoo.logits(network, base, x), atol=1e-6)


def test_the_merged_model_holds_the_scaled_sum_of_the_task_vectors_and_negation_forgets():
    family = toy_zoo.multitask("mlp", 0)
    batches = [toy_zoo.batches(task.train, 64) for task in family.tasks[:2]]
    taus = [tangent_fine_tuning(family.network, family.base, b, num_steps=30) for b in batches]
    merged = ri.tangent_task_arithmetic(family.network, family.base, batches, scaling_coef=0.5, num_steps=30)
    assert torch.allclose(merged.tau["layers.0.weight"], 0.5 * (taus[0]["layers.0.weight"] + taus[1]["layers.0.weight"]))
    forgetting = ri.tangent_task_arithmetic(family.network, family.base, batches[:1], scaling_coef=-1.0, num_steps=30)
    inputs, targets = family.tasks[0].test
    right = lambda outputs: (outputs.argmax(-1) == targets).float().mean()  # noqa: E731
    assert right(forgetting(inputs)) < right(toy_zoo.logits(family.network, family.base, inputs)) - 0.1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_tangent_space_is_more_disentangled_and_adds_tasks_better(seed):
    family = toy_zoo.multitask("mlp", seed)
    network, base, tasks = family.network, family.base, family.tasks
    generator = torch.Generator().manual_seed(seed)
    epochs = lambda split: [b for _ in range(12) for b in toy_zoo.batches(split, 64, generator)]  # noqa: E731
    tangent = [tangent_fine_tuning(network, base, epochs(t.train), num_steps=200, lr=1e-3) for t in tasks]
    ordinary = [task_vector(model, base) for model in family.finetuned]
    in_tangent = lambda tau, x: linearized_outputs(network, base, tau, x)  # noqa: E731
    in_network = lambda tau, x: toy_zoo.logits(network, {k: base[k] + tau[k] for k in base}, x)  # noqa: E731

    def accuracy(outputs, taus, coef, split):
        total = linear_combination(taus, [coef] * 3)
        return sum((outputs(total, getattr(t, split)[0]).argmax(-1) == getattr(t, split)[1]).float().mean() for t in tasks) / 3

    def merged(outputs, taus):
        best = max((0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0), key=lambda coef: accuracy(outputs, taus, coef, "val"))
        return accuracy(outputs, taus, best, "test")

    inputs = [t.test[0] for t in tasks]
    for coef in (0.5, 1.0):
        a, b = (disentanglement_error(o, v, [coef] * 3, inputs) / 3 for o, v in ((in_tangent, tangent), (in_network, ordinary)))
        assert a < b - 0.02  # measured: 3 to 11 points of disagreement less
    assert merged(in_tangent, tangent) > merged(in_network, ordinary) + 0.02  # measured: 4 to 9 points


def test_bad_input_is_refused():
    network = nn.Linear(1, 2)
    with pytest.raises(ValueError, match="no tasks"):
        ri.tangent_task_arithmetic(network, draw(network, 0), [])
    with pytest.raises(ValueError, match="without batches"):
        ri.tangent_task_arithmetic(network, draw(network, 0), [[]])
