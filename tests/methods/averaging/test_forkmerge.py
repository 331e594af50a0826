import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.averaging.forkmerge import merge_branches
from reference_impls.core import toy_zoo

GRID = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def merged(*values, goal, grid=GRID):
    branches = [{"w": torch.tensor([v], dtype=torch.float64)} for v in values]
    return merge_branches(branches, lambda v: abs(v["w"].item() - goal), grid=grid)["w"].item()


def test_greedy_shares_by_hand():
    # goal 3: branch 2 first; branch 6 with share s gives (2 + 6 s) / (1 + s): 0.4 -> 3.143 is nearest (0.2 -> 2.667);
    # branch 10 would only lead away and gets nothing
    assert merged(10.0, 6.0, 2.0, goal=3.0) == pytest.approx(4.4 / 1.4)


def test_a_branch_that_hurts_has_no_share_and_one_branch_comes_back():
    assert merged(1.0, 9.0, goal=1.0) == 1.0
    assert merged(4.0, goal=0.0) == 4.0


def test_merging_is_never_worse_than_the_best_branch_in_any_order():
    for seed in range(20):
        values = torch.randn(4, generator=torch.Generator().manual_seed(seed)).tolist()
        result = merged(*values, goal=0.1)
        assert abs(result - 0.1) <= min(abs(v - 0.1) for v in values) + 1e-9
        assert result == pytest.approx(merged(*reversed(values), goal=0.1))


def test_one_task_is_plain_training():
    network, batch = nn.Linear(1, 2, bias=False), (torch.ones(1, 1), torch.tensor([0]))
    base, loss_fn = {"weight": torch.zeros(2, 1)}, lambda model: -model["weight"][0, 0]
    # Adam's first step: the first logit rises by lr, the second falls
    result = ri.forkmerge(base, network, [batch], loss_fn, num_rounds=1, num_steps=1, lr=0.1)
    assert result["weight"].flatten().tolist() == pytest.approx([0.1, -0.1], abs=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_auxiliary_tasks_lower_the_loss_of_a_target_with_few_examples(seed):
    family = toy_zoo.multitask("mlp", seed)
    target, upright = family.tasks[0], toy_zoo.digits("upright", flat=True)
    first = lambda task, n: (task.train[0][:n], task.train[1][:n])  # noqa: E731
    losses, batches = [], [first(target, 60), first(upright, 300), first(family.tasks[1], 300)]
    validate = lambda model: toy_zoo.loss(family.network, model, target.val)  # noqa: E731
    run = lambda tasks, **o: ri.forkmerge(family.base, family.network, tasks, validate, num_steps=20, **o)  # noqa: E731
    helped, alone = run(batches, progress=lambda _, loss: losses.append(loss)), run(batches[:1])
    test_loss = lambda model: toy_zoo.loss(family.network, model, target.test).item()  # noqa: E731
    assert len(losses) == 3 and test_loss(helped) < 0.9 * test_loss(alone)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no batches"):
        ri.forkmerge({"w": torch.zeros(1)}, nn.Identity(), [], lambda m: 0.0)
    with pytest.raises(ValueError, match="num_rounds is -1"):
        ri.forkmerge({"w": torch.zeros(1)}, nn.Identity(), [(None, None)], lambda m: 0.0, num_rounds=-1)
    with pytest.raises(ValueError, match="grid is"):
        ri.forkmerge({"w": torch.zeros(1)}, nn.Identity(), [(None, None)], lambda m: 0.0, grid=())
