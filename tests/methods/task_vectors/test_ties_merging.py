import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def models(*values):
    return [{"w": torch.tensor(v)} for v in values]


def merge(*values, base=None, **options):
    start = torch.zeros(len(values[0])) if base is None else torch.tensor(base)
    return ri.ties_merging({"w": start}, models(*values), **options)["w"].tolist()


def test_trim_elect_and_mean_by_hand():
    # density 0.5 keeps 2 of 4: tau_1 = (0, 3, -4, 0), tau_2 = (0, -5, -6, 0); sums (0, -2, -10, 0)
    # signs (-, -, -, -) by majority where the sum is zero; means of what agrees: -5 alone, (-4 - 6) / 2
    assert merge([1.0, 3.0, -4.0, 2.0], [1.0, -5.0, -6.0, -2.0], density=0.5) == [0.0, -5.0, -5.0, 0.0]
    assert merge([1.0, 3.0, -4.0, 2.0], [1.0, -5.0, -6.0, -2.0], density=0.5, scaling_coef=0.4, base=[1.0] * 4) == pytest.approx(
        # task vectors from base 1: (0, 2, -5, 1) and (0, -6, -7, -3) -> (0, 2, -5, 0), (0, -6, -7, 0) -> (0, -6, -6, 0)
        [1.0, -1.4, -1.4, 1.0]
    )


def test_one_untrimmed_model_comes_back():
    assert merge([1.5, -2.0, 3.0], density=1.0, base=[0.5, 0.5, 0.5]) == pytest.approx([1.5, -2.0, 3.0])


def test_without_conflict_and_trimming_it_is_the_average():
    assert merge([1.0, -2.0], [3.0, -4.0], density=1.0) == [2.0, -3.0]


def test_order_of_models_does_not_matter():
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(0)).tolist()
    assert merge(*values, density=0.3) == pytest.approx(merge(*reversed(values), density=0.3), abs=1e-6)


def test_scaling_the_task_vectors_scales_the_merged_one():
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    assert merge(*(2 * values).tolist()) == pytest.approx([2 * x for x in merge(*values.tolist())], abs=1e-6)


def test_small_tensors_survive_only_a_trim_within_each_tensor():
    base = {"large": torch.zeros(8), "small": torch.zeros(4)}
    model = {"large": torch.arange(1.0, 9.0), "small": torch.arange(1.0, 5.0) / 100}
    whole = ri.ties_merging(base, [model], density=0.5)
    each = ri.ties_merging(base, [model], density=0.5, trim="tensor")
    assert whole["small"].tolist() == [0, 0, 0, 0] and whole["large"].tolist() == [0, 0, 3, 4, 5, 6, 7, 8]
    assert each["small"].tolist() == pytest.approx([0, 0, 0.03, 0.04]) and each["large"].tolist() == [0, 0, 0, 0, 5, 6, 7, 8]


def test_density_times_size_entries_are_kept_and_equal_magnitudes_stay_together():
    kept = lambda values, **o: sum(v != 0 for v in merge(values, **o))  # noqa: E731
    assert kept([float(v) for v in range(1, 11)], density=0.2) == 2  # the authors' code keeps 3: the 8 too
    assert kept([1.0, 2.0, 2.0, 2.0], density=0.25) == 3
    assert kept([float(v) for v in range(1, 11)], density=1.0) == 10
    with pytest.raises(RuntimeError, match="out of range"):
        torch.arange(1.0, 11.0).kthvalue(10 - int(10 * 1.0))  # the authors' threshold at density 1


def test_equal_magnitudes_are_kept_together_and_half_precision_does_not_overflow():
    assert merge([1.0, 2.0, -2.0, 2.0], density=0.25) == [0.0, 2.0, -2.0, 2.0]
    large = torch.tensor([40000.0], dtype=torch.float16)
    assert ri.ties_merging({"w": 0 * large}, [{"w": large}, {"w": large}])["w"].item() == 40000
    assert ((large + large) / 2).isinf()  # summed in float16


def test_by_default_a_fifth_is_kept():
    assert merge([5.0, 1.0, 2.0, 3.0, 4.0]) == [5.0, 0.0, 0.0, 0.0, 0.0]
    assert merge([5.0, 1.0, 2.0, 3.0, 4.0], density=1.0) == [5.0, 1.0, 2.0, 3.0, 4.0]


def test_a_tiny_tensor_keeps_its_largest_entry():
    assert int(0.2 * 4) == 0
    assert merge([4.0, 3.0, 2.0, 1.0], density=0.2, trim="tensor") == [4.0, 0.0, 0.0, 0.0]


def test_what_survives_the_trim_keeps_its_size():
    tau, kept = torch.tensor([3.0, -4.0, 1.0, 2.0]), torch.tensor([3.0, -4.0, 0.0, 0.0])
    assert merge(tau.tolist(), density=0.5) == kept.tolist()
    assert (kept * tau.norm(p=1) / kept.norm(p=1)).tolist() == pytest.approx([4.286, -5.714, 0, 0], abs=1e-3)  # times 10 / 7
    assert (kept * tau.norm() / kept.norm()).tolist() == pytest.approx([3.286, -4.382, 0, 0], abs=1e-3)  # times 30 ** 0.5 / 5


