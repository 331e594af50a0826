r"""SAM-CLIP, two vision teachers in one encoder (wang2024samclip).

One teacher cuts out the object that a prompt points at, the other one knows what a picture shows. Their image
encoders are merged into one, with a light head for each purpose, and the training data of neither is needed in full:
the encoder starts as the first teacher's. In a first stage it is frozen, and a new head on it learns to give the
second teacher's embedding, so that the encoder is not spoiled by a head that knows nothing yet. In a second stage
everything is trained, on a little of both teachers' kind of pictures: the embedding has to follow the second teacher,
and the masks those of the first, as a rehearsal against forgetting.

Notation: Enc the encoder, initially the first teacher's; H_A its mask decoder, H_B the new head; T_A and T_B the
teachers; D_A and D_B small replay sets; g a prompt; cos the cosine of two embeddings; lambda the weight of the
rehearsal.

Departures: the paper's teachers are SAM and CLIP, here any. The step size of the encoder and the decoder in the
second stage, smaller than the new head's, is not confirmed: here a tenth. Neither is the share of the two parts of
the mask loss: here SAM's own, 20 to 1.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sam_clip(
    encoder: nn.Module,
    decoder: nn.Module,
    network: nn.Module,
    head: nn.Module,
    prompted_batches: Iterable[tuple[Tensor, Tensor]],
    batches: Iterable[Tensor | tuple[Tensor, ...]],
    *,
    rehearsal_weight: float = 10.0,
    probe_steps: int = 200,
    num_steps: int = 200,
    lr: float = 3e-3,
    encoder_lr: float | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> MergedEncoder:
    r"""Merge the encoders of two vision teachers: probe with a new head, then distil both on replayed pictures.

    $$
    \mathcal{L} = \mathbb{E}_{x \in D_B}\big[1 - \cos\big(\max_p H_B(\mathrm{Enc}(x))_p,\; T_B(x)\big)\big]
        + \lambda\; \mathbb{E}_{(x, g) \in D_A}\big[\mathrm{FD}\big(H_A(\mathrm{Enc}(x), g),\; T_A(x, g)\big)\big]
    $$

    with the maximum over places, and FD twenty times the focal loss plus the dice loss, towards the teacher's masks. The
    first stage has the first term alone and trains $H_B$ alone.

    Args:
        encoder: of the first teacher: images to features (n, channels, height, width).
        decoder: of the first teacher: features and prompts to scores of the masks' pixels (n, height, width).
        network: $T_B$, images to embeddings (n, d).
        head: $H_B$, new: features to embeddings of places (n, d, height, width).
        prompted_batches: $D_A$, pairs of images and prompts for the decoder; no masks are needed.
        batches: $D_B$, images, or tuples of which the first element is images; labels are never looked at.
        rehearsal_weight: $\lambda$. Default 10: not confirmed; 0 forgets the first teacher.
        probe_steps: optimiser steps (Adam) of the first stage. Default 200: for toys.
        num_steps: optimiser steps of the second stage, each on one batch of either set. Default 200: for toys.
        lr: step size of the new head. Default 3e-3: for toys.
        encoder_lr: step size of encoder and decoder in the second stage. Default None: a tenth of lr.
        progress: called with the step, counted over both stages, and the loss.

    Returns:
        The merged model in evaluation mode: `embed(x)` gives embeddings (n, d), `forward(x, prompts)` scores of masks.

    Raises:
        ValueError: no batches of one kind, a negative weight, a head whose embedding has another size than the second
            teacher's.

    Example:
        The angle counts and not the length: an embedding along the teacher's has no loss, one across has 1.

        >>> cosine_loss(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[5.0, 0.0], [3.0, 0.0]])).tolist()
        [0.0, 1.0]

    References:
        wang2024samclip, the two stages and the losses.
    """
    rehearsal = list(prompted_batches)
    inputs = [batch if isinstance(batch, Tensor) else batch[0] for batch in batches]
    if not rehearsal or not inputs:
        raise ValueError(f"received {len(rehearsal)} prompted batches and {len(inputs)} batches; at least one of each is needed")
    if rehearsal_weight < 0:
        raise ValueError(f"rehearsal_weight is {rehearsal_weight}; it is at least 0")
    first, second = (copy.deepcopy(module).eval() for module in (nn.ModuleList([encoder, decoder]), network))
    merged = MergedEncoder(*(copy.deepcopy(module) for module in (encoder, decoder, head))).eval()
    with torch.no_grad():  # the teachers' answers, once
        embeddings = [second(x) for x in inputs]
        masks = [first[1](first[0](x), g) for x, g in rehearsal]
        given, needed = tuple(merged.embed(inputs[0]).shape), tuple(embeddings[0].shape)
        if given != needed:
            raise ValueError(f"the head gives {given}, the second teacher {needed}")

    def semantic(i: int) -> Tensor:
        return cosine_loss(merged.embed(inputs[i]), embeddings[i]).mean()

    merged.head.train()  # stage 1: the head alone, the encoder frozen as it is
    optimizer = torch.optim.Adam(merged.head.parameters(), lr=lr)
    for step in range(probe_steps):
        loss = semantic(step % len(inputs))
        _step(optimizer, loss, step, progress)

    merged.train()  # stage 2: all of it, on both kinds of pictures
    slow = list(chain(merged.encoder.parameters(), merged.decoder.parameters()))
    encoder_lr = lr / 10 if encoder_lr is None else encoder_lr
    optimizer = torch.optim.Adam([{"params": slow, "lr": encoder_lr}, {"params": list(merged.head.parameters())}], lr=lr)
    for step in range(num_steps):
        x, g = rehearsal[step % len(rehearsal)]
        loss = semantic(step % len(inputs)) + rehearsal_weight * mask_loss(merged(x, g), masks[step % len(masks)])
        _step(optimizer, loss, probe_steps + step, progress)
    return merged.eval()


class MergedEncoder(nn.Module):
    """One encoder with the mask decoder of one teacher and a head for the embedding of the other."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, head

    def forward(self, x: Tensor, prompts: Tensor) -> Tensor:
        return self.decoder(self.encoder(x), prompts)

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings of the whole pictures, the largest of those of the places."""
        return self.embed_places(x).flatten(2).amax(dim=2)

    def embed_places(self, x: Tensor) -> Tensor:
        """Embeddings of the places, (n, d, height, width): both teachers' knowledge together, what is where."""
        return self.head(self.encoder(x))


def cosine_loss(a: Tensor, b: Tensor) -> Tensor:
    """One minus the cosine of each pair of rows, (n,)."""
    return 1 - F.cosine_similarity(a, b, dim=1)


def mask_loss(scores: Tensor, teacher: Tensor, *, focal_weight: float = 20.0) -> Tensor:
    """Focal loss (exponent 2) times its weight plus dice loss, towards the teacher's masks: its scores above zero."""
    p, target = scores.sigmoid(), (teacher > 0).to(scores.dtype)
    right = torch.where(target > 0, p, 1 - p)
    focal = ((1 - right).square() * F.binary_cross_entropy_with_logits(scores, target, reduction="none")).mean()
    overlap, total = (p * target).flatten(1).sum(dim=1), (p + target).flatten(1).sum(dim=1)
    dice = (1 - (2 * overlap + 1) / (total + 1)).mean()  # 1: a mask of nothing, predicted as nothing, is no loss
    return focal_weight * focal + dice


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, step: int, progress: Callable[[int, float], None] | None) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if progress is not None:
        progress(step, loss.item())
