"""A progress bar for the methods that train: pass it as `progress`; without it they are silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO


def progress_bar(num_steps: int, description: str = "", file: TextIO | None = None) -> Callable[[int, float], None]:
    """Return a callback (step, loss) that shows steps, rate, time left and the last loss with tqdm.

    Args:
        num_steps: steps of the whole run, for the time left; the bar goes on if there are more.
        description: what stands before the bar.
        file: where it is drawn. Default None: standard error.

    Returns:
        A function to pass as `progress`. It closes the bar after the last step.

    Raises:
        ImportError: tqdm, which draws the bar, is missing.

    Example:
        >>> import io
        >>> screen = io.StringIO()
        >>> show = progress_bar(2, "training", file=screen)
        >>> show(0, 1.5), show(1, 0.25)
        (None, None)
        >>> "training: 100%" in screen.getvalue(), "loss=0.25" in screen.getvalue()
        (True, True)
    """
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError('progress_bar needs tqdm: pip install "model-fusion-atlas[progress]"') from error
    bar = tqdm(total=num_steps, desc=description or None, file=file, mininterval=0)

    def show(step: int, loss: float) -> None:
        bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
        bar.update(step + 1 - bar.n)
        if bar.n >= num_steps:
            bar.close()

    return show
