import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.averaging.personalized_soups import preference_policies
from reference_impls.core import toy_zoo

BASE = {"weight": torch.zeros(2, 1)}
BATCHES = [(torch.ones(4, 1), torch.zeros(4))]
FIRST, SECOND = torch.tensor([[1.0, 0.0]] * 4), torch.tensor([[0.0, 1.0]] * 4)


def soup(*rewards, **options):
    return ri.personalized_soups(BASE, nn.Linear(1, 2, bias=False), BATCHES, rewards, **options)["weight"].flatten().tolist()


def test_first_step_by_hand():
    # the first reward raises the first logit by lr and lowers the second, the second reward the other way round;
    # mixed 3 : 1 that is (3 * 0.1 - 0.1) / 4
    assert soup(FIRST, num_steps=1, lr=0.1) == pytest.approx([0.1, -0.1], abs=1e-5)
    assert soup(FIRST, SECOND, weights=[3, 1], num_steps=1, lr=0.1) == pytest.approx([0.05, -0.05], abs=1e-5)


def test_the_optimum_is_the_base_policy_times_exponential_reward():
    # pi is proportional to pi_0 exp(r / beta): with beta = 1 the odds of the first action are e, the logits differ by 1
    logits = soup(FIRST, kl_coef=1.0, num_steps=400, lr=0.01)
    assert logits[0] - logits[1] == pytest.approx(1.0, abs=0.01)


def test_a_weight_of_one_is_that_policy_and_opposite_preferences_cancel():
    alone = preference_policies(BASE, nn.Linear(1, 2, bias=False), BATCHES, [FIRST, SECOND])
    assert soup(FIRST, SECOND, weights=[1, 0]) == alone[0]["weight"].flatten().tolist()
    assert soup(FIRST, SECOND) == pytest.approx([0.0, 0.0], abs=1e-6)


def test_order_of_preferences_does_not_matter():
    assert soup(FIRST, SECOND, weights=[1, 3]) == pytest.approx(soup(SECOND, FIRST, weights=[3, 1]))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_soup_serves_two_preferences_that_no_single_policy_serves(seed):
    family, inputs = toy_zoo.multitask("mlp", seed), toy_zoo.digits("upright", flat=True).train[0][:200]
    digits = torch.arange(10).expand(200, 10)
    rewards = [(digits >= 5).float(), (digits % 2 == 0).float()]  # say a large digit; say an even one
    policies = preference_policies(family.base, family.network, [(inputs, None)], rewards, num_steps=30, lr=2e-3)
    worst = lambda model: min(  # noqa: E731
        (toy_zoo.logits(family.network, model, inputs).softmax(-1) * reward).sum(-1).mean().item() for reward in rewards
    )
    assert worst(ri.uniform_soup(policies)) > 0.95 and max(map(worst, [family.base, *policies])) < 0.6


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no rewards"):
        soup()
    with pytest.raises(ValueError, match=r"shape \(4, 3\); \(inputs, actions\) = \(4, 2\)"):
        soup(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="none may be negative"):
        soup(FIRST, weights=[-1])
    with pytest.raises(ValueError, match="kl_coef is -1"):
        soup(FIRST, kl_coef=-1)
