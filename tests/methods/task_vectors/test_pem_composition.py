import math

import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.lora import merge_adapter
from reference_impls.task_vectors.pem_composition import pem_negation

E1, E2 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
PAIR = [{"w": (E1, E1.T)}, {"w": (E2, E2.T)}]


def update(adapters, **options):
    A, B = ri.pem_composition(adapters, **options)["w"]
    return B @ A


def random_adapters(count, rank=2, shared_A=False):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    A = draw(rank, 5)
    return [{"w": (A if shared_A else draw(rank, 5), draw(6, rank))} for _ in range(count)]


def exact(adapters, weights, scaling=1.0):
    return sum(w * scaling * a["w"][1] @ a["w"][0] for w, a in zip(weights, adapters))


def test_lora_and_ia3_by_hand():
    # factors (2, 0) + (0, 1) weighted 0.5 and 1: A = (1, 1), B = (3, 0)^T * 0.5 + (0, 4)^T = (1.5, 4)^T
    one, two = {"w": (2 * E1, 3 * E1.T)}, {"w": (E2, 4 * E2.T)}
    A, B = ri.pem_composition([one, two], weights=[0.5, 1.0])["w"]
    assert A.tolist() == [[1.0, 1.0]] and B.tolist() == [[1.5], [4.0]]
    vectors = [{"k": torch.tensor([1.0, 2.0])}, {"k": torch.tensor([0.5, 0.0])}]
    assert ri.pem_composition(vectors, weights=[0.25, 0.75])["k"].tolist() == [0.625, 0.5]
    assert pem_negation(vectors[0])["k"].tolist() == [1.0, 0.0]  # 2 - 1 and 2 - 2


def test_merging_factors_apart_gives_cross_terms():
    half = torch.eye(2) / 2
    assert torch.equal(update(PAIR, combine="concatenate"), half)
    assert torch.equal(update(PAIR), torch.full((2, 2), 0.25))  # relative error sqrt(4 / 16) / sqrt(1 / 2) = 0.71
    assert torch.allclose(update(PAIR, combine="roots"), torch.full((2, 2), 0.5))  # what PEFT calls linear: error 1


def test_negation_turns_the_update_round_and_composes_to_nothing():
    adapter = random_adapters(1)[0]
    A, B = pem_negation(adapter)["w"]
    assert torch.equal(B @ A, -exact([adapter], [1.0]))
    assert update([adapter, pem_negation(adapter)], weights=[1.0, 1.0], combine="concatenate").abs().max() < 1e-5
    assert update([adapter, pem_negation(adapter)], weights=[1.0, 1.0]).abs().max() == 0  # B cancels


def test_a_shared_factor_leaves_no_error_and_equal_modules_come_back():
    shared = random_adapters(2, shared_A=True)
    assert torch.allclose(update(shared, weights=[0.3, 0.7]), exact(shared, [0.3, 0.7]), atol=1e-5)
    assert (update(random_adapters(2), weights=[0.3, 0.7]) - exact(random_adapters(2), [0.3, 0.7])).norm() > 1
    one = random_adapters(1)[0]
    assert torch.allclose(update([one, one, one]), exact([one], [1.0]), atol=1e-5)


def test_concatenation_is_exact_and_svd_is_at_full_rank():
    adapters, w = random_adapters(2), [0.7, -0.3]
    assert torch.allclose(update(adapters, weights=w, combine="concatenate", scaling=2.0), exact(adapters, w, 2.0), atol=1e-5)
    assert torch.allclose(update(adapters, weights=w, combine="svd", scaling=2.0, rank=4), exact(adapters, w, 2.0), atol=1e-4)
    errors = [(update(adapters, weights=w, combine="svd", rank=r) - exact(adapters, w)).norm().item() for r in (1, 2, 3, 4)]
    assert errors[0] > errors[1] > errors[2] > errors[3]


