"""Knowledge ranking: of the facts that share words with a question, those that answer it are moved to the front."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, generator
from reference_impls.reuse.semantic_knowledge_ranking import semantic_knowledge_ranking

CONTROLS = [Control("ranking_steps", 0, 60, 40, 20), Control("num_steps", 0, 20, 10, 10)]


class Meaning(nn.Module):
    """The mean of the tokens' vectors, and a layer on it."""

    def __init__(self, size):
        super().__init__()
        self.embed, self.hidden = nn.Embedding(size, 8), nn.Linear(8, 12)

    def forward(self, tokens):
        return self.hidden(self.embed(tokens).mean(dim=1)).tanh()


def demo(ranking_steps, num_steps):
    # a question is a subject (1-6) and the word 20; the fact that answers it names the subject, one that does not the word too
    questions = torch.tensor([[s, 20] for s in range(1, 7)])
    options = torch.tensor([[[s + 6], [(s % 6) + 7]] for s in range(1, 7)])
    facts = torch.tensor([[s, 13 + s, 21] for s in range(1, 7)] + [[s, 20, 22] for s in range(1, 7)])
    answers, relevant = torch.zeros(6, dtype=torch.long), torch.arange(6)
    encoder = Meaning(23)
    encoder.load_state_dict(drawn(encoder))
    shares = {}
    for name, rerank in (("by shared words", False), ("ranked by meaning", True)):
        model = semantic_knowledge_ranking(
            encoder, questions, options, answers, facts, relevant, num_retrieved=6, num_facts=1, rerank=rerank,
            ranking_steps=ranking_steps, num_steps=num_steps, lr=0.03, batch_size=6, generator=generator(0),
        )  # fmt: skip
        first = model.rank(questions, options)[:, 0, 0]
        shares[name] = (first == relevant).float().mean()
    return Picture(
        title="Share of questions whose fact comes first",
        reading="Every question shares its words with a fact that answers it and with one that does not; training the "
        "relevance tells them apart.",
        x="",
        y="share",
        kind="bar",
        at=list(shares),
        series={"share": list(shares.values())},
    )
