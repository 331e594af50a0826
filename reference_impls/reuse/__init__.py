"""Reuse: a frozen model serves a new task through its inputs, its outputs or a small addition.

Inputs are frozen networks and data of the new task; the output is the adapted network.
"""
