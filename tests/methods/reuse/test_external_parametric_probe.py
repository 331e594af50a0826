import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core.toy_zoo import initialise
from reference_impls.reuse.external_parametric_probe import SCENARIOS, question
from tests.methods.reuse.toy_values import Recall, seeded

TOKENS = (0, 1, 2, 3)  # A, B, ?, unknown


def world(seed, entities=80, values=8):
    """Entities with two values each, and a model that knows nothing of them."""
    generator = torch.Generator().manual_seed(seed)
    first = 4 + entities
    drawn = torch.randint(values, (entities, 2), generator=generator) + first
    network = seeded(seed, lambda: Recall(first + values))
    return network, initialise(network, generator), [(4 + i, *pair) for i, pair in enumerate(drawn.tolist())]


class Oracle(nn.Module):
    """Answers from the facts it is given (its parameters) and from the context, else 'unknown'; no training changes it."""

    def __init__(self, facts, size):
        super().__init__()
        self.facts, self.size, self.unused = {e: v for e, *v in facts}, size, nn.Parameter(torch.zeros(()))

    def forward(self, tokens):
        logits = torch.zeros(*tokens.shape, self.size)
        for row, line in zip(logits, tokens.tolist()):
            for t in range(1, len(line)):
                key, entity = line[t - 1 : t + 1]
                told = [line[i + 2] for i in range(t - 1) if line[i : i + 2] == [key, entity] and key < 2]
                known = [self.facts[entity][key]] if key < 2 and entity in self.facts else []
                row[t, (told + known + [3])[0]] = 9.0
        return logits + self.unused


def test_the_four_contexts_by_hand():
    fact, other = (7, 20, 21), (8, 22, 23)
    asked = [2, 0, 7, 20, 1, 7, 21]
    assert question(fact, other, "S1", TOKENS, told=0) == [0, 7, 20, 1, 7, 21, *asked]
    assert question(fact, other, "S2", TOKENS, told=1) == [0, 8, 22, 1, 7, 21, *asked]
    assert question(fact, other, "S3", TOKENS, told=0) == [0, 8, 22, 1, 8, 23, *asked]
    assert question(fact, other, "S4", TOKENS, told=0) == [0, 8, 22, 1, 8, 23, 2, 0, 7, 3, 1, 7, 3]


def test_a_model_that_joins_both_kinds_of_knowledge_scores_one_everywhere():
    _, _, facts = world(0, 16)
    injected = [fact for i, fact in enumerate(facts) if i % 4 < 2]
    oracle = Oracle(injected, 28)
    found = ri.external_parametric_probe(oracle, oracle.state_dict(), facts, tokens=TOKENS, inject_steps=1, tune_steps=1)
    assert found.accuracy == found.coverage == {s: 1.0 for s in SCENARIOS} and found.memory == 1.0


def test_a_model_that_only_reads_fails_where_parameters_are_needed():
    _, _, facts = world(0, 16)
    reader = Oracle([], 28)
    found = ri.external_parametric_probe(reader, reader.state_dict(), facts, tokens=TOKENS, inject_steps=1, tune_steps=1)
    assert found.accuracy == {"S1": 1.0, "S2": 0.0, "S3": 0.0, "S4": 1.0} and found.memory == 0
    assert found.coverage["S2"] == 0.5  # the half that is told


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_injected_knowledge_helps_where_the_context_is_not_enough_and_is_hard_to_elicit(seed):
    network, base, facts = world(seed)
    before = {key: tensor.clone() for key, tensor in base.items()}
    known = ri.external_parametric_probe(network, base, facts, tokens=TOKENS)
    blank = ri.external_parametric_probe(network, base, facts, tokens=TOKENS, inject_steps=0)
    for scenario, gain in (("S2", 0.15), ("S3", 0.08)):
        assert known.accuracy[scenario] > blank.accuracy[scenario] + gain
    assert known.accuracy["S1"] > known.accuracy["S2"] > known.accuracy["S3"]
    assert known.memory > 0.95 > known.coverage["S3"] + 0.2  # it is there, and yet not found when asked
    assert blank.accuracy["S1"] > 0.8 and all(torch.equal(before[key], base[key]) for key in base)


def test_bad_input_is_refused():
    network, base, facts = world(0, 8)
    with pytest.raises(ValueError, match="7 facts"):
        ri.external_parametric_probe(network, base, facts[:7], tokens=TOKENS)
    with pytest.raises(ValueError, match="8 facts of 7 entities"):
        ri.external_parametric_probe(network, base, [*facts[:7], facts[0]], tokens=TOKENS)
