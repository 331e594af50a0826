import math

import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def stock(*rows, base=None, **options):
    start = torch.zeros(len(rows[0])) if base is None else torch.tensor(base)
    return ri.model_stock({"w": start}, [{"w": torch.tensor(r)} for r in rows], **options)["w"].tolist()


def test_two_models_by_hand():
    # 60 degrees: t = 2 * 0.5 / 1.5 = 2/3 of the mean (0.75, 0.4330), from base (1, 1)
    assert stock([1.0, 0.0], [0.5, 0.8660254]) == pytest.approx([0.5, 0.2886751])
    assert stock([2.0, 1.0], [1.5, 1.8660254], base=[1.0, 1.0]) == pytest.approx([1.5, 1.2886751])


def test_parallel_models_give_the_average_and_orthogonal_ones_the_base():
    assert stock([1.0, 2.0], [2.0, 4.0]) == pytest.approx([1.5, 3.0])
    assert stock([1.0, 0.0], [0.0, 1.0], base=[0.0, 0.0]) == pytest.approx([0.0, 0.0], abs=1e-7)


def test_order_does_not_matter_and_scaling_scales():
    rows = torch.randn(3, 10, generator=torch.Generator().manual_seed(0)) + 1
    once = stock(*rows.tolist())
    assert stock(*rows.flip(0).tolist()) == pytest.approx(once, abs=1e-6)
    assert stock(*(3 * rows).tolist()) == pytest.approx([3 * x for x in once], abs=1e-5)


def three_at_cosines(ab, ac, bc):
    y = math.sqrt(1 - ab**2)
    c = [ac, (bc - ab * ac) / y]
    return [1.0, 0.0, 0.0], [ab, y, 0.0], [*c, math.sqrt(1 - c[0] ** 2 - c[1] ** 2)]


def test_mean_of_angles_and_mean_of_cosines_differ():
    # angles 25.84, 84.26, 84.26: mean 64.79, cosine 0.4259, t = 0.6900; mean cosine 0.3667, t = 0.6346
    rows = three_at_cosines(0.9, 0.1, 0.1)
    mean = [sum(column) / 3 for column in zip(*rows)]
    assert stock(*rows) == pytest.approx([0.6900 * m for m in mean], abs=1e-4)
    assert stock(*rows, mean_of="cosines") == pytest.approx([0.6346 * m for m in mean], abs=1e-4)


def test_small_task_vectors_keep_their_angle():
    g = torch.Generator().manual_seed(0)
    shared, own = torch.randn(768, generator=g), torch.randn(2, 768, generator=g)
    deltas = (1e-5 * (shared + own) / 2**0.5).double()
    cosine = torch.nn.functional.cosine_similarity(*deltas, dim=0).item()
    t = (torch.tensor(stock(*deltas.tolist())) / deltas.mean(0)).mean().item()
    assert t == pytest.approx(2 * cosine / (1 + cosine), rel=1e-4) and 0.6 < t < 0.75
    product = deltas[0].norm() * deltas[1].norm()
    floored = (deltas[0] @ deltas[1] / max(product, 1e-6)).item()  # a floor under the product of norms
    assert 2 * floored / (1 + floored) < 0.25


def test_an_obtuse_angle_stays_at_the_base_unless_told_otherwise():
    # 120 degrees: t = -1 / 0.5 = -2 of the mean (0.25, 0.4330)
    rows = [1.0, 0.0], [-0.5, 0.8660254]
    assert stock(*rows) == [0.0, 0.0]
    assert stock(*rows, clamp=False) == pytest.approx([-0.5, -0.8660254])


def test_rows_and_whole_models_may_have_one_angle():
    base = {"w": torch.zeros(2, 2)}
    models = [{"w": torch.tensor([[1.0, 0.0], [1.0, 0.0]])}, {"w": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}]
    assert ri.model_stock(base, models, scope="row")["w"].flatten().tolist() == pytest.approx([1.0, 0.0, 0.0, 0.0], abs=1e-7)
    # cosine 1/2 for all four entries together: 2/3 of the mean (1, 0, 0.5, 0.5)
    for scope in ("tensor", "model"):
        assert ri.model_stock(base, models, scope=scope)["w"].flatten().tolist() == pytest.approx([2 / 3, 0.0, 1 / 3, 1 / 3])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_nearer_to_the_centre_of_a_shell_than_the_average(seed):
    # the paper's geometry: models at the centre plus independent noise of the same length, the base far from it
    g = torch.Generator().manual_seed(seed)
    centre, noise = torch.randn(4000, generator=g), torch.randn(2, 4000, generator=g)
    models, base = [{"w": centre + n} for n in noise], {"w": torch.zeros(4000)}
    distance = lambda model: (model["w"] - centre).norm() / centre.norm()  # noqa: E731
    assert distance(ri.uniform_soup(models)) > 0.68  # 0.707 expected
    assert distance(ri.model_stock(base, models)) < 0.60  # 0.577 expected


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_toy_models_it_is_as_accurate_as_the_average_but_not_better(seed):
    family = toy_zoo.soup("mlp", seed)
    score = lambda model: toy_zoo.accuracy(family.network, model, family.task.test)  # noqa: E731
    assert abs(score(ri.model_stock(family.base, family.finetuned)) - score(ri.uniform_soup(family.finetuned))) < 0.01


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="received 1 fine-tuned models"):
        stock([1.0])
    with pytest.raises(ValueError, match="scope is 'layer'"):
        stock([1.0], [2.0], scope="layer")
    with pytest.raises(ValueError, match="mean_of is 'median'"):
        stock([1.0], [2.0], mean_of="median")
