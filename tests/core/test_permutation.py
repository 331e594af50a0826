import pytest
import torch
from torch import nn

from reference_impls.core import toy_zoo
from reference_impls.core.permutation import PermutationSpec, apply_permutation, as_matrices, compose, identity, invert
from reference_impls.core.permutation import match_units, permutation_spec, random_permutations, solve_assignment, transform
from reference_impls.core.permutation import unit_activations, unit_similarity


class FlattenedConvNet(nn.Module):
    """What the zoo lacks: pooling, a flatten after a convolution, depthwise convolution and group normalisation."""

    def __init__(self):
        super().__init__()
        self.conv1, self.depthwise = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm, self.conv2 = nn.GroupNorm(2, 6), nn.Conv2d(6, 5, 3, padding=1)
        self.pool, self.head = nn.MaxPool2d(2), nn.Linear(5 * 4, 3)

    def forward(self, x):
        x = self.pool(torch.relu(self.norm(self.depthwise(self.conv1(x)))))
        return self.head(self.pool(torch.relu(self.conv2(x))).flatten(1))


def tokens(count):
    return torch.randint(0, count, (3, 9), generator=torch.Generator().manual_seed(0))


def images(*shape):
    return torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))


CASES = {
    "mlp": lambda: (toy_zoo.build("mlp"), images(64)),
    "conv": lambda: (toy_zoo.build("conv"), images(1, 8, 8)),
    "residual": lambda: (toy_zoo.build("residual"), images(64)),
    "vit": lambda: (toy_zoo.build("vit"), images(1, 8, 8)),
    "language model": lambda: (toy_zoo.CharLM(11), tokens(11)),
    "tied language model": lambda: (toy_zoo.CharLM(11, tied=True), tokens(11)),
    "flattened": lambda: (FlattenedConvNet(), images(1, 8, 8)),
}


