import math

import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.task_vectors.somf import preference_loss


def sd(**values):
    return {name: torch.tensor(v) for name, v in values.items()}


BASE, MODEL = sd(a=[0.0] * 50, b=[0.0] * 50), sd(a=[1.0] * 50, b=[1.0] * 50)
SAFE = lambda model: model["a"].square().mean()  # noqa: E731  safety needs a where it was


def test_what_safety_minds_is_dropped_and_the_rest_kept():
    merged = ri.somf(BASE, [MODEL], SAFE, rescale=False, final="threshold", num_steps=400)
    assert merged["a"].tolist() == [0.0] * 50 and merged["b"].tolist() == [1.0] * 50


def test_preference_loss_by_hand():
    # margin (-1 + 2) - (-3 + 2) = 2, times beta 0.5: log(1 + exp(-1))
    loss = preference_loss(*(torch.tensor([x]) for x in (-1.0, -3.0, -2.0, -2.0)), beta=0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_without_steps_nearly_everything_is_kept_and_the_mean_stays():
    # at logits of 5 a mask keeps 0.9933; divided by the mask's mean, the sum over a tensor is what it was
    base, model = sd(w=[0.0] * 10000), sd(w=[1.0] * 10000)
    plain = ri.somf(base, [model, model], SAFE, num_steps=0, scaling_coef=0.5, rescale=False)["w"]
    assert plain.unique().tolist() == [0.0, 1.0] and plain.mean().item() == pytest.approx(0.9933, abs=0.003)
    assert ri.somf(base, [model], SAFE, num_steps=0)["w"].mean().item() == pytest.approx(1.0, abs=1e-4)
    assert ri.somf(base, [model], SAFE, num_steps=0, final="threshold")["w"].unique().tolist() == [1.0]


def test_one_mask_serves_all_task_vectors():
    other = sd(a=[3.0] * 50, b=[-2.0] * 50)
    options = {"final": "threshold", "rescale": False, "num_steps": 400}
    merged = ri.somf(BASE, [MODEL, other], SAFE, **options)
    assert merged["a"].tolist() == [0.0] * 50 and merged["b"].tolist() == [-1.0] * 50  # 1 - 2 where b is kept


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_restores_safety_at_less_cost_to_the_task_than_a_smaller_step(seed):
    # "safety" is a task that the base was aligned to and that fine-tuning on another one forgets
    family = toy_zoo.multitask("mlp", seed, num_tasks=4)
    network, safety, task = family.network, family.tasks[3], family.tasks[0]
    train = lambda start, t: toy_zoo.train(  # noqa: E731
        network, start, t.train, num_steps=200, lr=1e-3, generator=torch.Generator().manual_seed(seed)
    )
    aligned = train(family.base, safety)
    tuned = train(aligned, task)

    x, chosen = safety.val[0][:200], safety.val[1][:200]
    log_p = lambda model, answer: toy_zoo.logits(network, model, x).log_softmax(-1).gather(1, answer[:, None])[:, 0]  # noqa: E731
    wrong = toy_zoo.logits(network, tuned, x).scatter(1, chosen[:, None], -1e9).argmax(-1)  # its likeliest wrong answer
    reference = log_p(aligned, chosen), log_p(aligned, wrong)
    loss_fn = lambda model: preference_loss(log_p(model, chosen), log_p(model, wrong), *reference, beta=1.0)  # noqa: E731
    fused = ri.somf(aligned, [tuned], loss_fn)

    safe, useful = (lambda m, t=t: toy_zoo.accuracy(network, m, t.test) for t in (safety, task))
    assert safe(fused) > safe(tuned) + 0.12 and safe(fused) > safe(aligned) - 0.06  # measured: 14 to 17 points, 3 to 4 below
    assert useful(fused) > useful(tuned) - 0.12  # measured: 4 to 9 points lost
    steps = [ri.task_arithmetic(aligned, [tuned], scaling_coef=c / 20) for c in range(21)]
    as_safe = max(useful(m) for m in steps if safe(m) >= safe(fused) - 0.005)
    assert useful(fused) > as_safe + 0.12  # measured: 19 to 38 points


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="received 0 fine-tuned models"):
        ri.somf(BASE, [], SAFE)
    with pytest.raises(ValueError, match="temperature 0"):
        ri.somf(BASE, [MODEL], SAFE, temperature=0)
    with pytest.raises(ValueError, match="final is 'mean'"):
        ri.somf(BASE, [MODEL], SAFE, final="mean")
