import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.permutation import PermutationSpec, apply_permutation
from reference_impls.core.statistics import gram_matrices
from tests.methods.alignment.helpers import count_recovered, generator, midpoint_barrier, zoo_spec

SPEC = PermutationSpec({"first": ("h", None), "head": (None, "h")}, {"h": 2})


def test_similarity_in_the_metric_of_the_inputs_by_hand():
    # A (1, 0), (2, 9); B (1, 9), (2, 0). Plain products [[1, 2], [83, 4]]: exchange. Sigma = diag(1, 1/100):
    # [[1, 2], [2 + 0.81, 4]]: 1 + 4 > 2 + 2.81, keep
    a = {"first": torch.tensor([[1.0, 0.0], [2.0, 9.0]]), "head": torch.ones(1, 2)}
    b = {"first": torch.tensor([[1.0, 9.0], [2.0, 0.0]]), "head": torch.ones(1, 2)}
    gram = {"first": torch.diag(torch.tensor([1.0, 0.01]))}
    assert ri.covariance_matching(a, b, SPEC, [gram, gram])["h"].tolist() == [0, 1]
    assert ri.covariance_matching(a, b, SPEC, [{}, {}])["h"].tolist() == [1, 0]


def test_a_gram_matrix_times_the_identity_changes_nothing():
    a, b = toy_zoo.independent("mlp", 0).models
    spec = zoo_spec("mlp")
    grams = {key: 3 * torch.eye(v.shape[1]) for key, v in a.items() if v.dim() == 2}
    found, plain = ri.covariance_matching(a, b, spec, [grams, grams]), ri.covariance_matching(a, b, spec, [{}, {}])
    assert all(torch.equal(found[name], plain[name]) for name in found)


@pytest.mark.parametrize("architecture", ["mlp", "residual", "vit"])
def test_a_known_permutation_is_found(architecture):
    family, spec = toy_zoo.independent(architecture, 0), zoo_spec(architecture)
    batches = [(family.task.train[0][:200], None)]
    grams = lambda m: gram_matrices(family.network, m, batches)  # noqa: E731
    match = lambda a, b, seed: ri.covariance_matching(a, b, spec, [grams(a), grams(b)])  # noqa: E731
    assert count_recovered(match, family.models[0], spec, 20) == 20


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_does_not_see_weights_of_inputs_that_never_vary(seed):
    family, spec = toy_zoo.independent("mlp", seed), zoo_spec("mlp")
    network = toy_zoo.MLP((80, *(len(family.models[0][f"layers.{i}.bias"]) for i in range(3)))).eval()
    pad = lambda x: torch.cat([x, torch.zeros(len(x), 16)], dim=1)  # sixteen more inputs, always 0  # noqa: E731
    first = "layers.0.weight"
    a, b = (
        {**m, first: torch.cat([m[first], torch.randn(len(m[first]), 16, generator=generator(10 * seed + i))], dim=1)}
        for i, m in enumerate(family.models)
    )
    (inputs, _), (test_inputs, targets) = family.task.train, family.task.test
    grams = [gram_matrices(network, m, [(pad(inputs), None)]) for m in (a, b)]
    barrier = lambda p: midpoint_barrier(network, a, apply_permutation(spec, p, b), (pad(test_inputs), targets))  # noqa: E731
    informed = barrier(ri.covariance_matching(a, b, spec, grams))
    assert informed < 0.1 * barrier({}) and informed < 0.3 * barrier(ri.weight_matching(a, b, spec))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_residual_networks_it_beats_the_same_passes_without_covariances(seed):
    family, spec = toy_zoo.independent("residual", seed), zoo_spec("residual")
    a, b = family.models
    grams = [gram_matrices(family.network, m, [family.task.train]) for m in (a, b)]
    barrier = lambda p: midpoint_barrier(family.network, a, apply_permutation(spec, p, b), family.task.test)  # noqa: E731
    informed = barrier(ri.covariance_matching(a, b, spec, grams))
    assert informed < barrier(ri.covariance_matching(a, b, spec, [{}, {}])) and informed < 0.1 * barrier({})


def test_bad_input_is_refused():
    a = {"first": torch.ones(2, 3), "head": torch.ones(1, 2)}
    with pytest.raises(ValueError, match="received 1 dicts"):
        ri.covariance_matching(a, a, SPEC, [{}])
    with pytest.raises(ValueError, match=r"\(3, 3\) is needed"):
        ri.covariance_matching(a, a, SPEC, [{"first": torch.eye(2)}, {"first": torch.eye(2)}])
    with pytest.raises(ValueError, match="shape"):
        ri.covariance_matching(a, {**a, "head": torch.ones(2, 2)}, SPEC, [{}, {}])
