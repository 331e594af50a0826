"""Adapters of averages and interpolation, Fisher merging, RegMean, Model Stock, and of copying."""

from __future__ import annotations

import reference_impls as ri
from tests.parity.adapters import Outcome, named
from tests.parity.load import Case

# --- averages -----------------------------------------------------------------------------------------------------


def mergekit_linear(case: Case) -> Outcome:
    options = {} if case.params.get("normalize", True) else {"normalize": False}
    merged = ri.uniform_soup(case.inputs["models"], weights=case.params["weight"], **options)
    return Outcome("uniform_soup", {"merged": merged}, option=named(**options))


def fusionbench_average(case: Case) -> Outcome:
    return Outcome("uniform_soup", {"merged": ri.uniform_soup(case.inputs["models"])})


def mergekit_passthrough(case: Case) -> Outcome:
    """One model, all of it scaled: a single block with a factor for every name."""
    block = {f"blocks.0.{k}": v for k, v in case.inputs["models"][0].items()}
    copied = ri.passthrough([block], [(0, 0, 1, {"": case.params["scale"][0]})])
    return Outcome("passthrough", {"merged": {k.removeprefix("blocks.0."): v for k, v in copied.items()}})


# --- along the arc ------------------------------------------------------------------------------------------------


def slerp(case: Case) -> Outcome:
    merged = ri.slerp(*case.inputs["models"], t=case.params["t"], dot_threshold=0.9995)
    if "zero" in merged:
        return Outcome("slerp", {"merged": merged}, differs="Zero vector", only_in=("zero",))
    return Outcome("slerp", {"merged": merged}, option=named(dot_threshold=0.9995))


mergekit_slerp = fusionbench_slerp = slerp


def mergekit_model_stock(case: Case) -> Outcome:
    models = case.inputs["models"]
    options = {"mean_of": "cosines", "clamp": False} | ({"scope": "row"} if case.params.get("filter_wise") else {})
    merged = ri.model_stock(case.inputs["base"], models, **options)
    return Outcome("model_stock", {"merged": merged}, option=named(**options))


def fusionbench_model_stock(case: Case) -> Outcome:
    merged = ri.model_stock(case.inputs["base"], case.inputs["models"], clamp=False)
    return Outcome("model_stock", {"merged": merged}, option=named(clamp=False))


# --- with statistics ----------------------------------------------------------------------------------------------


def fishers(case: Case) -> list:
    return [case.inputs[f"fisher{i}"] for i in range(len(case.inputs["models"]))]


def fusionbench_fisher(case: Case) -> Outcome:
    p = case.params
    options = {"floor_on": "add"} | ({"normalize": "model"} if p["normalize_fisher_weight"] else {})
    merged = ri.fisher_merging(
        case.inputs["models"], fishers(case), weights=p["fisher_scaling_coefficients"], floor=p["minimal_fisher_weight"], **options
    )
    return Outcome("fisher_merging", {"merged": merged}, option=named(**options))


def fisher_official_fisher(case: Case) -> Outcome:
    p = case.params
    options = ({} if p["favor_target_model"] else {"floor_on": "all"}) | ({"normalize": "model"} if p["normalize_fishers"] else {})
    merged = ri.fisher_merging(case.inputs["models"], fishers(case), weights=p["coefficients"], floor=p["fisher_floor"], **options)
    return Outcome("fisher_merging", {"merged": merged}, option=named(**options))


def regmean_official_fisher(case: Case) -> Outcome:
    p = case.params
    options = {"floor_on": "add", "normalize": {"param": "tensor", "model": "model"}[p["fisher_normalize"]]}
    merged = ri.fisher_merging(case.inputs["models"], fishers(case), floor=p["fisher_smooth"], **options)
    return Outcome("fisher_merging", {"merged": merged}, option=named(**options))


def regmean(case: Case) -> Outcome:
    p, models = case.params, case.inputs["models"]
    grams = [{f"{layer}.weight": g for layer, g in case.inputs[f"gram{i}"].items()} for i in range(len(models))]
    alpha = p.get("reduce_non_diagonal_ratio", p.get("regmean_reduce_nondiag", 1.0))  # their default: the Gram matrices as they are
    merged = ri.regmean(models, grams, alpha=alpha, weights=p.get("model_coeffs"))
    return Outcome("regmean", {"merged": merged}, option=named(alpha=alpha) if alpha == 1 else "")


regmean_official_regmean = fusionbench_regmean = regmean
