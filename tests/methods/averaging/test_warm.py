import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.averaging.warm import reward_models
from reference_impls.core import toy_zoo

NETWORK = nn.Linear(1, 1, bias=False)
PAIRS = (torch.full((8, 1), 2.0), torch.ones(8, 1))  # 2 is preferred to 1


def train(*starts, **options):
    models = [{"weight": torch.tensor([[x]])} for x in starts]
    return ri.warm(models, NETWORK, options.pop("preferences", PAIRS), **options)["weight"].item()


def test_first_step_by_hand():
    # the reward w x prefers 2 to 1 the more, the larger w: every member rises by its step size, 0 + 0.1 and 1 + 0.3
    assert train(0.0, 1.0, num_steps=1, lrs=(0.1, 0.3)) == pytest.approx((0.1 + 1.3) / 2)
    # the loss at w = 0 is log 2
    losses = []
    train(0.0, num_steps=1, progress=lambda step, loss: losses.append(loss))
    assert losses == pytest.approx([0.693147])


def test_without_steps_it_is_the_average_of_the_checkpoints():
    assert train(1.0, 2.0, 6.0, num_steps=0) == 3.0


def test_swapped_preferences_train_the_opposite_way():
    assert train(0.0, num_steps=5, preferences=PAIRS[::-1]) == pytest.approx(-train(0.0, num_steps=5))


def test_only_the_first_output_is_the_reward():
    wide = nn.Linear(1, 2, bias=False)
    merged = ri.warm([{"weight": torch.zeros(2, 1)}], wide, PAIRS, num_steps=3)["weight"].flatten()
    assert merged[0] > 0 and merged[1] == 0


def test_averaged_it_memorises_fewer_wrong_labels_than_its_members_at_the_same_accuracy():
    # images of 5 to 9 are preferred to images of 0 to 4, but in 30 % of the training pairs the label is swapped
    task, gaps = toy_zoo.digits("upright", flat=True), []
    for seed in (0, 1, 2):
        family, g = toy_zoo.multitask("mlp", seed), torch.Generator().manual_seed(50 + seed)

        def pairs(split, count, noise, g=g):
            inputs, targets = split
            large, small = (targets >= 5).nonzero().flatten(), (targets < 5).nonzero().flatten()
            high = large[torch.randint(0, len(large), (count,), generator=g)]
            low = small[torch.randint(0, len(small), (count,), generator=g)]
            wrong = torch.rand(count, generator=g) < noise
            return (inputs[torch.where(wrong, low, high)], inputs[torch.where(wrong, high, low)]), wrong

        (noisy, wrong), (clean, _) = pairs(task.train, 200, 0.3), pairs(task.test, 600, 0.0)
        tune = lambda n, f=family, s=seed: toy_zoo.train(  # noqa: E731
            f.network, f.base, task.train, num_steps=n, lr=1e-3, generator=torch.Generator().manual_seed(s)
        )
        members = reward_models([tune(n) for n in (5, 20, 40, 60)], family.network, noisy, lrs=(1e-3,))

        def agrees(model, data, f=family):
            return (toy_zoo.logits(f.network, model, data[0]) > toy_zoo.logits(f.network, model, data[1]))[:, 0].float()

        average = ri.uniform_soup(members)
        mean = lambda score: sum(map(score, members)) / len(members)  # noqa: E731
        gaps.append(mean(lambda m: agrees(m, noisy)[wrong].mean()) - agrees(average, noisy)[wrong].mean())  # noqa: B023
        assert abs(agrees(average, clean).mean() - mean(lambda m: agrees(m, clean).mean())) < 0.02  # noqa: B023
    assert min(gaps) > 0 and sum(gaps) / 3 > 0.02


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no models"):
        train()
    with pytest.raises(ValueError, match="8 preferred and 3 rejected"):
        train(0.0, preferences=(torch.ones(8, 1), torch.ones(3, 1)))
    with pytest.raises(ValueError, match="no step sizes"):
        train(0.0, lrs=())
