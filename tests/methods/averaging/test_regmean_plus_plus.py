import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.statistics import gram_matrices


def two_layers():
    return nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))


def model(first, second):
    return {"0.weight": torch.tensor([[first]]), "1.weight": torch.tensor([[second]])}


def batch(*inputs):
    return [(torch.tensor([[x] for x in inputs]), torch.zeros(len(inputs)))]


def test_the_second_layer_sees_the_merged_first_by_hand():
    # first layer: inputs 1 and 2, Gram 1 and 4: (1 * 1 + 4 * 3) / 5 = 2.6
    # second layer behind it: inputs 2.6 and 5.2, Gram 6.76 and 27.04: (6.76 * 10 + 27.04 * 0) / 33.8 = 2
    # RegMean: inputs 1 and 6 in the single models, Gram 1 and 36: 10 / 37
    models, data = [model(1.0, 10.0), model(3.0, 0.0)], [batch(1.0), batch(2.0)]
    merged = ri.regmean_plus_plus(two_layers(), models, data)
    assert [t.item() for t in merged.values()] == pytest.approx([2.6, 2.0])
    grams = [gram_matrices(two_layers(), m, d) for m, d in zip(models, data)]
    assert [t.item() for t in ri.regmean(models, grams).values()] == pytest.approx([2.6, 10 / 37])


def test_one_block_of_everything_is_regmean():
    network = nn.Sequential(two_layers())
    models = [{f"0.{key}": t for key, t in m.items()} for m in (model(1.0, 10.0), model(3.0, 0.0))]
    data = [batch(1.0), batch(2.0)]
    grams = [gram_matrices(network, m, d) for m, d in zip(models, data)]
    whole = ri.regmean_plus_plus(network, models, data, blocks=["0"], alpha=0.9)
    each = ri.regmean_plus_plus(network, models, data, blocks=["0.0", "0.1"])
    assert [t.item() for t in whole.values()] == pytest.approx([t.item() for t in ri.regmean(models, grams).values()])
    assert each["0.1.weight"].item() == pytest.approx(2.0)


def test_equal_models_come_back_and_one_layer_is_regmean():
    same = model(2.0, -3.0)
    merged = ri.regmean_plus_plus(two_layers(), [same, same], [batch(1.0, -2.0), batch(3.0)])
    assert [t.item() for t in merged.values()] == pytest.approx([2.0, -3.0])
    network = nn.Linear(3, 2)
    g = torch.Generator().manual_seed(0)
    models = [{"weight": torch.randn(2, 3, generator=g), "bias": torch.randn(2, generator=g)} for _ in range(2)]
    data = [[(torch.randn(8, 3, generator=g), torch.zeros(8))] for _ in range(2)]
    grams = [gram_matrices(network, m, d) for m, d in zip(models, data)]
    merged, regmean = ri.regmean_plus_plus(network, models, data), ri.regmean(models, grams, alpha=0.95)
    assert all(torch.allclose(merged[key], regmean[key], atol=1e-6) for key in regmean)


def test_order_of_tasks_does_not_matter():
    models, data = [model(1.0, 10.0), model(3.0, 0.0)], [batch(1.0, 5.0), batch(2.0)]
    merged = ri.regmean_plus_plus(two_layers(), models, data)
    turned = ri.regmean_plus_plus(two_layers(), models[::-1], data[::-1])
    assert [t.item() for t in merged.values()] == pytest.approx([t.item() for t in turned.values()])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_later_layers_fitted_to_the_merged_ones_beat_regmean(seed):
    family = toy_zoo.multitask("mlp", seed, num_tasks=4)
    data = [[task.train] for task in family.tasks]
    grams = [gram_matrices(family.network, m, d) for m, d in zip(family.finetuned, data)]
    accuracy = lambda m: toy_zoo.mean_accuracy(family.network, m, family.tasks)  # noqa: E731
    for alpha, margin in ((0.95, 0.004), (1.0, 0.01)):  # measured: 0.6 to 1.7 and 1.5 to 1.9 points
        ours = accuracy(ri.regmean_plus_plus(family.network, family.finetuned, data, alpha=alpha))
        assert ours > accuracy(ri.regmean(family.finetuned, grams, alpha=alpha)) + margin
    assert ours > accuracy(ri.uniform_soup(family.finetuned)) + 0.3


def test_bad_input_is_refused():
    models = [model(1.0, 10.0), model(3.0, 0.0)]
    with pytest.raises(ValueError, match="1 tasks for 2 models"):
        ri.regmean_plus_plus(two_layers(), models, [batch(1.0)])
    with pytest.raises(ValueError, match=r"no modules \['2'\]"):
        ri.regmean_plus_plus(two_layers(), models, [batch(1.0)] * 2, blocks=["0", "2"])
    with pytest.raises(ValueError, match="alpha is 2"):
        ri.regmean_plus_plus(two_layers(), models, [batch(1.0)] * 2, alpha=2)
