import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.permutation import PermutationSpec, apply_permutation, permutation_spec
from tests.methods.alignment.helpers import count_recovered, generator, midpoint_barrier, zoo_spec

HIDDEN = PermutationSpec({"first": ("hidden", None), "second": (None, "hidden")}, {"hidden": 2})


def model(first, second):
    return {"first": torch.tensor([[v] for v in first]), "second": torch.tensor([second])}


def agreement(spec, a, b):
    return sum((a[k].double() * b[k].double()).sum().item() for k in a if k not in spec.buffers)


def test_gradient_of_two_units_by_hand():
    # with one layer f is linear, its gradient S = [[1*2 + 5*6, 1 + 25], [4 + 36, 2 + 30]] = [[32, 26], [40, 32]]: 26 +
    # 40 > 32 + 32
    a, b = model([1.0, 2.0], [5.0, 6.0]), model([2.0, 1.0], [6.0, 5.0])
    assert ri.frank_wolfe_matching(a, b, HIDDEN)["hidden"].tolist() == [1, 0]
    assert ri.frank_wolfe_matching(a, a, HIDDEN)["hidden"].tolist() == [0, 1]


def test_two_layers_move_at_once():
    # f of the four choices (P, Q), with W = [[1, 0], [0, 3]] in A and both its axes exchanged in B: keeping or
    # exchanging both gives 1*3 + 3*1 = 6 or 1*1 + 3*3 = 10, one of them 0: coordinate descent from the identity cannot
    # leave 6, Frank-Wolfe from the middle can
    spec = PermutationSpec({"w": ("p", "q")}, {"p": 2, "q": 2})
    a, b = {"w": torch.tensor([[1.0, 0.0], [0.0, 3.0]])}, {"w": torch.tensor([[3.0, 0.0], [0.0, 1.0]])}
    stuck = ri.weight_matching(a, b, spec)
    assert agreement(spec, a, apply_permutation(spec, stuck, b)) == 6
    found = ri.frank_wolfe_matching(a, b, spec, start="random", generator=generator(1))
    assert agreement(spec, a, apply_permutation(spec, found, b)) == 10


def test_no_step_is_the_start():
    a, b = toy_zoo.independent("mlp", 0).models
    found = ri.frank_wolfe_matching(a, b, zoo_spec("mlp"), max_iter=0)
    assert all(torch.equal(p, torch.arange(len(p))) for p in found.values())


@pytest.mark.parametrize("architecture", ["mlp", "conv", "residual", "vit"])
def test_a_known_permutation_is_found_100_of_100(architecture):
    spec, trained = zoo_spec(architecture), toy_zoo.independent(architecture, 0).models[0]
    assert count_recovered(lambda a, b, seed: ri.frank_wolfe_matching(a, b, spec), trained, spec) == 100


def test_it_recovers_the_deep_residual_network_on_which_coordinate_descent_can_fail():
    network = toy_zoo.ResidualNet(32, 32, 12, inputs=4, num_classes=2)
    spec = permutation_spec(network, torch.zeros(1, 4))
    make = lambda seed: toy_zoo.initialise(network, generator(seed))  # noqa: E731
    count = lambda match: count_recovered(match, None, spec, 30, make=make)  # noqa: E731
    assert count(lambda a, b, _: ri.frank_wolfe_matching(a, b, spec)) == 30
    assert count(lambda a, b, seed: ri.weight_matching(a, b, spec, generator=generator(seed))) < 28


def test_it_agrees_more_than_coordinate_descent_on_the_residual_network_and_lowers_the_barrier():
    # the mean of coordinate descent over five orders of the layers is 0.3 to 2.6 less than 78 to 84 (eight seeds: 1.5,
    # spread 0.75); a single order can be lucky and come 0.7 above. The barrier is at most 0.08 of that of the models as
    # they are
    spec, more, barriers = zoo_spec("residual"), [], []
    for seed in range(3):
        family = toy_zoo.independent("residual", seed)
        a, b = family.models
        moved = lambda permutations: apply_permutation(spec, permutations, b)  # noqa: B023, E731
        aligned = moved(ri.frank_wolfe_matching(a, b, spec))
        descended = [agreement(spec, a, moved(ri.weight_matching(a, b, spec, generator=generator(order)))) for order in range(5)]
        more.append(agreement(spec, a, aligned) - sum(descended) / 5)
        barriers.append([midpoint_barrier(family.network, a, end, family.task.test) for end in (aligned, b)])
    assert sum(more) / 3 > 1
    after, before = (sum(column) for column in zip(*barriers))
    assert after < 0.1 * before


def test_bad_input_is_refused():
    a = model([1.0, 2.0], [5.0, 6.0])
    with pytest.raises(ValueError, match="start is 'warm'"):
        ri.frank_wolfe_matching(a, a, HIDDEN, start="warm")
    with pytest.raises(ValueError, match="tol -1"):
        ri.frank_wolfe_matching(a, a, HIDDEN, tol=-1)
    with pytest.raises(ValueError, match="shape"):
        ri.frank_wolfe_matching(a, model([1.0], [5.0]), HIDDEN)
