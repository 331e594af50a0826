"""Toy values of the inputs that only methods of this chapter have."""

import torch

from tests.methods.toy_values import network_inputs


def noisy_descent(device):
    loss_fn = network_inputs(device)["loss_fn"]

    def train_fn(model, start, stop, generator):
        for _ in range(start, min(stop, start + 2)):
            leaves = {k: v.detach().clone().requires_grad_() for k, v in model.items()}
            gradients = torch.autograd.grad(loss_fn(leaves), list(leaves.values()))
            noise = [torch.randn(v.shape, generator=generator).to(device) for v in leaves.values()]
            model = {k: v.detach() - 0.1 * g - 0.01 * n for (k, v), g, n in zip(leaves.items(), gradients, noise)}
        return model

    return train_fn


VALUES = {"train_fn": noisy_descent}
