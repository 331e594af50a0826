import math

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.distillation.expert_brainstorming import k_means, scatter, triplet_losses
from tests.methods.distillation.helpers import convolutional, fit, parameters, perceptron


def binary_entropy(target, ratio):
    return -target * math.log(ratio) - (1 - target) * math.log(1 - ratio)


def test_the_triplet_losses_by_hand():
    # On a line, cluster 0 at 0 and 1, cluster 1 at 3 and 3.5. Farthest of the own, nearest of the other: (1, 3), (1,
    # 2), (0.5, 2), (0.5, 2.5)
    f, labels = torch.tensor([[0.0], [1.0], [3.0], [3.5]]), torch.tensor([0, 0, 1, 1])
    sigmoid = lambda z: 1 / (1 + math.exp(-z))  # noqa: E731
    ratios = [sigmoid(near - far) for far, near in ((1, 3), (1, 2), (0.5, 2), (0.5, 2.5))]
    # The other expert has them at 0, 2, 2 and 5: the same pairs are (2, 2), (2, 0), (3, 0), (3, 3)
    other = torch.tensor([[0.0], [2.0], [2.0], [5.0]])
    says = [sigmoid(near - far) for far, near in ((2, 2), (2, 0), (3, 0), (3, 3))]
    own, soft = triplet_losses(f, labels, [f, other])
    assert own.item() == pytest.approx(sum(-math.log(r) for r in ratios) / 4, abs=1e-5)
    assert soft[0].item() == pytest.approx(sum(binary_entropy(r, r) for r in ratios) / 4, abs=1e-5)
    assert soft[1].item() == pytest.approx(sum(binary_entropy(s, r) for s, r in zip(says, ratios)) / 4, abs=1e-5)


def test_authority_is_the_scatter_between_clusters_over_that_within():
    # Clusters {0, 2} and {10}: means 1 and 10, their mean 5.5; between 2 * 4.5^2 + 4.5^2 = 60.75, within 1 + 1
    x = torch.tensor([[0.0], [2.0], [10.0]])
    assert scatter(x, torch.tensor([0, 0, 1])).item() == pytest.approx(60.75 / 2)
    assert scatter(3 * x, torch.tensor([0, 0, 2])).item() == pytest.approx(60.75 / 2)  # scale and names do not matter


def test_clustering_finds_groups_that_lie_apart():
    x = torch.cat([10 * c + torch.randn(20, 3, generator=torch.Generator().manual_seed(c)) for c in range(4)])
    labels, centres = k_means(x, 4, torch.Generator().manual_seed(0))
    groups = [labels[20 * c : 20 * c + 20].unique().tolist() for c in range(4)]
    assert sorted(groups) == [[0], [1], [2], [3]]
    assert torch.allclose(centres[labels[0]], x[:20].mean(dim=0), atol=1e-5)


def test_the_average_follows_the_experts_and_a_lone_expert_hears_nobody():
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    expert = perceptron(4, 6, 3, 2, seed=1)[:-1]
    losses = []
    out = ri.expert_brainstorming(
        [expert], [x], num_clusters=3, num_epochs=1, num_steps=1, soft_id_weight=1.0, soft_triplet_weight=1.0,
        progress=lambda _, loss: losses.append(loss),
    )  # fmt: skip
    assert losses == [0.0] and torch.equal(out[0](x), expert(x))  # nothing to learn: all weight is on what others say


@torch.no_grad()
def average_precision(network, split):
    """Mean average precision of retrieving the images of the same digit by the cosine of features."""
    f = nn.functional.normalize(network(split[0]))
    order = (f @ f.T).fill_diagonal_(-2).argsort(dim=1, descending=True)[:, :-1]
    hit = (split[1][order] == split[1][:, None]).float()
    precision = hit.cumsum(dim=1) / torch.arange(1, hit.shape[1] + 1)
    return ((precision * hit).sum(dim=1) / hit.sum(dim=1)).mean().item()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_brainstorming_adapts_the_experts_further_than_each_alone(seed):
    digits = toy_zoo.digits()
    generator = torch.Generator().manual_seed(seed)
    dim = lambda x: 0.6 * x + 0.2 + 0.3 * torch.randn(x.shape, generator=generator)  # noqa: E731 (pale, noisy digits)
    target, test = dim(digits.train[0]), (dim(digits.test[0]), digits.test[1])
    makes = (
        perceptron(64, 64, 32, 10, seed=seed),
        convolutional(8, 16, 32, 10, seed=seed + 10),
        perceptron(64, 128, 48, 32, 10, seed=seed + 20),
    )
    experts = [fit(network, digits.train, num_steps=200, seed=seed)[:-1] for network in makes]
    before = parameters(experts)
    mean = lambda networks: sum(average_precision(network, test) for network in networks) / 3  # noqa: E731
    together = ri.expert_brainstorming(experts, [target], lr=3e-3, num_epochs=4)
    alone = [ri.expert_brainstorming([expert], [target], lr=3e-3, num_epochs=4)[0] for expert in experts]
    assert mean(together) > mean(alone) + 0.03 and mean(together) > mean(experts) + 0.05
    assert average_precision(together[1], test) > average_precision(alone[1], test) + 0.1  # the weakest learns most
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(experts)))


def test_bad_input_is_refused():
    x = [torch.randn(12, 4)]
    with pytest.raises(ValueError, match="0 experts"):
        ri.expert_brainstorming([], x)
    with pytest.raises(ValueError, match="12 inputs; 20 clusters"):
        ri.expert_brainstorming([nn.Identity()], x, num_clusters=20)
    with pytest.raises(ValueError, match=r"widths \[4, 3\]"):
        ri.expert_brainstorming([nn.Identity(), nn.Linear(4, 3)], x)
    with pytest.raises(ValueError, match="must lie in"):
        ri.expert_brainstorming([nn.Identity()], x, soft_id_weight=2)
