import math

import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def mix(base, *finetuned, losses=None, **options):
    wrap = lambda x: {"w": torch.tensor([x])}  # noqa: E731
    loss_fn = lambda model: torch.tensor((losses or {}).get(model["w"].item(), 1.0))  # noqa: E731
    return ri.lm_cocktail(wrap(base), [wrap(x) for x in finetuned], loss_fn, **options)["w"].item()


def test_softmax_of_losses_by_hand():
    # losses 1, 1 + 5 log 2 and 1 + 5 log 4 at temperature 5: weights 4/7, 2/7, 1/7 of base 0 and peers 7 and 14, together 4
    losses = {0.0: 1.0, 7.0: 1 + 5 * math.log(2), 14.0: 1 + 5 * math.log(4)}
    assert mix(0.0, 10.0, 7.0, 14.0, losses=losses) == pytest.approx(0.5 * 10 + 0.5 * 4, abs=1e-5)
    assert mix(0.0, 10.0, 7.0, 14.0, losses=losses, alpha=0.25) == pytest.approx(0.25 * 10 + 0.75 * 4, abs=1e-5)


def test_all_or_nothing_of_the_fine_tuned_model_and_no_peers():
    assert mix(0.0, 10.0, 7.0, alpha=1.0) == 10.0
    assert mix(0.0, 10.0, 8.0, alpha=0.0) == 4.0
    assert mix(2.0, 10.0) == 6.0


def test_temperature_turns_from_the_best_candidate_to_all_alike():
    losses = {0.0: 0.1, 8.0: 0.3}
    assert mix(0.0, 10.0, 8.0, losses=losses, alpha=0.0, temperature=1e-3) == pytest.approx(0.0, abs=1e-6)
    assert mix(0.0, 10.0, 8.0, losses=losses, alpha=0.0, temperature=1e6) == pytest.approx(4.0, abs=1e-3)


def test_order_of_peers_and_a_constant_on_all_losses_do_not_matter():
    losses = {0.0: 1.0, 7.0: 2.0, 14.0: 4.0}
    shifted = {key: value + 3 for key, value in losses.items()}
    expected = pytest.approx(mix(0.0, 10.0, 7.0, 14.0, losses=losses), abs=1e-5)
    assert mix(0.0, 10.0, 14.0, 7.0, losses=losses) == expected and mix(0.0, 10.0, 7.0, 14.0, losses=shifted) == expected


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_restores_general_ability_at_little_cost_in_the_domain(seed):
    family, general = toy_zoo.multitask("mlp", seed), toy_zoo.digits("upright", flat=True)
    target = family.tasks[0]
    few = (target.val[0][:20], target.val[1][:20])
    mixed = ri.lm_cocktail(family.base, family.finetuned, lambda model: toy_zoo.loss(family.network, model, few))
    score = lambda model, task: toy_zoo.accuracy(family.network, model, task.test)  # noqa: E731
    tuned = family.finetuned[0]
    assert score(mixed, general) > score(tuned, general) + 0.15  # measured: 20 to 31 points
    assert score(mixed, target) > score(tuned, target) - 0.13  # measured: 9 to 12 points


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no fine-tuned models"):
        mix(0.0)
    with pytest.raises(ValueError, match="alpha is 2"):
        mix(0.0, 1.0, alpha=2)
    with pytest.raises(ValueError, match="temperature is 0"):
        mix(0.0, 1.0, temperature=0)
