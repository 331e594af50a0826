import math

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.toy_zoo import Tokenizer
from reference_impls.core.toy_zoo.networks import TransformerBlock
from reference_impls.distillation.mergedistill import union_vocabulary
from tests.methods.distillation.helpers import initialised, parameters
from tests.methods.distillation.test_fusellm import Constant

AB, BC = Tokenizer(("a", "b", "[MASK]")), Tokenizer(("bc", "b", "c", "[MASK]"))


def first_loss(networks, student, corpora, tokenizers, **options):
    losses = []
    options = {"num_steps": 1, "progress": lambda _, loss: losses.append(loss), **options}
    ri.mergedistill(networks, student, corpora, tokenizers=tokenizers, **options)
    return losses[0]


def test_the_union_has_every_token_once():
    pieces, maps = union_vocabulary([AB, BC])
    assert pieces == ("a", "b", "[MASK]", "bc", "c") and [m.tolist() for m in maps] == [[0, 1, 2], [3, 1, 4, 2]]


def test_the_loss_by_hand():
    # One token, masked: "a". The teacher says 0.6, 0.3, 0.1, of which the two largest are kept: 2/3 and 1/3.
    teacher, student = Constant(0.6, 0.3, 0.1), Constant(0.5, 0.25, 0.125, 0.0625, 0.0625)
    kd = 2 / 3 * math.log((2 / 3) / 0.5) + 1 / 3 * math.log((1 / 3) / 0.25)
    options = {"networks": [teacher, Constant(0.7, 0.1, 0.1, 0.1)], "student": student, "corpora": [["a"], []], "tokenizers": [AB, BC], "top_k": 2}
    assert first_loss(**options, kd_weight=1.0) == pytest.approx(kd, rel=1e-4)
    assert first_loss(**options, kd_weight=0.7) == pytest.approx(0.7 * kd + 0.3 * math.log(2), rel=1e-4)
    # Keeping one prediction makes the teacher sure: -log 0.5. The other teacher's "bc" is the union's fourth token: -log 0.0625.
    assert first_loss(**{**options, "top_k": 1}, kd_weight=1.0) == pytest.approx(math.log(2), rel=1e-4)
    assert first_loss(**{**options, "top_k": 1, "corpora": [[], ["bc"]]}, kd_weight=1.0) == pytest.approx(math.log(16), rel=1e-4)


def test_only_masked_tokens_are_learned_and_the_student_sees_the_mask():
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.seen = nn.Parameter(torch.zeros(3, 3)), []

        def forward(self, tokens):
            self.seen.append(tokens)
            return self.table[tokens]

    student = Looks()
    trained = ri.mergedistill([Constant(0.6, 0.3, 0.1)], student, [["abab"]], tokenizers=[AB], mask_rate=0.5, num_steps=3)
    assert all((tokens == 2).sum() == 2 and tokens.shape == (1, 4) for tokens in trained.seen)
    assert torch.equal(trained.table[:2], torch.zeros(2, 3)) and trained.table[2].abs().sum() > 0  # nothing is asked of tokens in sight


class MaskedLM(nn.Module):
    """A transformer that sees both sides: logits for the token at each place."""

    def __init__(self, vocabulary, width=32):
        super().__init__()
        self.embed, self.position = nn.Embedding(vocabulary, width), nn.Embedding(40, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, 2, 2 * width) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, tokens):
        x = self.embed(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def masked(texts, tokenizer, mapping, generator):
    for text in texts:
        ids = torch.tensor(tokenizer.encode(text))
        places = torch.randperm(len(ids), generator=generator)[: max(1, round(0.15 * len(ids)))]
        hidden = ids.clone()
        hidden[places] = tokenizer.pieces.index("[MASK]")
        yield mapping[hidden], places, mapping[ids[places]]


def loss_on(network, texts, tokenizer, mapping, generator):
    """Cross-entropy of the masked tokens; `mapping` takes the tokenizer's numbers to the network's."""
    total, count, by_length = 0.0, 0, {}
    for ids, places, truth in masked(texts, tokenizer, mapping, generator):
        by_length.setdefault(len(ids), []).append((ids, places, truth))
    for group in by_length.values():
        for logits, (_, places, truth) in zip(network(torch.stack([ids for ids, _, _ in group])), group):
            total, count = total + nn.functional.cross_entropy(logits[places], truth, reduction="sum"), count + len(truth)
    return total / count


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_student_reads_the_languages_of_both_teachers(seed):
    # The languages: rhymes in letters, code in letters and pairs of letters.
    tokenizers = [Tokenizer((*t.pieces, "[MASK]")) for t in (toy_zoo.character_tokenizer(), toy_zoo.pair_tokenizer())]
    lines = lambda domain, seed, n: toy_zoo.corpus(domain, 40 * n, seed).splitlines()[:n]  # noqa: E731
    teachers = []
    for i, (tokenizer, domain) in enumerate(zip(tokenizers, ("rhymes", "code"))):
        teacher, texts = initialised(MaskedLM(len(tokenizer.pieces)), 2 * seed + i), lines(domain, 0, 300)
        optimizer, generator = torch.optim.Adam(teacher.parameters(), lr=5e-3), torch.Generator().manual_seed(seed)
        for _ in range(90):
            batch = [texts[j] for j in torch.randint(300, (24,), generator=generator).tolist()]
            loss = loss_on(teacher, batch, tokenizer, torch.arange(len(tokenizer.pieces)), generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        teachers.append(teacher.eval())
    before, (pieces, maps) = parameters(teachers), union_vocabulary(tokenizers)
    corpora = [lines("rhymes", 7, 100), lines("code", 7, 100)]

    def train(kd_weight):
        student = ri.mergedistill(
            teachers, initialised(MaskedLM(len(pieces)), 77 + seed), corpora, tokenizers=tokenizers, kd_weight=kd_weight, num_steps=120, lr=5e-3
        )
        with torch.no_grad():
            unseen = zip(("rhymes", "code"), tokenizers, maps)
            return [loss_on(student, lines(d, 1, 100), t, m, torch.Generator().manual_seed(0)).item() for d, t, m in unseen]

    for merged, alone, uniform in zip(train(0.5), train(0.0), (len(pieces), len(pieces))):
        assert merged < alone - 0.05 and merged < math.log(uniform) / 2  # without teachers, on the same masks
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(teachers)))


def test_bad_input_is_refused():
    model = Constant(0.5, 0.25, 0.25)
    with pytest.raises(ValueError, match="1 teachers, 2 corpora and 1 tokenizers"):
        ri.mergedistill([model], model, [["a"], ["b"]], tokenizers=[AB])
    with pytest.raises(ValueError, match="top_k 0"):
        ri.mergedistill([model], model, [["a"]], tokenizers=[AB], top_k=0)
    with pytest.raises(ValueError, match="no piece '<mask>'"):
        ri.mergedistill([model], model, [["a"]], tokenizers=[AB], mask_token="<mask>")
