import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def stitch(*values, **options):
    return ri.spatial_ensemble([{"w": torch.tensor(v)} for v in values], **options)["w"]


def test_moving_average_by_hand():
    # nothing preserved, momentum 0.75: 0 -> 0.25 * 8 = 2 -> 0.75 * 2 + 0.25 * 4 = 2.5
    assert stitch([0.0], [8.0], [4.0], preserve=0.0, momentum=0.75).tolist() == [2.5]


def test_all_preserved_is_the_first_teacher_and_nothing_preserved_the_last_student():
    assert stitch([0.0], [8.0], [4.0], preserve=1.0).tolist() == [0.0]
    assert stitch([0.0], [8.0], [4.0], preserve=0.0).tolist() == [4.0]


def test_fragments_are_whole_tensors_channels_or_entries():
    teacher, student = torch.zeros(200, 5), torch.ones(200, 5)
    run = lambda fragment: ri.spatial_ensemble(  # noqa: E731
        [{"w": teacher}, {"w": student}], preserve=0.5, fragment=fragment
    )["w"]
    assert len(run("tensor").unique()) == 1
    rows = run("channel")
    assert (rows == rows[:, :1]).all() and 0.35 < rows.mean() < 0.65
    entries = run("entry")
    assert not (entries == entries[:, :1]).all() and 0.45 < entries.mean() < 0.55


def test_the_mean_over_two_thousand_seeds_is_the_moving_average():
    # one update from 0 to 1 with p = 0.9 and m = 0.5: expected 0.1 * 0.5, standard deviation 0.5 * sqrt(0.09)
    draws = torch.stack([stitch([0.0, 0.0], [1.0, 1.0], preserve=0.9, momentum=0.5, generator=seeded(s)) for s in range(2000)])
    assert (draws.mean() - 0.05).abs() < 3 * 0.5 * 0.3 / 2000**0.5


def test_same_seed_gives_the_same_bits_on_one_and_two_threads():
    models = [{"w": torch.randn(300, 300, generator=seeded(s))} for s in range(3)]
    threads, results = torch.get_num_threads(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        results.append(ri.spatial_ensemble(models, preserve=0.5, momentum=0.3, fragment="entry", generator=seeded(7))["w"])
    torch.set_num_threads(threads)
    assert torch.equal(*results)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_teacher_is_better_than_its_noisy_students(seed):
    family, task = toy_zoo.multitask("mlp", seed), toy_zoo.digits("upright", flat=True)
    students, model = [], family.base
    for step in range(60):
        g = seeded(1000 * seed + step)
        model = toy_zoo.train(family.network, model, task.train, num_steps=1, lr=1e-2, generator=g, batch_size=16)
        students.append(model)
    score = lambda model: toy_zoo.accuracy(family.network, model, task.test)  # noqa: E731
    mean_student = sum(map(score, students[-20:])) / 20
    path = [family.base, *students]
    assert score(ri.spatial_ensemble(path, preserve=0.9, fragment="entry")) > mean_student + 0.05  # measured: 8 to 11 points
    assert score(ri.spatial_ensemble(path, preserve=0.5, momentum=0.8)) > mean_student + 0.05


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="preserve is 2"):
        stitch([0.0], preserve=2)
    with pytest.raises(ValueError, match="momentum is 1"):
        stitch([0.0], momentum=1)
    with pytest.raises(ValueError, match="fragment is 'layer'"):
        stitch([0.0], fragment="layer")
    with pytest.raises(ValueError, match="no models"):
        ri.spatial_ensemble([])
