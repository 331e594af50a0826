import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.permutation import PermutationSpec, apply_permutation, check_permutations, permutation_spec
from tests.methods.alignment.helpers import generator, midpoint_barrier, zoo_spec

HIDDEN = PermutationSpec({"first": ("hidden", None)}, {"hidden": 2})
A, B = {"first": torch.tensor([[1.0], [2.0]])}, {"first": torch.tensor([[2.0], [1.0]])}


def distance(model):
    return (model["first"] - A["first"]).square().sum()


def test_barriers_by_hand():
    # L(A) = 0, L(B) = 2; halfway (1.5, 1.5) is at 0.5: barrier 0.5 - 1; exchanged, the average is A: 0 - 1
    found = ri.permutation_search(A, B, HIDDEN, distance, num_steps=5)
    assert (found.start, found.barrier, found.permutations["hidden"].tolist()) == (-0.5, -1.0, [1, 0])


def test_an_exchange_that_raises_the_barrier_is_kept_only_when_hot():
    # from the best order every exchange costs 0.5: at temperature 1e-6 none is kept, at 1e6 nearly all are, e^(-0.5 / 1e6)
    cold = ri.permutation_search(A, A, HIDDEN, distance, num_steps=20, temperature=1e-6, final_temperature=1e-6)
    hot = ri.permutation_search(A, A, HIDDEN, distance, num_steps=20, temperature=1e6, final_temperature=1e6)
    assert cold.accepted == 0 and hot.accepted == 1
    warm = ri.permutation_search(A, A, HIDDEN, distance, num_steps=3000, temperature=0.5, final_temperature=0.5)
    # the barrier rises by 0.5 on every second move, kept with probability e^-1: share 2 e^-1 / (1 + e^-1)
    assert warm.accepted == pytest.approx(2 / (1 + torch.e), abs=0.03)


def test_no_step_reports_the_barrier_as_it_is():
    found = ri.permutation_search(A, B, HIDDEN, distance, num_steps=0)
    assert found.barrier == found.start == -0.5 and found.permutations["hidden"].tolist() == [0, 1]


def test_heads_are_exchanged_as_wholes():
    family, spec = toy_zoo.independent("vit", 0), zoo_spec("vit")
    a, b = family.models
    loss_fn = lambda model: sum((model[k] - a[k]).square().sum() for k in a)  # noqa: E731
    found = ri.permutation_search(a, b, spec, loss_fn, num_steps=200, temperature=1e3, generator=generator(1))
    check_permutations(spec, found.permutations)
    assert any((p != torch.arange(len(p))).any() for p in found.permutations.values())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_lowers_the_barrier_and_matching_a_wide_network_beats_it(seed):
    barriers = {}
    for width in (16, 256):
        family = toy_zoo.independent("mlp", seed, width=width)
        (a, b), (inputs, targets) = family.models, family.task.train
        spec = permutation_spec(family.network, inputs[:2])
        loss_fn = lambda model, f=family, s=(inputs[:200], targets[:200]): toy_zoo.loss(f.network, model, s)  # noqa: E731
        moved = lambda p: apply_permutation(spec, p, b)  # noqa: B023, E731
        barrier = lambda p: midpoint_barrier(family.network, a, moved(p), family.task.test)  # noqa: B023, E731
        found = ri.permutation_search(a, b, spec, loss_fn, num_steps=600)
        barriers[width] = barrier({}), barrier(found.permutations), barrier(ri.weight_matching(a, b, spec))
    assert all(searched < 0.5 * naive for naive, searched, _ in barriers.values())
    assert barriers[256][1] > 2 * barriers[256][2]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="num_steps is -1"):
        ri.permutation_search(A, B, HIDDEN, distance, num_steps=-1)
    with pytest.raises(ValueError, match="temperatures 0"):
        ri.permutation_search(A, B, HIDDEN, distance, temperature=0)
    with pytest.raises(ValueError, match="shape"):
        ri.permutation_search(A, {"first": torch.zeros(3, 1)}, HIDDEN, distance)
