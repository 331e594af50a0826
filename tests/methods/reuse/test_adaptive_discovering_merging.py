from itertools import permutations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.ensembles.evolutionary_gaming import k_means
from reference_impls.reuse.adaptive_discovering_merging import Parallel
from tests.methods.reuse.toy_values import seeded


def perceptron(seed):
    return seeded(seed, lambda: nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5)))


def move(x, generator):
    """A copy moved by at most one pixel, with noise."""
    by = ((1, 0), (-1, 0), (0, 1), (0, -1), (0, 0))[int(torch.randint(5, (), generator=generator))]
    return x.reshape(-1, 8, 8).roll(by, (1, 2)).flatten(1) + 0.3 * torch.randn(x.shape, generator=generator)


def agreement(clusters, labels):
    """Share of right answers under the best naming of the five clusters."""
    table = torch.zeros(5, 5)
    for cluster, label in zip(clusters.tolist(), labels.tolist()):
        table[cluster, label - 5] += 1
    return max(table[range(5), list(names)].sum().item() for names in permutations(range(5))) / len(labels)


def randomise(layer):
    generator = torch.Generator().manual_seed(1)
    for tensor in (layer.scale, layer.shift, layer.mean):
        tensor.data = torch.randn(tensor.shape, generator=generator)
    layer.variance.data = torch.rand(layer.variance.shape, generator=generator) + 0.5
    return layer.eval()


@pytest.mark.parametrize("known, x", [
    (nn.Linear(5, 4), torch.randn(7, 5, generator=torch.Generator().manual_seed(0))),
    (nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))),
])  # fmt: skip
def test_folding_changes_nothing_that_is_computed(known, x):
    layer = randomise(Parallel(known, torch.Generator().manual_seed(2)))
    assert torch.allclose(layer(x), layer.merged(threshold=0.0)(x), atol=1e-5)
    assert not torch.allclose(layer(x), known(x), atol=0.1)


def test_closed_channels_are_the_known_ones():
    layer = randomise(Parallel(nn.Linear(5, 4), torch.Generator().manual_seed(2)))
    layer.scale.data = torch.tensor([0.5, 0.009, -0.5, 0.0])
    merged = layer.merged(threshold=0.01)
    same = (merged.weight == layer.known.weight).all(1) & (merged.bias == layer.known.bias)
    assert same.tolist() == [False, True, False, True]


def test_a_hybrid_starts_as_the_known_model():
    network, x = perceptron(0), torch.randn(9, 64, generator=torch.Generator().manual_seed(0))
    merged = ri.adaptive_discovering_merging(network, x, num_new=2, contrast_steps=0, num_steps=0)
    assert merged(x).shape == (9, 7) and torch.allclose(merged(x)[:, :5], network(x), atol=1e-6)


def test_the_discovery_loss_by_hand():
    # One pair of examples, each the other's neighbour, nothing disturbed: -log<p, p> - log<p_1, p_2> + the negative entropy.
    network, losses = nn.Sequential(nn.Linear(3, 2)), []
    x = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]])
    options = {"contrast_steps": 0, "num_steps": 1, "augment": lambda x, g: x, "regularization": 0.7, "sparsity": 0.0}
    ri.adaptive_discovering_merging(network, x, num_new=2, progress=lambda _, loss: losses.append(loss), **options)
    head = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)) / 3**0.5
    p = (x @ head.T).softmax(1)
    triple = -(p.square().sum(1).log().mean() + (p[0] * p[1]).sum().log())
    mean = p.mean(0)
    assert losses == pytest.approx([(triple + 0.7 * (mean * mean.log()).sum()).item()], rel=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_new_digits_are_discovered_and_the_known_ones_are_kept(seed):
    digits = toy_zoo.digits(flat=True)
    known, new = toy_zoo.restrict(digits, range(5), "known"), toy_zoo.restrict(digits, range(5, 10), "new")
    network, generator = perceptron(seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(200):
        index = torch.randint(len(known.train[0]), (64,), generator=generator)
        loss = F.cross_entropy(network(known.train[0][index]), known.train[1][index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    before = [p.clone() for p in network.parameters()]
    merged = ri.adaptive_discovering_merging(network, new.train[0], num_new=5, augment=move)
    right = lambda model: (model(known.test[0])[:, :5].argmax(1) == known.test[1]).float().mean().item()  # noqa: E731
    with torch.no_grad():
        clusters = k_means(network[:-1](new.test[0]), 5, torch.Generator().manual_seed(0), restarts=10)
        found = merged(new.test[0])[:, 5:].argmax(1)
    assert agreement(found, new.test[1]) > agreement(clusters, new.test[1]) + 0.1
    assert right(merged) > right(network) - 0.05
    assert sum(p.numel() for p in merged.parameters()) == sum(p.numel() for p in network.parameters()) + 5 * 33
    assert all(torch.equal(a, p) for a, p in zip(before, network.parameters()))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="ReLU as classifier"):
        ri.adaptive_discovering_merging(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.zeros(4, 2), num_new=2)
    with pytest.raises(ValueError, match="1 new classes"):
        ri.adaptive_discovering_merging(nn.Sequential(nn.Linear(2, 2)), torch.zeros(4, 2), num_new=1)
