import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.permutation import PermutationSpec, apply_permutation, layer_activations, permutation_spec
from reference_impls.core.permutation import random_permutations
from tests.methods.alignment.helpers import average, generator, midpoint_barrier, zoo_spec

# a stream of two units, written by `embed` and by `branch`, read by `branch` and `head`
STREAM = PermutationSpec(
    {"embed.weight": ("s", None), "branch.weight": ("s", "s"), "head.weight": (None, "s")}, {"s": 2},
    reads=frozenset({("branch.weight", 1), ("head.weight", 1)}),
)  # fmt: skip
X = torch.tensor([[1.0, 0.0], [0.0, 1.0]])


def stream_model(embed, branch, head):
    inner = {"embed.weight": torch.tensor(embed)[:, None], "branch.weight": torch.tensor(branch)}
    return inner | {"head.weight": torch.tensor([head])}


def test_maps_at_a_residual_connection_by_hand():
    # the embedding's units correspond crosswise, the branch's straight: the branch reads crosswise and writes straight;
    # what follows reads with the average of both maps, halves everywhere for skip = 1/2, crosswise for skip = 1
    a = stream_model([0.0, 0.0], [[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0])
    b = stream_model([1.0, 2.0], [[1.0, 2.0], [3.0, 4.0]], [5.0, 7.0])
    of_a, of_b = {"embed": X, "branch": X}, {"embed": X.flip(1), "branch": X}
    fused = ri.transformer_otfusion(a, b, of_a, of_b, STREAM, t=1.0, reg=0.0)
    assert fused["embed.weight"].flatten().tolist() == [2.0, 1.0]
    assert fused["branch.weight"].tolist() == [[2.0, 1.0], [4.0, 3.0]]
    assert fused["head.weight"].tolist() == [[6.0, 6.0]]
    assert ri.transformer_otfusion(a, b, of_a, of_b, STREAM, t=1.0, reg=0.0, skip=1.0)["head.weight"].tolist() == [[7.0, 5.0]]


def test_entropy_is_in_units_of_the_mean_cost():
    # costs [[0, c], [c, 0]] with mean c / 2: the plan is 1 / (1 + e^(-2 / reg)) on the diagonal whatever c is
    spec = PermutationSpec({"first.weight": ("h", None)}, {"h": 2})
    a, b = {"first.weight": torch.zeros(2, 1)}, {"first.weight": torch.tensor([[0.0], [1.0]])}
    share = 1 / (1 + torch.e**-4)
    for scale in (1.0, 100.0):
        fused = ri.transformer_otfusion(a, b, {"first": scale * X}, {"first": scale * X}, spec, t=1.0, reg=0.5)
        assert fused["first.weight"].flatten().tolist() == pytest.approx([1 - share, share], abs=1e-4)


def activations(network, spec, *models, count=100):
    inputs = toy_zoo.digits().train[0][:count]
    return [layer_activations(spec, network, m, inputs) for m in models]


def test_a_permuted_transformer_comes_back_100_of_100():
    family, spec = toy_zoo.independent("vit", 0), zoo_spec("vit")
    a = family.models[0]
    (of_a,) = activations(family.network, spec, a, count=10)
    names = {f"{layer}.weight": next(p for p in spec.axes[f"{layer}.weight"] if p) for layer in of_a}
    for seed in range(100):
        drawn = random_permutations(spec, generator(seed))
        of_b = {layer: z[:, drawn[names[f"{layer}.weight"]]] for layer, z in of_a.items()}
        fused = ri.transformer_otfusion(a, apply_permutation(spec, drawn, a), of_a, of_b, spec, reg=0.0)
        assert all(torch.allclose(fused[key], a[key], atol=1e-6) for key in a)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_soft_maps_lower_the_barrier_more_than_hard_ones(seed):
    family, spec = toy_zoo.independent("vit", seed), zoo_spec("vit")
    a, b = family.models
    of = activations(family.network, spec, a, b)
    barrier = lambda m: midpoint_barrier(family.network, a, b, family.task.test, m)  # noqa: E731
    soft, hard = (barrier(ri.transformer_otfusion(a, b, *of, spec, reg=reg)) for reg in (0.1, 0.0))
    assert soft < 0.9 * hard and soft < 0.7 * barrier(average(a, b))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_widths_may_differ_and_a_few_steps_of_training_show_what_was_kept(seed):
    narrow = toy_zoo.independent("vit", seed, count=1, width=16)
    wide = toy_zoo.independent("vit", seed, count=1)
    spec = permutation_spec(narrow.network, torch.zeros(1, 1, 8, 8))
    (of_narrow,) = activations(narrow.network, spec, narrow.models[0])
    (of_wide,) = activations(wide.network, zoo_spec("vit"), wide.models[0])
    fused = ri.transformer_otfusion(narrow.models[0], wide.models[0], of_narrow, of_wide, spec)
    cut = {key: wide.models[0][key][tuple(slice(n) for n in v.shape)] for key, v in narrow.models[0].items()}
    loss = lambda m: toy_zoo.loss(narrow.network, m, narrow.task.test).item()  # noqa: E731

    def tune(m):
        return toy_zoo.train(narrow.network, m, narrow.task.train, num_steps=30, lr=3e-3, generator=generator(0))

    assert loss(fused) > 1.5  # without training the fused network is next to useless, unlike equal widths
    assert loss(tune(fused)) < 0.75 * loss(tune(average(narrow.models[0], cut)))


def test_bad_input_is_refused():
    a = stream_model([0.0, 0.0], [[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0])
    z = {"embed": X, "branch": X}
    with pytest.raises(ValueError, match="skip is 2"):
        ri.transformer_otfusion(a, a, z, z, STREAM, skip=2)
    with pytest.raises(ValueError, match="before any layer with activations has written them"):
        ri.transformer_otfusion(a, a, {}, {}, STREAM)
    with pytest.raises(ValueError, match="activations_b need 2 samples of layer 'branch'"):
        ri.transformer_otfusion(a, a, z, {"embed": X, "branch": X[:1]}, STREAM)
    with pytest.raises(ValueError, match="inputs and outputs must agree"):
        ri.transformer_otfusion(a, {**a, "head.weight": torch.zeros(3, 2)}, z, z, STREAM)
