import pytest
import torch
from torch import nn
from torch.nn import functional as F

import reference_impls as ri
from reference_impls.reuse.speech_reprogramming import Correction
from tests.methods.reuse.toy_values import speech_encoder


def language(count, generator, units, shift):
    """Spectrograms of 24 frames and 20 bins: each unit lasts 4 frames and has two formants, moved by `shift`."""
    spoken = torch.randint(len(units), (count, 6), generator=generator).repeat_interleave(4, 1)
    formants = units[spoken]
    formants = 0.6 * formants + 0.4 * torch.cat([formants[:, :1], formants[:, :-1]], 1) + shift
    bins = torch.arange(20)
    frames = sum(torch.exp(-((bins - formants[..., k : k + 1]) ** 2) / 3) for k in range(2))
    return frames + 0.25 * torch.randn(count, 24, 20, generator=generator), spoken


def inventory(generator, count):
    return torch.rand(count, 2, generator=generator) * 8 + torch.tensor([1.0, 9.0])


def size(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_a_correction_is_added_to_what_enters_a_layer():
    # One frame (2, -1): down (1, 1) gives 1, ReLU keeps it, up (3, 5): h + R(h) = (5, 4); the layer doubles it.
    encoder = nn.Sequential(nn.Linear(2, 2, bias=False))
    encoder[0].weight.data = 2 * torch.eye(2)
    data = [(torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.long))]
    model = ri.speech_reprogramming(encoder, data, rank=1, layer="linear", num_steps=0)
    model.programs["0"].down.data, model.programs["0"].up.data = torch.tensor([[1.0], [1.0]]), torch.tensor([[3.0, 5.0]])
    assert model.frames(torch.tensor([[[2.0, -1.0]]])).tolist() == [[[10.0, 8.0]]]
    assert model.frames(torch.tensor([[[-2.0, 1.0]]])).tolist() == [[[-4.0, 2.0]]]  # down gives -1: nothing is added


def test_the_convolution_starts_as_the_frame_itself_and_mixes_neighbours_only():
    generator = torch.Generator().manual_seed(0)
    smooth, plain = Correction(3, 2, True, generator), Correction(3, 2, False, torch.Generator().manual_seed(0))
    smooth.up.data = plain.up.data = torch.ones(2, 3)
    x = torch.randn(1, 6, 3, generator=generator)
    assert torch.allclose(smooth(x), plain(x), atol=1e-6)
    smooth.kernel.data = torch.tensor([1.0, 0.0, 0.0]).repeat(3, 1, 1)
    assert torch.allclose(smooth(x)[:, 1:], plain(x)[:, :-1], atol=1e-6)  # each channel sees the frame before


def test_only_the_chosen_places_and_layers_are_trained():
    encoder = speech_encoder(0, 4, 5)
    data = [(torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(18).reshape(3, 6) % 2)]
    model = ri.speech_reprogramming(encoder, data, places=(1,), trainable=(2,), num_steps=3)
    same = [all(torch.equal(a, b) for a, b in zip(x.parameters(), y.parameters())) for x, y in zip(encoder, model.encoder)]
    assert list(model.programs) == ["1"] and same == [True, True, False]


def test_the_loss_is_the_mean_cross_entropy_over_frames():
    encoder, losses = speech_encoder(0, 4, 5), []
    x, y = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(18).reshape(3, 6) % 2
    model = ri.speech_reprogramming(encoder, [(x, y)], num_steps=1, lr=0.0, progress=lambda _, loss: losses.append(loss))
    scores = encoder(x) @ model.readout.T
    assert losses == pytest.approx([-scores.log_softmax(-1).gather(2, y[..., None]).mean().item()])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_beats_a_linear_probe_of_the_frozen_encoder_with_a_sixth_of_the_parameters(seed):
    generator = torch.Generator().manual_seed(seed)
    first, second = inventory(generator, 10), inventory(generator, 8)
    encoder, head = speech_encoder(seed, 20, 24), torch.zeros(10, 24, requires_grad=True)
    x, y = language(400, generator, first, 0.0)
    optimizer = torch.optim.Adam([*encoder.parameters(), head], lr=3e-3)
    for _ in range(250):
        index = torch.randint(400, (32,), generator=generator)
        loss = F.cross_entropy((encoder(x[index]) @ head.T).flatten(0, 1), y[index].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    before = [p.clone() for p in encoder.parameters()]
    (x, y), test = language(40, generator, second, 2.0), language(150, generator, second, 2.0)
    data = [(x[:20], y[:20]), (x[20:], y[20:])]
    right = lambda model: (model(test[0]).argmax(-1) == test[1]).float().mean().item()  # noqa: E731
    probe = ri.speech_reprogramming(encoder, data, places=())
    reprogrammed = ri.speech_reprogramming(encoder, data)
    full = ri.speech_reprogramming(encoder, data, places=(), trainable=(0, 1, 2))
    assert right(reprogrammed) > right(probe) + 0.01 and right(reprogrammed) > right(full) - 0.04
    assert size(reprogrammed) < size(full) / 6
    assert all(torch.equal(a, b) for a, b in zip(before, reprogrammed.encoder.parameters()))


def test_bad_input_is_refused():
    encoder, data = speech_encoder(0, 4, 5), [(torch.zeros(1, 6, 4), torch.zeros(1, 6, dtype=torch.long))]
    with pytest.raises(ValueError, match="no batches"):
        ri.speech_reprogramming(encoder, [])
    with pytest.raises(ValueError, match=r"places \[3\]"):
        ri.speech_reprogramming(encoder, data, places=(3,))
    with pytest.raises(ValueError, match="layer 'attention'"):
        ri.speech_reprogramming(encoder, data, layer="attention")
