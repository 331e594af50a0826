import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.statistics import activations
from reference_impls.task_vectors.representation_surgery import Surgery


def pair(seed=0, size=200, features=5):
    generator = torch.Generator().manual_seed(seed)
    z = torch.rand(size, features, generator=generator)
    return z + 1 + torch.rand(features, generator=generator), z


def test_the_module_takes_away_what_it_recognises_by_hand():
    # first unit reads 1 * 2 + (-1) * 3 = -1, cut to 0; second reads 3 and takes 0.5 * 3 from both features
    module = Surgery(down=torch.tensor([[1.0, -1.0], [0.0, 1.0]]), up=torch.tensor([[9.0, 0.5], [9.0, 0.5]]))
    assert module(torch.tensor([2.0, 3.0])).tolist() == [0.5, 1.5]
    assert module(torch.tensor([0.0, -3.0])).tolist() == [-27.0, -30.0]  # the first unit reads 3 and takes 27 from both


def test_a_zero_representation_stays_and_positive_scale_passes_through():
    merged, individual = pair()
    module = ri.representation_surgery({"t": merged}, {"t": individual}, rank=2, num_steps=20)["t"]
    assert module(torch.zeros(5)).tolist() == [0.0] * 5
    assert torch.allclose(module(3 * merged), 3 * module(merged), atol=1e-4)


def test_the_module_has_the_rank_asked_for_and_changes_no_more_directions():
    merged, individual = pair()
    module = ri.representation_surgery({"t": merged}, {"t": individual}, rank=2, num_steps=20)["t"]
    assert module.down.shape == (2, 5) and module.up.shape == (5, 2)
    assert torch.linalg.matrix_rank(merged - module(merged)) <= 2


def test_each_task_is_trained_on_its_own_data():
    (a, x), (b, y) = pair(0), pair(1)
    both = ri.representation_surgery({"one": a, "two": b}, {"one": x, "two": y}, rank=3, num_steps=50)
    alone = ri.representation_surgery({"one": a}, {"one": x}, rank=3, num_steps=50)
    assert torch.equal(both["one"].up, alone["one"].up) and not torch.equal(both["two"].up, both["one"].up)


def test_training_lowers_the_loss_that_it_reports():
    merged, individual = pair()
    losses = []
    ri.representation_surgery({"t": merged}, {"t": individual}, rank=3, progress=lambda step, loss: losses.append(loss))
    assert len(losses) == 1000 and sum(losses[-50:]) < 0.2 * sum(losses[:50])


@pytest.mark.parametrize("merge", ["task_arithmetic", "uniform_soup", "ties_merging"])
def test_it_narrows_the_gap_of_any_merge_and_wins_accuracy_back(merge):
    for seed in (0, 1, 2):
        family = toy_zoo.multitask("mlp", seed)
        merged = {
            "task_arithmetic": lambda f: ri.task_arithmetic(f.base, f.finetuned, scaling_coef=0.3),
            "uniform_soup": lambda f: ri.uniform_soup(f.finetuned),
            "ties_merging": lambda f: ri.ties_merging(f.base, f.finetuned),
        }[merge](family)
        last = "layers.2"
        z = lambda model, split: activations(family.network, model, split[0], [last], at="inputs")[last]  # noqa: B023, E731
        pairs = list(zip(family.tasks, family.finetuned))
        ours, theirs = {t.name: z(merged, t.val) for t in family.tasks}, {t.name: z(m, t.val) for t, m in pairs}
        modules = ri.representation_surgery(ours, theirs)
        before = after = gap_before = gap_after = 0.0
        for task, model in pairs:
            plain, target = z(merged, task.test), z(model, task.test)
            mended = modules[task.name](plain)
            head = model[f"{last}.weight"], model[f"{last}.bias"]
            right = lambda z_: ((z_ @ head[0].T + head[1]).argmax(-1) == task.test[1]).float().mean()  # noqa: B023, E731
            before, after = before + right(plain) / 3, after + right(mended) / 3
            gap_before, gap_after = gap_before + (plain - target).abs().mean(), gap_after + (mended - target).abs().mean()
        assert gap_after < 0.45 * gap_before  # measured: 29 to 35 percent
        assert after > before + 0.12  # measured: 19 to 37 points


def test_bad_input_is_refused():
    merged, individual = pair()
    with pytest.raises(ValueError, match="both need the same"):
        ri.representation_surgery({"a": merged}, {"b": individual})
    with pytest.raises(ValueError, match="rank is 0"):
        ri.representation_surgery({"a": merged}, {"a": individual}, rank=0)
    with pytest.raises(ValueError, match="shapes"):
        ri.representation_surgery({"a": merged}, {"a": individual[:3]})
