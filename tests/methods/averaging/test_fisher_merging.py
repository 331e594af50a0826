import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.statistics import diagonal_fisher


def merge(values, fishers, **options):
    wrap = lambda rows: [{"w": torch.tensor(row)} for row in rows]  # noqa: E731
    return ri.fisher_merging(wrap(values), wrap(fishers), **options)["w"].tolist()


def test_weighted_mean_by_hand():
    # (3 * 0 + 1 * 4) / 4 = 1 and (1 * 2 + 4 * 7) / 5 = 6
    assert merge([[0.0, 2.0], [4.0, 7.0]], [[3.0, 1.0], [1.0, 4.0]]) == [1.0, 6.0]
    # weights 1 and 3: (3 * 0 + 3 * 4) / 6 = 2 and (1 * 2 + 12 * 7) / 13 = 86 / 13
    assert merge([[0.0, 2.0], [4.0, 7.0]], [[3.0, 1.0], [1.0, 4.0]], weights=[1, 3]) == pytest.approx([2.0, 86 / 13])


def test_equal_fishers_give_the_mean():
    assert merge([[0.0, 2.0], [4.0, 7.0]], [[0.3, 5.0], [0.3, 5.0]]) == pytest.approx([2.0, 4.5])


def test_what_has_no_fisher_information_is_averaged():
    models = [{"w": torch.tensor([x]), "running_mean": torch.tensor([x])} for x in (0.0, 4.0)]
    merged = ri.fisher_merging(models, [{"w": torch.tensor([3.0])}, {"w": torch.tensor([1.0])}], weights=[1, 3])
    assert merged["w"].item() == 2.0 and merged["running_mean"].item() == 3.0


def test_order_of_models_and_scale_of_all_fishers_do_not_matter():
    g = torch.Generator().manual_seed(0)
    values, fishers = torch.randn(3, 20, generator=g).tolist(), (torch.rand(3, 20, generator=g) + 0.1).tolist()
    expected = pytest.approx(merge(values, fishers), abs=1e-6)
    assert merge(values[::-1], fishers[::-1]) == expected
    assert merge(values, [[7 * x for x in row] for row in fishers]) == expected


def test_normalizing_makes_the_scale_of_each_fisher_matter_no_more():
    # norms 5 and 50: (0.6 * 1 + 0.8 * 3) / 1.4 in the first entry, (0.8 * 1 + 0.6 * 3) / 1.4 in the second
    values, fishers = [[1.0, 1.0], [3.0, 3.0]], [[3.0, 4.0], [40.0, 30.0]]
    assert merge(values, fishers, normalize="model") == pytest.approx([3.0 / 1.4, 2.6 / 1.4])
    assert merge(values, fishers) == pytest.approx([123 / 43, 94 / 34])


def test_where_nobody_knows_the_first_model_decides_unless_all_get_the_floor():
    values, nothing = [[5.0], [7.0]], [[0.0], [0.0]]
    assert merge(values, nothing) == merge(values, nothing, floor=0.0) == [5.0]
    assert merge(values, nothing, floor_on="all") == merge(values, nothing, floor_on="add") == [6.0]


def test_fisher_information_is_per_example_and_per_class():
    # logits (theta x, 0) at theta = 0: p = 1/2, gradients of log p are x/2 and -x/2, so F = x^2 / 4 = 1 at x = 2
    network = torch.nn.Linear(1, 2, bias=False)
    theta = {"weight": torch.zeros(2, 1)}
    examples = torch.tensor([[2.0], [-2.0]])
    for split in ([examples], examples.split(1)):
        fisher = diagonal_fisher(network, theta, [(x, torch.zeros(len(x), dtype=torch.int64)) for x in split])
        assert fisher["weight"].flatten().tolist() == [1.0, 1.0]
    # the square of the gradient of the sum over classes and batch of sqrt(p) log p: the classes cancel
    weight = torch.zeros(2, 1, requires_grad=True)
    log_p = (examples[:1] @ weight.T).log_softmax(-1)
    (gradient,) = torch.autograd.grad((log_p.exp().sqrt().detach() * log_p).sum(), weight)
    assert gradient.square().flatten().tolist() == [0.0, 0.0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_beats_the_average(seed):
    family = toy_zoo.multitask("mlp", seed)
    fishers = [
        diagonal_fisher(family.network, model, [task.val], estimator="sampled")
        for model, task in zip(family.finetuned, family.tasks)
    ]
    score = lambda model: toy_zoo.mean_accuracy(family.network, model, family.tasks)  # noqa: E731
    assert score(ri.fisher_merging(family.finetuned, fishers)) > score(ri.uniform_soup(family.finetuned)) + 0.03


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="2 models, 1 Fishers"):
        merge([[1.0], [2.0]], [[1.0]])
    with pytest.raises(ValueError, match="negative values"):
        merge([[1.0], [2.0]], [[1.0], [-1.0]])
    with pytest.raises(ValueError, match=r"shape \(1,\) in the models and \(2,\) in Fisher 1"):
        merge([[1.0]], [[1.0, 2.0]])
    with pytest.raises(ValueError, match="need to be positive"):
        merge([[1.0], [2.0]], [[1.0], [1.0]], weights=[1, 0])
    with pytest.raises(ValueError, match="normalize is 'l2'"):
        merge([[1.0]], [[1.0]], normalize="l2")