def drawn_model(network, seed=0):
    """No two units alike: norms and biases are drawn too, running statistics included."""
    state_dict = toy_zoo.initialise(network, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    for tensor in state_dict.values():
        if tensor.is_floating_point() and tensor.dim() == 1:
            tensor.add_(torch.rand(tensor.shape, generator=generator))
    return state_dict


def relative_change(network, a, b, inputs):
    before, after = (toy_zoo.logits(network.double(), {k: v.double() if v.is_floating_point() else v for k, v in sd.items()},
                     inputs.double() if inputs.is_floating_point() else inputs) for sd in (a, b))  # fmt: skip
    return ((before - after).abs().max() / before.abs().max()).item()


@pytest.mark.parametrize("case", CASES)
def test_permuted_network_computes_the_same_function_and_the_inverse_gives_back_the_bits(case):
    network, inputs = CASES[case]()
    spec, model = permutation_spec(network, inputs), drawn_model(network)
    for seed in range(3):
        permutations = random_permutations(spec, torch.Generator().manual_seed(seed))
        permuted = apply_permutation(spec, permutations, model)
        moved = [key for key, axes in spec.axes.items() if any(axes)]
        assert all(not torch.equal(permuted[key], model[key]) for key in moved)
        assert relative_change(network, model, permuted, inputs) < 1e-12
        back = apply_permutation(spec, invert(permutations), permuted)
        assert list(back) == list(model) and all(torch.equal(back[key], model[key]) for key in model)


def test_every_hidden_axis_of_the_zoo_is_found_and_no_input_or_output_is():
    spec = permutation_spec(*CASES["conv"]())
    assert spec.axes["conv1.weight"] == ("conv1", None, None, None) and spec.axes["conv2.weight"][:2] == ("conv2", "conv1")
    assert spec.axes["norm1.running_mean"] == spec.axes["norm1.running_var"] == spec.axes["norm1.bias"] == ("conv1",)
    assert spec.axes["norm1.num_batches_tracked"] == () and spec.axes["head.weight"] == (None, "conv3")
    assert spec.buffers >= {"norm1.running_mean", "norm1.running_var"}

    spec = permutation_spec(*CASES["residual"]())
    assert spec.axes["blocks.1.contract.weight"] == ("embed", "blocks.1.expand") and spec.axes["head.weight"] == (None, "embed")
    assert ("head.weight", 1) in spec.reads and ("embed.weight", 0) not in spec.reads

    spec = permutation_spec(*CASES["vit"]())
    q, v = "blocks.0.attention.q", "blocks.0.attention.v"
    assert spec.axes[f"{q}.weight"] == spec.axes["blocks.0.attention.k.weight"] == (q, "embed")
    assert spec.axes["blocks.0.attention.out.weight"] == ("embed", v) and spec.axes["position.weight"] == (None, "embed")
    assert spec.blocks[q, v] == 2 and (q, v) in spec.coordinates()

    spec = permutation_spec(*CASES["flattened"]())
    assert spec.repeats == {("head.weight", 1): 4} and spec.axes["depthwise.weight"][0] == spec.axes["conv1.weight"][0] == "conv1"
    assert spec.blocks == {("conv1",): 2}  # group normalisation: whole groups, and channels within a group


def test_tied_weights_stay_tied():
    network, inputs = CASES["tied language model"]()
    spec, model = permutation_spec(network, inputs), drawn_model(network)
    permuted = apply_permutation(spec, random_permutations(spec, torch.Generator().manual_seed(0)), model)
    assert spec.axes["head.weight"] == spec.axes["embed.weight"] == (None, "embed")
    assert permuted["head.weight"].data_ptr() == permuted["embed.weight"].data_ptr() != model["embed.weight"].data_ptr()


def test_what_the_tracer_does_not_know_is_held_in_place():
    class Rolled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.third(torch.relu(self.second(torch.relu(self.first(x)).roll(1, -1))))

    spec = permutation_spec(Rolled(), torch.zeros(1, 3))
    assert spec.axes["first.weight"] == (None, None) and spec.axes["second.weight"] == ("second", None)


def test_algebra_of_permutations():
    spec = permutation_spec(*CASES["vit"]())
    p, q = (random_permutations(spec, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    model = drawn_model(toy_zoo.build("vit"))
    one_by_one = apply_permutation(spec, q, apply_permutation(spec, p, model))
    at_once = apply_permutation(spec, compose(q, p), model)
    assert all(torch.equal(one_by_one[key], at_once[key]) for key in model)
    assert all(torch.equal(compose(invert(p), p)[name], i) for name, i in identity(spec).items())
    by_matrix = transform(spec, as_matrices(p), "blocks.0.attention.q.weight", model["blocks.0.attention.q.weight"].double())
    assert torch.equal(by_matrix.float(), apply_permutation(spec, p, model)["blocks.0.attention.q.weight"])


def test_random_permutations_move_whole_heads():
    spec = PermutationSpec({"q": ("q",), "v": ("v",)}, {"q": 6, "v": 4}, blocks={("q", "v"): 2})
    orders = set()
    for seed in range(20):
        drawn = random_permutations(spec, torch.Generator().manual_seed(seed))
        orders.add((drawn["q"][0].item() // 3, drawn["v"][0].item() // 2))
        assert sorted(drawn["q"][:3].tolist()) in ([0, 1, 2], [3, 4, 5])
    assert orders == {(0, 0), (1, 1)}  # the two move alike


def test_assignment_and_matching_of_blocks_by_hand():
    # identity 4 + 1 = 5, exchange 3 + 3 = 6
    assert solve_assignment(torch.tensor([[4.0, 3.0], [3.0, 1.0]])).tolist() == [1, 0]
    # two blocks of two: block 0 with block 0 is worth 1 + 1, with block 1 it is worth 5 (exchanged within); 5 + 2 > 2 + 0
    similarity = torch.tensor([[1.0, 0, 0, 3], [0, 1, 2, 0], [2, 0, 0, 0], [0, 0, 0, 0]])
    spec = PermutationSpec({"w": ("w",)}, {"w": 4}, blocks={("w",): 2})
    assert match_units(spec, {"w": similarity}, ("w",))["w"].tolist()[:2] == [3, 2]


def test_similarity_counts_every_weight_of_a_unit_but_no_running_statistics():
    spec = PermutationSpec({"w": ("h", None), "v": (None, "h"), "mean": ("h",)}, {"h": 2}, buffers=frozenset({"mean"}))
    a = {"w": torch.tensor([[1.0], [2.0]]), "v": torch.tensor([[5.0, 6.0]]), "mean": torch.tensor([100.0, 0.0])}
    b = {"w": torch.tensor([[2.0], [1.0]]), "v": torch.tensor([[6.0, 5.0]]), "mean": torch.tensor([100.0, 0.0])}
    # unit i of a with unit j of b: w_i w_j + v_i v_j
    assert unit_similarity(spec, "h", a, b, {}).tolist() == [[2 + 30, 1 + 25], [4 + 36, 2 + 30]]


@pytest.mark.parametrize("case", CASES)
def test_activations_are_permuted_like_the_units(case):
    network, inputs = CASES[case]()
    spec, model = permutation_spec(network, inputs), drawn_model(network)
    permutations = random_permutations(spec, torch.Generator().manual_seed(0))
    for written in (False, True):
        before = unit_activations(spec, network, model, inputs, written=written)
        after = unit_activations(spec, network, apply_permutation(spec, permutations, model), inputs, written=written)
        for name, index in permutations.items():
            assert torch.allclose(after[name], before[name][:, index], atol=1e-3), name


def test_bad_input_is_refused():
    network, inputs = CASES["mlp"]()
    spec, model = permutation_spec(network, inputs), drawn_model(network)
    with pytest.raises(ValueError, match="missing \\['layers.0.bias'\\]"):
        apply_permutation(spec, {}, {k: v for k, v in model.items() if k != "layers.0.bias"})
    with pytest.raises(ValueError, match="has 3 entries on axis 0; permutation 'layers.0' needs"):
        apply_permutation(spec, {}, {**model, "layers.0.bias": torch.zeros(3)})
    with pytest.raises(ValueError, match="no permutation of"):
        apply_permutation(spec, {"layers.1": torch.zeros(spec.sizes["layers.1"], dtype=torch.int64)}, model)
    with pytest.raises(ValueError, match="has no permutation 'layers.9'"):
        apply_permutation(spec, {"layers.9": torch.arange(3)}, model)
    with pytest.raises(ValueError, match="have no size"):
        PermutationSpec({"w": ("hidden",)}, {})
    heads = PermutationSpec({"w": ("w",)}, {"w": 4}, blocks={("w",): 2})
    with pytest.raises(ValueError, match="tears its 2 blocks apart"):
        apply_permutation(heads, {"w": torch.tensor([0, 2, 1, 3])}, {"w": torch.zeros(4)})

    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match="torch.fx cannot trace Branching"):
        permutation_spec(Branching(), torch.zeros(1))
