import math

import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.toy_zoo import Tokenizer
from tests.methods.distillation.test_fusellm import teachers

LETTERS, PAIRS = Tokenizer(("a", "b", "c")), Tokenizer(("ab", "c", "b", "a"))


class Constant(nn.Module):
    """Predicts the same distribution after every token."""

    def __init__(self, *probabilities):
        super().__init__()
        self.logits = torch.tensor(probabilities).log()

    def forward(self, tokens):
        return self.logits.expand(*tokens.shape, -1)


def pack(*distributions, prompt="aab", **options):
    return ri.packllm([Constant(*p) for p in distributions], prompt, tokenizers=[LETTERS] * len(distributions), **options)


def test_sim_weights_follow_perplexity_by_hand():
    # The prompt's tokens after the first are a and b: PPL_1 = (0.5 * 0.25)^(-1/2) = 2.8284, PPL_2 = (0.2 * 0.4)^(-1/2) = 3.5355
    mixed = pack((0.5, 0.25, 0.25), (0.2, 0.4, 0.4))
    assert mixed.weights.tolist() == pytest.approx([3.5355 / 6.3639, 2.8284 / 6.3639], abs=1e-4)
    assert mixed.reference == 0
    # tau = 1/2 squares the perplexities: 8 and 12.5
    mixed = pack((0.5, 0.25, 0.25), (0.2, 0.4, 0.4), temperature=0.5)
    assert mixed.weights.tolist() == pytest.approx([12.5 / 20.5, 8 / 20.5], abs=1e-4)


def test_the_logits_are_mixed_and_not_the_probabilities():
    mixed = pack((0.5, 0.25, 0.25), (0.2, 0.4, 0.4))
    w = mixed.weights[0].item()
    by_hand = torch.tensor([w * math.log(p) + (1 - w) * math.log(q) for p, q in zip((0.5, 0.25, 0.25), (0.2, 0.4, 0.4))])
    assert torch.allclose(mixed(torch.tensor([[0, 2]]))[0, 1], by_hand, atol=1e-6)


def test_opt_takes_the_best_mixture_on_its_grid():
    # One model knows a, the other b; the prompt asks for both alike, so half of each is best on a grid of 4 steps.
    assert pack((0.8, 0.1, 0.1), (0.1, 0.8, 0.1), mode="opt", grid=4).weights.tolist() == [0.5, 0.5]
    # A model that only knows c has nothing to add; then a third joins: weights multiply through.
    assert pack((0.6, 0.3, 0.1), (0.05, 0.05, 0.9), mode="opt").weights.tolist() == [1.0, 0.0]
    weights = pack((0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.05, 0.05, 0.9), mode="opt", grid=4).weights
    assert weights.tolist() == [0.5, 0.5, 0.0]


def test_opt_is_never_worse_on_the_prompt_than_the_best_model():
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        models = torch.rand(4, 3, generator=generator) + 0.05
        models = [Constant(*(row / row.sum()).tolist()) for row in models]
        mixed = ri.packllm(models, "abcab", tokenizers=[LETTERS] * 4, mode="opt")
        tokens = torch.tensor([LETTERS.encode("abcab")])
        loss = lambda m, t=tokens: nn.functional.cross_entropy(m(t)[0, :-1], t[0, 1:]).item()  # noqa: E731
        assert loss(mixed) <= min(map(loss, models)) + 1e-6 and mixed.weights.sum().item() == pytest.approx(1)


def test_limits_of_the_temperature_are_the_mean_and_the_best_model():
    pair = (0.5, 0.25, 0.25), (0.2, 0.4, 0.4)
    assert pack(*pair, temperature=1e6).weights.tolist() == pytest.approx([0.5, 0.5], abs=1e-5)
    assert pack(*pair, temperature=1e-3).weights.tolist() == pytest.approx([1, 0])


def test_order_of_models_does_not_matter():
    models = [Constant(0.5, 0.25, 0.25), Constant(0.2, 0.4, 0.4), Constant(0.3, 0.6, 0.1)]
    for mode in ("sim", "opt"):
        there, back = (ri.packllm(m, "aabc", tokenizers=[LETTERS] * 3, mode=mode) for m in (models, models[::-1]))
        assert there.weights.tolist() == pytest.approx(back.weights.tolist()[::-1], abs=1e-6)


def test_another_vocabulary_is_read_at_the_tokens_spelled_most_alike():
    # Reference: letters. a, b, c are tokens 3, 2, 1 of the pairs, whose logits are read there; "ab" is never read.
    model = ri.packllm([Constant(0.5, 0.4, 0.1), Constant(0.1, 0.3, 0.2, 0.4)], "aba", tokenizers=[LETTERS, PAIRS])
    assert model.reference == 0
    expected = torch.tensor([[0.5, 0.4, 0.1], [0.4, 0.2, 0.3]]).log()
    assert torch.allclose(model.member_logits(torch.tensor([[0]]))[:, 0, 0], expected)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("mode", ["sim", "opt"])
def test_weights_follow_perplexity_and_the_pack_beats_its_members_and_their_mean(mode, seed):
    (_, *experts), letters, pairs = teachers(seed)  # of sums and rhymes (letters), of code (pairs of letters)
    tokenizers, loss, own_weight = [letters, letters, pairs], {}, []

    @torch.no_grad()
    def add(name, network, tokenizer, prompt, text):  # nats a letter of the text after its prompt
        ids, start = torch.tensor([tokenizer.encode(text)]), len(tokenizer.encode(prompt))
        nats = nn.functional.cross_entropy(network(ids[:, :-1])[0], ids[0, 1:], reduction="none")[start - 1 :].sum().item()
        loss[name] = loss.get(name, 0) + nats / (len(text) - len(prompt))

    for d, domain in enumerate(toy_zoo.DOMAINS):
        corpus = toy_zoo.corpus(domain, 200, seed=9)
        for start in range(0, 168, 24):
            text, prompt = corpus[start : start + 24], corpus[start : start + 12]
            mixed = ri.packllm(experts, prompt, tokenizers=tokenizers, mode=mode)
            own_weight.append(mixed.weights[d].item())
            add("pack", mixed, tokenizers[mixed.reference], prompt, text)
            mean = ri.packllm(experts, prompt, tokenizers=tokenizers, temperature=1e9)
            add("mean", mean, tokenizers[mean.reference], prompt, text)
            for k, (expert, tokenizer) in enumerate(zip(experts, tokenizers)):
                add(k, expert, tokenizer, prompt, text)
    assert sum(own_weight) / len(own_weight) > 0.75
    assert loss["pack"] < 0.75 * loss["mean"] and loss["pack"] < 0.5 * min(loss[k] for k in range(3))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="0 networks and 1 tokenizers"):
        ri.packllm([], "ab", tokenizers=[LETTERS])
    with pytest.raises(ValueError, match="fewer than two tokens"):
        pack((0.5, 0.25, 0.25), prompt="a")
    with pytest.raises(ValueError, match="mode is 'mean'"):
        pack((0.5, 0.25, 0.25), mode="mean")
