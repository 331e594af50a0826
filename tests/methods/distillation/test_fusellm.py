import copy
import math
from functools import lru_cache

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.toy_zoo import Tokenizer
from reference_impls.distillation.fusellm import align_tokens, aligned_distributions, edit_distance, fuse, vocabulary_map

LETTERS, PAIRS = Tokenizer(("a", "b", "c")), Tokenizer(("ab", "c", "b", "a", "cc"))


class Constant(nn.Module):
    """Predicts the same distribution after every token."""

    def __init__(self, *probabilities):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(probabilities).log())

    def forward(self, tokens):
        return self.logits.expand(*tokens.shape, -1)


def test_edit_distance_and_alignment_by_hand():
    assert [edit_distance(*p) for p in (("cat", "cut"), ("cat", "at"), ("", "abc"), ("ab", "ba"))] == [1, 1, 3, 2]
    # "abcc" is a b c c for the target and ab c c or ab cc for a source: a and b both lie on ab
    assert align_tokens(["a", "b", "c", "c"], ["ab", "c", "c"]) == [[0], [0], [1], [2]]
    assert align_tokens(["ab", "cc"], ["a", "b", "c", "c"]) == [[0, 1], [2, 3]]


def test_a_distribution_is_translated_where_tokens_correspond_and_is_the_text_elsewhere():
    source = Constant(0.1, 0.2, 0.3, 0.15, 0.25)  # ab, c, b, a, cc
    mapping = vocabulary_map(PAIRS.pieces, LETTERS.pieces)
    assert mapping.tolist() == [0, 2, 1, 0, 2]  # "ab" is one letter from "a" and from "b": the first; "cc" from "c"
    tokens = torch.tensor(LETTERS.encode("acab"))
    rows, cross_entropy = aligned_distributions(source, PAIRS, mapping, "acab", tokens, LETTERS)
    # Source tokens a, c, ab. Target c lies on c: (0.1 + 0.15, 0.3, 0.2 + 0.25). Target a lies on c too (1 letter off, as on ab),
    # and target b on ab, which counts for a: neither corresponds, so both rows are the text itself.
    assert rows.tolist() == [pytest.approx([0.25, 0.3, 0.45]), [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert cross_entropy.item() == pytest.approx(-(math.log(0.2) + math.log(0.1)) / 2)


def test_tokens_that_share_a_target_token_add_their_probabilities():
    # The first of them alone, as in the authors' code (largest first), would give c 0.25 / (0.25 + 0.3 + 0.15) = 0.357, not 0.45.
    mapping = vocabulary_map(PAIRS.pieces, LETTERS.pieces)
    rows, _ = aligned_distributions(Constant(0.1, 0.2, 0.3, 0.15, 0.25), PAIRS, mapping, "ac", torch.tensor([0, 2]), LETTERS)
    assert rows[0].tolist() == pytest.approx([0.25, 0.3, 0.45])


def test_exact_matching_leaves_out_what_is_spelled_differently():
    mapping = vocabulary_map(PAIRS.pieces, LETTERS.pieces, "exact")
    assert mapping.tolist() == [-1, 2, 1, 0, -1]
    rows, _ = aligned_distributions(Constant(0.1, 0.2, 0.3, 0.15, 0.25), PAIRS, mapping, "ac", torch.tensor([0, 2]), LETTERS)
    assert rows[0].tolist() == pytest.approx([0.15 / 0.65, 0.3 / 0.65, 0.2 / 0.65])


def test_min_ce_takes_one_source_and_avg_ce_weighs_them_by_the_softmax_of_their_likelihood():
    a, b = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.2, 0.8]])
    ce = torch.tensor([math.log(2), math.log(4)])  # likelihoods 1/2 and 1/4; softmax: 1 / (1 + exp(-1/4)) = 0.5622
    assert torch.equal(fuse([a, b], ce, "min_ce"), a) and torch.equal(fuse([a, b], ce.flip(0), "min_ce"), b)
    expected = [0.5622 * 0.9 + 0.4378 * 0.2, 0.5622 * 0.1 + 0.4378 * 0.8]
    assert fuse([a, b], ce, "avg_ce")[0].tolist() == pytest.approx(expected, abs=1e-4)


