from functools import lru_cache

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import reference_impls as ri
from reference_impls.reuse.fairness_reprogramming import combine_gradients
from tests.methods.reuse.toy_values import Pooled, seeded


def images(count, generator, bias):
    """6x6 noise in a border of zeros: the label is a standing or a lying stroke, the group a bright square.

    Label and group agree with probability `bias`.
    """
    labels = torch.randint(2, (count,), generator=generator)
    groups = torch.where(torch.rand(count, generator=generator) < bias, labels, 1 - labels)
    inside = 0.4 * torch.randn(count, 6, 6, generator=generator)
    for image, label, group in zip(inside, labels, groups):
        (row, column), (top, left) = torch.randint(4, (2,), generator=generator), torch.randint(5, (2,), generator=generator)
        image[row : row + (3 if label else 1), column : column + (1 if label else 3)] += 1
        image[top : top + 2, left : left + 2] += group
    return F.pad(inside, (2, 2, 2, 2)).unsqueeze(1), labels, groups


@lru_cache
def biased_classifier(seed):
    """A classifier of data where the group gives the label away in 93 of 100 cases, and the generator for more images."""
    generator = torch.Generator().manual_seed(seed)
    x, y, _ = images(1500, generator, 0.93)
    network = seeded(seed, lambda: Pooled(12))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(300):
        index = torch.randint(1500, (64,), generator=generator)
        loss = F.cross_entropy(network(x[index]), y[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network, images(400, generator, 0.8), images(1000, generator, 0.5)


BORDER = 1 - F.pad(torch.ones(1, 6, 6), (2, 2, 2, 2))


def judge(model, split):
    """Accuracy, and the difference of the groups' shares of positive predictions (demographic parity)."""
    x, y, z = split
    predicted = model(x).argmax(1)
    shares = [predicted[z == group].float().mean().item() for group in (0, 1)]
    return (predicted == y).float().mean().item(), abs(shares[0] - shares[1])


def cut(split):
    return [tuple(part[i : i + 100] for part in split) for i in range(0, 400, 100)]


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]))

    def forward(self, x):
        return x @ self.weight.T


def program(**options):
    data = [(torch.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, 0.0]]), torch.tensor([0, 1]), torch.tensor([0, 1]))]
    return ri.fairness_reprogramming(Linear(), data, mask=torch.tensor([0.0, 0.0, 1.0]), **options), data[0][0]


def test_a_trigger_replaces_or_joins_the_masked_pixels():
    for place, first in (("replace", 1 + 2 + 3 * 0.4621), ("add", 1 + 2 + 3 * 1.4621)):
        expected = [[0, first], [0, 4 + 3 * 0.4621]]
        model, x = program(num_steps=0, place=place)
        model.delta.data.fill_(0.5)  # tanh(0.5) = 0.4621; the mask keeps it from the first two
        assert model(x).tolist() == [pytest.approx(row, abs=1e-3) for row in expected]


def test_gradients_of_the_game_and_of_the_authors_code_by_hand():
    # useful (3, 1), telling (0, 2): the game descends useful - 0.5 telling; the code first takes (0, 1), along telling, away.
    useful, telling = torch.tensor([3.0, 1.0]), torch.tensor([0.0, 2.0])
    assert combine_gradients(useful, telling, 0.5, False).tolist() == [3, 0]
    assert combine_gradients(useful, telling, 0.5, True).tolist() == [3, -1]


def test_without_fairness_the_trigger_only_serves_the_classifier():
    # dCE/dx_3 = 3 (p_1 - y): the trigger follows it, whoever is in which group
    losses = []
    model, x = program(fairness_weight=0.0, num_steps=1, lr=0.1, progress=lambda _, loss: losses.append(loss))
    logits = torch.tensor([[0.0, 3.0], [0.0, 4.0]])  # the third entry is replaced by tanh(0)
    assert losses == pytest.approx([F.cross_entropy(logits, torch.tensor([0, 1])).item()])
    assert model.delta.tolist() == pytest.approx([0, 0, -0.1])  # mean gradient 3 * (0.953 - 0.018) / 2 > 0: one step of Adam down


def test_equalized_odds_lets_the_discriminator_see_the_label():
    parity, _ = program(num_steps=3, fairness_weight=5.0)
    odds, _ = program(num_steps=3, fairness_weight=5.0, criterion="equalized odds")
    assert not torch.equal(parity.delta, odds.delta)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_gap_between_groups_shrinks_at_equal_accuracy(seed):
    network, data, test = biased_classifier(seed)  # the tuning data are biased too: 0.8
    before = [p.clone() for p in network.parameters()]
    accuracy, gap = judge(network, test)
    useful = ri.fairness_reprogramming(network, cut(data), mask=BORDER, fairness_weight=0.0)
    fair = ri.fairness_reprogramming(network, cut(data), mask=BORDER, fairness_weight=1.0)
    assert judge(fair, test)[1] < 0.8 * gap and judge(fair, test)[0] > accuracy - 0.03
    assert judge(fair, test)[1] < judge(useful, test)[1] - 0.03  # it is the discriminator's doing, not the trigger's alone
    assert all(torch.equal(a, b) for a, b in zip(before, fair.source.parameters()))


def test_bad_input_is_refused():
    data = [(torch.zeros(2, 3), torch.tensor([0, 1]), torch.tensor([0, 1]))]
    with pytest.raises(ValueError, match="no batches"):
        ri.fairness_reprogramming(Linear(), [], mask=torch.zeros(3))
    with pytest.raises(ValueError, match=r"the mask has shape \(2,\)"):
        ri.fairness_reprogramming(Linear(), data, mask=torch.zeros(2))
    with pytest.raises(ValueError, match="place is 'left'"):
        ri.fairness_reprogramming(Linear(), data, mask=torch.zeros(3), place="left")
