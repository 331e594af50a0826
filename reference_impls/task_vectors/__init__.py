"""Task vectors: edit a base model by adding, pruning and combining differences of fine-tuned and base weights.

Inputs are a base model and models fine-tuned from it; the task vector is tau_t = theta_t - theta_0.
"""
