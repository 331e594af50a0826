"""How much of each model goes into the cocktail, by its loss on a few examples of the target domain."""

import torch

from docs.demos.picture import Control, Picture
from reference_impls.averaging.lm_cocktail import lm_cocktail
from reference_impls.averaging.uniform_soup import uniform_soup

CONTROLS = [
    Control("alpha", 0.0, 1.0, 0.5, 0.1),
    Control("temperature", 0.5, 10.0, 1.0, 0.5),
    Control("peer_loss", 0.5, 4.0, 1.5, 0.5),
]


def demo(alpha, temperature, peer_loss):
    base, target, near, far = ({"w": row} for row in torch.eye(4))  # so a mixture's weights are the shares
    losses = torch.tensor([3.0, 1.0, peer_loss, 4.0])
    loss = lambda model: (model["w"] * losses).sum()
    mixed = lm_cocktail(base, [target, near, far], loss, alpha=alpha, temperature=temperature)
    return Picture(
        title="Share of every model in the merged one",
        reading="The fine-tuned model has its share alpha to itself; the rest goes to all by their losses, more evenly "
        "the higher "
        "the temperature.",
        x="",
        y="share",
        kind="bar",
        at=["base, loss 3", "target, loss 1", f"peer, loss {peer_loss:g}", "peer, loss 4"],
        series={"mean": uniform_soup([base, target, near, far])["w"], "LM-Cocktail": mixed["w"]},
    )
