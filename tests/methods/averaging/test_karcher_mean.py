import math

import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.state_dict import norm


def mean(*vectors, **options):
    models = [{"w": torch.tensor(v, dtype=torch.float64)} for v in vectors]
    return ri.karcher_mean(models, **options)["w"]


def random_vectors(count, size, seed=0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()


def squared_angles(x, vectors):
    cosine = torch.nn.functional.cosine_similarity(x, torch.tensor(vectors, dtype=torch.float64), dim=-1)
    return float((cosine.acos() ** 2).sum())


def test_two_weighted_directions_meet_where_slerp_goes():
    # weights 1 and 2: at two thirds of 90 degrees, cos 60 = 0.5 and sin 60 = 0.8660
    assert mean([1.0, 0.0], [0.0, 1.0], weights=[1, 2], max_iter=50, tol=1e-12).tolist() == pytest.approx([0.5, 0.8660254])
    assert mean([1.0, 0.0], [0.0, 1.0]).tolist() == pytest.approx([0.70710678] * 2)
    a, b = ([x / math.hypot(*v) for x in v] for v in random_vectors(2, 30))
    slerp = ri.slerp(*({"w": torch.tensor(v, dtype=torch.float64)} for v in (a, b)), t=0.8)["w"]
    assert torch.allclose(mean(a, b, weights=[0.2, 0.8], max_iter=50, tol=1e-12), slerp, atol=1e-9)


def test_four_directions_around_an_axis_meet_on_it():
    # all lie at 60 degrees from the third axis; lengths 1, 2, 3 and 4 give 2.5
    s = math.sin(math.pi / 3)
    ring = [[s, 0.0, 0.5], [0.0, 2 * s, 1.0], [-3 * s, 0.0, 1.5], [0.0, -4 * s, 2.0]]
    assert mean(*ring).tolist() == pytest.approx([0.0, 0.0, 2.5], abs=1e-9)


def test_it_minimises_the_summed_squared_angles():
    vectors = random_vectors(3, 6)
    best = squared_angles(mean(*vectors, max_iter=100, tol=1e-12), vectors)
    start = squared_angles(mean(*vectors, max_iter=0), vectors)
    for seed in range(20):
        nearby = mean(*vectors, max_iter=100, tol=1e-12) + 0.02 * torch.tensor(random_vectors(1, 6, seed + 1)[0])
        assert squared_angles(nearby, vectors) > best
    assert start > best + 1e-4


def test_length_is_the_mean_length_and_equal_models_come_back():
    vectors = random_vectors(4, 50)
    lengths = [math.hypot(*v) for v in vectors]
    assert mean(*vectors).norm().item() == pytest.approx(sum(lengths) / 4)
    assert mean(vectors[0], vectors[0]).tolist() == pytest.approx(vectors[0]) == mean(vectors[0]).tolist()


def test_order_does_not_matter_and_a_rotation_carries_over():
    vectors = torch.tensor(random_vectors(3, 5), dtype=torch.float64)
    q = torch.linalg.qr(torch.tensor(random_vectors(5, 5, 7), dtype=torch.float64)).Q
    options = {"max_iter": 100, "tol": 1e-12}
    assert torch.allclose(mean(*vectors.tolist(), **options), mean(*vectors.flip(0).tolist(), **options), atol=1e-9)
    assert torch.allclose(mean(*(vectors @ q).tolist(), **options), mean(*vectors.tolist(), **options) @ q, atol=1e-9)


def test_a_short_vector_has_a_direction_too():
    # mean length 3.5e-6 times 0.7071; mergekit leaves out what is not longer than 1e-5 and gives zeros
    assert mean([3e-6, 0.0], [0.0, 4e-6]).tolist() == pytest.approx([2.4748737e-6] * 2)


def test_a_zero_vector_has_none_and_cancelling_directions_leave_the_plain_mean():
    assert mean([0.0, 0.0], [2.0, 0.0]).tolist() == [1.0, 0.0]  # the only direction, half its length
    assert mean([1.0, 0.0], [-1.0, 0.0]).tolist() == [0.0, 0.0]


def test_half_precision_is_rounded_once():
    a, b = (torch.tensor(v, dtype=torch.bfloat16) for v in ([1.0, 2.0, 3.0], [1.0, 2.0, 3.25]))
    exact = mean(a.tolist(), b.tolist())  # (1.0009, 2.0018, 3.1244)
    assert torch.equal(ri.karcher_mean([{"w": a}, {"w": b}])["w"], exact.to(torch.bfloat16))
    assert exact.to(torch.bfloat16).tolist() == [1.0, 2.0, 3.125]
    length = (a.float().norm() + b.float().norm()) / 2
    direction = (a / a.float().norm()).bfloat16() / 2 + (b / b.float().norm()).bfloat16() / 2  # every step rounded, as in mergekit
    assert (length * direction).tolist() == [1.0078125, 2.015625, 3.125]


def test_one_direction_for_the_whole_model_differs_from_one_a_tensor():
    a, b = {"v": torch.tensor([1.0]), "w": torch.tensor([0.0])}, {"v": torch.tensor([0.0]), "w": torch.tensor([1.0])}
    assert [x.item() for x in ri.karcher_mean([a, b], scope="model").values()] == pytest.approx([0.70710678] * 2)
    assert [x.item() for x in ri.karcher_mean([a, b]).values()] == [0.5, 0.5]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_features_of_many_models_do_not_shrink_as_in_their_average(seed):
    family = toy_zoo.independent("mlp", seed, count=5)
    karcher, average = ri.karcher_mean(family.models), ri.uniform_soup(family.models)
    length = sum(norm(model) for model in family.models) / 5
    assert norm(karcher) / length > 0.99 and norm(average) / length < 0.5
    inputs, _ = family.task.test
    spread = lambda model: toy_zoo.logits(family.network, model, inputs).std(dim=0).mean()  # noqa: E731
    assert spread(karcher) > 8 * spread(average)  # measured: 10
    accuracy = [toy_zoo.accuracy(family.network, model, family.task.test) for model in (karcher, average)]
    assert abs(accuracy[0] - accuracy[1]) < 0.04  # units that do not correspond are no better on the sphere


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="2 weights for 1 models"):
        mean([1.0], weights=[1, 2])
    with pytest.raises(ValueError, match="none may be negative"):
        mean([1.0], [2.0], weights=[1, -1])
    with pytest.raises(ValueError, match="max_iter is -1"):
        mean([1.0], max_iter=-1)
    with pytest.raises(ValueError, match="scope is 'row'"):
        mean([1.0], scope="row")
