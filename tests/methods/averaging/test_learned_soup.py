import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo


def learn(*rows, target=0, **options):
    """Mix models with one input of 1 and two logits; returns the two weights."""
    models = [{"weight": torch.tensor(row).reshape(2, 1)} for row in rows]
    batches = [(torch.ones(1, 1), torch.tensor([target]))]
    return ri.learned_soup(models, nn.Linear(1, 2, bias=False), batches, **options)["weight"].flatten().tolist()


def test_first_step_by_hand():
    # Adam's first step moves a = (0, 0) by lr = 0.5 towards the first model: softmax (0.5, -0.5) = (0.7311, 0.2689)
    assert learn([2.0, 0.0], [0.0, 2.0], num_steps=1, lr=0.5) == pytest.approx([1.462117, 0.537883], abs=1e-5)


def test_without_steps_it_is_the_uniform_soup():
    assert learn([1.0, 2.0], [3.0, -2.0], num_steps=0) == [2.0, 0.0]


def test_it_ends_with_the_better_model_and_the_mirrored_target_mirrors_the_result():
    first = learn([2.0, 0.0], [0.0, 2.0], num_steps=200, lr=0.1)
    assert first[0] > 1.9 and first[1] < 0.1
    assert learn([2.0, 0.0], [0.0, 2.0], target=1, num_steps=200, lr=0.1) == pytest.approx(first[::-1], abs=1e-5)


def test_layers_may_take_different_models():
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 2, bias=False))
    state = lambda u, v: {"0.weight": torch.tensor([[u]]), "1.weight": torch.tensor([[v], [0.0]])}  # noqa: E731
    batches = [(torch.ones(1, 1), torch.tensor([0]))]
    merged = ri.learned_soup([state(3.0, 1.0), state(1.0, 3.0)], network, batches, level="layer", num_steps=1, lr=0.5)
    # the logit is u v: layer 0 turns to the first model, layer 1 to the second; 0.7311 * 3 + 0.2689 * 1 in both
    assert [merged["0.weight"].item(), merged["1.weight"][0].item()] == pytest.approx([2.462117] * 2, abs=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_its_loss_is_below_the_uniform_soup_on_new_data(seed):
    family = toy_zoo.soup("mlp", seed)
    loss = lambda model: toy_zoo.loss(family.network, model, family.task.test).item()  # noqa: E731
    learnt = ri.learned_soup(family.finetuned, family.network, [family.task.val])
    assert loss(learnt) < 0.93 * loss(ri.uniform_soup(family.finetuned))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="level is 'task'"):
        learn([1.0, 2.0], level="task")
    with pytest.raises(ValueError, match="num_steps is -1"):
        learn([1.0, 2.0], num_steps=-1)
    with pytest.raises(ValueError, match="no batches"):
        ri.learned_soup([{"weight": torch.zeros(2, 1)}], nn.Linear(1, 2, bias=False), [])
    with pytest.raises(ValueError, match="no models"):
        ri.learned_soup([], nn.Linear(1, 2, bias=False), [])
