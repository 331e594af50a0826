r"""TDMR (xu2023towards).

A large frozen model is to help a small one of another architecture on a new task, without labels of its own for that task. First
the large model is reprogrammed: trainable projections take its features at several depths into proxy spaces that are fitted to
the target labels, so that what it knows is said in terms of the new task. Then the small model is trained by progressive
distillation from the proxy spaces: it follows the shallow ones first and the deep ones and the labels later.

Notation: F_l the frozen model's features after stage l, P_l the projection to the proxy space of stage l (width d), C_l its
classifier; G_l the small model's features after stage l, Q_l its projection to the same space; y the label, beta the weight of
distillation.

Departures: the paper's layers and schedule could not be confirmed; here the projections are linear maps of the flattened
features, the reprogramming loss is the cross-entropy of each proxy space's classifier, and the distillation of stage l starts
after l / L of the steps and then stays, by the squared error of normalised features and the divergence to the deepest proxy's
predictions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def task_driven_reprogramming(
    network: nn.Sequential,
    student: nn.Sequential,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    width: int = 32,
    distill_weight: float = 1.0,
    temperature: float = 2.0,
    proxy_steps: int = 200,
    num_steps: int = 300,
    lr: float = 3e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    r"""Reprogram a frozen model into proxy spaces of the target task and distil a small model from them.

    $$
    \min_{P, C} \sum_l \mathrm{CE}\big(C_l P_l F_l(x), y\big), \qquad
    \min_{G, Q}\ \mathrm{CE}\big(G(x), y\big)
    + \beta \sum_{l \text{ begun}} \big\| \overline{Q_l G_l(x)} - \overline{P_l F_l(x)} \big\|^2
    + \beta\, T^2\, \mathrm{KL}\big(\sigma_T(C_L P_L F_L(x)) \,\|\, \sigma_T(G(x))\big)
    $$

    Args:
        network: the frozen model as a `Sequential` of L stages; a last stage that gives source scores is a stage like the others.
        student: the small model, a `Sequential` of L + 1 stages, the last of which gives the target's scores.
        batches: the target task, pairs (inputs, targets (n,)); targets count from 0. Both models take the inputs.
        width: d, of the proxy spaces. Default 32: for toys.
        distill_weight: $\beta \ge 0$; 0 trains the student on the labels alone. Default 1.0: for toys.
        temperature: T of the divergence, > 0. Default 2.0: for toys.
        proxy_steps: optimiser steps (Adam) of the reprogramming. Default 200: for toys.
        num_steps: optimiser steps of the student. Default 300: for toys.
        lr: step size of both. Default 3e-3: for toys.
        generator: draws projections and classifiers. Default None: a generator with seed 0.
        progress: called with the student's step and loss.

    Returns:
        A trained copy of `student`, in evaluation mode; it does not need the large model.

    Raises:
        ValueError: no data, stages that do not fit, weight or temperature out of range.

    Example:
        The student has one stage more than the frozen model, its classifier.

        >>> big, small = nn.Sequential(nn.Linear(2, 8)), nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 2))
        >>> for layer in (*big, *small):
        ...     _ = layer.weight.data.fill_(0.5), layer.bias.data.zero_()
        >>> x, y = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 1])
        >>> trained = task_driven_reprogramming(big, small, [(x, y)], num_steps=100, lr=0.05)
        >>> trained(x).argmax(1).tolist()
        [0, 1]

    References:
        xu2023towards, the sections on reprogramming the foundation model and on progressive distillation.
    """
    data = list(batches)
    if not data:
        raise ValueError("received no batches; at least one is needed")
    if len(student) != len(network) + 1:
        raise ValueError(f"the frozen model has {len(network)} stages and the student {len(student)}; it needs one more")
    if distill_weight < 0 or temperature <= 0:
        raise ValueError(f"distill_weight is {distill_weight} (>= 0) and temperature {temperature} (> 0)")
    generator, device = generator or torch.Generator().manual_seed(0), data[0][0].device
    classes = int(max(targets.max() for _, targets in data)) + 1
    with torch.no_grad():  # the frozen features never change: computed once
        frozen = [_stages(network, x) for x, _ in data]
        own = _stages(student, data[0][0][:1])
    draw = lambda a, b: (torch.randn(b, a, generator=generator) / a**0.5).to(device).requires_grad_(True)  # noqa: E731

    projections = [draw(f.shape[1], width) for f in frozen[0]]  # step 1: proxy spaces
    classifiers = [draw(width, classes) for _ in projections]
    optimizer = torch.optim.Adam([*projections, *classifiers], lr=lr)
    for step in range(proxy_steps):
        features, targets = frozen[step % len(data)], data[step % len(data)][1]
        spaces = zip(features, projections, classifiers)
        loss = sum(F.cross_entropy(F.linear(F.linear(f, p).relu(), c), targets) for f, p, c in spaces)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        proxies = [[F.linear(f, p).relu() for f, p in zip(features, projections)] for features in frozen]
        answers = [F.linear(proxy[-1], classifiers[-1]) for proxy in proxies]

    student = copy.deepcopy(student).train().requires_grad_(True)  # step 2: progressive distillation
    heads = [draw(g.shape[1], width) for g in own[:-1]]
    optimizer = torch.optim.Adam([*student.parameters(), *heads], lr=lr)
    for step in range(num_steps):
        (inputs, targets), proxy, answer = data[step % len(data)], proxies[step % len(data)], answers[step % len(data)]
        *features, scores = _stages(student, inputs)
        begun = 1 + step * len(proxy) // num_steps  # stages that have begun, the shallow ones first
        loss = F.cross_entropy(scores, targets)
        if distill_weight:
            pairs = zip(features[:begun], heads, proxy)
            unit = lambda z: F.normalize(z, dim=1)  # noqa: E731
            unlike = sum((unit(F.linear(g, q).relu()) - unit(z)).square().sum(1).mean() for g, q, z in pairs)
            soft = F.kl_div((scores / temperature).log_softmax(1), (answer / temperature).softmax(1), reduction="batchmean")
            loss = loss + distill_weight * (unlike + temperature**2 * soft)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, loss.item())
    return student.eval()


def _stages(network: nn.Sequential, x: Tensor) -> list[Tensor]:
    """The output of every stage, flattened."""
    outputs = []
    for stage in network:
        x = stage(x)
        outputs.append(x.flatten(1))
    return outputs
