"""Passthrough stacks ranges of blocks of trained models into a deeper one."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.mixing.passthrough import passthrough

CONTROLS = [Control("until", 1, 4, 3, 1), Control("again", 0, 3, 1, 1)]


def demo(until, again):
    g = generator(0)
    models = [{f"blocks.{i}.w": torch.randn(6, generator=g) for i in range(4)} for _ in range(2)]
    deep = passthrough(models, [(0, 0, until), (1, again, 4)])
    rows = {f"{'AB'[n]} block {i}": models[n][f"blocks.{i}.w"] for n in range(2) for i in range(4)}
    rows |= {f"new block {i}": deep[f"blocks.{i}.w"] for i in range(len(deep))}
    return Picture(
        title="Blocks of two models of four, and those of the stacked model",
        reading="Nothing is averaged: a block comes whole from one of the models. Where the ranges overlap the new model is "
        "deeper than both.",
        x="weight",
        y="",
        kind="heat",
        at=[str(i) for i in range(1, 7)],
        series=rows,
    )
