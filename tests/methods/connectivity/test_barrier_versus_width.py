import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def network(incoming, outgoing):
    return {"layers.0.weight": torch.tensor(incoming), "layers.1.weight": torch.tensor([outgoing])}


def total(model):
    return (model["layers.1.weight"] @ model["layers.0.weight"]).sum().square()


def test_matching_distance_and_barriers_by_hand():
    # neurons of A: (3, 0), (0, 1); of B: (0, 2), (4, 0): matched crosswise, squared distances 1 and 1
    a, b = network([[3.0, 0.0], [0.0, 1.0]], [1.0, 0.0]), network([[0.0, 2.0], [4.0, 0.0]], [0.0, 1.0])
    result = ri.barrier_versus_width([(a, b)], total, num_points=3)
    assert result.widths.tolist() == [2] and result.distance.item() == pytest.approx(1)
    # outputs 3 and 4: losses 9 and 16, line 12.5. Unmatched middle: (1/2, 1/2) times rows (3/2, 1), (2, 1/2): 2.5,
    # loss 6.25: no rise
    # matched middle: (1, 0) times (7/2, 0): 12.25
    assert result.plain.item() == 0 and result.matched.item() == 0
    result = ri.barrier_versus_width([(a, b)], lambda m: -total(m), num_points=3)
    assert result.plain.item() == pytest.approx(12.5 - 6.25) and result.matched.item() == pytest.approx(0.25)


def test_effective_dimension_counts_equal_directions():
    # four neurons at +-e1 and +-e2: two equal eigenvalues; all on one line: one
    square = network([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], [1.0] * 4)
    line = network([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0], [-2.0, 0.0]], [1.0] * 4)
    dimension = lambda model: ri.barrier_versus_width([(model, model)], total).effective_dimension.item()  # noqa: E731
    assert dimension(square) == pytest.approx(2) and dimension(line) == pytest.approx(1)


def test_a_permuted_copy_has_no_barrier_left():
    model = toy_zoo.independent("mlp", 0).models[0]
    order = torch.randperm(len(model["layers.0.bias"]), generator=torch.Generator().manual_seed(0))
    copy = dict(model)
    for key in ("layers.0.weight", "layers.0.bias"):
        copy[key] = model[key][order]
    copy["layers.1.weight"] = model["layers.1.weight"][:, order]
    family = toy_zoo.independent("mlp", 0)
    result = ri.barrier_versus_width([(model, copy)], lambda m: toy_zoo.loss(family.network, m, family.task.val))
    assert result.plain > 0.01 and result.matched < 1e-6 and result.distance == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_barrier_falls_with_width_and_far_more_after_matching(seed):
    # measured at width 8, 32 and 128: plain 0.80 to 1.30, 0.30 to 0.50, 0.15 to 0.21; matched 0.18 to 0.53, 0.03 to
    # 0.06, 0.01
    task = toy_zoo.digits(flat=True)
    pairs = []
    for width in (8, 32, 128):
        net = toy_zoo.MLP((64, width, 10)).eval()
        options = [
            dict(num_steps=200, lr=5e-3, generator=torch.Generator().manual_seed(10 * seed + i)) for i in range(2)
        ]
        pairs.append(tuple(toy_zoo.train(net, None, task.train, **o) for o in options))
    result = ri.barrier_versus_width(pairs, lambda model: toy_zoo.loss(net, model, task.train))
    narrow, middle, wide = result.matched.tolist()
    assert narrow > 2 * middle > 4 * wide
    assert narrow < result.plain[0] and middle < 0.4 * result.plain[1] and wide < 0.2 * result.plain[2]
    assert (result.distance.diff() < 0).all() and (result.effective_dimension < 65).all()


def test_bad_input_is_refused():
    model = network([[1.0]], [1.0])
    with pytest.raises(ValueError, match="no pairs"):
        ri.barrier_versus_width([], total)
    with pytest.raises(ValueError, match="shape"):
        ri.barrier_versus_width([(model, network([[1.0], [2.0]], [1.0, 1.0]))], total)
    with pytest.raises(ValueError, match="no layers 'a' and 'b'"):
        ri.barrier_versus_width([(model, model)], total, layers=("a", "b"))
