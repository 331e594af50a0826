from functools import lru_cache
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import reference_impls as ri
from reference_impls.ensembles.evolutionary_gaming import (
    Agent,
    JointFeatures,
    best_response,
    cross_reference_scatter,
    k_means,
    scatter,
)


def identities(generator, mixing, count, views):
    """Views of `count` identities: what an identity looks like (4 numbers) and how it was taken (6) are mixed into 24 numbers."""
    who = torch.randn(count, 4, generator=generator)
    labels = torch.arange(count).repeat_interleave(views)
    own = who[labels] + 0.1 * torch.randn(len(labels), 4, generator=generator)
    seen = torch.cat([own, torch.randn(len(labels), 6, generator=generator)], 1)
    return torch.tanh(seen @ mixing) + 0.02 * torch.randn(len(labels), 24, generator=generator), labels


def feature_network(width, deep, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        middle = [nn.Linear(width, width), nn.ReLU()] if deep else []
        return nn.Sequential(nn.Linear(24, width), nn.ReLU(), *middle, nn.Linear(width, 16))


@lru_cache
def population(seed):
    """Four networks of different shape and schooling on 30 other identities, and 8 new identities without labels (here: with)."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(10, 24, generator=generator) / 3
    (x, y), (new, labels) = identities(generator, mixing, 30, 20), identities(generator, mixing, 8, 30)
    networks = []
    for i, (width, deep, num_steps) in enumerate([(32, False, 5), (48, False, 30), (24, True, 60), (64, True, 60)]):
        network, head = feature_network(width, deep, 10 * seed + i), torch.zeros(30, 16, requires_grad=True)
        optimizer, order = torch.optim.Adam([*network.parameters(), head], lr=5e-3), torch.Generator().manual_seed(seed)
        for _ in range(num_steps):
            index = torch.randint(len(x), (64,), generator=order)
            loss = F.cross_entropy(network(x[index]) @ head.T, y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        networks.append(network)
    return networks, new, labels


def mean_average_precision(features, labels):
    """Of the retrieval of each view's own identity among all other views."""
    similar = F.normalize(features.detach(), dim=1)
    similar = (similar @ similar.T).fill_diagonal_(-9)
    hit = (labels[similar.argsort(1, descending=True)[:, :-1]] == labels[:, None]).float()
    precision = hit.cumsum(1) / torch.arange(1, hit.shape[1] + 1)
    return ((precision * hit).sum(1) / hit.sum(1)).mean().item()


def test_scatter_by_hand_and_it_ignores_scale_and_shift():
    points = torch.tensor([[0.0], [2.0], [10.0]])
    # clusters {0, 2} and {10}: means 1 and 10, overall 4; between 2 * 9 + 36 = 54, within 1 + 1 = 2
    assert scatter(points, torch.tensor([0, 0, 1])).item() == pytest.approx(27)
    assert scatter(3 * points - 7, torch.tensor([5, 5, 2])).item() == pytest.approx(27)
    assert scatter(points, torch.tensor([0, 1, 0])).item() == pytest.approx((2 * 1 + 4) / 50)


def test_k_means_finds_separate_groups():
    points = torch.tensor([[0.0], [0.1], [5.0], [5.1], [9.0]])
    labels = k_means(points, 3, torch.Generator().manual_seed(0)).tolist()
    assert labels[0] == labels[1] and labels[2] == labels[3] and len({labels[0], labels[2], labels[4]}) == 3


def test_the_game_ends_where_no_slot_gains():
    # Networks 0 to 3 are worth 3, 2, 2.5 and -1, and the pair (1, 2) 4 more together: the first three belong together.
    agents = [Agent(nn.Identity(), nn.Identity(), float(i), 0.5) for i in range(4)]
    number = {id(agent.average): i for i, agent in enumerate(agents)}

    def value(networks):
        kept = {number[id(network)] for network in networks}
        return sum((3, 2, 2.5, -1)[i] for i in kept) + 4 * ({1, 2} <= kept)

    for seed in range(5):
        kept = {int(a.lr) for a in best_response(agents, value, 3, torch.Generator().manual_seed(seed))}
        assert kept == {0, 1, 2}
    alone = best_response(agents, value, 1, torch.Generator().manual_seed(0))
    assert [int(a.lr) for a in alone] == [0]


def test_mutation_multiplies_hyper_parameters_within_its_range():
    agent, generator = Agent(nn.Linear(1, 1), nn.Linear(1, 1), 1.0, 0.5), torch.Generator().manual_seed(0)
    clones = [agent.clone(0.2, generator) for _ in range(200)]
    rates = [clone.lr for clone in clones] + [2 * clone.soft for clone in clones]
    assert 0.8 <= min(rates) < 0.82 and 1.18 < max(rates) <= 1.2
    assert clones[0].network.weight.data_ptr() != agent.network.weight.data_ptr()


def test_the_ensemble_joins_features_of_length_one():
    joint = JointFeatures([nn.Identity(), nn.Identity()])(torch.tensor([[3.0, 4.0]]))
    assert joint[0].tolist() == pytest.approx([0.6, 0.8, 0.6, 0.8])


def test_the_scatter_ranks_sets_of_networks_as_their_retrieval_does():
    correlations = []
    for seed in range(3):
        networks, x, labels = population(seed)
        sets = [[networks[i] for i in s] for size in (1, 2, 3, 4) for s in combinations(range(4), size)]
        scores = torch.tensor([
            [cross_reference_scatter(x, 8, 40, 1, kept), mean_average_precision(JointFeatures(kept)(x), labels)] for kept in sets
        ])  # fmt: skip
        correlations.append(torch.corrcoef(scores.argsort(0).argsort(0).float().T)[0, 1].item())  # of ranks
    assert min(correlations) > 0 and sum(correlations) / 3 > 0.25  # a guide, not a judge: 0.48, 0.42 and 0.19


def test_the_evolved_set_beats_the_first_networks_alone_and_together():
    over_alone = over_together = 0.0  # mean over three worlds: 0.17 and 0.08
    for seed in range(3):
        networks, x, labels = population(seed)
        before = [p.clone() for network in networks for p in network.parameters()]
        evolved = mean_average_precision(ri.evolutionary_gaming(networks, x, num_clusters=8)(x), labels)
        over_alone += (evolved - sum(mean_average_precision(network(x), labels) for network in networks) / 4) / 3
        over_together += (evolved - mean_average_precision(JointFeatures(networks)(x), labels)) / 3
        assert all(torch.equal(a, p) for a, p in zip(before, (p for network in networks for p in network.parameters())))
    assert over_alone > 0.1 and over_together > 0.02


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="0 networks"):
        ri.evolutionary_gaming([], torch.zeros(4, 2), num_clusters=2)
    with pytest.raises(ValueError, match="9 clusters of 4 inputs"):
        ri.evolutionary_gaming([nn.Identity()], torch.zeros(4, 2), num_clusters=9)
