import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.paths import loss_barrier

START = {"w": torch.zeros(1)}


def runs_that_end_at(*ends):
    """A training that ignores its start and ends, run by run, at the given values."""
    left = iter(ends)
    return lambda model, start, stop, generator: {"w": torch.tensor([next(left)])}


def test_barrier_of_a_double_well_by_hand():
    # ends -1 and 1, errors 0 and 0; half way (0 - 1)^2 = 1
    wells = lambda model: (model["w"] ** 2 - 1).square().sum()  # noqa: E731
    result = ri.instability_analysis(START, runs_that_end_at(-1.0, 1.0), wells, num_points=5)
    assert result.losses.tolist() == [[0, 0.5625, 1, 0.5625, 0]] and result.ts.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert result.instability.tolist() == [1] and result.stable.tolist() == [False]


def test_barrier_is_measured_from_the_mean_of_the_ends_and_not_from_the_line_between_them():
    # error = w from 0 to 2: sup 2 minus mean 1 is 1; above the straight line nothing rises
    result = ri.instability_analysis(START, runs_that_end_at(0.0, 2.0), lambda m: m["w"].sum(), num_points=3)
    assert result.instability.tolist() == [1] and loss_barrier(result.losses[0], result.ts) == 0


def test_copies_without_noise_are_stable():
    result = ri.instability_analysis(START, runs_that_end_at(0.5, 0.5), lambda m: m["w"].sum())
    assert result.instability.tolist() == [0] and result.stable.tolist() == [True] and len(result.ts) == 30


def test_the_shared_part_is_trained_once_and_each_copy_from_its_split():
    calls = []

    def train_fn(model, start, stop, generator):
        calls.append((start, stop, generator.initial_seed()))
        return model

    ri.instability_analysis(START, train_fn, lambda m: m["w"].sum(), split_steps=(0, 3, 5), num_steps=8)
    assert [c[:2] for c in calls] == [(0, 8), (0, 8), (0, 3), (3, 8), (3, 8), (3, 5), (5, 8), (5, 8)]
    noise = [seed for start, stop, seed in calls if stop == 8]
    assert len(set(noise)) == len(noise) == 6


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_networks_become_stable_early_in_training(seed):
    # measured: split at initialisation 0.15 to 0.17 error above the ends, at a quarter of training at most 0.02
    task, network = toy_zoo.digits(flat=True), toy_zoo.build("mlp", 24)

    def train_fn(model, start, stop, generator):
        options = dict(num_steps=stop - start, lr=2e-2, batch_size=16, generator=generator)
        return toy_zoo.train(network, model, task.train, **options)

    result = ri.instability_analysis(
        toy_zoo.initialise(network, torch.Generator().manual_seed(seed)),
        train_fn,
        lambda model: 1 - torch.tensor(toy_zoo.accuracy(network, model, task.test)),
        split_steps=(0, 75),
        num_steps=300,
        num_points=11,
        generator=torch.Generator().manual_seed(seed),
    )
    at_start, later = result.instability.tolist()
    assert at_start > 0.08 and later < 0.04
    assert not result.stable[0]


def test_bad_input_is_refused():
    train_fn = runs_that_end_at(0.0, 0.0)
    for steps in ((), (3, 1), (-1,), (9,)):
        with pytest.raises(ValueError, match="split_steps are"):
            ri.instability_analysis(START, train_fn, lambda m: m["w"].sum(), split_steps=steps, num_steps=5)
