import pytest
import torch

from reference_impls.core.evolution import cma_es, non_dominated, nsga3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cma_es_follows_a_narrow_turned_valley(seed):
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))[0]
    stretch = torch.logspace(0, 3, 5, dtype=torch.float64)  # 1 to 1000
    objective = lambda x: float((stretch * (turn @ (x - 0.3)) ** 2).sum())  # noqa: E731
    best, value = cma_es(objective, torch.zeros(5), sigma=0.3, num_evaluations=3000, generator=generator)
    assert value < 1e-8 and torch.allclose(best, torch.full((5,), 0.3, dtype=torch.float64), atol=1e-3)


def test_cma_es_stays_in_its_box_and_counts_its_evaluations():
    seen = []
    best, value = cma_es(lambda x: seen.append(x) or float(-x.sum()), torch.full((3,), 0.5), low=0.0, high=1.0, num_evaluations=200)
    assert len(seen) <= 200 and all(((x >= 0) & (x <= 1)).all() for x in seen)
    assert value == pytest.approx(-3.0, abs=0.02)


def test_dominance_by_hand():
    values = torch.tensor([[1.0, 5.0], [2.0, 3.0], [2.0, 4.0], [6.0, 1.0], [1.0, 5.0]])
    assert non_dominated(values).tolist() == [True, True, False, True, True]  # equal points do not beat each other


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nsga3_finds_a_known_front_and_spreads_along_it(seed):
    # DTLZ2: the front is an eighth of the unit sphere, reached where the last two coordinates are 0.5
    def objectives(x):
        a, b, g = x[:, 0] * torch.pi / 2, x[:, 1] * torch.pi / 2, 1 + (x[:, 2:] - 0.5).square().sum(dim=1)
        return torch.stack([g * a.cos() * b.cos(), g * a.cos() * b.sin(), g * a.sin()], dim=1)

    _, values = nsga3(objectives, 4, num_generations=60, generator=torch.Generator().manual_seed(seed))
    assert (values.norm(dim=1) - 1).mean() < 0.03  # of random points: about 0.2
    assert (values.amax(dim=0) > 0.95).all() and len(values) > 40
    centre = torch.full((1, 3), 3**-0.5, dtype=torch.float64)
    assert torch.cdist(centre, values).min() < 0.25
