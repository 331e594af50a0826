from functools import lru_cache

import pytest
import torch

import reference_impls as ri
from reference_impls.reuse.semantic_knowledge_ranking import Reader, overlap
from tests.methods.reuse.toy_values import Reading, seeded

ENTITIES, RELATIONS, VALUES = 40, 6, 6


@lru_cache
def world(seed):
    """Facts (entity, relation, value, filler) and questions that call each entity by one of two other names.

    Half of the relations stand in the corpus; the values of the others follow from the kind of entity. Seven tenths of the
    pairs of name and relation are asked three times each for training, the rest once for the test. The encoder starts with the
    names' meanings: other names lie near the entity's own, as they would after pre-training.
    """
    generator = torch.Generator().manual_seed(seed)
    draw = lambda size: int(torch.randint(size, (), generator=generator))  # noqa: E731
    truth, first_value = torch.randint(VALUES, (ENTITIES, RELATIONS), generator=generator), 1 + 3 * ENTITIES + RELATIONS
    for relation in range(RELATIONS // 2, RELATIONS):
        truth[:, relation] = torch.randint(VALUES, (2,), generator=generator)[torch.arange(ENTITIES) % 2]
    relation_token = lambda r: 1 + 3 * ENTITIES + r  # noqa: E731
    told = [(e, r) for e in range(ENTITIES) for r in range(RELATIONS // 2)]
    facts = torch.tensor([
        [1 + e, relation_token(r), first_value + int(truth[e, r]), first_value + VALUES + draw(5)] for e, r in told
    ])  # fmt: skip
    asked = torch.randperm(2 * ENTITIES * RELATIONS, generator=generator).tolist()
    count = int(0.7 * len(asked))
    rows = []
    for place in [p for p in asked[:count] for _ in range(3)] + asked[count:]:
        (name, rest) = divmod(place, ENTITIES * RELATIONS)
        e, r = divmod(rest, RELATIONS)
        right = int(truth[e, r])
        wrong = [v for v in torch.randperm(VALUES, generator=generator).tolist() if v != right][:2]
        at = draw(3)
        values = [*wrong[:at], right, *wrong[at:]]
        relevant = told.index((e, r)) if r < RELATIONS // 2 else -1
        rows.append(([1 + e + ENTITIES * (1 + name), relation_token(r)], [[first_value + v] for v in values], at, relevant))
    questions, options, answers, relevant = (torch.tensor(column) for column in zip(*rows))
    encoder = seeded(seed, lambda: Reading(first_value + VALUES + 5))
    with torch.no_grad():
        own = encoder.embed.weight[1 : 1 + ENTITIES]
        for name in (1, 2):
            start = 1 + name * ENTITIES
            encoder.embed.weight[start : start + ENTITIES] = own + 0.3 * torch.randn(own.shape, generator=generator)
    return encoder, facts, (questions, options, answers, relevant), 3 * count


def trained(seed, **options):
    encoder, facts, (questions, choices, answers, relevant), count = world(seed)
    settings = {"num_facts": 1, "ranking_steps": 400, **options}
    taught = questions[:count], choices[:count], answers[:count], facts, relevant[:count]
    model = ri.semantic_knowledge_ranking(encoder, *taught, **settings)
    test = questions[count:], choices[count:]
    right = (model(*test).argmax(1) == answers[count:]).float().mean().item()
    used = model.rank(*test)[torch.arange(len(test[0])), answers[count:], 0]
    known = relevant[count:] >= 0
    return right, (used == relevant[count:])[known].float().mean().item()


def test_overlap_counts_rare_tokens_more_and_padding_not_at_all():
    facts = torch.tensor([[1, 2, 0], [1, 3, 0], [1, 3, 4]])
    # log(3 / 3) = 0 for token 1, log 3 for 2 and 4, log(3 / 2) for 3
    shared = overlap(torch.tensor([[1, 2, 3, 0]]), facts)[0].tolist()
    assert shared == pytest.approx([1.0986, 0.4055, 0.4055], abs=1e-4)


def test_an_option_is_scored_from_both_readings_and_their_product():
    encoder = seeded(0, lambda: Reading(12))
    facts = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 8]])
    reader = Reader(encoder, facts, 2, 1, False, True, torch.Generator().manual_seed(0))
    queries, used = torch.tensor([[[1, 2, 3], [1, 2, 4]]]), torch.tensor([[[1], [0]]])
    alone, informed = reader.read(queries[0]), reader.read(torch.cat([queries[0], facts[[1, 0]]], 1))
    fused = torch.cat([alone, informed, alone * informed], 1)
    assert torch.allclose(reader.scores(queries, used)[0], fused @ reader.score, atol=1e-5)
    reader.fuse = False
    assert torch.allclose(reader.scores(queries, used)[0], informed @ reader.score[32:64], atol=1e-5)


def test_re_ranking_orders_what_was_retrieved():
    encoder = seeded(0, lambda: Reading(12))
    facts = torch.tensor([[1, 5, 7, 8], [1, 6, 7, 8], [9, 10, 11, 8]])
    reader = Reader(encoder, facts, 2, 2, True, True, torch.Generator().manual_seed(0))
    questions, options = torch.tensor([[1, 2]]), torch.tensor([[[7]]])
    scores = reader.relevance(torch.tensor([[1, 2, 7]] * 2), facts[:2])
    ranked = reader.rank(questions, options)[0, 0].tolist()
    assert ranked == scores.argsort(descending=True).tolist()  # never fact 2, which shares nothing


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_learned_ranking_finds_what_words_do_not_and_answers_better(seed):
    (right, found), (by_words, found_by_words) = trained(seed), trained(seed, rerank=False)
    assert found > 0.8 > 0.5 > found_by_words
    assert right > by_words + 0.03


def test_bad_input_is_refused():
    encoder, facts, (questions, options, answers, relevant), _ = world(0)
    with pytest.raises(ValueError, match="answers and 2 relevant facts"):
        ri.semantic_knowledge_ranking(encoder, questions, options, answers, facts, relevant[:2])
    with pytest.raises(ValueError, match="3 of 2 facts"):
        ri.semantic_knowledge_ranking(encoder, questions, options, answers, facts, relevant, num_facts=3, num_retrieved=2)
