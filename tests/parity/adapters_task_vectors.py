"""Adapters of task arithmetic, of dropping (DARE, DELLA), and of masks (EMR, TALL-masks, consensus). Masks that a peer drew are replayed."""

from __future__ import annotations

from torch import Tensor

import reference_impls as ri
from reference_impls.core.state_dict import Vector, task_vector, zip_map
from reference_impls.task_vectors import dare, della
from reference_impls.task_vectors.consensus_merging import consensus_mask
from reference_impls.task_vectors.task_arithmetic import task_negation
from tests.parity.adapters import Outcome, named, plus, updates, zeros_like
from tests.parity.load import Case

# --- task arithmetic ----------------------------------------------------------------------------------------------


def mergekit_task_arithmetic(case: Case) -> Outcome:
    p = case.params
    options = {"scaling_coef": 1 / sum(p["weight"])} if p.get("normalize") else {}
    merged = ri.task_arithmetic(case.inputs["base"], case.inputs["models"], weights=p["weight"], **options)
    return Outcome("task_arithmetic", {"merged": merged}, option="scaling_coef=1/sum(weights)" if options else "")


def fusionbench_task_arithmetic(case: Case) -> Outcome:
    merged = ri.task_arithmetic(case.inputs["base"], case.inputs["models"], scaling_coef=case.params["scaling_factor"])
    return Outcome("task_arithmetic", {"merged": merged})


def mergelm_task_arithmetic(case: Case) -> Outcome:
    merged = ri.task_arithmetic(case.inputs["base"], case.inputs["models"], scaling_coef=case.params["scaling_coefficient"])
    return Outcome("task_arithmetic", {"merged": merged})


def task_vectors_task_arithmetic(case: Case) -> Outcome:
    base, models, scaling_coef = case.inputs["base"], case.inputs["models"], case.params["scaling_coef"]
    if case.params["negation_of_first"]:
        return Outcome("task_arithmetic", {"merged": task_negation(base, models[0], scaling_coef=scaling_coef)})
    return Outcome("task_arithmetic", {"merged": ri.task_arithmetic(base, models, scaling_coef=scaling_coef)})


def peft_task_arithmetic(case: Case) -> Outcome:
    taus = updates(case)
    return Outcome("task_arithmetic", {"merged_update": ri.task_arithmetic(zeros_like(taus[0]), taus, weights=case.params["weights"])})


# --- magnitude pruning: breadcrumbs whose largest entries stay ----------------------------------------------------


def peft_magnitude_prune(case: Case) -> Outcome:
    p, taus = case.params, updates(case)
    merged = ri.breadcrumbs(zeros_like(taus[0]), taus, density=p["density"], gamma=0.0, scaling_coef=1.0, weights=p["weights"])
    return Outcome("breadcrumbs", {"merged_update": merged}, option=named(gamma=0.0))


def mergelm_magnitude(case: Case) -> Outcome:
    """It drops int(d * (1 - K)) entries of each tensor, so that the number kept is rounded up: our density says that number."""
    p, base, model = case.params, case.inputs["base"], case.inputs["models"][0]
    scaling_coef = 1 / (1 - p["weight_mask_rate"]) if p["use_weight_rescale"] else 1.0
    merged = {}
    for key, tensor in base.items():
        density = 1 - int(tensor.numel() * p["weight_mask_rate"]) / tensor.numel()
        merged |= ri.breadcrumbs({key: tensor}, [{key: model[key]}], density=density, gamma=0.0, scaling_coef=scaling_coef)
    option = named(gamma=0.0) + ", density=ceil(d*K)/d" + (", scaling_coef=1/K" if p["use_weight_rescale"] else "")
    return Outcome("breadcrumbs", {"merged": merged}, option=option)


# --- DARE ---------------------------------------------------------------------------------------------------------


def dropped(case: Case, rescale: str = "density") -> list[Vector]:
    """The task vectors under the peer's masks, rescaled."""
    masks, densities = case.outputs["keep_mask"], case.params["density"]
    densities = densities if isinstance(densities, list) else [densities] * len(masks)
    return [dare.drop_and_rescale(tau, mask, k, rescale) for tau, mask, k in zip(updates(case), masks, densities)]


def mergekit_bernoulli(case: Case) -> Outcome:
    rescale = "mass" if case.params["rescale_norm"] == "l1" else "none"
    sparse = dare.drop_and_rescale(updates(case)[0], case.outputs["keep_mask"], case.params["density"], rescale)
    return Outcome("dare", {"sparse_update": sparse}, option=named(rescale=rescale))


def mergelm_dare(case: Case) -> Outcome:
    tau = dare.drop_and_rescale(updates(case)[0], case.outputs["keep_mask"], 1 - case.params["weight_mask_rate"])
    return Outcome("dare", {"merged": plus(case.inputs["base"], tau)})


