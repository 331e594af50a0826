"""Adapters of the ways in which PEFT combines LoRA adapters (`add_weighted_adapter`)."""

from __future__ import annotations

from typing import Any

import reference_impls as ri
from reference_impls.core.lora import low_rank_update, truncated_svd
from tests.parity.adapters import Outcome, named
from tests.parity.load import Case


def scaling(case: Case) -> float:
    return case.params["lora_alpha"] / case.inputs["models"][0]["lora_A"].shape[0]


def compose(case: Case, **options: Any) -> tuple:
    adapters = [{"w": (model["lora_A"], model["lora_B"])} for model in case.inputs["models"]]
    return ri.pem_composition(adapters, weights=case.params["weights"], scaling=scaling(case), **options)["w"]


def factors(case: Case, **options: Any) -> Outcome:
    A, B = compose(case, **options)
    return Outcome("pem_composition", {"lora_A": A, "lora_B": B, "delta_weight": low_rank_update(A, B)}, option=named(combine=options["combine"]))


def product(case: Case, **options: Any) -> Outcome:
    """Singular vectors have no sign of their own, so only the product counts."""
    return Outcome("pem_composition", {"delta_weight": low_rank_update(*compose(case, **options))}, option=named(combine=options["combine"]))


def peft_lora_linear(case: Case) -> Outcome:
    return factors(case, combine="roots")


def peft_lora_cat(case: Case) -> Outcome:
    return factors(case, combine="concatenate")


def peft_lora_magnitude_prune(case: Case) -> Outcome:
    return factors(case, combine="roots", density=case.params["density"])


def peft_lora_svd(case: Case) -> Outcome:
    return product(case, combine="svd", rank=case.params["svd_rank"])


def peft_lora_magnitude_prune_svd(case: Case) -> Outcome:
    return product(case, combine="svd", density=case.params["density"])


def peft_lora_ties(case: Case) -> Outcome:
    """A and B apart, with the roots of the weights: TIES with weights acts otherwise on the election and the mean."""
    roots = [(w * scaling(case)) ** 0.5 for w in case.params["weights"]]
    models = case.inputs["models"]
    zero = {k: 0 * v for k, v in models[0].items()}
    merged = ri.ties_merging(zero, models, density=case.params["density"], trim="tensor", weights=roots)
    return Outcome("ties_merging", dict(merged), differs="Weights and the election")


def peft_lora_ties_svd(case: Case) -> Outcome:
    taus = [{"w": low_rank_update(m["lora_A"], m["lora_B"], scaling(case))} for m in case.inputs["models"]]
    options = {"density": case.params["density"], "trim": "tensor", "weights": case.params["weights"]}
    merged = ri.ties_merging({"w": 0 * taus[0]["w"]}, taus, **options)["w"]
    U, S, Vh = truncated_svd(merged, case.inputs["models"][0]["lora_A"].shape[0])
    return Outcome("ties_merging", {"delta_weight": U * S @ Vh}, differs="Weights and the election")
