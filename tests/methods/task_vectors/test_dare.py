import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.task_vectors.dare import drop_and_rescale


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def sparse(values, mask, density, **options):
    return drop_and_rescale({"w": torch.tensor(values)}, {"w": torch.tensor(mask)}, density, **options)["w"].tolist()


def test_a_given_mask_by_hand():
    # density 0.25: what is kept is multiplied by 4
    assert sparse([1.0, -2.0, 3.0], [1.0, 1.0, 0.0], 0.25) == [4.0, -8.0, 0.0]
    assert sparse([1.0, -2.0, 3.0], [1.0, 1.0, 0.0], 0.25, rescale="none") == [1.0, -2.0, 0.0]
    assert sparse([1.0, -2.0, 3.0], [1.0, 1.0, 0.0], 0.25, rescale="mass") == [2.0, -4.0, 0.0]  # times 6 / 3
    # one model from base 1, density 0.5: an entry is back at 1 or twice as far from it
    merged = ri.dare({"w": torch.ones(200)}, [{"w": torch.full((200,), 4.0)}], density=0.5)["w"]
    assert set(merged.tolist()) == {1.0, 7.0}


def test_density_one_is_the_merge_without_dropping():
    base = {"w": torch.randn(30, generator=seeded(0))}
    models = [{"w": torch.randn(30, generator=seeded(s))} for s in (1, 2)]
    close = lambda a, b: torch.allclose(a["w"], b["w"], atol=1e-6)  # noqa: E731
    assert close(ri.dare(base, models, density=1.0, scaling_coef=0.3), ri.task_arithmetic(base, models, scaling_coef=0.3))
    assert close(ri.dare(base, models, density=1.0, merge="average"), ri.uniform_soup(models))
    assert close(ri.dare(base, models, density=1.0, merge="ties"), ri.ties_merging(base, models))


def test_the_mean_over_two_thousand_seeds_is_the_task_vector():
    tau, density, seeds = torch.tensor([1.0, -2.0, 0.5, 30.0]), 0.3, 2000
    base = {"w": torch.zeros(4)}
    draws = torch.stack([ri.dare(base, [{"w": tau}], density=density, generator=seeded(s))["w"] for s in range(seeds)])
    standard_error = tau.abs() * ((1 - density) / density / seeds) ** 0.5
    assert ((draws.mean(0) - tau).abs() < 3 * standard_error).all()
    assert ((draws != 0).float().mean() - density).abs() < 3 * (density * (1 - density) / (4 * seeds)) ** 0.5


