import pytest
import torch
from torch import nn
from torch.nn import functional as F

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.ensembles.branch_train_merge import ELMForest


class Unigram(nn.Module):
    """Predicts the same distribution after every token."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(2))

    def forward(self, tokens):
        return self.logits.expand(*tokens.shape, 2)


def forest_of(*probabilities, top_k=None):
    return ELMForest(Unigram(), [{"logits": torch.tensor([p, 1 - p]).log()} for p in probabilities], top_k)


def test_predictions_are_averaged_with_the_posterior_of_the_text_so_far():
    # Experts expect 0 with 0.9 and 0.2. Before anything: (0.9 + 0.2) / 2 = 0.55 for the next 0. After a 0, weights 9/11 and 2/11:
    # 0.9 * 9/11 + 0.2 * 2/11 = 8.5/11. After 0, 1: likelihoods 0.09 and 0.16, weights 0.36 and 0.64: 0.324 + 0.128.
    tokens = torch.tensor([[1, 0, 1]])  # the first token has no prediction of its own
    p = forest_of(0.9, 0.2)(tokens).exp()[0, :, 0]
    assert p.tolist() == pytest.approx([0.55, 8.5 / 11, 0.452])


def test_the_prior_is_a_moving_average_of_posteriors():
    # Each text "0 0" (one observed step): posterior 1/2 before, 9/11 after; mean over positions 0.65909. "1 1": (1/2 + 1/9) / 2.
    forest = forest_of(0.9, 0.2)
    zero, one = torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2, dtype=torch.long)
    prior = forest.cache_prior([(zero, zero), (one, one)])
    assert prior[0].item() == pytest.approx(0.7 * (0.5 + 9 / 11) / 2 + 0.3 * (0.5 + 1 / 9) / 2)
    assert forest(zero)[0, 0, 0].exp().item() == pytest.approx(0.9 * prior[0].item() + 0.2 * prior[1].item())


def test_top_k_leaves_out_the_least_likely_experts():
    zeros = torch.zeros(1, 2, dtype=torch.long)
    assert forest_of(0.9, 0.2, 0.1, top_k=2).posterior(zeros)[:, 0, 1].tolist() == pytest.approx([9 / 11, 2 / 11, 0])
    assert forest_of(0.9, 0.2, top_k=1)(zeros).exp()[0, 1, 0].item() == pytest.approx(0.9)


def test_one_expert_is_itself_and_equal_experts_average_to_themselves():
    zeros = torch.zeros(1, 3, dtype=torch.long)
    assert forest_of(0.7)(zeros).exp()[0, :, 0].tolist() == pytest.approx([0.7] * 3)
    twins = forest_of(0.7, 0.7)
    assert twins(zeros).exp()[0, :, 0].tolist() == pytest.approx([0.7] * 3)
    assert torch.equal(twins.average()["logits"], twins.states[0]["logits"])


def test_new_experts_branch_from_the_average_by_posterior_and_old_ones_stay():
    states = [{"logits": torch.tensor([p, 1 - p]).log()} for p in (0.9, 0.2)]
    zeros = torch.zeros(1, 3, dtype=torch.long)
    forest = ri.branch_train_merge(Unigram(), states[0], [[(zeros, zeros)]], experts=states, num_steps=0)
    w = 0.81 / 0.85
    assert torch.allclose(forest.states[2]["logits"], w * states[0]["logits"] + (1 - w) * states[1]["logits"], atol=1e-6)
    assert [torch.equal(a["logits"], b["logits"]) for a, b in zip(states, forest.states)] == [True, True]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_domain_experts_beat_the_seed_model_their_mean_and_experts_of_random_splits(seed):
    family, generator = toy_zoo.language_models(seed), torch.Generator().manual_seed(seed)
    domains = [toy_zoo.batches(task.train, 32, generator) for task in family.tasks]
    mixed = toy_zoo.batches(toy_zoo.join(family.tasks).train, 32, generator)
    forest = ri.branch_train_merge(family.network, family.base, domains, num_steps=40)
    random = ri.branch_train_merge(family.network, family.base, [mixed[i::3] for i in range(3)], num_steps=40)
    for task in family.tasks:
        loss = lambda log_p, task=task: F.nll_loss(log_p.flatten(0, 1), task.test[1].flatten()).item()  # noqa: E731
        own = lambda state, task=task: toy_zoo.loss(family.network, state, task.test).item()  # noqa: E731
        with torch.no_grad():
            forest.prior.fill_(1 / 3)
            uniform, other = loss(forest(task.test[0])), loss(random(task.test[0]))
            mean = loss(forest._log_probabilities(task.test[0]).exp().mean(0).log())
            average = own(forest.average())
            forest.cache_prior(toy_zoo.batches(task.val, 8)[:2])
            cached, one_model = loss(forest(task.test[0])), own(forest.average())
        assert cached < uniform < other and uniform < mean - 0.2 and uniform < own(family.base) - 0.4
        assert cached < min(map(own, forest.states)) + 0.02  # as good as the right expert, without being told which
        assert one_model < average - 0.1 and one_model < cached + 0.05  # averaging parameters works with the prior's weights


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="0 domains"):
        ri.branch_train_merge(Unigram(), Unigram().state_dict(), [])
    with pytest.raises(ValueError, match=r"\[0\] batches"):
        ri.branch_train_merge(Unigram(), Unigram().state_dict(), [[]])
    with pytest.raises(ValueError, match="no texts"):
        forest_of(0.5).cache_prior([])
