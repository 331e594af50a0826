import pytest
import torch

from reference_impls.core.permutation import solve_assignment
from reference_impls.core.transport import transport_plan


def test_exact_plan_splits_a_unit_where_it_must():
    # two units of 1/2 from three of 1/3: (0, 0, 1) distances; unit 2 takes the last and a sixth of the others
    plan = transport_plan(torch.tensor([[0.0, 0.0, 5.0], [1.0, 2.0, 0.0]]))
    assert torch.allclose(plan, torch.tensor([[1 / 6, 1 / 3, 0.0], [1 / 6, 0.0, 1 / 3]], dtype=torch.float64))


def test_entropy_gives_the_gibbs_kernel_with_the_right_marginals():
    # 2 x 2 and symmetric: the plan is exp(-cost / reg) / its sum
    cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    kernel = torch.exp(-cost.double() / 0.5)
    assert torch.allclose(transport_plan(cost, reg=0.5), kernel / kernel.sum(), atol=1e-6)


def test_plan_between_many_units_is_still_the_best():
    # between equally many units the best plan is an assignment; after its usual 100,000 steps POT is 0.05 % above it here
    a, b = torch.randn(2, 2000, 64, generator=torch.Generator().manual_seed(0)).double()
    cost = torch.cdist(a, b)
    best = cost[torch.arange(2000), solve_assignment(-cost)].mean().item()
    assert (transport_plan(cost) * cost).sum().item() == pytest.approx(best, rel=1e-9)


def test_marginals_are_uniform():
    cost = torch.rand(5, 8, generator=torch.Generator().manual_seed(0))
    for reg in (0.0, 0.1):
        plan = transport_plan(cost, reg=reg)
        assert torch.allclose(plan.sum(1), torch.full((5,), 1 / 5, dtype=torch.float64), atol=1e-6)
        assert torch.allclose(plan.sum(0), torch.full((8,), 1 / 8, dtype=torch.float64), atol=1e-6)


def test_a_negative_entropy_is_refused():
    with pytest.raises(ValueError, match="reg is -0.1"):
        transport_plan(torch.zeros(2, 2), reg=-0.1)
