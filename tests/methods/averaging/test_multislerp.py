import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.state_dict import norm, task_vector


def merge(*vectors, base=None, **options):
    models = [{"w": torch.tensor(v, dtype=torch.float64)} for v in vectors]
    base = None if base is None else {"w": torch.tensor(base, dtype=torch.float64)}
    return ri.multislerp(models, base=base, **options)["w"]


def random_vectors(count, size):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_three_directions_by_hand():
    # the mean direction of the three axes is (1, 1, 1) / 1.7321, the mean length (1 + 2 + 3) / 3 = 2: 2 / 1.7321 = 1.1547
    assert merge([1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]).tolist() == pytest.approx([1.1547005] * 3)


def test_it_is_slerp_at_equal_weights_only():
    # (0.2, 0.8) / 0.8246 against an arc divided 1 : 4, cos 72 = 0.309 and sin 72 = 0.951
    a, b = [1.0, 0.0], [0.0, 1.0]
    arc = lambda t: ri.slerp({"w": torch.tensor(a)}, {"w": torch.tensor(b)}, t=t)["w"].tolist()  # noqa: E731
    assert merge(a, b).tolist() == pytest.approx(arc(0.5))
    assert merge(a, b, weights=[0.2, 0.8]).tolist() == pytest.approx([0.2425356, 0.9701425])
    assert arc(0.8) == pytest.approx([0.3090170, 0.9510565])


def test_the_tangent_step_changes_nothing():
    units = torch.nn.functional.normalize(random_vectors(3, 50), dim=1)
    w = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    mean = torch.nn.functional.normalize(w @ units, dim=0)
    tangent = w @ (units - (units @ mean)[:, None] * mean)  # what mergekit maps back to the sphere
    assert tangent.norm() < 1e-15
    assert torch.allclose(merge(*units.tolist(), weights=w.tolist()), mean)


def test_it_is_where_the_karcher_mean_starts():
    vectors = random_vectors(3, 50).tolist()
    models = [{"w": torch.tensor(v, dtype=torch.float64)} for v in vectors]
    assert torch.allclose(merge(*vectors), ri.karcher_mean(models, max_iter=0)["w"])
    converged = ri.karcher_mean(models, max_iter=100)["w"]
    assert (merge(*vectors) - converged).norm() > 0.005 * converged.norm()


def test_equal_models_come_back_and_only_the_ratio_of_weights_counts():
    v = [3.0, -4.0]
    assert merge(v, v, v).tolist() == pytest.approx(v) and merge(v).tolist() == pytest.approx(v)
    assert merge([1.0, 0.0], v, weights=[2, 6]).tolist() == pytest.approx(merge([1.0, 0.0], v, weights=[1, 3]).tolist())
    assert merge(v, v, weights=[1.0, 1.0], normalize_weights=False).tolist() == pytest.approx([6.0, -8.0])


def test_the_base_is_the_origin_of_the_sphere():
    assert merge([2.0, 1.0], [1.0, 2.0], base=[1.0, 1.0]).tolist() == pytest.approx([1.70710678] * 2)


def test_directions_that_cancel_leave_the_plain_mean():
    assert merge([1.0, 0.0], [-1.0, 0.0]).tolist() == [0.0, 0.0] == merge([1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]).tolist()
    assert merge([1.0, 0.0], [-3.0, 0.0]).tolist() == [-1.0, 0.0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_task_vectors_of_full_length_beat_their_average(seed):
    family = toy_zoo.multitask("mlp", seed)
    accuracy = lambda model: toy_zoo.mean_accuracy(family.network, model, family.tasks)  # noqa: E731
    ours, average = ri.multislerp(family.finetuned, base=family.base), ri.uniform_soup(family.finetuned)
    assert accuracy(ours) > accuracy(average) + 0.05  # measured: 7 to 10 points
    lengths = [norm(task_vector(model, family.base)) for model in family.finetuned]
    assert norm(task_vector(ours, family.base)) > 0.98 * sum(lengths) / 3 > 1.4 * norm(task_vector(average, family.base))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_long_task_vectors_hurt_it_loses_to_the_average(seed):
    family = toy_zoo.multitask("vit", seed)
    accuracy = lambda model: toy_zoo.mean_accuracy(family.network, model, family.tasks)  # noqa: E731
    ours, average = ri.multislerp(family.finetuned, base=family.base), ri.uniform_soup(family.finetuned)
    assert accuracy(ours) < accuracy(average) - 0.04  # measured: 6 to 10 points


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="2 weights for 1 models"):
        merge([1.0], weights=[1, 2])
    with pytest.raises(ValueError, match="add up to zero"):
        merge([1.0], [2.0], weights=[1, -1])
    with pytest.raises(ValueError, match="shape"):
        merge([1.0], base=[1.0, 2.0])
