"""Mixing: new architectures out of trained ones, by routing, stacking, stitching and cross-attention.

Inputs are trained networks; the output is a network with a forward pass of its own.
"""
