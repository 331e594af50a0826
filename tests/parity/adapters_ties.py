"""Adapters of TIES-Merging and its trim."""

from __future__ import annotations

from typing import Any

import reference_impls as ri
from tests.parity.adapters import Outcome, named, updates, zeros_like
from tests.parity.load import Case

# --- one threshold in each tensor: mergekit and PEFT --------------------------------------------------------------


def mergekit_ties(case: Case) -> Outcome:
    p, base = case.params, case.inputs["base"]
    options = {"trim": "tensor"} | ({} if p.get("normalize", True) else {"aggregate": "sum"})
    merged = ri.ties_merging(base, case.inputs["models"], density=p["density"][0], weights=p["weight"], **options)
    return Outcome("ties_merging", {"merged": merged}, option=named(**options))


def mergekit_ties_zeros(case: Case) -> Outcome:
    p, options = case.params, {"trim": "tensor", "zero_sum": "plus"}
    merged = ri.ties_merging(case.inputs["base"], case.inputs["models"], density=p["density"][0], weights=p["weight"], **options)
    return Outcome("ties_merging", {"merged": merged}, option=named(**options))


def mergekit_ties_bf16(case: Case) -> Outcome:
    return Outcome("ties_merging", mergekit_ties(case).ours, differs="Precision and equal magnitudes")


def mergekit_magnitude(case: Case) -> Outcome:
    tau = updates(case)[0]
    sparse = ri.ties_merging(zeros_like(tau), [tau], density=case.params["density"], trim="tensor")
    if case.params.get("rescale_norm") == "l2":  # by "linf" nothing changes, the largest entry is kept
        return Outcome("ties_merging", {"sparse_update": sparse}, differs="Rescaling after the trim")
    return Outcome("ties_merging", {"sparse_update": sparse}, option=named(trim="tensor"))


def peft_ties(case: Case) -> Outcome:
    p, taus = case.params, updates(case)
    options = {"trim": "tensor"} | ({"elect": "count"} if p.get("majority_sign_method") == "frequency" else {})
    weights = p["weights"]
    if uniform := len(set(weights)) == 1:  # a common factor may as well come last
        options["scaling_coef"] = weights[0]
    else:
        options["weights"] = weights
    merged = ri.ties_merging(zeros_like(taus[0]), taus, density=p["density"], **options)
    if not uniform:
        return Outcome("ties_merging", {"merged_update": merged}, differs="Weights and the election")
    return Outcome("ties_merging", {"merged_update": merged}, option=named(trim="tensor", elect=options.get("elect")))


# --- one threshold for all: the authors' code and its descendants -------------------------------------------------


ONE_MORE = "density=(int(d*K)+1)/d"


def size_of(case: Case) -> int:
    return sum(t.numel() for t in case.inputs["base"].values())


def global_ties(case: Case, kept: int, output: str, **options: Any) -> Outcome:
    """These keep one entry more than the density says: we ask for that one more. They flatten in the order of names."""
    base, taus = case.inputs["base"], updates(case)
    start = base if output == "merged" else zeros_like(base)
    models = [{k: start[k] + tau[k] for k in sorted(base)} for tau in taus]
    merged = ri.ties_merging({k: start[k] for k in sorted(base)}, models, density=kept / size_of(case), **options)
    aggregate = None if options.get("aggregate", "mean") == "mean" else options["aggregate"]
    return Outcome("ties_merging", {output: merged}, option=", ".join(filter(None, [ONE_MORE, named(aggregate=aggregate)])))


def ties_official_ties(case: Case) -> Outcome:
    p = case.params
    kept = int(size_of(case) * p["reset_thresh"] / 100) + 1
    merged = global_ties(case, kept, "merged_update", aggregate=p["merge_func"].removeprefix("dis-"))
    if p["resolve_method"] == "normmass":
        return Outcome("ties_merging", merged.ours, differs="Sign election")
    return merged


ties_official_ties_five = ties_official_ties


def fusionbench_ties_mean(case: Case) -> Outcome:
    return global_ties(case, int(size_of(case) * case.params["threshold"]) + 1, "merged_update", aggregate=case.params["merge_func"])


fusionbench_ties_sum = fusionbench_ties_max = fusionbench_ties_mean


def fusionbench_ties_trim(case: Case) -> Outcome:
    taus, size = updates(case), size_of(case)
    density = (int(size * case.params["K"]) + 1) / size
    trimmed = [ri.ties_merging(zeros_like(tau), [tau], density=density) for tau in taus]
    return Outcome("ties_merging", {"trimmed": trimmed}, option=ONE_MORE)


def mergelm_ties(case: Case) -> Outcome:
    kept = size_of(case) - int(size_of(case) * case.params["param_value_mask_rate"]) + 1
    return global_ties(case, kept, "merged", scaling_coef=case.params["scaling_coefficient"])