def test_rescaling_by_mass_is_biased_where_magnitudes_differ():
    # all four masks of (100, 1) at density 0.5: by mass (100 + 101) / 4 = 50.25 and (1 + 101) / 4 = 25.5
    masks = [[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    mean = lambda how: torch.tensor([sparse([100.0, 1.0], m, 0.5, rescale=how) for m in masks]).mean(0).tolist()  # noqa: E731
    assert mean("density") == [100.0, 1.0]
    assert mean("mass") == [50.25, 25.5]


def test_same_seed_gives_the_same_bits_on_one_and_two_threads():
    base, model = {"w": torch.zeros(200, 500)}, {"w": torch.randn(200, 500, generator=seeded(0))}
    threads, results = torch.get_num_threads(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        results.append(ri.dare(base, [model, model], generator=seeded(7))["w"])
    torch.set_num_threads(threads)
    assert torch.equal(*results) and not torch.equal(results[0], ri.dare(base, [model, model], generator=seeded(8))["w"])


def test_a_parameter_equal_in_all_models_does_not_change():
    base = {"frozen": torch.full((50,), 5.0), "w": torch.zeros(50)}
    model = {"frozen": torch.full((50,), 5.0), "w": torch.ones(50)}
    for merge in ("task_arithmetic", "average", "ties"):
        assert torch.equal(ri.dare(base, [model, model], density=0.5, merge=merge)["frozen"], base["frozen"])
    # taken as a task vector of its own, as if the base were zero, the frozen tensor moves by its whole size
    moved = ri.ties_merging({"frozen": torch.zeros(50)}, [{"frozen": model["frozen"]}] * 2, density=1.0)["frozen"]
    assert (base["frozen"] + moved).unique().tolist() == [10.0]


def test_ties_after_the_drop_trims_unless_told_otherwise():
    base, model = {"w": torch.zeros(2)}, {"w": torch.tensor([1.0, 3.0])}
    assert ri.dare(base, [model], density=1.0, merge="ties", ties_density=0.5)["w"].tolist() == [0.0, 3.0]
    assert ri.dare(base, [model], density=1.0, merge="ties", ties_density=1.0)["w"].tolist() == [1.0, 3.0]


def test_with_ties_what_agrees_is_averaged_and_not_summed():
    base, models = {"w": torch.zeros(1)}, [{"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}]
    assert ri.dare(base, models, density=1.0, merge="ties")["w"].item() == 2.0
    assert ri.ties_merging(base, models, density=1.0, aggregate="sum")["w"].item() == 4.0  # dare_ties of mergekit
    assert ri.dare(base, models, density=1.0)["w"].item() == 4.0  # by task arithmetic
    assert ri.dare(base, models, density=1.0, merge="average")["w"].item() == 2.0


def test_by_default_most_entries_are_dropped():
    base, model = {"w": torch.zeros(1000)}, {"w": torch.ones(1000)}
    left = ri.dare(base, [model])["w"]
    assert left.unique().tolist() == [0.0, 10.0] and 70 <= (left != 0).sum() <= 130  # 100, three standard deviations of 9.5
    assert torch.equal(ri.dare(base, [model], density=1.0)["w"], model["w"])


def test_half_of_the_entries_can_go_and_rescaling_saves_the_rest():
    losses, tenth, unscaled = [], [], []
    for seed in (0, 1, 2):
        family = toy_zoo.multitask("mlp", seed)
        score = lambda model: toy_zoo.accuracy(family.network, model, family.tasks[0].test)  # noqa: B023, E731
        after = lambda **o: score(ri.dare(family.base, family.finetuned[:1], generator=seeded(0), **o))  # noqa: B023, E731
        losses.append(score(family.finetuned[0]) - after(density=0.5))
        tenth.append(score(family.finetuned[0]) - after(density=0.1))
        unscaled.append(score(family.finetuned[0]) - after(density=0.1, rescale="none"))
    assert max(losses) < 0.02  # measured: 0.2 to 1.4 points
    assert max(tenth) < 0.20 and min(unscaled) > 0.45  # measured: 12 to 17 points against 53 to 55 without rescaling


def test_bad_input_is_refused():
    base, model = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
    with pytest.raises(ValueError, match="density is 0"):
        ri.dare(base, [model], density=0)
    with pytest.raises(ValueError, match="no fine-tuned models"):
        ri.dare(base, [])
    with pytest.raises(ValueError, match="merge is 'sum'"):
        ri.dare(base, [model], merge="sum")
    with pytest.raises(ValueError, match="rescale is 'l2'"):
        ri.dare(base, [model], rescale="l2")


def test_weights_and_densities_may_differ_from_model_to_model():
    base, models = {"w": torch.zeros(4)}, [{"w": torch.ones(4)}, {"w": torch.full((4,), 3.0)}]
    assert ri.dare(base, models, density=1.0, weights=[0.5, 2.0])["w"].tolist() == [6.5] * 4
    many = [{"w": torch.ones(20_000)}, {"w": torch.full((20_000,), 100.0)}]
    values = ri.dare({"w": torch.zeros(20_000)}, many, density=[1.0, 0.25], rescale="none")["w"]
    assert set(values.tolist()) == {1.0, 101.0}
    assert abs((values > 1).float().mean().item() - 0.25) < 0.02


def test_ties_after_the_drop_adds_up_or_averages():
    base, models = {"w": torch.zeros(2)}, [{"w": torch.tensor([1.0, 1.0])}, {"w": torch.tensor([3.0, -1.0])}]
    drop_nothing = {"density": 1.0, "merge": "ties", "ties_density": 1.0}
    assert ri.dare(base, models, **drop_nothing, zero_sum="plus")["w"].tolist() == [2.0, 1.0]
    assert ri.dare(base, models, **drop_nothing, zero_sum="plus", ties_aggregate="sum")["w"].tolist() == [4.0, 1.0]
