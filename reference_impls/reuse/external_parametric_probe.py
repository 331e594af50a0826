r"""Four-scenario probe of external and parametric knowledge (zhang2024evaluating).

How well does a language model join what it is told in its context with what it learned into its parameters? The probe makes the
answer measurable: it knows which facts it puts where. A part of the facts is trained into the model; then it is tuned to answer
questions; and it is asked about other facts in four scenarios. S1: the context holds all that is needed. S2: the context holds
one half, the parameters the other. S3: the context is of no use, the parameters hold all. S4: nothing holds the answer, and the
model should say so.

Notation: K_e the knowledge in the context, K_p that in the parameters; e an entity with two attributes A and B and their values.

Departures: the paper injects old product data by continued training and takes new data as the context, in text, and lets a large
model write questions and judge answers. Here facts are tokens, questions ask for both attributes of an entity, and answers are
compared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reference_impls.core.state_dict import StateDict

SCENARIOS = ("S1", "S2", "S3", "S4")


@dataclass(frozen=True)
class Findings:
    """What the probe measured.

    Attributes:
        accuracy: share of questions with both values right, by scenario; in S4 the share of correct refusals.
        coverage: share of values right, by scenario.
        memory: share of the injected values that the model completes right after the injection, before the tuning.
    """

    accuracy: dict[str, float]
    coverage: dict[str, float]
    memory: float


def external_parametric_probe(
    network: nn.Module,
    base: StateDict,
    facts: Sequence[tuple[int, int, int]],
    *,
    tokens: tuple[int, int, int, int],
    inject_steps: int = 300,
    tune_steps: int = 300,
    lr: float = 3e-3,
    batch_size: int = 64,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Findings:
    r"""Inject facts into a language model, tune it to answer, and measure the four scenarios.

    $$
    R_{\text{acc}}(s) = \frac{1}{|Q_s|} \sum_{q \in Q_s} \mathbb{1}\{\hat a(q) = a(q)\}, \qquad
    a(q) = \begin{cases} (v_A, v_B) & K_e \cup K_p \vdash q \quad (S1, S2, S3) \\
    (\varnothing, \varnothing) & \text{otherwise} \quad (S4) \end{cases}
    $$

    Args:
        network: the architecture, maps token numbers (n, T) to logits (n, T, V) of the next token; T is at most 12 (13 tokens
            less the last).
        base: the state dict before the probe.
        facts: (entity, value of A, value of B) by token number; of every four facts in turn two are injected and one of each two
            is used for tuning, the other for the questions.
        tokens: the numbers of "A", "B", the question mark and "unknown".
        inject_steps: steps of continued training on the injected facts (Adam); 0 probes a model that knows nothing. Default 300:
            for toys.
        tune_steps: steps of tuning on questions in all scenarios. Default 600: for toys.
        lr: step size of both. Default 3e-3: for toys.
        batch_size: sequences a step. Default 64: for toys.
        generator: draws batches and contexts. Default None: a generator with seed 0.
        progress: called with the step, counted over both trainings, and the loss.

    Returns:
        Accuracy and coverage by scenario, and the share of injected values remembered. `base` is not changed.

    Raises:
        ValueError: fewer than eight facts, an entity twice.

    Example:
        The sequence of a question in S2: A of entity 7 is told, B of 7 is not, but that of another entity.

        >>> question((7, 20, 21), (8, 22, 23), "S2", (0, 1, 2, 3), told=0)
        [0, 7, 20, 1, 8, 23, 2, 0, 7, 20, 1, 7, 21]

    References:
        zhang2024evaluating, the sections on the four scenarios, on knowledge infusion and on the metrics.
    """
    if len(facts) < 8 or len({entity for entity, *_ in facts}) < len(facts):
        count = len({entity for entity, *_ in facts})
        raise ValueError(f"received {len(facts)} facts of {count} entities; eight or more different ones are needed")
    generator = generator or torch.Generator().manual_seed(0)
    model = copy.deepcopy(network).requires_grad_(True)
    model.load_state_dict(base)
    device = next(model.parameters()).device
    injected = [fact for i, fact in enumerate(facts) if i % 4 < 2]
    absent = [fact for i, fact in enumerate(facts) if i % 4 >= 2]
    draw = lambda items: items[int(torch.randint(len(items), (), generator=generator))]  # noqa: E731
    a, b, _, unknown = tokens

    statements = torch.tensor([[key, e, v] for e, *values in injected for key, v in zip((a, b), values)], device=device)
    losses = _fit(model, lambda: (statements, torch.tensor([2])), inject_steps, lr)  # the value is predicted, not the entity
    for step, loss in enumerate(losses):
        if progress is not None:
            progress(step, loss)
    memory = (_answers(model, statements, torch.tensor([2])) == statements[:, 2:]).float().mean().item()

    values = sorted({v for _, *pair in facts for v in pair})

    def sample(part: int) -> tuple[list[int], str]:
        scenario = draw(SCENARIOS)
        fact = draw((injected if scenario in ("S2", "S3") else absent)[part::2])
        if scenario == "S1" and part == 0:  # what is told must be read, not learned by heart
            fact = (fact[0], draw(values), draw(values))
        other = draw([f for f in absent if f[0] != fact[0]])
        return question(fact, (other[0], draw(values), draw(values)), scenario, tokens, told=draw((0, 1))), scenario

    exercises = torch.tensor([sample(0)[0] for _ in range(2000)], device=device)
    places = torch.tensor([9, 12])
    pick = lambda: torch.randint(len(exercises), (batch_size,), generator=generator).to(device)  # noqa: E731
    tune = lambda: (exercises[pick()], places)  # noqa: E731
    for step, loss in enumerate(_fit(model, tune, tune_steps, lr), start=inject_steps):
        if progress is not None:
            progress(step, loss)

    asked = [sample(1) for _ in range(1000)]
    sequences = torch.tensor([sequence for sequence, _ in asked], device=device)
    right = _answers(model, sequences, places) == sequences[:, places]
    of = {s: right[torch.tensor([scenario == s for _, scenario in asked], device=device)].float() for s in SCENARIOS}
    return Findings({s: r.prod(1).mean().item() for s, r in of.items()}, {s: r.mean().item() for s, r in of.items()}, memory)


def question(
    fact: tuple[int, int, int], other: tuple[int, int, int], scenario: str, tokens: tuple[int, int, int, int], told: int
) -> list[int]:
    """Two statements as context, the question, and the answer: 13 tokens; in S2 only the attribute `told` (0 or 1) is told."""
    a, b, ask, unknown = tokens
    about = [fact if scenario == "S1" or (scenario == "S2" and told == i) else other for i in range(2)]
    answer = (unknown, unknown) if scenario == "S4" else fact[1:]
    return [a, about[0][0], about[0][1], b, about[1][0], about[1][2], ask, a, fact[0], answer[0], b, fact[0], answer[1]]


def _fit(model: nn.Module, batch: Callable[[], tuple[Tensor, Tensor]], num_steps: int, lr: float) -> list[float]:
    """Train the tokens at the given places; returns the losses."""
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=lr), []
    model.train()
    for _ in range(num_steps):
        sequences, places = batch()
        logits = model(sequences[:, :-1])[:, places - 1]
        loss = F.cross_entropy(logits.flatten(0, 1), sequences[:, places].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


@torch.no_grad()
def _answers(model: nn.Module, sequences: Tensor, places: Tensor) -> Tensor:
    """The most likely token at each of the given places, (n, places)."""
    return model(sequences[:, :-1])[:, places - 1].argmax(dim=-1)
