r"""Spatial ensemble and spatial-temporal smoothing (huang2021spatial).

A teacher is usually a moving average of its student: every parameter takes a small step at every update. The spatial
ensemble takes whole fragments instead: at each update each fragment of the teacher is, with a small probability,
replaced by the student's, so that the teacher is a patchwork of students of different times. Doing both,
spatial-temporal smoothing, moves the chosen fragments part of the way.

Notation: theta_T the teacher, theta_S the student after one training step, p the probability that a fragment is
preserved, m the momentum.

Departures: none. Fragments are tensors as in the authors' code; finer ones are options.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from reference_impls.core.state_dict import StateDict, check_same_structure, to_state_dict, to_vector, zip_map


def spatial_ensemble(
    models: Sequence[StateDict],
    *,
    preserve: float = 0.99,
    momentum: float = 0.0,
    fragment: Literal["tensor", "channel", "entry"] = "tensor",
    generator: torch.Generator | None = None,
) -> StateDict:
    r"""Stitch a teacher from the fragments of past students.

    $$
    \theta_T \leftarrow z \odot \theta_T + (1 - z) \odot \big(m\,\theta_T + (1 - m)\,\theta_S\big), \qquad
    z \sim \mathrm{Bernoulli}(p) \text{ for each fragment}
    $$

    Args:
        models: the teacher at the start, then the students in the order of training.
        preserve: p, in [0, 1]; after n updates a fragment is still the first teacher's with probability p^n.
            Default 0.99: not confirmed in the paper.
        momentum: m, in [0, 1). Default 0.0: the spatial ensemble; larger ones are spatial-temporal smoothing, and with
            preserve 0 the exponential moving average.
        fragment: what is replaced as a whole: a "tensor", a "channel" (slice along the first dimension) or a single
            "entry". Default "tensor": a choice here.
        generator: source of z. Default None: a new one with seed 0.

    Returns:
        A new state dict, structured as the first model.

    Raises:
        ValueError: no models, models of another structure, preserve or momentum out of range, an unknown fragment.

    Example:
        With preserve 0 and momentum 0.5 every update goes half of the way: 0, then 4, then 4 + (2 - 4) / 2 = 3.

        >>> students = [{"w": torch.tensor([x])} for x in (0.0, 8.0, 2.0)]
        >>> spatial_ensemble(students, preserve=0.0, momentum=0.5)
        {'w': tensor([3.])}

    References:
        huang2021spatial, the update rules of the spatial ensemble and of spatial-temporal smoothing.
    """
    if not 0 <= preserve <= 1:
        raise ValueError(f"preserve is {preserve}; it is in [0, 1]")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}; it is in [0, 1)")
    if fragment not in ("tensor", "channel", "entry"):
        raise ValueError(f"fragment is {fragment!r}; it is one of tensor, channel, entry")
    check_same_structure(*models)
    generator = torch.Generator().manual_seed(0) if generator is None else generator

    def update(teacher: Tensor, student: Tensor) -> Tensor:
        size = {"tensor": (), "channel": teacher.shape[:1], "entry": teacher.shape}[fragment]
        draw = torch.rand(size, generator=generator, device=generator.device).to(teacher.device)
        draw = draw.reshape(draw.shape + (1,) * (teacher.ndim - draw.ndim))
        # a fragment stays as it is, or takes a step of the running mean
        return torch.where(draw < preserve, teacher, momentum * teacher + (1 - momentum) * student)

    teacher, *students = (to_vector(model) for model in models)
    for student in students:
        teacher = zip_map(update, teacher, student)
    return to_state_dict(teacher, like=models[0])
