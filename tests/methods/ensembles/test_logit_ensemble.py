import copy

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.ensembles.logit_ensemble import combine_logits


class Fixed(nn.Module):
    def __init__(self, *probabilities):
        super().__init__()
        self.logits = torch.tensor(probabilities).log()

    def forward(self, inputs):
        return self.logits.expand(len(inputs), -1)


def answer(*members, **options):
    return ri.logit_ensemble([Fixed(*m) for m in members], **options)(torch.zeros(1, 1))[0].tolist()


def test_the_four_rules_by_hand():
    # p_1 = (0.5, 0.3, 0.2), p_2 = (0.4, 0.1, 0.5), p_3 = (0.1, 0.2, 0.7); mean = (1.0, 0.6, 1.4) / 3
    members = (0.5, 0.3, 0.2), (0.4, 0.1, 0.5), (0.1, 0.2, 0.7)
    assert answer(*members) == pytest.approx([1 / 3, 0.2, 1.4 / 3])
    assert answer(*members, combine="vote") == pytest.approx([1 / 3, 0, 2 / 3])
    assert answer(*members, combine="confidence") == pytest.approx([0.1, 0.2, 0.7])
    # cube roots of the products 0.02, 0.006, 0.07 are 0.2714, 0.1817, 0.4121; divided by their sum 0.8653
    assert answer(*members, combine="logits") == pytest.approx([0.3137, 0.2100, 0.4763], abs=1e-4)


def test_weights_are_shares():
    assert answer((0.9, 0.1), (0.2, 0.8), weights=[3, 1]) == pytest.approx([0.725, 0.275])  # 0.75 * 0.9 + 0.25 * 0.2
    assert answer((0.9, 0.1), (0.2, 0.8), weights=[0, 2]) == pytest.approx([0.2, 0.8])
    assert answer((0.6, 0.4), (0.2, 0.8), weights=[3, 1], combine="vote") == pytest.approx([0.75, 0.25])
    assert answer((0.6, 0.4), (0.2, 0.8), weights=[3, 1], combine="confidence") == pytest.approx([0.6, 0.4])  # 1.8 > 0.8


@pytest.mark.parametrize("combine", ["probabilities", "logits", "vote", "confidence"])
def test_one_model_or_equal_models_change_no_decision(combine):
    logits = torch.randn(1, 50, 7, generator=torch.Generator().manual_seed(0))
    for count in (1, 3):
        combined = combine_logits(logits.expand(count, -1, -1), torch.full((count,), 1 / count), combine)
        assert torch.equal(combined.argmax(-1), logits[0].argmax(-1))
        assert combined.sum(-1).tolist() == pytest.approx([1.0] * 50)


@pytest.mark.parametrize("combine", ["probabilities", "logits", "vote", "confidence"])
def test_order_of_models_does_not_matter(combine):
    logits = torch.randn(3, 50, 7, generator=torch.Generator().manual_seed(1))
    weights = torch.tensor([0.5, 0.2, 0.3])
    there, back = combine_logits(logits, weights, combine), combine_logits(logits.flip(0), weights.flip(0), combine)
    assert torch.allclose(there, back, atol=1e-6)


def test_a_constant_added_to_one_models_logits_changes_nothing():
    logits = torch.randn(2, 20, 5, generator=torch.Generator().manual_seed(2))
    shifted = logits + torch.tensor([0.0, 9.0])[:, None, None]
    for combine in ("probabilities", "logits", "vote", "confidence"):
        a, b = (combine_logits(z, torch.tensor([0.5, 0.5]), combine) for z in (logits, shifted))
        assert torch.allclose(a, b, atol=1e-5)


def test_an_overconfident_outlier_sways_the_mean_of_logits_but_not_of_probabilities():
    # logits (1, 0), (1, 0), (0, 9): probabilities of class 0 are 0.731, 0.731, 0.0001, mean 0.487; the vote says class 0
    logits = torch.tensor([[[0.5, -0.5]], [[0.5, -0.5]], [[0.0, 2.5]]])
    rules = ("probabilities", "logits", "vote")
    decide = {rule: combine_logits(logits, torch.ones(3) / 3, rule)[0].argmax().item() for rule in rules}
    assert decide == {"probabilities": 0, "logits": 1, "vote": 0}


def test_the_largest_logit_of_each_class_is_not_the_surest_model():
    # logits (3, 0) and (10, 9): the first model is surer (0.953 against 0.731); the largest logits are (10, 9)
    logits = torch.tensor([[[3.0, 0.0]], [[10.0, 9.0]]])
    half = torch.tensor([0.5, 0.5])
    assert combine_logits(logits, half, "confidence")[0].tolist() == pytest.approx([0.9526, 0.0474], abs=1e-4)
    assert combine_logits(logits, half, "max")[0].tolist() == pytest.approx([0.7311, 0.2689], abs=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_beats_the_best_member_and_the_average_of_weights(seed):
    task, network = toy_zoo.digits(flat=True), toy_zoo.build("mlp", 32)
    states = []
    for i in range(5):  # five models, each trained on its own hundred digits
        own = task.train[0][100 * i : 100 * (i + 1)], task.train[1][100 * i : 100 * (i + 1)]
        generator = torch.Generator().manual_seed(5 * seed + i)
        states.append(toy_zoo.train(network, None, own, num_steps=60, lr=5e-3, generator=generator))
    members = [copy.deepcopy(network) for _ in states]
    for member, state in zip(members, states):
        member.load_state_dict(state)
    right = lambda outputs: (outputs.argmax(-1) == task.test[1]).float().mean().item()  # noqa: E731
    nll = lambda p: nn.functional.nll_loss(p.clamp_min(1e-9).log(), task.test[1]).item()  # noqa: E731
    with torch.no_grad():
        alone = [member(task.test[0]).softmax(-1) for member in members]
        mean, vote = (ri.logit_ensemble(members, combine=rule)(task.test[0]) for rule in ("probabilities", "vote"))
    average = toy_zoo.accuracy(network, ri.uniform_soup(states), task.test)
    assert nll(mean) < min(map(nll, alone)) - 0.02
    assert right(mean) > max(map(right, alone)) + 0.02 and right(vote) > max(map(right, alone)) + 0.02
    assert right(mean) > average + 0.1


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no networks"):
        ri.logit_ensemble([])
    with pytest.raises(ValueError, match="combine is 'median'"):
        ri.logit_ensemble([Fixed(1.0)], combine="median")
    with pytest.raises(ValueError, match="2 weights for 1 networks"):
        ri.logit_ensemble([Fixed(1.0)], weights=[1, 2])
    with pytest.raises(ValueError, match="not all zero"):
        ri.logit_ensemble([Fixed(1.0)], weights=[0])