def test_scaling_counts_once():
    # alpha 8, rank 4: scaling 2; taken twice the update would be 4 times too large in place of 2
    adapter = random_adapters(1, rank=4)
    ratio = update(adapter, combine="svd", scaling=8 / 4).norm() / exact(adapter, [1.0]).norm()
    assert ratio.item() == pytest.approx(2.0, rel=1e-4)


def test_the_scaling_of_the_result_is_one_at_any_rank():
    adapters = random_adapters(2, rank=4)
    A, B = ri.pem_composition(adapters, combine="concatenate", scaling=8 / math.sqrt(4))["w"]  # rank-stabilised: alpha / sqrt(r)
    truth = exact(adapters, [0.5, 0.5], 8 / math.sqrt(4)).norm()
    assert A.shape[0] == 8 and ((B @ A).norm() / truth).item() == pytest.approx(1.0, rel=1e-4)
    assert (math.sqrt(A.shape[0]) * (B @ A).norm() / truth).item() == pytest.approx(math.sqrt(8), rel=1e-4)  # PEFT: 2.83


def test_one_adapter_is_treated_as_the_option_says():
    adapter = random_adapters(1)
    assert torch.linalg.matrix_rank(update(adapter, combine="svd", rank=1)) == 1
    assert torch.linalg.matrix_rank(update(adapter, combine="roots")) == 2  # PEFT's answer for every option


def test_pruning_keeps_the_largest_entries_of_each_factor():
    adapter = [{"w": (torch.tensor([[1.0, -3.0]]), torch.tensor([[2.0], [1.0]]))}]
    assert update(adapter, density=0.5).tolist() == [[0.0, -6.0], [0.0, 0.0]]
    assert update(adapter, density=0.25, combine="svd")[0].tolist() == pytest.approx([0.0, -6.0], abs=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_composition_beats_the_base_and_one_initialisation_helps_it(seed):
    family = toy_zoo.adapters("residual", seed)
    options = {"rank": 4, "num_steps": 200, "lr": 2e-3}
    start = lambda: torch.Generator().manual_seed(seed)  # noqa: E731
    same = [toy_zoo.train_adapter(family.network, family.base, t.train, generator=start(), **options) for t in family.tasks]

    def score(adapters, **options):
        merged = merge_adapter(family.base, ri.pem_composition(adapters, **options))
        return toy_zoo.mean_accuracy(family.network, merged, family.tasks)

    base = toy_zoo.mean_accuracy(family.network, family.base, family.tasks)
    assert score(same) > base + 0.08  # measured: 11 to 14 points
    assert score(same) > score(family.adapters) + 0.04  # adapters of initialisations of their own: 7 to 9 points less
    assert score(same, combine="concatenate") > score(same)
    assert score(same, combine="roots") < score(same) - 0.05

    A_B = same[0]
    unlearned = merge_adapter(family.base, ri.pem_composition([pem_negation(A_B)], weights=[0.5]))
    right = lambda model, task: toy_zoo.accuracy(family.network, model, task.test)  # noqa: E731
    lost = [right(family.base, t) - right(unlearned, t) for t in family.tasks]
    assert lost[0] > 0.15 and lost[0] > max(lost[1:]) + 0.05


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no adapters"):
        ri.pem_composition([])
    with pytest.raises(ValueError, match="combine is 'linear'"):
        ri.pem_composition(PAIR, combine="linear")
    with pytest.raises(ValueError, match="1 weights for 2 adapters"):
        ri.pem_composition(PAIR, weights=[1.0])
    with pytest.raises(ValueError, match="ranks"):
        ri.pem_composition([random_adapters(1, rank=2)[0], random_adapters(1, rank=3)[0]])
    with pytest.raises(ValueError, match="one kind"):
        ri.pem_composition([PAIR[0], {"w": torch.ones(2)}])
    with pytest.raises(ValueError, match="same names"):
        ri.pem_composition([PAIR[0], {"v": (E1, E1.T)}])