def mergekit_dare_linear(case: Case) -> Outcome:
    base = case.inputs["base"]
    tau = ri.task_arithmetic(zeros_like(base), dropped(case, "mass"), weights=case.params["weight"])
    return Outcome("dare", {"merged": plus(base, tau)}, option=named(rescale="mass"))


def peft_dare_linear(case: Case) -> Outcome:
    taus = dropped(case)
    return Outcome("dare", {"merged_update": ri.task_arithmetic(zeros_like(taus[0]), taus, weights=case.params["weights"])})


def mergekit_dare_ties(case: Case) -> Outcome:
    """A mean if `normalize` is set, and by default a sum."""
    p, base = case.params, case.inputs["base"]
    aggregate = "mean" if p.get("normalize", False) else "sum"
    tau = ri.ties_merging(zeros_like(base), dropped(case, "mass"), density=1.0, weights=p["weight"], aggregate=aggregate)
    summed = None if aggregate == "mean" else aggregate
    option = named(rescale="mass", merge="ties", ties_density=1.0, ties_aggregate=summed)
    return Outcome("dare", {"merged": plus(base, tau)}, option=option)


def peft_dare_ties(case: Case) -> Outcome:
    taus = dropped(case)
    merged = ri.ties_merging(zeros_like(taus[0]), taus, density=1.0, scaling_coef=case.params["weights"][0])
    return Outcome("dare", {"merged_update": merged}, option=named(merge="ties", ties_density=1.0))


# --- DELLA --------------------------------------------------------------------------------------------------------


def della_probabilities(tau: Vector, density: float, epsilon: float) -> Vector:
    return della.keep_probabilities(tau, density, 2 * epsilon)  # mergekit's epsilon is half of the width


def mergekit_della_magprune(case: Case) -> Outcome:
    p, tau = case.params, updates(case)[0]
    probabilities = della_probabilities(tau, p["density"], p["epsilon"])
    sparse = della.drop_and_rescale(tau, case.outputs["keep_mask"], probabilities, "mass")
    return Outcome("della", {"sparse_update": sparse, "keep_probability": probabilities}, option=named(rescale="mass"))


def della_dropped(case: Case) -> list[Vector]:
    p = case.params
    rows = zip(updates(case), case.outputs["keep_mask"], p["density"], p["epsilon"])
    return [della.drop_and_rescale(tau, mask, della_probabilities(tau, k, e), "mass") for tau, mask, k, e in rows]


def mergekit_della(case: Case) -> Outcome:
    base = case.inputs["base"]
    tau = ri.ties_merging(zeros_like(base), della_dropped(case), density=1.0, weights=case.params["weight"])
    return Outcome("della", {"merged": plus(base, tau)}, option=named(rescale="mass"))


def mergekit_della_linear(case: Case) -> Outcome:
    base = case.inputs["base"]
    tau = ri.task_arithmetic(zeros_like(base), della_dropped(case), weights=case.params["weight"])
    return Outcome("della", {"merged": plus(base, tau)}, option=named(rescale="mass", merge="sum"))


# --- masks --------------------------------------------------------------------------------------------------------


def as_numbers(masks: list[dict[str, Tensor]] | tuple) -> list[dict[str, Tensor]]:
    return [{k: m.float() for k, m in mask.items()} for mask in masks]


def emr(case: Case) -> Outcome:
    base, models = case.inputs["base"], case.inputs["models"]
    merged = ri.emr_merging(base, models, rescale="tensor", zero_sum="minus")
    ours = {"unified_update": merged.unified, "masks": as_numbers(merged.masks), "rescalers": merged.rescalers}
    return Outcome("emr_merging", ours, option=named(rescale="tensor", zero_sum="minus"))


fusionbench_emr = emr_official_emr = emr


def tall_mask(case: Case) -> Outcome:
    merged = ri.tall_masks(case.inputs["base"], case.inputs["models"], threshold=case.params["tall_mask_lambda"])
    return Outcome("tall_masks", {"masks": as_numbers(merged.masks)})


fusionbench_tall_mask = tall_official_tall_mask = tall_mask


def tall_official_consensus(case: Case) -> Outcome:
    p, base, models = case.params, case.inputs["base"], case.inputs["models"]
    options = {"threshold": p["tall_mask_lambda"], "min_tasks": p["prun_thre_k"]}
    mask = consensus_mask(ri.tall_masks(base, models, threshold=options["threshold"]).masks, options["min_tasks"])
    update = task_vector(ri.consensus_merging(base, models, **options), base)
    return Outcome("consensus_merging", {"consensus_mask": as_numbers([mask])[0], "masked_multi_task_update": update})