def test_the_loss_is_lambda_times_the_text_plus_the_rest_times_the_divergence():
    target, source, losses = Constant(0.5, 0.25, 0.25), Constant(0.2, 0.6, 0.2), []
    options = {"tokenizer": LETTERS, "source_tokenizers": [LETTERS], "include_target": False, "num_steps": 1}
    ri.fusellm(target, [source], ["cab"], lm_weight=0.7, progress=lambda _, loss: losses.append(loss), **options)
    clm = (math.log(2) + math.log(4)) / 2  # of a and b
    kl = 0.2 * math.log(0.2 / 0.5) + 0.6 * math.log(0.6 / 0.25) + 0.2 * math.log(0.2 / 0.25)
    assert losses == pytest.approx([0.7 * clm + 0.3 * kl], rel=1e-5)


def test_a_target_that_is_its_own_only_teacher_has_nothing_to_learn_from_it():
    target = Constant(0.5, 0.25, 0.25)
    student = ri.fusellm(target, [target], ["cab"], tokenizer=LETTERS, source_tokenizers=[LETTERS], lm_weight=0.0, num_steps=5)
    assert torch.allclose(student.logits, target.logits, atol=1e-3)


@lru_cache
def teachers(seed):
    """A transformer for sums, one for rhymes (letters), and a recurrent model for code (pairs of letters)."""
    family, other = toy_zoo.language_models(seed), toy_zoo.second_language_model(seed)
    generator = torch.Generator().manual_seed(seed)
    code = toy_zoo.train(other.network, None, other.tasks[2].train, num_steps=80, lr=1e-2, generator=generator)
    networks, states = [], (family.base, *family.finetuned[:2])
    for network, state in [*((family.network, state) for state in states), (other.network, code)]:
        networks.append(copy.deepcopy(network).eval())
        networks[-1].load_state_dict(state)
    return networks, family.tokenizer, other.tokenizer


def windows(domain, seed, count):
    text = toy_zoo.corpus(domain, 24 * count + 24, seed)
    return [text[24 * i : 24 * i + 24] for i in range(count)]


@torch.no_grad()
def nats_per_letter(network, tokenizer, texts):
    total = letters = 0
    for text in texts:
        ids = torch.tensor(tokenizer.encode(text))
        total += nn.functional.cross_entropy(network(ids[None, :-1])[0], ids[1:], reduction="sum").item()
        letters += len(text) - len(tokenizer.pieces[ids[0]])
    return total / letters


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_student_beats_every_teacher_on_the_union_and_training_without_them(seed):
    (target, *sources), letters, pairs = teachers(seed)
    texts = [text for domain in toy_zoo.DOMAINS for text in windows(domain, 7, 24)]
    test = [text for domain in toy_zoo.DOMAINS for text in windows(domain, 8, 20)]
    tokenizers = [letters, letters, pairs]
    before = [p.clone() for m in (target, *sources) for p in m.parameters()]
    options = {"tokenizer": letters, "source_tokenizers": tokenizers, "num_steps": 80, "lr": 3e-3}
    fused = ri.fusellm(target, sources, texts, **options)
    alone = ri.fusellm(target, sources[:1], texts, lm_weight=1.0, **{**options, "source_tokenizers": tokenizers[:1]})
    loss = nats_per_letter(fused, letters, test)
    assert all(loss < nats_per_letter(m, t, test) - 0.3 for m, t in zip(sources, tokenizers))
    assert loss < nats_per_letter(alone, letters, test) - 0.01 and loss < nats_per_letter(target, letters, test) - 0.2
    assert all(torch.equal(a, p) for a, p in zip(before, (p for m in (target, *sources) for p in m.parameters())))


def test_bad_input_is_refused():
    model, options = Constant(0.5, 0.25, 0.25), {"tokenizer": LETTERS, "source_tokenizers": [LETTERS]}
    with pytest.raises(ValueError, match="0 sources and 1 tokenizers"):
        ri.fusellm(model, [], ["ab"], **options)
    with pytest.raises(ValueError, match="none of two tokens"):
        ri.fusellm(model, [model], ["a"], **options)
    with pytest.raises(ValueError, match="lm_weight is 2"):
        ri.fusellm(model, [model], ["ab"], lm_weight=2, **options)
    with pytest.raises(ValueError, match="fusion is 'max'"):
        ri.fusellm(model, [model], ["ab"], fusion="max", **options)
