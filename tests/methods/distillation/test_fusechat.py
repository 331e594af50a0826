import copy
import math

import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.toy_zoo import Tokenizer
from reference_impls.distillation.fusechat import aligned_rows, alignment_counts, discounted_distance, statistics_map
from tests.methods.distillation.helpers import parameters
from tests.methods.distillation.test_fusellm import Constant, teachers, windows

LETTERS, PAIRS = Tokenizer(("a", "b", "c")), Tokenizer(("ab", "c", "b", "a", "cc"))
PIECES, PARTS = Tokenizer(("ab", "a", "b", "c")), Tokenizer(("a", "b", "c"))


def counts_of(pivot, source, *texts):
    pieces = lambda t, text: [t.pieces[i] for i in t.encode(text)]  # noqa: E731
    sequences = [(pieces(pivot, text), pieces(source, text)) for text in texts]
    return sequences, alignment_counts(sequences, pivot.pieces, source.pieces)


def test_a_token_within_another_is_a_tenth_as_far():
    assert discounted_distance("a", "ab") == pytest.approx(0.1) and discounted_distance("ab", "ba") == 2


def test_the_map_follows_what_is_met_most_often_and_the_authors_code_the_distance_too():
    counts = torch.tensor([[5.0, 0.0], [0.0, 0.0], [1.0, 0.0]])  # "xyz" met "c" once and "a" five times, "w" met nothing
    assert statistics_map(counts, ["a", "b", "xyc"], ["xyz", "w"]).tolist() == [0, -1]
    # edit distances 3 and 1, times sigmoid(5) = 0.993 and sigmoid(1) = 0.731
    assert statistics_map(counts, ["a", "b", "xyc"], ["xyz", "w"], "distance").tolist() == [2, -1]
    assert statistics_map(counts, ["a", "xyz", "xyc"], ["xyz", "w"]).tolist() == [1, -1]  # the very same token comes first


def test_counts_by_hand():
    # "abc" is a b c for the pivot and ab c for the source: a and b meet ab, c meets c
    _, counts = counts_of(LETTERS, PAIRS, "abc", "abc")
    assert counts.tolist() == [[2, 0, 0, 0, 0], [2, 0, 0, 0, 0], [0, 2, 0, 0, 0]]


def test_one_token_for_several_takes_their_distributions_by_frequency():
    # the pivot's "ab" is a and b in the source: counts 3 and 3 here, so the mean of the rows that predict a and b; "c" is one for one
    sequences, counts = counts_of(PIECES, PARTS, "cabc", "cab", "abc")
    assert counts.tolist() == [[3, 3, 0], [0, 0, 0], [0, 0, 0], [0, 0, 4]]
    mapping = statistics_map(counts, PIECES.pieces, PARTS.pieces)
    assert mapping.tolist() == [1, 2, 3]
    rows = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])  # predict a, b and c
    ids, own = torch.tensor(PIECES.encode("cabc")), torch.tensor(PARTS.encode("cabc"))
    aligned = aligned_rows(rows, sequences[0], ids, own, counts, mapping)
    assert aligned.tolist() == [pytest.approx([0, 0.4, 0.5, 0.1]), pytest.approx([0, 0.3, 0.3, 0.4])]
    weighted = counts.clone()
    weighted[0] = torch.tensor([1.0, 3.0, 0.0])
    assert aligned_rows(rows, sequences[0], ids, own, weighted, mapping)[0].tolist() == pytest.approx([0, 0.25, 0.65, 0.1])


def test_only_the_answer_counts_and_the_better_model_teaches_it():
    # "c" then "ab": the pivot gives a and b 0.5 and 0.25, the source 0.2 and 0.6: cross-entropies (log 2 + log 4) / 2 = 1.04 and 1.06
    pivot, source = Constant(0.5, 0.25, 0.25), Constant(0.2, 0.6, 0.2)
    for other, kl in ((source, 0.0), (Constant(0.3, 0.6, 0.1), 0.3 * math.log(0.6) + 0.6 * math.log(2.4) + 0.1 * math.log(0.4))):
        losses = []
        options = {"tokenizer": LETTERS, "source_tokenizers": [LETTERS], "num_steps": 1, "lm_weight": 0.7}
        ri.fusechat(pivot, [other], [("c", "ab")], progress=lambda _, loss: losses.append(loss), **options)  # noqa: B023
        assert losses == pytest.approx([0.7 * (math.log(2) + math.log(4)) / 2 + 0.3 * kl], rel=1e-4)


