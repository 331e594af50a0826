import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.task_vectors.della import drop_and_rescale, keep_probabilities


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def keep(values, density, epsilon):
    return keep_probabilities({"w": torch.tensor(values)}, density, epsilon)["w"].tolist()


def test_probabilities_and_rescaling_by_hand():
    # density 0.6, epsilon 0.4: from 0.4 to 0.8 in steps of 0.1 over five ranks
    assert keep([[5.0, -1.0, 0.0, -9.0, 2.0]], 0.6, 0.4) == [pytest.approx([0.7, 0.5, 0.4, 0.8, 0.6])]
    tau, mask, p = ({"w": torch.tensor(v)} for v in ([4.0, -6.0, 1.0], [1.0, 1.0, 0.0], [0.5, 0.75, 0.25]))
    assert drop_and_rescale(tau, mask, p)["w"].tolist() == [8.0, -8.0, 0.0]
    assert drop_and_rescale(tau, mask, p, "none")["w"].tolist() == [4.0, -6.0, 0.0]
    assert drop_and_rescale(tau, mask, p, "mass")["w"].tolist() == pytest.approx([4.4, -6.6, 0.0])  # times 11 / 10


def test_epsilon_zero_is_dare_and_density_one_drops_nothing():
    base, models = {"w": torch.zeros(30)}, [{"w": torch.randn(30, generator=seeded(s))} for s in (1, 2)]
    a = ri.della(base, models, density=0.5, epsilon=0.0, scaling_coef=1.0, merge="sum", generator=seeded(3))
    b = ri.dare(base, models, density=0.5, generator=seeded(3))
    assert torch.allclose(a["w"], b["w"], atol=1e-6)
    kept = ri.della(base, models, density=1.0, scaling_coef=0.7)
    assert torch.allclose(kept["w"], ri.ties_merging(base, models, density=1.0, scaling_coef=0.7)["w"], atol=1e-6)


def test_the_mean_over_two_thousand_seeds_is_the_task_vector():
    tau, seeds = torch.tensor([[1.0, -2.0, 0.5, 30.0]]), 2000
    q = torch.tensor(keep(tau.tolist(), 0.4, 0.6))  # 0.3, 0.5, 0.1, 0.7
    options = {"density": 0.4, "epsilon": 0.6, "scaling_coef": 1.0}
    base, model = {"w": torch.zeros(1, 4)}, {"w": tau}
    draws = torch.stack([ri.della(base, [model], generator=seeded(s), **options)["w"] for s in range(seeds)])
    standard_error = tau.abs() * ((1 - q) / q / seeds).sqrt()
    assert ((draws.mean(0) - tau).abs() < 3 * standard_error).all()
    assert (((draws != 0).float().mean(0) - q).abs() < 3 * (q * (1 - q) / seeds).sqrt()).all()


def test_rescaling_by_mass_is_biased_where_the_paper_is_not():
    # all four masks of (3, 1) with probabilities (3/4, 1/4), weighted by how likely they are
    tau, p, mean = torch.tensor([3.0, 1.0]), torch.tensor([0.75, 0.25]), {"probability": 0, "mass": 0}
    for mask in ([1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]):
        m = torch.tensor(mask)
        for how in mean:
            sparse = drop_and_rescale({"w": tau}, {"w": m}, {"w": p}, how)["w"]
            mean[how] = mean[how] + torch.where(m > 0, p, 1 - p).prod() * sparse
    assert mean["probability"].tolist() == [3.0, 1.0]
    assert mean["mass"].tolist() == [2.8125, 0.4375]  # 3/16 * 3 + 9/16 * 4, 3/16 * 1 + 1/16 * 4


def test_epsilon_is_the_full_width():
    assert keep([[1.0, 2.0, 3.0]], 0.5, 0.2) == [pytest.approx([0.4, 0.5, 0.6])]
    assert keep([[1.0, 2.0, 3.0]], 0.5, 2 * 0.2) == [pytest.approx([0.3, 0.5, 0.7])]  # what mergekit calls 0.2


