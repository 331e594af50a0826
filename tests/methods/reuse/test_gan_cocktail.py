import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import reference_impls as ri
from tests.methods.reuse.toy_values import Conditional, seeded


class Scale(nn.Module):
    """Generates scale * z; as a discriminator it says scale * x."""

    def __init__(self, scale):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x, labels):
        return self.scale * (x.sum(1) if x.dim() > 1 else x)


def data(label, count, generator):
    """Class 0: a circle on the left; class 1: two bars on the right."""
    a, b = torch.rand(2, count, generator=generator)
    circle = torch.stack([(2 * math.pi * a).cos() - 1.5, (2 * math.pi * a).sin()], 1)
    bars = torch.stack([2 * a + 0.5, (b < 0.5) * 2.0 - 1], 1)
    return (bars if label else circle) + 0.05 * torch.randn(count, 2, generator=generator)


def train_gan(label, seed, num_steps=800):
    g, d = seeded(seed, lambda: (Conditional(4, 2, 32), Conditional(2, 1, 32)))
    generator, labels = torch.Generator().manual_seed(seed), torch.full((64,), label)
    steps_g, steps_d = (torch.optim.Adam(n.parameters(), lr=2e-3, betas=(0.0, 0.99)) for n in (g, d))
    for _ in range(num_steps):
        z = torch.randn(64, 4, generator=generator)
        loss = F.softplus(-d(data(label, 64, generator), labels)).mean() + F.softplus(d(g(z, labels).detach(), labels)).mean()
        steps_d.zero_grad()
        loss.backward()
        steps_d.step()
        loss = F.softplus(-d(g(torch.randn(64, 4, generator=generator), labels), labels)).mean()
        steps_g.zero_grad()
        loss.backward()
        steps_g.step()
    return g, d


@torch.no_grad()
def distance(merged, sources):
    """Mean over classes of the energy distance between the samples of the merged generator and of that class's source."""
    total = 0.0
    for label, source in enumerate(sources):
        labels, generator = torch.full((500,), label), torch.Generator().manual_seed(99)
        a, b = (network(torch.randn(500, 4, generator=generator), labels) for network in (merged, source))
        total += (2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean()).item()
    return total / len(sources)


def test_without_training_it_is_the_weighted_average():
    sources = [Scale(2.0), Scale(4.0), Scale(9.0)]
    options = {"latent_dim": 1, "rooting_steps": 0, "num_steps": 0}
    assert ri.gan_cocktail(sources, sources, **options).scale.item() == pytest.approx(5.0)
    assert ri.gan_cocktail(sources, sources, weights=[0.5, 0.25, 0.25], **options).scale.item() == pytest.approx(4.25)


def test_rooting_starts_every_other_model_at_the_root():
    # With a step size of zero each rooted model is the root itself, and so is their average.
    sources = [Scale(2.0), Scale(4.0), Scale(9.0)]
    for root, value in ((0, 2.0), (2, 9.0)):
        merged = ri.gan_cocktail(sources, sources, latent_dim=1, root=root, rooting_steps=3, num_steps=2, lr=0.0)
        assert merged.scale.item() == pytest.approx(value)


def test_the_generators_loss_is_the_non_saturating_one():
    # D says d * x, G makes g * z: the loss is the mean of softplus(-d g z); the step size is zero, so both stay as they are.
    losses = []
    ri.gan_cocktail(
        [Scale(2.0), Scale(2.0)], [Scale(0.5), Scale(0.5)], latent_dim=1, rooting_steps=1, num_steps=0, batch_size=4, lr=0.0,
        progress=lambda step, loss: losses.append((step, loss)),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):  # for real images, for the discriminator's step, for the generator's step
        z = torch.randn(4, 1, generator=generator)[:, 0]
    assert losses == [(0, pytest.approx(F.softplus(-0.5 * 2.0 * z).mean().item(), rel=1e-5))]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rooted_models_average_and_train_better_than_unrooted_ones(seed):
    pairs = [train_gan(label, 10 * seed + label) for label in range(2)]
    generators, discriminators = zip(*pairs)
    before = [p.clone() for network in generators + discriminators for p in network.parameters()]
    options = {"latent_dim": 4, "generator": None}
    mixed = lambda **more: distance(ri.gan_cocktail(generators, discriminators, **options, **more), generators)  # noqa: E731
    rooted, unrooted = mixed(rooting_steps=300, num_steps=0), mixed(rooting_steps=0, num_steps=0)
    assert rooted < 0.8 * unrooted
    rooted, unrooted = mixed(rooting_steps=300, num_steps=250), mixed(rooting_steps=0, num_steps=250)
    assert rooted < 0.5 * unrooted
    assert rooted < 0.1 * min(distance(generator, generators) for generator in generators)
    assert all(torch.equal(a, p) for a, p in zip(before, (p for n in generators + discriminators for p in n.parameters())))


def test_bad_input_is_refused():
    two = [Scale(1.0), Scale(2.0)]
    with pytest.raises(ValueError, match="1 generators and 2 discriminators"):
        ri.gan_cocktail(two[:1], two, latent_dim=1)
    with pytest.raises(ValueError, match="root is 2"):
        ri.gan_cocktail(two, two, latent_dim=1, root=2)
    with pytest.raises(ValueError, match="3 weights for 2 models"):
        ri.gan_cocktail(two, two, latent_dim=1, weights=[1, 1, 1])
    with pytest.raises(ValueError, match="shape"):
        ri.gan_cocktail([Scale([1.0]), Scale([1.0, 2.0])], two, latent_dim=1)
