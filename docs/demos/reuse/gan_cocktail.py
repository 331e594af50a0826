"""GAN cocktail: generators of one class each are moved to a common root, averaged, and tuned to draw every class."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, generator
from reference_impls.reuse.gan_cocktail import gan_cocktail

CONTROLS = [Control("rooting_steps", 0, 40, 30, 10), Control("num_steps", 0, 60, 40, 20), Control("distance", 0.5, 3.0, 1.5, 0.5)]


class Labelled(nn.Module):
    """A hidden layer on a number and a class label: generator and discriminator alike."""

    def __init__(self, seed, shift=0.0):
        super().__init__()
        self.first, self.last = nn.Linear(3, 12), nn.Linear(12, 1)
        self.load_state_dict(drawn(self, seed))
        with torch.no_grad():
            self.last.bias += shift

    def forward(self, x, labels):
        x = torch.cat([x.reshape(len(x), 1), nn.functional.one_hot(labels, 2).float()], dim=1)
        return self.last(self.first(x).tanh()).squeeze(1)


def demo(rooting_steps, num_steps, distance):
    generators = [Labelled(0, -distance), Labelled(1, distance)]
    judges = [Labelled(2), Labelled(3)]
    z = torch.randn(200, 1, generator=generator(0))
    options = {"latent_dim": 1, "batch_size": 32, "lr": 0.02, "generator": generator(1)}
    average = gan_cocktail(generators, judges, rooting_steps=0, num_steps=0, **options)
    cocktail = gan_cocktail(generators, judges, rooting_steps=rooting_steps, num_steps=num_steps, **options)
    drawn_by = lambda network, k: network(z, torch.full((200,), k, dtype=torch.long)).mean()
    with torch.no_grad():
        series = {"its own generator": [drawn_by(one, k) for k, one in enumerate(generators)]}
        series |= {name: [drawn_by(net, k) for k in (0, 1)] for name, net in (("average", average), ("cocktail", cocktail))}
    return Picture(
        title="Mean of what is drawn for each class",
        reading="Each generator knows one class. The average of their weights draws neither; rooted first and tuned "
        "afterwards, one generator draws both, as far as its few steps go.",
        x="class",
        y="mean",
        kind="bar",
        at=["class 1", "class 2"],
        series=series,
    )
