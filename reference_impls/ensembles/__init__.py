"""Ensembles: several models answer, and their predictions are combined at inference.

Inputs are networks or their logits; the output is a prediction, or a network that holds all members.
"""
