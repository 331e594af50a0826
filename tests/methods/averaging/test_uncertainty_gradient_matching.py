import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.statistics import diagonal_fisher


def merge(taus, h_0, hs, base=0.0, **options):
    wrap = lambda x: {"w": torch.tensor([x])}  # noqa: E731
    models = [wrap(base + tau) for tau in taus]
    return ri.uncertainty_gradient_matching(wrap(base), models, wrap(h_0), [wrap(h) for h in hs], **options)["w"].item()


def test_preconditioned_sum_by_hand():
    # H-bar = 1 + 3 + 4 = 8: ((1 + 3) * 2 + (1 + 4) * -1) / 8 = 3/8
    assert merge([2.0, -1.0], 1.0, [3.0, 4.0], base=10.0) == pytest.approx(10.375)
    # weights 0.5: H-bar = 4.5: 0.5 * (4 * 2 - 5) / 4.5 = 1/3; delta 2: H_0 = 3, H-bar = 10, (6 * 2 - 7) / 10
    assert merge([2.0, -1.0], 1.0, [3.0, 4.0], weights=[0.5, 0.5]) == pytest.approx(1 / 3)
    assert merge([2.0, -1.0], 1.0, [3.0, 4.0], delta=2.0) == pytest.approx(0.5)


def test_large_base_curvature_gives_task_arithmetic_and_none_gives_fisher_merging():
    assert merge([2.0, -1.0], 1e9, [3.0, 4.0]) == merge([2.0, -1.0], 0.0, [0.0, 0.0], delta=1.0) == pytest.approx(1.0)
    fishers = [{"w": torch.tensor([3.0])}, {"w": torch.tensor([4.0])}]
    fisher = ri.fisher_merging([{"w": torch.tensor([2.0])}, {"w": torch.tensor([-1.0])}], fishers)["w"].item()
    assert merge([2.0, -1.0], 0.0, [3.0, 4.0]) == pytest.approx(fisher)


def test_it_is_exact_for_quadratic_losses():
    # minimising h_0/2 (x - x_0)^2 + sum of h_t/2 (x - a_t)^2 jointly, where theta_t minimises the first term plus the t-th
    x_0, h_0, h, a = 1.0, 2.0, torch.tensor([3.0, 0.5]), torch.tensor([4.0, -2.0])
    theta = (h_0 * x_0 + h * a) / (h_0 + h)
    joint = (h_0 * x_0 + (h * a).sum()) / (h_0 + h.sum())
    assert merge((theta - x_0).tolist(), h_0, h.tolist(), base=x_0) == pytest.approx(joint.item())


def test_order_of_models_and_scale_of_all_curvatures_do_not_matter():
    assert merge([2.0, -1.0], 1.0, [3.0, 4.0]) == pytest.approx(merge([-1.0, 2.0], 1.0, [4.0, 3.0]))
    assert merge([2.0, -1.0], 1.0, [3.0, 4.0]) == pytest.approx(merge([2.0, -1.0], 7.0, [21.0, 28.0]))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_beats_task_arithmetic_and_fisher_merging(seed):
    family = toy_zoo.multitask("mlp", seed)
    fisher = lambda model, task: diagonal_fisher(family.network, model, [task.val], estimator="sampled")  # noqa: E731
    fishers = [fisher(model, task) for model, task in zip(family.finetuned, family.tasks)]
    base_fisher = fisher(family.base, toy_zoo.digits("upright", flat=True))
    score = lambda model: toy_zoo.mean_accuracy(family.network, model, family.tasks)  # noqa: E731
    merged = score(ri.uncertainty_gradient_matching(family.base, family.finetuned, base_fisher, fishers))
    assert merged > score(ri.task_arithmetic(family.base, family.finetuned)) + 0.1
    assert merged > score(ri.fisher_merging(family.finetuned, fishers)) + 0.03


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="2 models, 1 Fishers"):
        merge([1.0, 2.0], 1.0, [1.0])
    with pytest.raises(ValueError, match="has negative values"):
        merge([1.0], 1.0, [-1.0])
    with pytest.raises(ValueError, match="none may be negative"):
        merge([1.0], 1.0, [1.0], delta=-1.0)
    with pytest.raises(ValueError, match="do not cover the same tensors"):
        ri.uncertainty_gradient_matching({"w": torch.zeros(1)}, [{"w": torch.zeros(1)}], {}, [{"w": torch.ones(1)}])