def test_ranks_are_taken_in_each_row_and_a_row_of_one_keeps_the_mean_rate():
    assert keep([[1.0, 2.0], [30.0, 20.0]], 0.5, 0.5) == [[0.25, 0.75], [0.75, 0.25]]
    assert keep([1.0, 2.0], 0.5, 0.5) == [0.25, 0.75]
    assert keep([[[[1.0]], [[4.0]]], [[[3.0]], [[2.0]]]], 0.5, 0.5) == [[[[0.25]], [[0.75]]], [[[0.75]], [[0.25]]]]
    assert keep([[1.0]] * 5, 0.5, 0.5) == [[0.5]] * 5 and keep([1.0], 0.5, 0.5) == [0.5]  # 0 / 0 in mergekit


def test_the_election_comes_after_the_drop_and_the_sum_does_without():
    base, models = {"w": torch.zeros(1)}, [{"w": torch.tensor([3.0])}, {"w": torch.tensor([-1.0])}]
    assert ri.della(base, models, density=1.0, scaling_coef=2.0)["w"].tolist() == [6.0]
    assert ri.della(base, models, density=1.0, scaling_coef=2.0, merge="sum")["w"].tolist() == [4.0]
    assert ri.della(base, models, density=1.0, scaling_coef=1.0, merge="sum", weights=[1.0, 2.0])["w"].tolist() == [1.0]


def test_same_seed_gives_the_same_bits_on_one_and_two_threads():
    base, model = {"w": torch.zeros(200, 500)}, {"w": torch.randn(200, 500, generator=seeded(0))}
    threads, results = torch.get_num_threads(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        results.append(ri.della(base, [model, model], generator=seeded(7))["w"])
    torch.set_num_threads(threads)
    assert torch.equal(*results) and not torch.equal(results[0], ri.della(base, [model, model], generator=seeded(8))["w"])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_at_high_drop_rates_it_loses_less_than_dare(seed):
    family = toy_zoo.multitask("mlp", seed)

    def after(epsilon, finetuned, tasks):
        options = {"density": 0.1, "epsilon": epsilon, "scaling_coef": 1.0}
        draws = [ri.della(family.base, finetuned, generator=seeded(s), **options) for s in range(10)]
        return sum(toy_zoo.mean_accuracy(family.network, m, tasks) for m in draws) / 10

    one, all_three = (family.finetuned[:1], family.tasks[:1]), (family.finetuned, family.tasks)
    assert after(0.2, *one) > after(0.0, *one) + 0.03  # measured: 4 to 6 points
    assert after(0.2, *all_three) > after(0.0, *all_three) + 0.03  # measured: 5 to 8 points


def test_bad_input_is_refused():
    base, model = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
    with pytest.raises(ValueError, match="density is 0"):
        ri.della(base, [model], density=0)
    with pytest.raises(ValueError, match="epsilon is 0.5 with density 0.2"):
        ri.della(base, [model], density=0.2, epsilon=0.5)
    with pytest.raises(ValueError, match="no fine-tuned models"):
        ri.della(base, [])
    with pytest.raises(ValueError, match="merge is 'ties'"):
        ri.della(base, [model], merge="ties")
    with pytest.raises(ValueError, match="rescale is 'l1'"):
        ri.della(base, [model], rescale="l1")
    with pytest.raises(ValueError, match="2 weights for 1 models"):
        ri.della(base, [model], weights=[1.0, 2.0])


def test_what_agrees_is_averaged_or_added_up():
    base, models = {"w": torch.zeros(1, 2)}, [{"w": torch.tensor([[1.0, 1.0]])}, {"w": torch.tensor([[3.0, -1.0]])}]
    nothing_dropped = {"density": 1.0, "scaling_coef": 1.0, "zero_sum": "plus"}
    assert ri.della(base, models, **nothing_dropped)["w"].tolist() == [[2.0, 1.0]]
    assert ri.della(base, models, **nothing_dropped, aggregate="sum")["w"].tolist() == [[4.0, 1.0]]