def test_sign_is_elected_by_mass_and_not_by_count():
    assert merge([1.0, 0.0], [1.0, 0.0], [-5.0, 0.0], density=1.0) == [-5.0, 0.0]
    assert merge([1.0, 0.0], [1.0, 0.0], [-5.0, 0.0], density=1.0, elect="count") == [1.0, 0.0]
    # by squares over norms the first entry counts 9 / 25 for plus and 4 / 4 for minus, so that -2 would be left
    assert merge([3.0, 4.0], [-2.0, 0.0], density=1.0) == [3.0, 4.0] and 3**2 / (3**2 + 4**2) < 2**2 / 2**2


def test_a_sum_of_zero_takes_the_majority_sign():
    # first entry: 2 - 2 = 0; the other two entries elect minus, so minus it is. Positive would give 2, dropping 0.
    assert merge([2.0, -1.0, -1.0], [-2.0, -1.0, -1.0], density=1.0) == [-2.0, -1.0, -1.0]
    assert merge([2.0, -1.0, -1.0], [-2.0, -1.0, -1.0], density=1.0, zero_sum="plus") == [2.0, -1.0, -1.0]


def test_sum_and_max_of_the_agreeing_values():
    assert merge([1.0], [3.0], [-2.0], density=1.0) == [2.0]
    assert merge([1.0], [3.0], [-2.0], density=1.0, aggregate="sum") == [4.0]
    assert merge([1.0], [3.0], [-2.0], density=1.0, aggregate="max") == [3.0]


def test_tied_weights_are_ranked_once():
    # once: 1, 0.5, 3, 2, 4 at density 0.5 keep 4 and 3. Two equal copies of the tied pair make seven entries, and 2 is kept as well.
    def merged(head):
        start, tied = torch.zeros(2), torch.tensor([1.0, 0.5])
        base = {"embed": start, "head": start if head is None else torch.zeros(2), "rest": torch.zeros(3)}
        model = {"embed": tied, "head": tied if head is None else head, "rest": torch.tensor([3.0, 2.0, 4.0])}
        return ri.ties_merging(base, [model], density=0.5)["rest"].tolist()

    assert merged(None) == [3.0, 0.0, 4.0]
    assert merged(torch.tensor([1.0, 0.5])) == [3.0, 2.0, 4.0]


def test_weights_act_before_the_election_and_divide_the_mean():
    # (10, -10) and (-3, 3): signs (+, -), so the first alone, 10 / 10. Electing before weighting would give (-3, 3).
    assert merge([1.0, -1.0], [-3.0, 3.0], density=1.0, weights=[10.0, 1.0]) == [1.0, -1.0]
    assert merge([1.0], [4.0], density=1.0, weights=[1.0, 3.0]) == [13 / 4]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_beats_task_arithmetic_where_small_drifts_pull_against_the_signs(seed):
    # The paper's picture of interference, with a known answer: linear models of 200 weights, task t moves 40 of them by one (in a direction
    # that tasks share), the others drift by noise that its data cannot see. Loss of a task: mean squared error of the weights it uses.
    # Task arithmetic takes the best of five coefficients, TIES its defaults.
    generator = torch.Generator().manual_seed(seed)
    used = torch.stack([torch.randperm(200, generator=generator) < 40 for _ in range(4)])
    moved = torch.where(used, torch.randn(200, generator=generator).sign(), 0.5 * torch.randn(4, 200, generator=generator))
    base, finetuned = {"w": torch.zeros(200)}, [{"w": row} for row in moved]

    def loss(merged):
        return float(((merged["w"] - moved) ** 2)[used].mean())

    ties = loss(ri.ties_merging(base, finetuned))
    arithmetic = min(loss(ri.task_arithmetic(base, finetuned, scaling_coef=c)) for c in (0.3, 0.5, 0.7, 0.9, 1.0))
    average = loss(ri.uniform_soup(finetuned))
    assert ties < 0.8 * arithmetic and ties < 0.6 * average


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_small_dense_networks_it_does_not_beat_tuned_task_arithmetic(seed):
    # The toy networks have no redundant weights to trim; the record's note prints these accuracies.
    family = toy_zoo.multitask("mlp", seed)
    accuracy = lambda state_dict: toy_zoo.mean_accuracy(family.network, state_dict, family.tasks)  # noqa: E731
    ties = accuracy(ri.ties_merging(family.base, family.finetuned))
    assert accuracy(family.base) + 0.25 < ties < accuracy(ri.task_arithmetic(family.base, family.finetuned, scaling_coef=0.5))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="density is 0"):
        merge([1.0], density=0)
    with pytest.raises(ValueError, match="no fine-tuned models"):
        ri.ties_merging({"w": torch.zeros(1)}, [])
    with pytest.raises(ValueError, match="shape"):
        merge([1.0, 2.0], base=[0.0])
    with pytest.raises(ValueError, match="elect is 'vote'"):
        merge([1.0], elect="vote")
    with pytest.raises(ValueError, match="2 weights for 1 models"):
        merge([1.0], weights=[1.0, 2.0])
