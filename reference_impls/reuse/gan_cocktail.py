r"""GAN Cocktail (avrahami2022gan).

Generative models of different data become one class-conditional model of the same size, without any data set. Averaging their
weights does not work, as they come from different initialisations. So one of them is made the root: for each other model a copy
of the root is trained on the images that the other model generates, and all models then lie near one another. The rooted models
are averaged, and the average is trained on generated images of all classes to be what each source was for its class.

Notation: G_k, D_k generator and discriminator of class k; r the root; G_k^r, D_k^r copies of the root trained on G_k's images
(G_r^r = G_r); beta_k the weights of the average.

Departures: the training loss is the non-saturating loss of StyleGAN2 without its gradient penalty and augmentation, which toys do
not need. The paper's equation lets beta differ by layer; one value for each model is used here, equal by default as in the
authors' code.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reference_impls.core.state_dict import check_same_structure, linear_combination, to_state_dict, to_vector


def gan_cocktail(
    generators: Sequence[nn.Module],
    discriminators: Sequence[nn.Module],
    *,
    latent_dim: int,
    root: int = 0,
    weights: Sequence[float] | None = None,
    rooting_steps: int = 300,
    num_steps: int = 300,
    batch_size: int = 64,
    lr: float = 1e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Merge generative adversarial networks into one class-conditional generator, without data.

    $$
    \theta_k^r = \arg\min_\theta \mathcal{L}\big(\theta;\ G_k\big)\ \text{ started at } \theta_r, \qquad
    \bar\theta = \sum_k \beta_k\, \theta_k^r, \qquad
    \theta^* = \arg\min_\theta \sum_k \mathcal{L}\big(\theta;\ G_k\big)\ \text{ started at } \bar\theta
    $$

    with $\mathcal{L}(\theta; G_k)$ the adversarial loss on images $G_k(z, k)$ of class k.

    Args:
        generators: $G_1 \dots G_n$ of one architecture, each maps latent vectors (m, latent_dim) and class labels (m,) to images;
            $G_k$ was trained for class k only.
        discriminators: $D_1 \dots D_n$ of one architecture, each maps images and labels to logits (m,), positive for real.
        latent_dim: length of the latent vectors, drawn from the normal distribution.
        root: r, index of the model that the others are moved to. Default 0: the first.
        weights: $\beta_1 \dots \beta_n$ of the average. Default None: equal weights.
        rooting_steps: steps of the first stage for each other model; 0 leaves out the rooting: the sources are averaged
            as they are. Default 300: for toys.
        num_steps: steps of the second stage; 0 returns the average. Default 300: for toys.
        batch_size: images a step. Default 64: for toys.
        lr: step size of Adam (betas 0 and 0.99, as in StyleGAN2). Default 1e-3: for toys.
        generator: source of the latent vectors. Default None: a generator with seed 0.
        progress: called with the step, counted over both stages, and the generator's loss.

    Returns:
        The merged generator, in evaluation mode.

    Raises:
        ValueError: fewer than two models, as many discriminators as generators are missing, models of another architecture, a
            root
            or weights that do not fit.

    Example:
        Without any training the cocktail is the average of the weights: 2z and 4z give 3z.

        >>> class Scale(nn.Module):
        ...     def __init__(self, scale):
        ...         super().__init__()
        ...         self.scale = nn.Parameter(torch.tensor(scale))
        ...     def forward(self, z, labels):
        ...         return self.scale * z.sum(1)
        >>> sources = [Scale(2.0), Scale(4.0)]
        >>> gan_cocktail(sources, sources, latent_dim=1, rooting_steps=0, num_steps=0).scale.item()
        3.0

    References:
        avrahami2022gan, the sections on model rooting and on model merging.
    """
    count = len(generators)
    if count < 2 or len(discriminators) != count:
        raise ValueError(f"received {count} generators and {len(discriminators)} discriminators; two or more pairs are needed")
    if not 0 <= root < count:
        raise ValueError(f"root is {root}; it is the index of one of {count} models")
    shares = [1 / count] * count if weights is None else list(weights)
    if len(shares) != count:
        raise ValueError(f"received {len(shares)} weights for {count} models; one weight per model is needed")
    for networks in (generators, discriminators):
        check_same_structure(*[network.state_dict() for network in networks])
    device = next(generators[0].parameters()).device
    latents = _Latents(latent_dim, batch_size, generator or torch.Generator().manual_seed(0), device)
    sources = [copy.deepcopy(g).eval().requires_grad_(False) for g in generators]

    rooted = []  # stage 1: copies of the root that make the others' images
    for k in range(count):
        start = k if rooting_steps == 0 else root
        pair = copy.deepcopy(generators[start]), copy.deepcopy(discriminators[start])
        if k != root:
            _adversarial(*pair, sources, [k], latents, rooting_steps, lr, progress, (k - (k > root)) * rooting_steps)
        rooted.append(pair)

    merged = [copy.deepcopy(generators[root]), copy.deepcopy(discriminators[root])]  # stage 2: average and train for all classes
    for part, network in enumerate(merged):
        states = [pair[part].state_dict() for pair in rooted]
        network.load_state_dict(to_state_dict(linear_combination([to_vector(s) for s in states], shares), like=states[root]))
    _adversarial(*merged, sources, list(range(count)), latents, num_steps, lr, progress, (count - 1) * rooting_steps)
    return merged[0].eval()


def _adversarial(
    g: nn.Module, d: nn.Module, sources: list[nn.Module], classes: list[int], latents: _Latents, num_steps: int, lr: float,
    progress: Callable[[int, float], None] | None, first: int,
) -> None:  # fmt: skip
    """Train generator and discriminator on images that the sources generate, equally many of each class."""
    g.train().requires_grad_(True), d.train().requires_grad_(True)
    steps_g, steps_d = (torch.optim.Adam(network.parameters(), lr=lr, betas=(0.0, 0.99)) for network in (g, d))
    labels = torch.tensor(classes, device=latents.device).repeat_interleave(-(-latents.count // len(classes)))
    for step in range(num_steps):
        with torch.no_grad():
            real = torch.cat([sources[k](latents.draw()[: int((labels == k).sum())], labels[labels == k]) for k in classes])
            fake = g(latents.draw(len(labels)), labels)
        loss_d = F.softplus(-d(real, labels)).mean() + F.softplus(d(fake, labels)).mean()
        steps_d.zero_grad()
        loss_d.backward()
        steps_d.step()
        loss_g = F.softplus(-d(g(latents.draw(len(labels)), labels), labels)).mean()
        steps_g.zero_grad()
        loss_g.backward()
        steps_g.step()
        if progress is not None:
            progress(first + step, loss_g.item())


class _Latents:
    """Normal latent vectors from one generator."""

    def __init__(self, size: int, count: int, generator: torch.Generator, device: torch.device) -> None:
        self.size, self.count, self.generator, self.device = size, count, generator, device

    def draw(self, count: int | None = None) -> Tensor:
        return torch.randn(count or self.count, self.size, generator=self.generator).to(self.device)
