r"""Conformer feature reprogramming (yang2023english).

A speech recogniser of one language stays frozen and is made to recognise another one by small trainable layers beside it: each
takes the features that enter a part of the network (the spectrogram, or the input of an encoder layer) and adds a correction to
them. In addition a few parts of the encoder may be trained themselves. Everything else keeps the parameters of the first
language.

Notation: h_l the features that enter encoder layer l (h_0: the spectrogram), R_l the reprogramming layer before it, f_l the
frozen layer.

Departures: the paper's recogniser is a Conformer with an RNN transducer; here any sequence of layers from frames to frames, read
out by a new linear layer, with one label for each frame. The paper leaves the exact auxiliary architectures to a figure; here:
"linear", a bottleneck of two linear maps, and "convolution", a depthwise convolution over time before it. The correction starts
at zero.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def speech_reprogramming(
    encoder: nn.Sequential,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    places: Sequence[int] | None = None,
    layer: Literal["linear", "convolution"] = "convolution",
    rank: int = 4,
    trainable: Sequence[int] = (),
    num_steps: int = 200,
    lr: float = 0.01,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Train reprogramming layers around a frozen speech encoder, and a read-out of the new language's units.

    $$
    h_{l+1} = f_l\big(h_l + R_l(h_l)\big), \qquad
    R_l(h) = \mathrm{ReLU}\big((k_l * h)\, A_l\big)\, B_l, \qquad
    \min_{R, \text{read-out}}\ -\sum_{i, t} \log p\big(y_{i, t} \mid x_i\big)
    $$

    Args:
        encoder: the frozen layers, in order, each from frames (n, T, d_l) to frames (n, T', d_{l+1}).
        batches: speech of the new language, pairs (spectrograms (n, T, d_0), unit of each output frame (n, T')).
        places: the layers whose input gets a reprogramming layer, counted from 0. Default None: all (input and hidden features).
        layer: "convolution" smooths over time by a depthwise convolution $k_l$ of 3 frames first, "linear" does not.
            Default "convolution": the paper's richer variant.
        rank: width of the bottleneck, columns of $A_l$ (d_l, rank) and rows of $B_l$. Default 4: for toys.
        trainable: encoder layers that are trained as well. Default none; the paper studies which part of the encoder pays.
        num_steps: optimiser steps (Adam). Default 200: for toys.
        lr: step size. Default 0.01: for toys.
        generator: draws the initial layers. Default None: a generator with seed 0.
        progress: called with step and loss.

    Returns:
        A network from spectrograms to logits (n, T', units), with a copy of the encoder inside; `programs` are the layers added.

    Raises:
        ValueError: no data, a place that the encoder does not have, an unknown layer, a rank below one.

    Example:
        Nothing is trained: the corrections are zero, and the frames are the frozen encoder's.

        >>> encoder = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
        >>> x, y = torch.ones(2, 7, 3), torch.zeros(2, 7, dtype=torch.long)
        >>> model = speech_reprogramming(encoder, [(x, y)], num_steps=0)
        >>> torch.equal(model.frames(x), encoder(x)), sorted(model.programs)
        (True, ['0', '1'])

    References:
        yang2023english, the sections on feature reprogramming and on trainable encoder components.
    """
    data = list(batches)
    if not data:
        raise ValueError("received no batches; at least one is needed")
    chosen = list(range(len(encoder))) if places is None else list(places)
    outside = any(not 0 <= place < len(encoder) for place in (*chosen, *trainable))
    if outside or layer not in ("linear", "convolution") or rank < 1:
        raise ValueError(
            f"places {chosen} and trainable {list(trainable)} of {len(encoder)} layers, "
            f"layer {layer!r} (linear, convolution), rank {rank} (>= 1)"
        )
    generator, device = generator or torch.Generator().manual_seed(0), data[0][0].device
    model = ReprogrammedEncoder(encoder)
    with torch.no_grad():
        h = data[0][0][:1]
        for l, part in enumerate(encoder):
            if l in chosen:
                model.programs[str(l)] = Correction(h.shape[-1], rank, layer == "convolution", generator)
            h = part(h)
    units = int(max(targets.max() for _, targets in data)) + 1
    model.readout = nn.Parameter(torch.randn(units, h.shape[-1], generator=generator) / h.shape[-1] ** 0.5)
    model.to(device)
    for l in trainable:
        model.encoder[l].requires_grad_(True)

    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    for step in range(num_steps):
        speech, targets = data[step % len(data)]
        loss = F.cross_entropy(model(speech).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    return model


class ReprogrammedEncoder(nn.Module):
    """Frozen layers with corrections of their inputs, and a read-out."""

    def __init__(self, encoder: nn.Sequential) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(False).eval()
        self.programs = nn.ModuleDict()
        self.register_parameter("readout", None)

    def frames(self, x: Tensor) -> Tensor:
        for l, part in enumerate(self.encoder):
            if str(l) in self.programs:
                x = x + self.programs[str(l)](x)
            x = part(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.frames(x), self.readout)


class Correction(nn.Module):
    """A bottleneck on each frame, after a depthwise convolution over time; zero at the start."""

    def __init__(self, width: int, rank: int, convolution: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.tensor([0.0, 1.0, 0.0]).repeat(width, 1, 1)) if convolution else None  # (d, 1, 3)
        self.down = nn.Parameter(torch.randn(width, rank, generator=generator) / width**0.5)
        self.up = nn.Parameter(torch.zeros(rank, width))

    def forward(self, h: Tensor) -> Tensor:
        if self.kernel is not None:
            h = F.conv1d(h.transpose(1, 2), self.kernel, padding=1, groups=h.shape[-1]).transpose(1, 2)
        return (h @ self.down).relu() @ self.up
