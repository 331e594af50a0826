import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import reference_impls as ri
from reference_impls.reuse.voice2series import sliced_wasserstein
from tests.methods.reuse.toy_values import Speech, seeded


def speech(count, generator):
    """Eight words of 160 samples: a tone of its own pitch, rising or falling, with an envelope and noise."""
    words, t = torch.arange(count) % 8, torch.arange(160) / 160
    pitch = 6 + 4 * words[:, None] + (3.2 * (words[:, None] % 2) - 1.6) * t
    gain, shift, phase = torch.rand(3, count, 1, generator=generator)
    envelope = (0.7 + 0.6 * gain) * torch.exp(-((t - 0.4 - 0.2 * shift) ** 2) / 0.05)
    return envelope * torch.sin(2 * math.pi * (pitch * t + phase)) + 0.15 * torch.randn(count, 160, generator=generator), words


def machine_noise(count, generator):
    """Two states of a machine in 40 samples: a slow or a fast oscillation in noise."""
    states, t = torch.arange(count) % 2, torch.arange(40) / 40
    pitch = torch.where(states == 0, 2.0, 4.5)[:, None] + 0.5 * torch.randn(count, 1, generator=generator)
    gain, phase = torch.rand(2, count, 1, generator=generator)
    tone = (0.6 + 0.8 * gain) * torch.sin(2 * math.pi * (pitch * t + phase))
    return tone + 0.3 * torch.randn(count, 40, generator=generator), states


class Sums(nn.Module):
    """A model of four labels: the sums of the four quarters of the waveform."""

    def forward(self, waves):
        return waves.unflatten(1, (4, -1)).sum(2)


def program(**options):
    data = [(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([0, 1]))]
    return ri.voice2series(Sums(), data, length=8, num_steps=0, **options)


def test_padding_mask_and_waveform_by_hand():
    model = program()
    model.theta.data = torch.arange(8.0)
    assert model.utterance(torch.tensor([[5.0, 6.0]])).tolist() == [[5, 6, 2, 3, 4, 5, 6, 7]]  # the series is not covered
    model.groups = torch.tensor([[0, 1], [2, 3]])
    shares = torch.tensor([11.0, 5.0, 9.0, 13.0]).softmax(0)
    expected = [shares[:2].sum().item(), shares[2:].sum().item()]
    assert model(torch.tensor([[5.0, 6.0]])).exp()[0].tolist() == pytest.approx(expected)


def test_the_authors_code_adds_the_waveform_everywhere_and_repeats_the_series():
    model = program(mask=False, segments=2)
    model.theta.data = torch.ones(8)
    assert model.utterance(torch.tensor([[5.0, 6.0]])).tolist() == [[6, 7, 1, 1, 6, 7, 1, 1]]


def test_the_loss_is_the_negative_log_of_the_group_mean_plus_weight_decay():
    x, y, losses = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([0, 1]), []
    options = {"num_steps": 2, "lr": 0.1, "weight_decay": 0.5, "progress": lambda _, loss: losses.append(loss)}
    model = ri.voice2series(Sums(), [(x, y)], length=8, **options)
    start = program()
    assert losses[0] == pytest.approx(-start(x)[[0, 1], y].mean().item())  # theta is zero
    assert losses[1] > 0.5 * 6 * 0.1**2 * 0.9  # Adam's first step moves the six free samples by lr
    assert model.theta[:2].abs().max() == 0


def test_dropout_keeps_the_waveform_in_the_mean_and_out_of_the_answer():
    model = program(dropout=0.5)
    model.theta.data = torch.ones(8)
    assert model.utterance(torch.zeros(1, 2), torch.full((8,), 2.0))[0, 2].item() == 2  # kept samples are scaled by 1 / (1 - 0.5)
    assert model.utterance(torch.zeros(1, 2))[0, 2].item() == 1


def test_the_sliced_wasserstein_distance_sees_shift_and_not_order():
    a = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert sliced_wasserstein(a, a.flip(0)) == 0
    # along a random direction w of length one a shift s moves every value by s . w; in three dimensions the mean of |w_1| is 1/2
    assert sliced_wasserstein(a, a + torch.tensor([4.0, 0, 0]), num_projections=2000) == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_waveform_turns_words_into_machine_states(seed):
    generator = torch.Generator().manual_seed(seed)
    waves, words = speech(600, generator)
    network, order = seeded(seed, lambda: Speech(8)), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(200):
        index = torch.randint(600, (64,), generator=order)
        loss = F.cross_entropy(network(waves[index]), words[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    before = [p.clone() for p in network.parameters()]
    (x, y), (test, states) = machine_noise(100, generator), machine_noise(300, generator)
    data = [(x[:50], y[:50]), (x[50:], y[50:])]
    right = lambda model: (model(test).argmax(1) == states).float().mean().item()  # noqa: E731
    untrained = ri.voice2series(network, data, length=160, num_steps=0)
    trained = ri.voice2series(network, data, length=160)
    assert right(trained) > 0.8 and right(trained) > max(right(untrained), 1 - right(untrained)) + 0.05
    assert all(torch.equal(a, b) for a, b in zip(before, trained.source.parameters()))


def test_bad_input_is_refused():
    data = [(torch.zeros(1, 3), torch.tensor([1]))]
    with pytest.raises(ValueError, match="no batches"):
        ri.voice2series(Sums(), [], length=8)
    with pytest.raises(ValueError, match=r"3 series of shape \(3,\) do not fit into 8"):
        ri.voice2series(Sums(), data, length=8, segments=3)
    with pytest.raises(ValueError, match="more than the 4"):
        ri.voice2series(Sums(), data, length=8, labels_per_class=3)
    with pytest.raises(ValueError, match="one shape"):
        sliced_wasserstein(torch.zeros(2, 1), torch.zeros(3, 1))
