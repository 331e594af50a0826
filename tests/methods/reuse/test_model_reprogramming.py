import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import reference_impls as ri
from reference_impls.core import toy_zoo


class Linear(nn.Module):
    """A frozen source model: logits W x, any input shape."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, inputs):
        return F.linear(inputs.flatten(1), self.weight)


def toy_source():
    return Linear([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]])


def trained(output="random", num_steps=0, **options):
    data = [(torch.tensor([[0.0], [2.0]]), torch.tensor([0, 1]))]
    return ri.model_reprogramming(toy_source(), data, frame=(3,), output=output, num_steps=num_steps, **options)


def test_padding_pattern_and_many_to_one_mapping_by_hand():
    model = trained()
    model.pattern.data = torch.tensor([1.0, 9.0, -1.0])  # the middle is masked: the target input stands there
    assert model.source_input(torch.tensor([[2.0]])).tolist() == [[1.0, 2.0, -1.0]]
    model.groups = torch.tensor([[0, 3], [1, 2]])
    h = torch.tensor([1.0, 2.0, -1.0, 2.0]).softmax(0)  # logits x_1, x_2, x_3 and their sum
    assert model(torch.tensor([[2.0]])).exp()[0].tolist() == pytest.approx([(h[0] + h[3]).item(), (h[1] + h[2]).item()])


def test_unequal_use_of_labels_is_averaged_and_normalised():
    model = trained(labels_per_class=1)
    model.groups = torch.tensor([[3], [0]])
    h = torch.tensor([0.0, 2.0, 0.0, 2.0]).softmax(0)
    share = (h[3] / (h[3] + h[0])).item()
    assert model(torch.tensor([[2.0]])).exp()[0].tolist() == pytest.approx([share, 1 - share])


def test_an_image_stands_in_the_middle_of_the_frame():
    data = [(torch.ones(1, 1, 2, 3), torch.tensor([0]))]
    model = ri.model_reprogramming(Linear([[1.0] * 20] * 2), data, frame=(1, 4, 5), num_steps=0)
    model.pattern.data.fill_(7.0)
    assert model.source_input(data[0][0])[0, 0].tolist() == [[7.0] * 5, [7.0, 1, 1, 1, 7], [7.0, 1, 1, 1, 7], [7.0] * 5]


def test_without_a_frame_the_pattern_covers_the_input_and_starts_as_the_source_model():
    data = [(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1, 0]))]
    model = ri.model_reprogramming(toy_source(), data, num_steps=0)
    assert model.mask.tolist() == [1, 1, 1] and torch.equal(model.source_logits(data[0][0]), toy_source()(data[0][0]))


def test_frequency_groups_follow_the_source_models_answers():
    # Logits (0, 0, 0, 0) for the input of class 0 and (0, 2, 0, 2) for that of class 1; the first of equals is the answer.
    model = trained("frequency", labels_per_class=1)
    assert model.groups.tolist() == [[0], [1]]


def test_random_groups_are_disjoint_and_follow_the_generator():
    draw = lambda seed: trained(generator=torch.Generator().manual_seed(seed)).groups  # noqa: E731
    assert sorted(draw(0).flatten().tolist()) == [0, 1, 2, 3]
    assert torch.equal(draw(1), draw(1)) and any(not torch.equal(draw(0), draw(s)) for s in range(1, 6))


def test_the_loss_is_the_mean_negative_log_likelihood():
    losses = []
    model = trained(num_steps=1, progress=lambda _, loss: losses.append(loss), lr=0.0)
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([0, 1])
    assert losses == pytest.approx([-(model(x)[0, y[0]] + model(x)[1, y[1]]).item() / 2])


def linear_probe(features, task):
    """Test accuracy of logistic regression on frozen, standardised features."""
    x = features(task.train[0])
    mean, std = x.mean(0), x.std(0) + 1e-6
    read = lambda inputs: F.pad((features(inputs) - mean) / std, (0, 1), value=1.0)  # noqa: E731
    weight = torch.zeros(x.shape[1] + 1, 10, requires_grad=True)
    optimizer, x = torch.optim.Adam([weight], lr=0.05), read(task.train[0])
    for _ in range(300):
        loss = F.cross_entropy(x @ weight, task.train[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return ((read(task.test[0]) @ weight).argmax(1) == task.test[1]).float().mean().item()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("transform, options", [
    ("invert", {"program": "additive", "output": "dense"}),
    ("rotate90", {"program": "affine", "output": "frequency", "lr": 0.01}),
])  # fmt: skip
def test_it_beats_a_linear_probe_of_the_frozen_source(transform, options, seed):
    family, task = toy_zoo.independent("mlp", seed, count=1, width=32), toy_zoo.digits(transform, flat=True)
    network = copy.deepcopy(family.network)
    network.load_state_dict(family.models[0])

    @torch.no_grad()
    def features(inputs):
        for layer in network.layers[:-1]:
            inputs = layer(inputs).relu()
        return inputs

    data = toy_zoo.batches(task.train, 100, torch.Generator().manual_seed(seed))
    model = ri.model_reprogramming(network, data, num_steps=300, **options)
    accuracy = (model(task.test[0]).argmax(1) == task.test[1]).float().mean().item()
    assert accuracy > linear_probe(features, task) + 0.02
    assert all(torch.equal(a, b) for a, b in zip(model.source.state_dict().values(), family.models[0].values()))


def test_bad_input_is_refused():
    data = [(torch.zeros(1, 3), torch.tensor([1]))]
    with pytest.raises(ValueError, match="no batches"):
        ri.model_reprogramming(toy_source(), [])
    with pytest.raises(ValueError, match=r"frame \(2,\) cannot hold inputs of shape \(3,\)"):
        ri.model_reprogramming(toy_source(), data, frame=(2,))
    with pytest.raises(ValueError, match="more than the 4"):
        ri.model_reprogramming(toy_source(), data, labels_per_class=3)
    with pytest.raises(ValueError, match="program is 'gamma'"):
        ri.model_reprogramming(toy_source(), data, program="gamma")
