import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def merge(*values, base=0.0, **options):
    models = [{"w": base + torch.tensor(v)} for v in values]
    return ri.consensus_merging({"w": torch.full((len(values[0]),), base)}, models, **options)["w"].tolist()


# Threshold 0.5, sum (4, 4, 1). Masks: model 1: 1 >= 1.5 no, 2 >= 1 yes, 3 >= 1 yes
# model 2: 3 >= 0.5 yes, 2 >= 1 yes, 2 >= 1.5 yes
VALUES = [1.0, 2.0, 3.0], [3.0, 2.0, -2.0]


def test_parameters_of_fewer_than_two_tasks_stay_those_of_the_base():
    assert merge(*VALUES, threshold=0.5) == [0.0, 4.0, 1.0]
    assert merge(*VALUES, threshold=0.5, scaling_coef=0.25, base=1.0) == [1.0, 2.0, 1.25]


def test_numbers_of_tasks_from_none_to_more_than_all():
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    arithmetic = ri.task_arithmetic({"w": torch.zeros(40)}, [{"w": v} for v in values], scaling_coef=0.3)["w"].tolist()
    assert merge(*values.tolist(), min_tasks=0, scaling_coef=0.3) == pytest.approx(arithmetic)  # nothing removed: task arithmetic
    assert merge(*values.tolist(), min_tasks=4) == [0.0] * 40  # more tasks than there are: the base
    kept = [sum(v != 0 for v in merge(*values.tolist(), min_tasks=k)) for k in (1, 2, 3)]
    assert kept[0] > kept[1] > kept[2] > 0


def test_selfish_weights_go_at_two_and_catastrophic_ones_already_at_one():
    # threshold 1: both masks are empty where the values cancel (5 >= |-9 - 5| and so on fail), one where only one model moves
    values = [5.0, 2.0, 0.0], [-7.0, 0.0, 1.0], [-7.0, 0.0, 1.0]  # sum (-9, 2, 2)
    # entry 1: 5 >= 14 no, 7 >= 2 yes twice; entry 2: only the first; entry 3: the second and third, 1 >= 1
    assert merge(*values, threshold=1.0, min_tasks=1) == [-9.0, 2.0, 2.0]
    assert merge(*values, threshold=1.0, min_tasks=2) == [-9.0, 0.0, 2.0]
    cancelling = [5.0], [-4.0], [-0.5]  # sum 0.5: 5 >= 4.5 * 2, 4 >= 4.5 * 2, 0.5 >= 1 * 2 are all false
    assert merge(*cancelling, threshold=2.0, min_tasks=1) == [0.0] and merge(*cancelling, threshold=2.0, min_tasks=0) == [0.5]


def test_order_of_models_does_not_matter():
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(1)).tolist()
    assert merge(*values) == pytest.approx(merge(*reversed(values)), abs=1e-6)


def test_on_four_tasks_it_is_never_much_worse_and_on_average_better_than_task_arithmetic():
    gains = []
    for seed in (0, 1, 2):
        family = toy_zoo.multitask("mlp", seed, num_tasks=4)

        def best(merge, settings):
            """The setting that is best on validation data, measured on test data."""
            models = [merge(family.base, family.finetuned, **s) for s in settings]
            validation = [sum(toy_zoo.accuracy(family.network, m, task.val) for task in family.tasks) for m in models]
            chosen = models[max(range(len(models)), key=validation.__getitem__)]
            return toy_zoo.mean_accuracy(family.network, chosen, family.tasks)

        scales = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
        arithmetic = best(ri.task_arithmetic, [{"scaling_coef": a} for a in scales])
        grid = [{"scaling_coef": a, "threshold": x} for a in scales for x in (0.2, 0.3, 0.4, 0.5, 0.6)]
        consensus = best(ri.consensus_merging, grid)
        gains.append(consensus - arithmetic)
    assert min(gains) > -0.005 and sum(gains) / 3 > 0.01  # measured: 6.2, 1.1 and -0.1 points


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no fine-tuned models"):
        ri.consensus_merging({"w": torch.zeros(1)}, [])
    with pytest.raises(ValueError, match="min_tasks is -1"):
        merge([1.0], min_tasks=-1)
    with pytest.raises(ValueError, match="threshold is -0.5"):
        merge([1.0], threshold=-0.5)
