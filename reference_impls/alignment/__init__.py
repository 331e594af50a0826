"""Alignment: permute, transport or zip the units of networks that were trained apart, so that they can be averaged.

Inputs are state dicts with a `PermutationSpec` or activations; the output is an aligned or merged state dict.
"""
