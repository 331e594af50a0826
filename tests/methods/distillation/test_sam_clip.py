import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import reference_impls as ri
from reference_impls.distillation.sam_clip import MergedEncoder, cosine_loss, mask_loss
from tests.methods.distillation.helpers import dense_network, initialised, parameters, scene_network, scenes


def test_the_mask_loss_by_hand():
    # scores of log 3 are 3/4 sure; one pixel right, one wrong: focal (1/16 log(4/3) + 9/16 log 4) / 2, dice 1 - (2 * 3/4 + 1) / (3/2 + 1 + 1)
    scores, teacher = torch.tensor([[[math.log(3), math.log(3)]]]), torch.tensor([[[5.0, -5.0]]])
    focal, dice = (math.log(4 / 3) / 16 + 9 * math.log(4) / 16) / 2, 1 - 2.5 / 3.5
    assert mask_loss(scores, teacher).item() == pytest.approx(20 * focal + dice, rel=1e-5)
    assert mask_loss(scores, teacher, focal_weight=0.0).item() == pytest.approx(dice, rel=1e-5)
    assert mask_loss(scores, 0.1 * teacher) == mask_loss(scores, teacher)  # only what the teacher cuts out counts, not how sure it is


def test_the_embedding_of_a_picture_is_the_largest_of_its_places():
    merged = MergedEncoder(nn.Identity(), nn.Identity(), nn.Identity())
    assert merged.embed(torch.tensor([[[[1.0, -2.0]], [[-3.0, 4.0]]]])).tolist() == [[1.0, 4.0]]
    assert torch.equal(cosine_loss(torch.eye(2), -3 * torch.eye(2)), torch.full((2,), 2.0))


class Decoder(nn.Module):
    """A mask is where the features resemble the feature at the prompt, a pixel's row and column."""

    def __init__(self, width=12):
        super().__init__()
        self.query, self.key, self.bias = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1), nn.Linear(width, 1)

    def forward(self, features, points):
        index = points[:, 0] * features.shape[3] + points[:, 1]
        at = lambda f: f.flatten(2).gather(2, index[:, None, None].expand(-1, f.shape[1], 1)).squeeze(2)  # noqa: E731
        return (at(self.query(features))[:, :, None, None] * self.key(features)).sum(1) + self.bias(at(features))[:, :, None]


def prompted(count, seed):
    """Scenes, points, and the masks of the objects that the points lie on."""
    images, classes, _ = scenes(count, seed)
    points = torch.randint(0, 8, (count, 2), generator=torch.Generator().manual_seed(seed))
    return images, points, (classes == classes[torch.arange(count), points[:, 0], points[:, 1]][:, None, None]).float()


WORDS = F.normalize(2 * torch.eye(6)[:4] - 0.3, dim=1)  # the embeddings of four words; which word fits depends on which boxes are in sight


def kinds(count, seed):
    """Scenes in other colours, channels swapped and inverted, and the number of the word that fits."""
    images, classes, _ = scenes(count, seed)
    one, two = ((classes == kind).sum((1, 2)) > 6 for kind in (1, 2))
    return -images.flip(1), 2 * one.long() + two.long()


def train(modules, loss_of, num_steps=200):
    optimizer, generator = torch.optim.Adam([p for m in modules for p in m.parameters()], lr=5e-3), torch.Generator().manual_seed(0)
    for _ in range(num_steps):
        loss = loss_of(torch.randint(400, (32,), generator=generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [m.eval() for m in modules]


def toy_head(seed):
    return initialised(
        nn.Sequential(
            nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(24, 6, 3, padding=1)
        ),
        seed,
    )


def test_one_encoder_learns_what_the_second_teacher_knows_and_rehearsal_keeps_the_first():
    # Single seeds differ by processor: seed 1 comes 0.03 nearer to the second teacher on AVX2 and 0.13 on AVX-512, and
    # is 0.01 less and 0.07 more often right than the head alone.
    found = torch.tensor([lost_and_gained(seed) for seed in range(3)]).mean(0).tolist()
    lost, lost_without_rehearsal, nearer, more_right = found
    assert lost < 0.02 and lost_without_rehearsal > 1.5 * lost
    assert nearer > 0.05 and more_right > 0.02


def lost_and_gained(seed):
    """Overlap of masks that is lost, with rehearsal and without; what training adds to the head alone in fit and in words."""
    (x, points, masks), (y, words) = prompted(400, 0), kinds(400, 0)
    encoder, decoder = dense_network(1, blocks=3, seed=seed)[:-1], initialised(Decoder(), seed)
    train([encoder, decoder], lambda i: F.binary_cross_entropy_with_logits(decoder(encoder(x[i]), points[i]), masks[i]))
    teacher = scene_network(6, seed=seed + 20)
    train([teacher], lambda i: F.cross_entropy(10 * F.normalize(teacher(y[i]), dim=1) @ WORDS.T, words[i]))
    before = parameters([encoder, decoder, teacher])

    replay = list(zip(*[part.split(32) for part in prompted(128, 5)[:2]]))  # a third of what the teachers saw, without its masks
    pictures, head = list(kinds(256, 6)[0].split(32)), toy_head(seed + 30)
    merge = lambda **o: ri.sam_clip(  # noqa: E731
        encoder, decoder, teacher, head, replay, pictures,
        **{"rehearsal_weight": 1.0, "probe_steps": 100, "num_steps": 150, "lr": 5e-3, "encoder_lr": 2e-3, **o},
    )  # fmt: skip
    both, forgetful, probed = merge(), merge(rehearsal_weight=0.0), merge(num_steps=0)

    (x, points, masks), (y, words) = prompted(400, 1), kinds(400, 2)
    with torch.no_grad():

        def overlap(scores):
            a, b = scores > 0, masks > 0.5
            return ((a & b).flatten(1).sum(1) / (a | b).flatten(1).sum(1).clamp_min(1)).mean().item()

        fits = lambda model: F.cosine_similarity(model.embed(y), teacher(y)).mean().item()  # noqa: E731
        zero_shot = lambda e: ((F.normalize(e, dim=1) @ WORDS.T).argmax(1) == words).float().mean().item()  # noqa: E731
        first = overlap(decoder(encoder(x), points))
        assert overlap(probed(x, points)) == first  # the first stage leaves the encoder and its decoder as they are
        assert all(torch.equal(a, b) for a, b in zip(before, parameters([encoder, decoder, teacher])))
        lost = [first - overlap(model(x, points)) for model in (both, forgetful)]
        return [*lost, fits(both) - fits(probed), zero_shot(both.embed(y)) - zero_shot(probed.embed(y))]


def test_bad_input_is_refused():
    encoder, image = nn.Identity(), torch.zeros(1, 6, 4, 4)
    good = {"prompted_batches": [(image, torch.zeros(1, 2, dtype=torch.long))], "batches": [image]}
    arguments = (encoder, Decoder(6), nn.Sequential(nn.Flatten(), nn.Linear(96, 6)), nn.Identity())
    with pytest.raises(ValueError, match="0 prompted batches"):
        ri.sam_clip(*arguments, [], good["batches"])
    with pytest.raises(ValueError, match="rehearsal_weight is -1"):
        ri.sam_clip(*arguments, **good, rehearsal_weight=-1)
    with pytest.raises(ValueError, match=r"the head gives \(1, 6\), the second teacher \(1, 5\)"):
        ri.sam_clip(encoder, Decoder(6), nn.Sequential(nn.Flatten(), nn.Linear(96, 5)), nn.Identity(), **good)
