"""The twenty methods of mergekit 0.1.5 in terms of ours: names, parameters, and what differs.

A configuration file in mergekit's format names mergekit's methods and parameters. `METHODS` says which parameters each takes,
with mergekit's defaults, and for which call of a reference function they stand. A call has two variants: "paper" is the method as
its paper defines it, "mergekit" has the options that give mergekit's numbers. `DIFFERENCES` says in words where the two part, and
what no option brings together; the topics are those of the methods' pages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

REQUIRED = object()
VARIANTS = ("paper", "mergekit")

Values = Mapping[str, Any]  # parameter -> value, a list of one value a model where the parameter is `each`
Call = tuple[str, dict[str, Any]]  # a reference function and its options


@dataclass(frozen=True)
class Parameter:
    """A parameter of a method.

    Attributes:
        kind: float, int or bool.
        default: mergekit's, or REQUIRED.
        each: whether every model has its own value; otherwise there is one for the merge.
    """

    kind: type
    default: Any = REQUIRED
    each: bool = False


@dataclass(frozen=True)
class Method:
    """A method of mergekit.

    Attributes:
        base: "needed"; "optional"; "first" where it is the first of two models; "none" where it is a model like the others.
        models: how many besides the base, at least and at most.
        parameters: by mergekit's names.
        call: what the values stand for, given the variant.
    """

    base: Literal["needed", "optional", "first", "none"]
    models: tuple[int, int | None]
    parameters: Mapping[str, Parameter]
    call: Callable[[Values, str], Call]


# --- parameters that several methods share ------------------------------------------------------------------------

WEIGHT = {"weight": Parameter(float, each=True)}
PLUS = {"zero_sum": "plus"}  # only TIES has a majority of all parameters decide; nothing else needs to see the whole model


def _task_vectors(normalize: bool, rescale: bool, **more: Parameter) -> dict[str, Parameter]:
    """The parameters of mergekit's generalized task arithmetic."""
    return {
        **WEIGHT,
        "density": Parameter(float, 1.0, each=True),
        **more,
        "lambda": Parameter(float, 1.0),
        "normalize": Parameter(bool, normalize),
        "rescale": Parameter(bool, rescale),
        "int8_mask": Parameter(bool, False),
    }


def _one(values: Sequence[Any]) -> Any:
    """One value where all models have the same, otherwise the list."""
    return values[0] if all(value == values[0] for value in values) else list(values)


def _scale(p: Values) -> float:
    """The coefficient of a sum of weighted task vectors; `normalize` makes it a mean."""
    total = sum(p["weight"]) if p["normalize"] else 1.0
    return p["lambda"] / (total if abs(total) >= 1e-8 else 1.0)


def _aggregate(p: Values) -> str:
    return "mean" if p["normalize"] else "sum"


def _refuse(p: Values, name: str, value: bool, why: str) -> None:
    if p[name] is value:
        raise ValueError(f"{name}: {str(value).lower()} is not available: {why}")


# --- the calls ----------------------------------------------------------------------------------------------------


def _linear(p: Values, variant: str) -> Call:
    return "uniform_soup", {"weights": p["weight"], "normalize": p["normalize"]}


def _slerp(p: Values, variant: str) -> Call:
    return "slerp", {"t": p["t"]} | ({"dot_threshold": 0.9995} if variant == "mergekit" else {})


def _nuslerp(p: Values, variant: str) -> Call:
    weights = p["weight"] if abs(sum(p["weight"])) >= 1e-6 else [0.5, 0.5]
    scope = "tensor" if p["nuslerp_flatten"] else "column" if p["nuslerp_row_wise"] else "row"
    return "nuslerp", {"weights": weights, "scope": scope}


def _passthrough(p: Values, variant: str) -> Call:
    scale = p["scale"][0]
    return "passthrough", {} if scale is None else {"scale": scale}


def _model_stock(p: Values, variant: str) -> Call:
    options: dict[str, Any] = {"scope": "row"} if p["filter_wise"] else {}
    return "model_stock", options | ({"mean_of": "cosines", "clamp": False} if variant == "mergekit" else {})


def _arcee_fusion(p: Values, variant: str) -> Call:
    return "arcee_fusion", {}


def _karcher(p: Values, variant: str) -> Call:
    return "karcher_mean", {"max_iter": p["max_iter"], "tol": p["tol"]}


def _multislerp(p: Values, variant: str) -> Call:
    if p["eps"] > 1e-6:
        raise ValueError(f"eps is {p['eps']}; lengths are divided by as they are here, so that only a negligible one is taken")
    weights = p["weight"] if len(p["weight"]) > 1 else [1.0]  # one model stays as it is
    return "multislerp", {"weights": weights, "normalize_weights": p["normalize_weights"]}


def _nearswap(p: Values, variant: str) -> Call:
    return "nearswap", {"t": p["t"]}


def _ram(p: Values, variant: str) -> Call:
    return "ram", {"eps": p["epsilon"]}


