import pytest
import torch

import reference_impls as ri
from reference_impls.averaging.checkpoint_bayesopt import search_share
from reference_impls.core import toy_zoo


def peak(at):
    return lambda share: -((share - at) ** 2)


def test_the_ends_come_first_and_then_the_proposal_by_hand():
    # values 0 and 1 at the ends, length 1: k = exp(-0.5) = 0.6065 between them, and the upper bound peaks at the better end side
    trials = search_share(lambda share: share, lower=0.0, num_trials=3, acquisition="ucb", length=1.0)
    assert [trial[0] for trial in trials[:2]] == [0.0, 1.0]
    x = torch.tensor([0.0, 1.0], dtype=torch.float64)
    y = torch.tensor([-1.0, 1.0], dtype=torch.float64)  # standardised
    grid = torch.linspace(0, 1, 201, dtype=torch.float64)
    k = torch.tensor([[1.0001, 0.60653066], [0.60653066, 1.0001]], dtype=torch.float64)
    cross = torch.exp(-((grid[:, None] - x) ** 2) / 2)
    solved = torch.linalg.solve(k, cross.T)
    bound = (y @ solved) + 2 * (1 - (cross.T * solved).sum(0)).sqrt()
    assert trials[2][0] == pytest.approx(grid[bound.argmax()].item())


@pytest.mark.parametrize("acquisition", ["hedge", "ei", "ucb"])
@pytest.mark.parametrize("at", [0.55, 0.7, 0.93])
def test_it_finds_the_peak_of_a_parabola(at, acquisition):
    best = max(search_share(peak(at), acquisition=acquisition, num_trials=10), key=lambda trial: trial[1])
    assert abs(best[0] - at) < 0.02


def test_an_end_may_be_best_and_equal_checkpoints_stay():
    a, b = {"w": torch.tensor([0.0])}, {"w": torch.tensor([1.0])}
    assert ri.checkpoint_bayesopt(a, b, lambda model: model["w"].item())["w"].item() == 1.0
    assert ri.checkpoint_bayesopt(b, b, lambda model: 0.0)["w"].item() == 1.0


def test_scale_and_offset_of_the_score_do_not_matter():
    shares = lambda f: [share for share, _ in search_share(f, num_trials=6)]  # noqa: E731
    assert shares(peak(0.7)) == pytest.approx(shares(lambda share: 5 * peak(0.7)(share) - 3), abs=0.01)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_never_below_the_checkpoints_and_near_the_best_share_of_a_fine_grid(seed):
    family = toy_zoo.soup("mlp", seed)
    generator = lambda: torch.Generator().manual_seed(seed)  # noqa: E731
    early, late = (
        toy_zoo.train(family.network, family.base, family.task.train, num_steps=n, lr=8e-3, generator=generator())
        for n in (10, 14)
    )
    score = lambda model: -toy_zoo.loss(family.network, model, family.task.val).item()  # noqa: E731
    found = score(ri.checkpoint_bayesopt(early, late, score, lower=0.0))
    grid = [score(ri.uniform_soup([early, late], weights=[1 - i / 50, i / 50])) for i in range(51)]
    assert found >= max(score(early), score(late), score(ri.uniform_soup([early, late])))
    assert found > max(grid) - 0.005


def test_bad_input_is_refused():
    a = {"w": torch.zeros(1)}
    for options, message in (
        ({"lower": 1.0}, "lower is 1.0"),
        ({"num_trials": 1}, "num_trials is 1"),
        ({"acquisition": "random"}, "acquisition is 'random'"),
        ({"length": 0}, "length is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ri.checkpoint_bayesopt(a, a, lambda model: 0.0, **options)
