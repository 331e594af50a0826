"""Averaging: one model from several by a (weighted) mean of their parameters.

Inputs are state dicts of one architecture (and mostly of one initialisation); the output is one state dict.
"""