def _ramplus_tl(p: Values, variant: str) -> Call:
    return "ram_plus", {"r": p["r"], "alpha": p["alpha"], "eps": p["epsilon"], "scope": "tensor"}


def _sce(p: Values, variant: str) -> Call:
    return "sce", {"density": p["select_topk"]}


def _task_arithmetic(p: Values, variant: str) -> Call:
    return "task_arithmetic", {"weights": p["weight"], "scaling_coef": _scale(p)}


def _ties(p: Values, variant: str) -> Call:
    _refuse(p, "rescale", True, "TIES doesn't enlarge what the trim leaves")
    options = {"density": _one(p["density"]), "weights": p["weight"], "scaling_coef": p["lambda"]}
    options["aggregate"] = _aggregate(p)
    return "ties_merging", options | ({"trim": "tensor", **PLUS} if variant == "mergekit" else {})


def _dare(p: Values, variant: str) -> dict[str, Any]:
    rescale = {"paper": "density", "mergekit": "mass"}[variant] if p["rescale"] else "none"
    return {"density": _one(p["density"]), "weights": p["weight"], "rescale": rescale}


def _dare_linear(p: Values, variant: str) -> Call:
    return "dare", _dare(p, variant) | {"merge": "task_arithmetic", "scaling_coef": _scale(p)}


def _dare_ties(p: Values, variant: str) -> Call:
    options = {"merge": "ties", "ties_density": 1.0, "ties_aggregate": _aggregate(p), "scaling_coef": p["lambda"], **PLUS}
    return "dare", _dare(p, variant) | options


def _breadcrumbs(p: Values, variant: str) -> Call:
    _refuse(p, "rescale", True, "Model Breadcrumbs doesn't enlarge what the mask leaves")
    gamma = [gamma if density < 1 else 0.0 for gamma, density in zip(p["gamma"], p["density"])]  # a density of 1 keeps all
    options = {"density": _one(p["density"]), "gamma": _one(gamma), "weights": p["weight"]}
    return "breadcrumbs", options | {"scaling_coef": _scale(p)}


def _breadcrumbs_ties(p: Values, variant: str) -> Call:
    _refuse(p, "normalize", True, "with elected signs the breadcrumbs are added up")
    name, options = _breadcrumbs(p, variant)
    return name, options | {"merge": "ties", **PLUS}


def _magprune(p: Values, variant: str) -> dict[str, Any]:
    rescale = {"paper": "probability", "mergekit": "mass"}[variant] if p["rescale"] else "none"
    width = [2 * epsilon if density < 1 else 0.0 for epsilon, density in zip(p["epsilon"], p["density"])]  # theirs is half of it
    return {"density": _one(p["density"]), "epsilon": _one(width), "weights": p["weight"], "rescale": rescale}


def _della(p: Values, variant: str) -> Call:
    options = {"merge": "elect", "aggregate": _aggregate(p), "scaling_coef": p["lambda"], **PLUS}
    return "della", _magprune(p, variant) | options


def _della_linear(p: Values, variant: str) -> Call:
    return "della", _magprune(p, variant) | {"merge": "sum", "scaling_coef": _scale(p)}


# --- the table ----------------------------------------------------------------------------------------------------

GAMMA = Parameter(float, 0.01, each=True)
EPSILON = Parameter(float, 0.15, each=True)
SMALL = Parameter(float, 1e-5)
INT8 = {"int8_mask": Parameter(bool, False)}
ROWS = {"nuslerp_flatten": Parameter(bool, True), "nuslerp_row_wise": Parameter(bool, False)}
NORMALIZE = {"normalize_weights": Parameter(bool, True), "eps": Parameter(float, 1e-8)}
RESCALING = {"r": Parameter(float, 0.1), "alpha": Parameter(float, 0.2), "epsilon": SMALL}

METHODS: dict[str, Method] = {
    "linear": Method("none", (1, None), {**WEIGHT, "normalize": Parameter(bool, True)}, _linear),
    "slerp": Method("first", (1, 1), {"t": Parameter(float)}, _slerp),
    "nuslerp": Method("optional", (2, 2), {**WEIGHT, **ROWS}, _nuslerp),
    "passthrough": Method("none", (1, 1), {"scale": Parameter(float, None, each=True)}, _passthrough),
    "model_stock": Method("needed", (2, None), {"filter_wise": Parameter(bool, False)}, _model_stock),
    "arcee_fusion": Method("first", (1, 1), {}, _arcee_fusion),
    "karcher": Method("none", (1, None), {"max_iter": Parameter(int, 10), "tol": SMALL}, _karcher),
    "multislerp": Method("optional", (1, None), {**WEIGHT, **NORMALIZE}, _multislerp),
    "nearswap": Method("first", (1, 1), {"t": Parameter(float)}, _nearswap),
    "ram": Method("needed", (1, None), {"epsilon": SMALL}, _ram),
    "ramplus_tl": Method("needed", (1, None), RESCALING, _ramplus_tl),
    "sce": Method("needed", (1, None), {"select_topk": Parameter(float, 1.0), **INT8}, _sce),
    "task_arithmetic": Method("needed", (1, None), _task_vectors(False, False), _task_arithmetic),
    "ties": Method("needed", (1, None), _task_vectors(True, False), _ties),
    "dare_ties": Method("needed", (1, None), _task_vectors(False, True), _dare_ties),
    "dare_linear": Method("needed", (1, None), _task_vectors(False, True), _dare_linear),
    "breadcrumbs": Method("needed", (1, None), _task_vectors(False, False, gamma=GAMMA), _breadcrumbs),
    "breadcrumbs_ties": Method("needed", (1, None), _task_vectors(False, False, gamma=GAMMA), _breadcrumbs_ties),
    "della": Method("needed", (1, None), _task_vectors(True, True, epsilon=EPSILON), _della),
    "della_linear": Method("needed", (1, None), _task_vectors(False, True, epsilon=EPSILON), _della_linear),
}

