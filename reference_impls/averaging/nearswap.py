r"""NearSwap.

Where two models nearly agree, the second one's value is taken; where they differ, the first one moves towards the second by
a fixed small step only. The result is the first model with a nuance of the second, and no parameter is far from where it
was.

Notation: a an entry of the first model, b of the second, t the largest step.

Departures: none. The published rule interpolates with the weight t / |a - b|, limited to 1, which is a step of at most t.
"""

from __future__ import annotations

from reference_impls.core.state_dict import StateDict, check_same_structure, to_state_dict, to_vector, zip_entries


def nearswap(model_a: StateDict, model_b: StateDict, *, t: float = 1e-4) -> StateDict:
    r"""Move every entry of the first model towards the second by at most t.

    $$
    \theta = (1 - w)\,a + w\,b, \quad w = \min\Big(1, \frac{t}{|a - b|}\Big)
    \qquad\Longleftrightarrow\qquad \theta = a + \operatorname{clip}(b - a,\, -t,\, t)
    $$

    Args:
        model_a: the model that is kept (base model of mergekit).
        model_b: the model it is moved towards.
        t: largest change of an entry, in units of the weights, >= 0. Default 1e-4: the first published merge,
            QuartetAnemoi-70B-t0.0001.

    Returns:
        A new state dict, structured as `model_a`.

    Raises:
        ValueError: models of another structure, a negative t.

    Example:
        The first entries differ by less than 1 and are swapped; the second moves by 1, from 0 towards -5.

        >>> import torch
        >>> nearswap({"w": torch.tensor([2.0, 0.0])}, {"w": torch.tensor([2.5, -5.0])}, t=1.0)
        {'w': tensor([ 2.5000, -1.0000])}

    References:
        alchemonaut, model card of QuartetAnemoi-70B-t0.0001; mergekit, the method nearswap.
    """
    if t < 0:
        raise ValueError(f"t is {t}; it is at least 0")
    check_same_structure(model_a, model_b)
    # every entry goes towards the other model, by t at most
    moved = zip_entries(lambda a, b: a + (b - a).clamp(-t, t), to_vector(model_a), to_vector(model_b))
    return to_state_dict(moved, like=model_a)
