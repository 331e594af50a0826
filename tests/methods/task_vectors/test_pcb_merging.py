import math

import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def merge(*values, **options):
    models = [{"w": torch.tensor(v, dtype=torch.float64)} for v in values]
    options = {"density": 1.0, "scaling_coef": 1.0, "clip": 0.0, **options}
    return ri.pcb_merging({"w": torch.zeros_like(models[0]["w"])}, models, **options)["w"].tolist()


def test_scores_of_two_tasks_by_hand():
    # sizes over the largest: (0, 1/2, 1) and (0, 1, 1/2); signs agree in the last entry and not in the second
    a, b = [0.0, 1.0, 2.0], [0.0, -4.0, 2.0]
    tanh, exp = math.tanh, math.exp
    score_a = [0.0, exp(2 / 4) * (tanh(1 / 4) - tanh(1 / 2)), exp(2) * (tanh(1) + tanh(1 / 2))]
    score_b = [0.0, exp(2) * (tanh(1) - tanh(1 / 2)), exp(2 / 4) * (tanh(1 / 4) + tanh(1 / 2))]
    assert score_a[1] < 0 < score_b[1]
    rescale = lambda s: [(x - min(s)) / (max(s) - min(s)) for x in s]  # noqa: E731
    s, t = rescale(score_a), rescale(score_b)
    by_hand = [(s[i] * a[i] + t[i] * b[i]) / (s[i] + t[i]) for i in range(3)]
    assert merge(a, b) == pytest.approx(by_hand) and by_hand[1] == -4.0  # the first model's minority value weighs nothing


def test_the_density_drops_all_but_the_highest_scores():
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    # one model: scores rise with the size. A third stays above the limit, which is itself rescaled to zero
    assert merge(values, density=0.3) == pytest.approx([0.0] * 8 + [9.0, 10.0])
    assert merge(values, density=0.5) == pytest.approx([0.0] * 6 + [7.0, 8.0, 9.0, 10.0])


def test_outliers_are_moved_to_the_limit_of_the_rest():
    values = [float(v) for v in range(1, 10)] + [1000.0]
    assert merge(values, clip=0.1)[-1] == 9.0 and merge(values)[-1] == 1000.0


def test_one_model_is_scaled():
    assert merge([0.0, 1.0, 2.0, 4.0]) == [0.0, 1.0, 2.0, 4.0]
    assert merge([0.0, 1.0, 2.0, 4.0], scaling_coef=1.2) == pytest.approx([0.0, 1.2, 2.4, 4.8])


def test_order_does_not_matter_and_scale_carries_over():
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    merged = merge(*values.tolist(), density=0.3, clip=0.05)
    assert merge(*values.flip(0).tolist(), density=0.3, clip=0.05) == pytest.approx(merged)
    assert merge(*(10 * values).tolist(), density=0.3, clip=0.05) == pytest.approx([10 * x for x in merged])


@pytest.mark.parametrize(("seed", "num_tasks"), [(0, 3), (1, 3), (2, 3), (0, 4), (1, 4), (2, 4)])
def test_at_one_density_it_beats_ties(seed, num_tasks):
    family = toy_zoo.multitask("mlp", seed, num_tasks)
    merged = [method(family.base, family.finetuned, density=0.2, scaling_coef=1.0) for method in (ri.pcb_merging, ri.ties_merging)]
    pcb, ties = (toy_zoo.mean_accuracy(family.network, model, family.tasks) for model in merged)
    assert pcb > ties + 0.02  # measured: 3 to 7 points


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_small_dense_networks_it_does_not_beat_tuned_task_arithmetic(seed):
    family = toy_zoo.multitask("mlp", seed)
    merged = ri.pcb_merging(family.base, family.finetuned), ri.task_arithmetic(family.base, family.finetuned, scaling_coef=0.5)
    pcb, arithmetic = (toy_zoo.mean_accuracy(family.network, model, family.tasks) for model in merged)
    assert pcb < arithmetic - 0.1  # there are no redundant weights to drop


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="density is 0"):
        merge([1.0], density=0)
    with pytest.raises(ValueError, match="clip is 0.5"):
        merge([1.0], clip=0.5)
    with pytest.raises(ValueError, match="no fine-tuned models"):
        ri.pcb_merging({"w": torch.zeros(1)}, [])