NO_EFFECT = {  # parameters that are read and change nothing, and why
    "int8_mask": "it saves memory in mergekit and isn't needed here",
    "eps": "it guards a division of mergekit's that isn't made here",
    "task_arithmetic.density": "task arithmetic drops nothing, here as in mergekit",
    "task_arithmetic.rescale": "task arithmetic drops nothing, here as in mergekit",
}


@dataclass(frozen=True)
class Difference:
    """Where a result departs from mergekit's: the page and topic that explain it, and in which of our variants it does."""

    page: str
    topic: str
    text: str
    variants: tuple[str, ...] = VARIANTS


def _paper(page: str, topic: str, text: str) -> Difference:
    """A difference of the paper's variant only."""
    return Difference(page, topic, text, ("paper",))


_DTYPE = "computed in float32 and rounded once; mergekit computes in the dtype of the files unless dtype says otherwise"
_DROP = "what is kept is divided by its probability; mergekit restores the L1 norm of each tensor"
_ZERO_VECTOR = Difference("slerp", "Zero vector", "a zero tensor is met on the straight line; mergekit takes a right angle")
_SMALL = Difference("breadcrumbs", "Small tensors", "a tensor keeps one entry at least; mergekit can keep none of a small one")

DIFFERENCES: dict[str, tuple[Difference, ...]] = {
    "slerp": (
        _paper("slerp", "Straight line for small angles", "the arc at every angle; mergekit takes the line if |cos| > 0.9995"),
        _ZERO_VECTOR,
    ),
    "nuslerp": (_ZERO_VECTOR,),
    "karcher": (
        Difference("karcher_mean", "Small tensors", "all tensors take part; mergekit leaves out those of length tol or less"),
        Difference("karcher_mean", "Precision", "iterated in float64; mergekit iterates in the dtype of the files"),
    ),
    "multislerp": (
        Difference("multislerp", "Directions that cancel", "the weighted sum is taken; mergekit refuses more than two models"),
    ),
    "model_stock": (
        _paper("model_stock", "More than two models", "the mean of the angles; mergekit takes the mean of the cosines"),
        _paper("model_stock", "Obtuse angles", "the ratio is kept in [0, 1]; mergekit lets the formula leave it"),
        Difference("model_stock", "Small tensors", "the cosine at any length; mergekit raises a product of norms below 1e-6"),
    ),
    "nearswap": (
        Difference("nearswap", "Very small differences", "steps of at most t; mergekit takes differences below 1e-6 for 1e-6"),
    ),
    "arcee_fusion": (
        Difference("arcee_fusion", "Divergences below zero", "never negative; mergekit's float32 divergences often are"),
        Difference("arcee_fusion", "Quartiles of large tensors", "of all entries; mergekit samples a million, without a seed"),
    ),
    "sce": (
        Difference("sce", "Coefficients of small updates", "at any scale; mergekit takes equal ones for small updates"),
    ),
    "ramplus_tl": (
        Difference("ram", "Scope of the rescaling", "counted in each tensor, as in mergekit; the paper counts over the model"),
    ),
    "task_arithmetic": (Difference("task_arithmetic", "Precision of half-precision models", _DTYPE),),
    "ties": (
        _paper("ties_merging", "Trim scope", "one ranking over the whole model; mergekit ranks within each tensor"),
        _paper("ties_merging", "A sum of exactly zero", "values that add up to zero: the majority sign; mergekit takes plus"),
        Difference("ties_merging", "How many entries survive", "equal magnitudes stay together; mergekit cuts among them"),
        Difference("ties_merging", "Precision and equal magnitudes", _DTYPE),
    ),
    "dare_linear": (_paper("dare", "Rescaling", _DROP),),
    "dare_ties": (
        _paper("dare", "Rescaling", _DROP),
        Difference("dare", "DARE before TIES", "nothing is trimmed after the drop, as in mergekit; the paper trims"),
    ),
    "breadcrumbs": (_SMALL,),
    "breadcrumbs_ties": (_SMALL,),
    "della": (_paper("della", "Rescaling", _DROP),),
    "della_linear": (_paper("della", "Rescaling", _DROP),),
}