def test_there_is_one_target_of_the_pivots_shape_for_each_source():
    pivot, options = Constant(0.5, 0.25, 0.25), {"tokenizer": LETTERS, "num_steps": 2}
    targets = ri.fusechat(pivot, [pivot, Constant(0.1, 0.2, 0.3, 0.2, 0.2)], [("c", "ab")], source_tokenizers=[LETTERS, PAIRS], **options)
    assert [t.logits.shape for t in targets] == [(3,), (3,)]


@torch.no_grad()
def nats_per_letter(network, tokenizer, dialogues):
    total = 0.0
    for question, answer in dialogues:
        ids, start = torch.tensor(tokenizer.encode(question + answer)), len(tokenizer.encode(question))
        total -= network(ids[None, :-1])[0].log_softmax(-1).gather(1, ids[1:, None])[start - 1 :].sum().item()
    return total / sum(len(answer) for _, answer in dialogues)


def test_targets_learn_from_their_pair_and_their_average_is_better_than_each():
    # six seeds, in nats a letter: the worst target is 0.035 (spread 0.014) better than training alone, 0.30 (0.06) better
    # than the pivot and 0.71 (0.14) better than the best source; their average is 0.025 (0.010) better than the best target
    dialogues = lambda s, n: [(w[:8], w[8:]) for domain in toy_zoo.DOMAINS for w in windows(domain, s, n)]  # noqa: E731
    train, test = dialogues(7, 24), dialogues(8, 20)
    gains = []
    for seed in range(3):
        (pivot, *sources), letters, pairs = teachers(seed)
        before, tokenizers = parameters([pivot, *sources]), [letters, letters, pairs]
        options = {"tokenizer": letters, "num_steps": 80, "lr": 3e-3}
        targets = ri.fusechat(pivot, sources, train, source_tokenizers=tokenizers, **options)
        (alone,) = ri.fusechat(pivot, sources[:1], train, source_tokenizers=tokenizers[:1], lm_weight=1.0, **options)
        merged = copy.deepcopy(pivot)
        merged.load_state_dict(ri.uniform_soup([target.state_dict() for target in targets]))
        *losses, of_alone, of_pivot, of_merged = (nats_per_letter(m, letters, test) for m in (*targets, alone, pivot, merged))
        of_source = min(nats_per_letter(m, t, test) for m, t in zip(sources, tokenizers))
        gains.append([of_alone - max(losses), of_pivot - max(losses), of_source - max(losses), min(losses) - of_merged])
        assert all(torch.equal(a, b) for a, b in zip(before, parameters([pivot, *sources])))
    over_alone, over_pivot, over_source, of_average = (sum(column) / 3 for column in zip(*gains))
    assert over_alone > 0.01 and over_pivot > 0.2 and over_source > 0.4 and of_average > 0.005


def test_bad_input_is_refused():
    model, options = Constant(0.5, 0.25, 0.25), {"tokenizer": LETTERS, "source_tokenizers": [LETTERS]}
    with pytest.raises(ValueError, match="0 sources and 1 tokenizers"):
        ri.fusechat(model, [], [("a", "b")], **options)
    with pytest.raises(ValueError, match="lm_weight is 2"):
        ri.fusechat(model, [model], [("a", "b")], lm_weight=2, **options)
    with pytest.raises(ValueError, match="'edit'"):
        ri.fusechat(model, [model], [("a", "b")], match="edit", **options)
    with pytest.raises(ValueError, match="1 dialogues, none"):
        ri.fusechat(model, [model], [("", "b")], **options)
