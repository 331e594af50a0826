import io

import torch

import reference_impls as ri
from reference_impls.core.progress import progress_bar


def test_a_method_that_trains_shows_its_steps_and_stays_silent_without_a_bar(capsys):
    circle = lambda model: (model["w"].square().sum() - 1).square()  # noqa: E731
    ends = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}
    screen = io.StringIO()
    ri.curve_finding(*ends, circle, num_steps=5, num_points=3, progress=progress_bar(5, "curve", file=screen))
    assert "curve: 100%" in screen.getvalue() and "5/5" in screen.getvalue() and "loss=" in screen.getvalue()
    ri.curve_finding(*ends, circle, num_steps=5, num_points=3)
    assert capsys.readouterr() == ("", "")


def test_more_steps_than_announced_do_not_fail():
    show = progress_bar(1, file=io.StringIO())
    for step in range(3):
        show(step, 1.0)
