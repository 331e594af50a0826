import pytest
import torch

import reference_impls as ri
from reference_impls.alignment.gamf import graduated_assignment
from reference_impls.core import toy_zoo
from reference_impls.core.permutation import PermutationSpec, apply_permutation, permutation_spec, random_permutations
from tests.methods.alignment.helpers import count_recovered, generator, zoo_spec

HIDDEN = PermutationSpec({"first": ("hidden", None), "second": (None, "hidden")}, {"hidden": 2})


def model(first, second):
    return {"first": torch.tensor([[v] for v in first]), "second": torch.tensor([second])}


def mean(models):
    return {k: sum(m[k] for m in models) / len(models) if v.is_floating_point() else v for k, v in models[0].items()}


def test_scores_by_hand():
    # scores of the second model's units: [[1*2 + 5*6, 1 + 25], [4 + 36, 2 + 30]] = [[32, 26], [40, 32]]: exchange, and
    # all units agree
    one, two = model([1.0, 2.0], [5.0, 6.0]), model([2.0, 1.0], [6.0, 5.0])
    assert [p["hidden"].tolist() for p in graduated_assignment([one, two], HIDDEN)] == [[0, 1], [1, 0]]
    # a third model: units (1.3, 5) and (2, 6.3); means (1.1, 5) and (2, 6.1), in the first model's order
    merged = ri.gamf([one, two, model([2.0, 1.3], [6.3, 5.0])], HIDDEN)
    assert merged["first"].flatten().tolist() == pytest.approx([1.1, 2.0])
    assert merged["second"].flatten().tolist() == pytest.approx([5.0, 6.1])


def test_one_model_comes_back():
    trained = toy_zoo.independent("mlp", 0).models[0]
    assert all(torch.equal(ri.gamf([trained], zoo_spec("mlp"))[key], trained[key]) for key in trained)


def test_permuted_copies_meet_in_the_order_of_the_first():
    spec, trained = zoo_spec("residual"), toy_zoo.independent("residual", 0).models[0]
    copies = [apply_permutation(spec, random_permutations(spec, generator(seed)), trained) for seed in range(2)]
    merged = ri.gamf([trained, *copies], spec)
    assert all(torch.allclose(merged[key], trained[key], atol=1e-6) for key in trained)


@pytest.mark.parametrize("architecture", ["mlp", "conv", "residual", "vit"])
def test_a_known_permutation_is_found(architecture):
    spec, trained = zoo_spec(architecture), toy_zoo.independent(architecture, 0).models[0]
    match = lambda a, b, _: graduated_assignment([a, b], spec, temperature=0.1, max_iter=2)[1]  # noqa: E731
    assert count_recovered(match, trained, spec, 5) == 5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_beats_matching_every_model_to_the_first(seed):
    family = toy_zoo.independent("residual", seed, count=3, width=32)
    spec = permutation_spec(family.network, torch.zeros(1, 64))
    first, *others = family.models
    loss = lambda m: toy_zoo.loss(family.network, m, family.task.test).item()  # noqa: E731
    reference = mean([first, *(apply_permutation(spec, ri.weight_matching(first, m, spec), m) for m in others)])
    merged = loss(ri.gamf(family.models, spec))
    assert merged < 0.7 * loss(reference) and merged < 0.3 * loss(mean(family.models))


def test_bad_input_is_refused():
    a = model([1.0, 2.0], [5.0, 6.0])
    with pytest.raises(ValueError, match="received no models"):
        ri.gamf([], HIDDEN)
    with pytest.raises(ValueError, match="decay 1.0"):
        ri.gamf([a, a], HIDDEN, decay=1.0)
    with pytest.raises(ValueError, match="shape"):
        ri.gamf([a, model([1.0], [5.0])], HIDDEN)
