import copy

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.ensembles.fusion_of_experts import frugal_fusion_of_experts


class Says(nn.Module):
    """An expert that reads its logits from the input: columns 2k and 2k + 1."""

    def __init__(self, k):
        super().__init__()
        self.k = k

    def forward(self, inputs):
        return inputs[:, 2 * self.k : 2 * self.k + 2]


def experts_of(family):
    experts = [copy.deepcopy(family.network) for _ in family.models]
    for expert, model in zip(experts, family.models):
        expert.load_state_dict(model)
    return experts


def toy_data():
    # Expert 0 is right where it is sure (x_0 = +-3) and knows nothing elsewhere (0); expert 1 is always right but says it softly.
    y = torch.arange(40) % 2
    sure = torch.arange(40) < 20
    first = torch.stack([torch.where(sure, 3.0 * (1 - 2 * y), 0), torch.zeros(40)], 1)
    second = torch.stack([1.0 * (1 - 2 * y), torch.zeros(40)], 1)
    return torch.cat([first, second], 1), y, sure


def test_the_fuser_starts_at_the_loss_of_its_formula():
    # zero steps of training: the logits are W2 relu(W1 p + b1) + b2 of the concatenated probabilities p
    x, y, _ = toy_data()
    fused = ri.fusion_of_experts([Says(0), Says(1)], [(x, y)], num_steps=0, width=5)
    p = torch.cat([x[:, :2].softmax(1), x[:, 2:].softmax(1)], 1)
    first, second = fused.fuser[0], fused.fuser[2]
    by_hand = (p @ first.weight.T + first.bias).relu() @ second.weight.T + second.bias
    assert first.weight.shape == (5, 4) and torch.allclose(fused(x), by_hand, atol=1e-6)
    losses = []
    ri.fusion_of_experts([Says(0), Says(1)], [(x, y)], num_steps=1, width=5, progress=lambda _, loss: losses.append(loss))
    assert losses == pytest.approx([nn.functional.cross_entropy(by_hand, y).item()])


def test_trusting_an_expert_gives_that_experts_answer():
    x, y, _ = toy_data()
    fused = ri.fusion_of_experts([Says(0), Says(1)], [(x, y)], predict="expert")
    answers = torch.stack([x[:, :2].log_softmax(1), x[:, 2:].log_softmax(1)])
    # p(right) is 0.95 against 0.73 where expert 0 is sure, and 0.5 against 0.73 where it is not
    assert torch.allclose(fused(x)[:20], answers[0, :20], atol=1e-5)
    assert torch.allclose(fused(x)[20:], answers[1, 20:], atol=1e-5)


def test_frugal_fusion_asks_the_second_expert_only_where_the_first_is_unsure():
    # Before anyone is asked, {0} errs on 0.25 (half of the unsure half) and {1} costs 0.3, so expert 0 is asked. Then expert 1 is
    # worth 0.5 of error on the unsure half, which is more than 0.3, and nothing on the other.
    x, y, sure = toy_data()
    frugal = frugal_fusion_of_experts([Says(0), Says(1)], [(x, y)], costs=[0.0, 1.0], price=0.3)
    assert (frugal(x).argmax(1) == y).all() and frugal.asked.tolist() == [[True, not s] for s in sure.tolist()]
    dear = frugal_fusion_of_experts([Says(0), Says(1)], [(x, y)], costs=[0.0, 1.0], price=0.6)
    assert dear(x)[sure].argmax(1).equal(y[sure]) and not dear.asked[:, 1].any()  # 0.6 buys at most 0.5 of error


def test_an_expert_that_costs_nothing_and_one_that_costs_more_than_any_error():
    x, y, _ = toy_data()
    free = frugal_fusion_of_experts([Says(1), Says(0)], [(x, y)], costs=[0, 5], price=1.0)
    assert (free(x).argmax(1) == y).all() and free.asked.tolist() == [[True, False]] * 40


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_beats_the_best_expert_and_the_mean_on_the_mixture(seed):
    family = toy_zoo.multitask("mlp", seed)
    experts, task = experts_of(family), family.task
    before = [p.clone() for e in experts for p in e.parameters()]
    val = toy_zoo.batches(task.val, 64, torch.Generator().manual_seed(seed))
    right = lambda network: (network(task.test[0]).argmax(-1) == task.test[1]).float().mean().item()  # noqa: E731
    best, mean = max(map(right, experts)), right(ri.logit_ensemble(experts))
    fused, chosen = right(ri.fusion_of_experts(experts, val)), right(ri.fusion_of_experts(experts, val, predict="expert"))
    frugal = frugal_fusion_of_experts(experts, val)
    assert min(fused, chosen) > best + 0.3 and min(fused, chosen) > mean + 0.1
    assert right(frugal) > mean + 0.1 and frugal.asked.float().sum(1).mean() < 2.2  # of three experts
    assert all(torch.equal(a, p) for a, p in zip(before, (p for e in experts for p in e.parameters())))


def test_bad_input_is_refused():
    x, y, _ = toy_data()
    with pytest.raises(ValueError, match="0 networks"):
        ri.fusion_of_experts([], [(x, y)])
    with pytest.raises(ValueError, match="0 batches"):
        ri.fusion_of_experts([Says(0)], [])
    with pytest.raises(ValueError, match="predict is 'word'"):
        ri.fusion_of_experts([Says(0)], [(x, y)], predict="word")
    with pytest.raises(ValueError, match="one cost >= 0"):
        frugal_fusion_of_experts([Says(0)], [(x, y)], costs=[1.0, 2.0])
