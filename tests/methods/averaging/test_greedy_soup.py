import pytest
import torch

import reference_impls as ri
from reference_impls.averaging.greedy_soup import greedy_ingredients
from reference_impls.core import toy_zoo


def models(*values):
    return [{"w": torch.tensor([v])} for v in values]


def near(goal):
    return lambda model: -abs(model["w"].item() - goal)


def test_ingredients_by_hand():
    # goal 3; by score: 4, 1, 9. Averages 4 (off 1), then 2.5 (off 0.5, kept), then 14 / 3 = 4.67 (off 1.67, not kept)
    assert ri.greedy_soup(models(9.0, 1.0, 4.0), near(3))["w"].item() == 2.5
    assert [m["w"].item() for m in greedy_ingredients(models(9.0, 1.0, 4.0), near(3))] == [4.0, 1.0]


def test_one_model_comes_back_and_equal_models_too():
    assert ri.greedy_soup(models(5.0), near(0))["w"].item() == 5.0
    assert ri.greedy_soup(models(5.0, 5.0), near(0))["w"].item() == 5.0


def test_a_tie_is_added_unless_strict():
    # a score of one for everything: the paper's >= stirs in all of them, the authors' > keeps the first
    flat = lambda model: 1.0  # noqa: E731
    assert ri.greedy_soup(models(2.0, 4.0, 9.0), flat)["w"].item() == 5.0
    assert ri.greedy_soup(models(2.0, 4.0, 9.0), flat, strict=True)["w"].item() == 2.0


def test_order_of_models_does_not_matter_where_scores_differ():
    values = torch.randn(6, generator=torch.Generator().manual_seed(0)).tolist()
    soups = [ri.greedy_soup(models(*v), near(0.2))["w"].item() for v in (values, values[::-1])]
    assert soups[0] == pytest.approx(soups[1], abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_never_below_its_best_member_on_the_held_out_score(seed):
    values = torch.randn(5, generator=torch.Generator().manual_seed(seed)).tolist()
    score = near(0.1)
    assert score(ri.greedy_soup(models(*values), score)) >= max(score(m) for m in models(*values))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_beats_the_uniform_soup_of_models_of_mixed_quality(seed):
    family = toy_zoo.soup("mlp", seed)
    on = lambda split: lambda model: toy_zoo.accuracy(family.network, model, getattr(family.task, split))  # noqa: E731
    greedy, uniform = ri.greedy_soup(family.finetuned, on("val")), ri.uniform_soup(family.finetuned)
    assert on("val")(greedy) >= max(map(on("val"), family.finetuned))
    assert on("test")(greedy) > on("test")(uniform)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no models"):
        ri.greedy_soup([], near(0))
    with pytest.raises(ValueError, match="shape"):
        ri.greedy_soup([{"w": torch.zeros(1)}, {"w": torch.zeros(2)}], lambda m: 0.0)
