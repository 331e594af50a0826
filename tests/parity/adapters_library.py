"""Adapters of the methods that libraries offer beyond the papers of the reading lists; same conventions as `adapters`."""

from __future__ import annotations

import reference_impls as ri
from tests.parity.adapters import Outcome
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
