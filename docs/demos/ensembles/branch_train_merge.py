"""Branch-Train-Merge: experts of domains, weighed by how well each has predicted the text so far."""

import torch
from torch import nn

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator
from reference_impls.ensembles.branch_train_merge import branch_train_merge

CONTROLS = [Control("num_steps", 0, 60, 40, 10), Control("share", 0.5, 0.95, 0.8, 0.05)]


class Unigram(nn.Module):
    """A language model that knows only how often each of four letters comes."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(4))

    def forward(self, tokens):
        return self.scores.expand(*tokens.shape, 4)


def demo(num_steps, share):
    g = generator(0)
    texts = [torch.where(torch.rand(1, 40, generator=g) < share, letter, 1) for letter in (0, 2)]
    batches = [[(text[:, :-1], text[:, 1:])] for text in texts]
    forest = branch_train_merge(Unigram(), {"scores": torch.zeros(4)}, batches, num_steps=num_steps, lr=0.05)
    unseen = torch.tensor([[0, 1, 0, 0, 0, 1, 0, 2, 0, 0]])
    with torch.no_grad():
        posterior = forest.posterior(unseen)[:, 0]  # (experts, letters)
    return Picture(
        title="How much each expert counts, letter by letter of a text of the first domain",
        reading="Both start with the same weight; every letter that one expert expected more than the other moves weight "
        "to it, and a few letters are enough.",
        x="letters read",
        y="weight",
        at=[float(i) for i in range(posterior.shape[1])],
        series={f"expert {i}": weight for i, weight in enumerate(posterior, 1)},
    )
