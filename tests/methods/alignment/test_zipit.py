import pytest
import torch

import reference_impls as ri
from reference_impls.alignment.zipit import partial_zipit, zip_units
from reference_impls.core import toy_zoo
from reference_impls.core.permutation import PermutationSpec, apply_permutation, random_permutations, unit_activations
from tests.methods.alignment.helpers import average, generator, zoo_spec

SPEC = PermutationSpec({"first": ("h", None), "head": (None, "h")}, {"h": 2})


def model(first, head):
    return {"first": torch.tensor(first)[:, None], "head": torch.tensor([head])}


def groups(u):
    return [tuple(column.nonzero().flatten().tolist()) for column in u.T]


def symmetric(pairs):
    correlation = torch.eye(4)
    for (i, j), value in pairs.items():
        correlation[i, j] = correlation[j, i] = value
    return correlation


def test_greedy_groups_by_hand():
    # units 0, 1 of A and 2, 3 of B; 0 and 1 agree most (0.9), then 2 and 3 (0.8)
    correlation = symmetric({(0, 1): 0.9, (2, 3): 0.8, (0, 2): 0.7, (1, 3): 0.1, (0, 3): 0.2, (1, 2): 0.3})
    assert groups(zip_units(correlation, within=1.0)) == [(0, 1), (2, 3)]
    # without a budget for pairs within: 0 and 2 (0.7), then 1 and 3
    assert groups(zip_units(correlation, within=0.0)) == [(0, 2), (1, 3)]


def test_greedy_pairs_need_not_be_the_best_ones():
    correlation = symmetric({(0, 1): 0.9, (0, 2): 0.8, (1, 3): 0.7, (2, 3): 0.1, (0, 3): 0.0, (1, 2): 0.0})
    pairs = groups(zip_units(correlation, repeat=0.0, within=1.0))
    assert pairs == [(0, 1), (2, 3)]
    total = lambda pairs: sum(correlation[pair].item() for pair in pairs)  # noqa: E731
    assert total(pairs) == pytest.approx(1.0) and total([(0, 2), (1, 3)]) == pytest.approx(1.5)  # the best of the three matchings


def test_repeat_holds_groups_back():
    # 0 and 1 merge first (0.9); with 2 the group correlates min(0.8, 0.7) = 0.7 > 0.6 of 2 and 3, but 0.3 * 0.7 < 0.6
    correlation = symmetric({(0, 1): 0.9, (0, 2): 0.8, (1, 2): 0.7, (2, 3): 0.6})
    assert groups(zip_units(correlation, repeat=1.0, within=1.0)) == [(0, 1, 2), (3,)]
    assert groups(zip_units(correlation, repeat=0.3, within=1.0)) == [(0, 1), (2, 3)]


def test_merged_weights_by_hand():
    # A's units 0 and 1 fire together, B's too: incoming weights (1 + 3) / 2 and (5 + 7) / 2; the next layer reads the
    # group in place of either: 1 + 2 and 3 + 4, and the output is the average of both models': halves of them
    one, two = torch.tensor([[1.0, 1.0], [0.0, 0.0], [2.0, 2.0]]), torch.tensor([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]])
    merged = ri.zipit(model([1.0, 3.0], [1.0, 2.0]), model([5.0, 7.0], [3.0, 4.0]), {"h": one}, {"h": two}, SPEC, within=1.0)
    assert merged["first"].flatten().tolist() == [2.0, 6.0] and merged["head"].flatten().tolist() == [1.5, 3.5]
    # partial: the trunk is the same, each head is its own
    args = (model([1.0, 3.0], [1.0, 2.0]), model([5.0, 7.0], [3.0, 4.0]), {"h": one}, {"h": two}, SPEC)
    with_a, with_b = partial_zipit(*args, zipped=["h"], within=1.0)
    assert torch.equal(with_a["head"], with_b["head"])  # everything zipped: one model


@pytest.mark.parametrize("architecture", ["mlp", "conv"])
def test_a_model_zipped_with_its_permuted_copy_comes_back(architecture):
    family, spec = toy_zoo.independent(architecture, 0), zoo_spec(architecture)
    a, inputs = family.models[0], family.task.train[0][:300]
    b = apply_permutation(spec, random_permutations(spec, generator(0)), a)
    of_a, of_b = (unit_activations(spec, family.network, m, inputs, written=True) for m in (a, b))
    merged = ri.zipit(a, b, of_a, of_b, spec, within=0.0)
    assert all(torch.allclose(merged[key], a[key], atol=1e-4) for key in a)


def split_family(architecture, seed):
    family, spec = toy_zoo.split_classes(architecture, seed), zoo_spec(architecture)
    inputs = family.task.train[0]
    activations = [unit_activations(spec, family.network, m, inputs[:600]) for m in family.models]
    renew = lambda m: ri.repair(family.network, m, m, spec, [(inputs, None)])  # noqa: E731
    return family, spec, activations, lambda m, split: toy_zoo.accuracy(family.network, renew(m), split)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("architecture", ["mlp", "conv"])
def test_it_beats_permutation_on_models_of_disjoint_classes(architecture, seed):
    family, spec, activations, accuracy = split_family(architecture, seed)
    a, b = family.models
    permuted = apply_permutation(spec, ri.activation_matching(*activations, spec, similarity="correlation"), b)
    zipped = accuracy(ri.zipit(a, b, *activations, spec, repeat=0.1, within=1.0), family.task.test)
    assert zipped > accuracy(average(a, permuted), family.task.test) + 0.1 > accuracy(average(a, b), family.task.test) + 0.1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_heads_on_the_first_layers_keep_both_tasks(seed):
    family, spec, activations, accuracy = split_family("conv", seed)
    heads = partial_zipit(*family.models, *activations, spec, zipped=["conv1", "conv2"])
    assert all(torch.equal(heads[0][key], heads[1][key]) for key in ("conv1.weight", "norm2.bias", "conv2.weight"))
    assert not torch.equal(heads[0]["conv3.weight"], heads[1]["conv3.weight"])
    full = ri.zipit(*family.models, *activations, spec)
    mean = lambda models: sum(accuracy(m, t.test) for m, t in zip(models, family.tasks)) / 2  # noqa: E731
    assert mean(heads) > 0.85 > mean([full, full]) + 0.1


def test_bad_input_is_refused():
    a, x = model([1.0, 2.0], [3.0, 4.0]), {"h": torch.zeros(3, 2)}
    with pytest.raises(ValueError, match="within 2"):
        ri.zipit(a, a, x, x, SPEC, within=2)
    with pytest.raises(ValueError, match=r"activations of 'h' must be \(samples, 2\) for both models"):
        ri.zipit(a, a, x, {"h": torch.zeros(3, 1)}, SPEC)
    with pytest.raises(ValueError, match="attention heads"):
        ri.zipit(a, a, x, x, PermutationSpec(SPEC.axes, SPEC.sizes, blocks={("h",): 2}))
    spec = zoo_spec("mlp")
    trained = toy_zoo.independent("mlp", 0).models[0]
    with pytest.raises(ValueError, match="which is not zipped; zip from the input on"):
        partial_zipit(trained, trained, {}, {}, spec, zipped=["layers.1"])
