"""Connectivity: the loss along lines, curves and surfaces between trained networks.

Inputs are trained models and a loss; the output is a curve, a subspace or a measurement.
"""
