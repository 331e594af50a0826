import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.task_vectors.adamerging import prediction_entropy, trim_and_elect

BATCHES = [(torch.ones(1, 1), None)]


def learn(*rows, base=(0.0, 0.0), **options):
    """Merge models of one layer with one input of 1 and two logits; returns the two weights."""
    state = lambda row: {"weight": torch.tensor(row).reshape(2, 1)}  # noqa: E731
    network = nn.Linear(1, 2, bias=False)
    return ri.adamerging(state(base), [state(r) for r in rows], network, BATCHES, **options)["weight"].flatten().tolist()


def test_first_step_by_hand():
    # Adam's first step is lr against the sign of the gradient. Larger lambda_1 parts the logits, which lowers the entropy:
    # 0.3 + 0.1 = 0.4. The second task vector brings them together: 0.3 - 0.1 = 0.2.
    assert learn([1.0, -1.0], [-0.5, 0.5], num_steps=1, lr=0.1) == pytest.approx([0.4 - 0.1, -0.4 + 0.1], abs=1e-5)


def test_entropy_by_hand():
    # p = (3/4, 1/4) and p = (1/2, 1/2): 0.5623 and log 2 = 0.6931
    logits = torch.tensor([[3.0, 1.0], [1.0, 1.0]]).log()
    assert prediction_entropy(logits[:1]).item() == pytest.approx(0.562335)
    assert prediction_entropy(logits).item() == pytest.approx((0.562335 + 0.693147) / 2)


def test_without_steps_it_is_task_arithmetic():
    assert learn([1.0, -1.0], [2.0, 0.0], num_steps=0) == pytest.approx([0.9, -0.3])
    assert learn([1.0, -1.0], [2.0, 0.0], num_steps=0, initial=0.5) == [1.5, -0.5]


def test_order_of_models_does_not_matter():
    merge = lambda *rows: learn(*rows, num_steps=20, lr=0.05)  # noqa: E731
    assert merge([1.0, -1.0], [-0.2, 0.7]) == pytest.approx(merge([-0.2, 0.7], [1.0, -1.0]), abs=1e-6)


def test_coefficients_stay_in_zero_to_one_unless_told_otherwise():
    assert learn([1.0, -1.0], num_steps=30, lr=0.1) == [1.0, -1.0]
    assert learn([1.0, -1.0], num_steps=30, lr=0.1, clamp=False)[0] > 1.5


def test_a_coefficient_a_layer_or_one_a_task():
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 2, bias=False))
    state = lambda u, v: {"0.weight": torch.tensor([[u]]), "1.weight": torch.tensor([[v], [-v]])}  # noqa: E731
    merge = lambda level: ri.adamerging(  # noqa: E731
        state(1.0, 1.0), [state(2.0, 0.0)], network, BATCHES, level=level, num_steps=1, lr=0.1
    )
    # the logit is (1 + a)(1 - b): it grows with a and falls with b, so the layers part; with one number its
    # derivative at 0.3, (1 - 0.3) - (1 + 0.3) = -0.6, says down for both
    layer, task = merge("layer"), merge("task")
    assert [layer["0.weight"].item(), layer["1.weight"][0].item()] == pytest.approx([1.4, 0.8], abs=1e-5)
    assert [task["0.weight"].item(), task["1.weight"][0].item()] == pytest.approx([1.2, 0.8], abs=1e-5)


def test_plus_plus_trims_and_elects_first():
    rows = [1.0, 3.0, -4.0, 2.0], [1.0, -5.0, -6.0, -2.0]
    cleaned = trim_and_elect([{"w": torch.tensor(r)} for r in rows], density=0.5)
    # (0, 3, -4, 0) and (0, -5, -6, 0): the second entry is elected minus, which drops the 3
    assert [c["w"].tolist() for c in cleaned] == [[0.0, 0.0, -4.0, 0.0], [0.0, -5.0, -6.0, 0.0]]
    plus = learn([1.0, -2.0], [3.0, 1.0], num_steps=0, plus_plus=True)  # density 0.2 keeps one entry: (0, -2), (3, 0)
    assert plus == pytest.approx([0.9, -0.6])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_beats_the_coefficient_that_it_started_from(seed):
    family = toy_zoo.multitask("mlp", seed)
    score = lambda model: toy_zoo.mean_accuracy(family.network, model, family.tasks)  # noqa: E731
    batches, losses = [(task.test[0][:128], None) for task in family.tasks], []
    report = lambda _, loss: losses.append(loss)  # noqa: E731
    learnt = ri.adamerging(
        family.base, family.finetuned, family.network, batches, num_steps=100, lr=0.01, progress=report
    )
    assert losses[-1] < 0.5 * losses[0]
    assert score(learnt) > score(ri.task_arithmetic(family.base, family.finetuned, scaling_coef=0.3)) + 0.04


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no fine-tuned models"):
        learn()
    with pytest.raises(ValueError, match="level is 'model'"):
        learn([1.0, 2.0], level="model")
    with pytest.raises(ValueError, match="no batches"):
        ri.adamerging({"weight": torch.zeros(2, 1)}, [{"weight": torch.zeros(2, 1)}], nn.Linear(1, 2, bias=False), [])
    with pytest.raises(ValueError, match="num_steps is -1"):
        learn([1.0, 2.0], num_steps=-1)
