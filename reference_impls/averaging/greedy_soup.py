r"""Greedy soup (wortsman2022soups).

The average of all models suffers from a few bad ones. Sort the models by held-out score and stir them in one at a time;
keep each only if the soup does not get worse. The result is never below the best single model on the held-out data.

Notation: theta_i the models, S the soup (the set of ingredients), score the held-out accuracy of the average of a set.

Departures: none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.core.state_dict import StateDict


def greedy_soup(
    models: Sequence[StateDict],
    score: Callable[[StateDict], float],
    *,
    strict: bool = False,
) -> StateDict:
    r"""Average the models that do not hurt, best first.

    $$
    S \leftarrow S \cup \{\theta_i\} \quad\text{if}\quad
    \mathrm{score}\Big(\tfrac{1}{|S| + 1}\textstyle\sum_{\theta \in S \cup \{\theta_i\}} \theta\Big) \ge
    \mathrm{score}\Big(\tfrac{1}{|S|}\textstyle\sum_{\theta \in S} \theta\Big), \qquad
    i = 1 \dots n \text{ by falling score}
    $$

    Args:
        models: $\theta_1 \dots \theta_n$, n >= 1, in any order.
        score: held-out score of a state dict, higher is better (accuracy).
        strict: True adds a model only if the score rises (the authors' code). Default False: Recipe 1 adds it on a
            tie too.

    Returns:
        A new state dict, structured as the first model.

    Raises:
        ValueError: no models, models of another structure.

    Example:
        The score is best at 3. Sorted: 4 (off by 1), 1 (off by 2), 9 (off by 6). (4 + 1) / 2 = 2.5 is better than 4
        and stays;
        with 9 the average is 4.67, which is worse.

        >>> import torch
        >>> models = [{"w": torch.tensor([x])} for x in (9.0, 1.0, 4.0)]
        >>> greedy_soup(models, lambda model: -abs(model["w"].item() - 3))
        {'w': tensor([2.5000])}

    References:
        wortsman2022soups, Recipe 1.
    """
    return uniform_soup(greedy_ingredients(models, score, strict=strict))


def greedy_ingredients(
    models: Sequence[StateDict],
    score: Callable[[StateDict], float],
    *,
    strict: bool = False,
) -> list[StateDict]:
    """Return the models that the greedy soup keeps, best first.

    Args:
        models: as in `greedy_soup`.
        score: as in `greedy_soup`.
        strict: as in `greedy_soup`. Default False: Recipe 1.

    Returns:
        The ingredients themselves, not copies.

    Raises:
        ValueError: no models.
    """
    if not models:
        raise ValueError("received no models; at least one is needed")
    ranked = sorted(models, key=score, reverse=True)
    ingredients = ranked[:1]
    best = score(uniform_soup(ingredients))
    for model in ranked[1:]:
        value = score(uniform_soup([*ingredients, model]))
        if value > best or (value == best and not strict):
            ingredients, best = [*ingredients, model], value
    return ingredients
