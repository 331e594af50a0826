"""Adapters of the methods that libraries offer beyond the papers of the reading lists; same conventions as `adapters`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import reference_impls as ri
from reference_impls.task_vectors.iso_c import iso_cts
from reference_impls.task_vectors.knots import shared_basis
from reference_impls.task_vectors.ram import ram_plus
from tests.parity.adapters import Outcome, updates, zeros_like
from tests.parity.load import Case

# --- Model Breadcrumbs ------------------------------------------------------------------------------------------


def mergekit_breadcrumbs(case: Case, merge: str = "sum") -> Outcome:
    p, (base, models) = case.params, (case.inputs["base"], case.inputs["models"])
    options = {"density": p["density"][0], "gamma": p["gamma"][0], "scaling_coef": 1.0, "weights": p["weight"]}
    merged = ri.breadcrumbs(base, models, merge=merge, **options)
    return Outcome("breadcrumbs", {"merged": merged}, option=f'merge="{merge}"' if merge != "sum" else "")


def mergekit_breadcrumbs_ties(case: Case) -> Outcome:
    return mergekit_breadcrumbs(case, merge="ties")


# --- SCE --------------------------------------------------------------------------------------------------------


def mergekit_sce(case: Case) -> Outcome:
    merged = ri.sce(case.inputs["base"], case.inputs["models"], density=case.params["select_topk"])
    return Outcome("sce", {"merged": merged})


# --- means on the sphere ----------------------------------------------------------------------------------------


def mergekit_karcher(case: Case) -> Outcome:
    return Outcome("karcher_mean", {"merged": ri.karcher_mean(case.inputs["models"], **case.params)})


def mergekit_multislerp(case: Case) -> Outcome:
    p = case.params
    options = {"weights": p["weight"], "normalize_weights": p.get("normalize_weights", True)}
    merged = ri.multislerp(case.inputs["models"], base=case.inputs.get("base"), **options)
    return Outcome("multislerp", {"merged": merged})


def mergekit_nuslerp(case: Case) -> Outcome:
    p = case.params
    scope = "tensor" if p.get("nuslerp_flatten", True) else "column" if p.get("nuslerp_row_wise", False) else "row"
    merged = ri.nuslerp(*case.inputs["models"], weights=p["weight"], base=case.inputs.get("base"), scope=scope)
    return Outcome("nuslerp", {"merged": merged}, option="" if scope == "tensor" else f'scope="{scope}"')


# --- MagMax -----------------------------------------------------------------------------------------------------


def fusionbench_magmax(case: Case) -> Outcome:
    merged = ri.magmax(case.inputs["base"], case.inputs["models"], scaling_coef=case.params["scaling_factor"])
    return Outcome("magmax", {"merged": merged})


# --- Reinforced Agent Merging -----------------------------------------------------------------------------------


def mergekit_ram(case: Case) -> Outcome:
    return Outcome("ram", {"merged": ri.ram(case.inputs["base"], case.inputs["models"], eps=case.params["epsilon"])})


def mergekit_ramplus_tl(case: Case) -> Outcome:
    p = case.params
    merged = ram_plus(case.inputs["base"], case.inputs["models"], eps=p["epsilon"], r=p["r"], alpha=p["alpha"], scope="tensor")
    return Outcome("ram", {"merged": merged}, option='ram_plus with scope="tensor"')


# --- NearSwap and Arcee Fusion ----------------------------------------------------------------------------------


def mergekit_nearswap(case: Case) -> Outcome:
    return Outcome("nearswap", {"merged": ri.nearswap(*case.inputs["models"], t=case.params["t"])})


def mergekit_arcee_fusion(case: Case) -> Outcome:
    return Outcome("arcee_fusion", {"merged": ri.arcee_fusion(*case.inputs["models"])})


# --- singular vectors: TSV-Merge and isotropic merging ----------------------------------------------------------


def spectral(case: Case, name: str, method: Callable[..., Any], option: str = "", **options: Any) -> Outcome:
    taus = updates(case)
    return Outcome(name, {"merged_update": method(zeros_like(taus[0]), taus, **options)}, option=option)


def fusionbench_tsvm(case: Case) -> Outcome:
    return spectral(case, "tsv_merging", ri.tsv_merging)


def fusionbench_tsvm_lossless(case: Case) -> Outcome:
    return spectral(case, "tsv_merging", ri.tsv_merging, option="lossless=True", lossless=True)


def fusionbench_iso_c(case: Case) -> Outcome:
    return spectral(case, "iso_c", ri.iso_c)


def fusionbench_iso_cts(case: Case) -> Outcome:
    return spectral(case, "iso_c", iso_cts, option="iso_cts", common_fraction=case.params["common_space_fraction"])


tsv_official_tsvm = fusionbench_tsvm
iso_official_iso_c = fusionbench_iso_c
iso_official_iso_cts = fusionbench_iso_cts


# --- WUDI and KnOTS ---------------------------------------------------------------------------------------------


def fusionbench_wudi(case: Case) -> Outcome:
    return spectral(case, "wudi", ri.wudi, num_steps=case.params["iter_num"])


def fusionbench_knots(case: Case) -> Outcome:
    u, s, parts = shared_basis([tau["w"] for tau in updates(case)])
    return Outcome("knots", {"reconstructed": [u * s @ part for part in parts], "singular_values": s})
