"""Toy values for the inputs of alignment methods: the spec of the toy network of tests/methods/toy_values.py."""

from __future__ import annotations

from reference_impls.core.permutation import PermutationSpec
from tests.methods.toy_values import toy_network

SPEC = PermutationSpec(
    {"first.weight": ("first", None), "first.bias": ("first",), "second.weight": (None, "first"), "second.bias": (None,)},
    {"first": 6},
)

VALUES = {
    "spec": lambda device: SPEC,
    "merged": lambda device: {k: v.detach().clone() for k, v in toy_network(4, device).state_dict().items()},
}
