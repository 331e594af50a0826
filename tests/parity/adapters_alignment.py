"""Adapters of methods that align units: weight matching, matching by correlation, ZipIt, transport."""

from __future__ import annotations

import torch
from torch import Tensor

import reference_impls as ri
from reference_impls.alignment.otfusion import transport_maps
from reference_impls.alignment.zipit import zip_units
from reference_impls.core.permutation import PermutationSpec, apply_permutation, as_matrices
from reference_impls.core.state_dict import inner_product
from tests.parity.adapters import Outcome, named
from tests.parity.load import Case

# --- Git Re-Basin -------------------------------------------------------------------------------------------------


def git_rebasin_permuted(case: Case) -> Outcome:
    return weight_matching(case, ("permutation", "permuted_model_1", "objective"))


def git_rebasin_independent(case: Case) -> Outcome:
    return weight_matching(case, ("objective",), at_least=0.97)  # the order of the visits decides which optimum is found


def weight_matching(case: Case, outputs: tuple[str, ...], at_least: float = 0.0) -> Outcome:
    """Kernels are (inputs, outputs) in flax: the second axis is written, the first reads."""
    model_a, model_b = case.inputs["models"]
    axes = {
        "Dense_0/bias": ("P_0",), "Dense_0/kernel": (None, "P_0"), "Dense_1/bias": ("P_1",), "Dense_1/kernel": ("P_0", "P_1"),
        "Dense_2/bias": (None,), "Dense_2/kernel": ("P_1", None),
    }  # fmt: skip
    sizes = {"P_0": len(model_a["Dense_0/bias"]), "P_1": len(model_a["Dense_1/bias"])}
    spec = PermutationSpec(axes, sizes, reads=frozenset({("Dense_1/kernel", 0), ("Dense_2/kernel", 0)}))
    permutation = ri.weight_matching(model_a, model_b, spec, max_iter=case.params["max_iter"])
    permuted = apply_permutation(spec, permutation, model_b)
    ours = {"permutation": permutation, "permuted_model_1": permuted, "objective": inner_product(model_a, permuted)}
    return Outcome("weight_matching", {name: ours[name] for name in outputs}, at_least=at_least)


# --- OTFusion -----------------------------------------------------------------------------------------------------


def otfusion(case: Case) -> Outcome:
    """The authors' code moves model 0 to model 1 and transports the outputs as well."""
    p, (model_0, model_1) = case.params, case.inputs["models"]
    layers, sizes = list(model_1), {layer: len(model_1[layer]) for layer in model_1}
    spec = PermutationSpec({layer: (layer, before) for layer, before in zip(layers, [None, *layers])}, sizes)
    reg = 0.0 if p["exact"] else p["reg"]
    merged = ri.otfusion(model_1, model_0, spec, t=1 - p["ensemble_step"], reg=reg)
    maps = transport_maps(model_1, model_0, spec, reg=reg)
    plans = {layer: (m / len(m)).T for layer, m in maps.items()}
    return Outcome("otfusion", {"merged": merged, "transport_maps": plans}, option="a spec with the output units")


otfusion_emd = otfusion_sinkhorn = otfusion

# --- ZipIt --------------------------------------------------------------------------------------------------------


def merge_matrix(unmerge: Tensor) -> Tensor:
    """Averages of the groups, (n, 2n)."""
    return (unmerge / unmerge.sum(dim=0)).T


def zipit_zipit(case: Case) -> Outcome:
    acts = torch.cat([model["acts"] for model in case.inputs["models"]], dim=1)
    unmerge = zip_units(torch.corrcoef(acts.T), repeat=case.params["a"], within=case.params["b"])
    return Outcome("zipit", {"unmerge": unmerge, "merge": merge_matrix(unmerge)})


def zipit_permute(case: Case) -> Outcome:
    acts_a, acts_b = (model["acts"] for model in case.inputs["models"])
    spec = PermutationSpec({"unit": ("P",)}, {"P": acts_a.shape[1]})
    permutation = ri.activation_matching({"P": acts_a}, {"P": acts_b}, spec, similarity="correlation")
    P = as_matrices(permutation)["P"]
    unmerge = torch.cat([torch.eye(len(P), dtype=P.dtype), P.T])
    return Outcome("activation_matching", {"unmerge": unmerge, "merge": merge_matrix(unmerge)}, option=named(similarity="correlation"))


def zipit_optimal(case: Case) -> Outcome:
    """The best pairs of all; on these inputs the greedy ones are as good."""
    acts = torch.cat([model["acts"] for model in case.inputs["models"]], dim=1)
    unmerge = zip_units(torch.corrcoef(acts.T), repeat=0.0, within=1.0)
    return Outcome("zipit", {"unmerge": unmerge, "merge": merge_matrix(unmerge)}, option=named(repeat=0.0, within=1.0))
