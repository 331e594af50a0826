"""Toy values of the inputs that only methods of this chapter have."""

import torch

from reference_impls.core.permutation import PermutationSpec
from tests.methods.toy_values import network_inputs

SPEC = PermutationSpec(
    {
        "first.weight": ("first", None),
        "first.bias": ("first",),
        "second.weight": (None, "first"),
        "second.bias": (None,),
    },
    {"first": 6},
)


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


def fit(device):
    train_fn = noisy_descent(device)
    return lambda model, size, generator: train_fn(model, 0, 2, generator)


def layer_outputs(device):
    inputs = torch.cat([x for x, _ in network_inputs(device)["batches"]])

    def features_fn(model):
        first = inputs @ model["first.weight"].T + model["first.bias"]
        return {"first": first, "second": first.relu() @ model["second.weight"].T + model["second.bias"]}

    return features_fn


def logits(device):
    features_fn = layer_outputs(device)
    return lambda model: features_fn(model)["second"]


def perceptron(widths, seed, device):
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for i, (before, after) in enumerate(zip(widths, widths[1:])):
        out[f"layers.{i}.weight"] = torch.randn(after, before, generator=generator).to(device)
        out[f"layers.{i}.bias"] = torch.randn(after, generator=generator).to(device)
    return out


def perceptron_loss(device):
    inputs = torch.cat([x for x, _ in network_inputs(device)["batches"]])

    def loss_fn(model):
        hidden, depth = inputs, len(model) // 2
        for i in range(depth):
            hidden = hidden @ model[f"layers.{i}.weight"].T + model[f"layers.{i}.bias"]
            hidden = hidden.relu() if i < depth - 1 else hidden
        return hidden.square().mean()

    return loss_fn


VALUES = {
    "barrier_versus_width": {
        "pairs": lambda device: [(perceptron((4, w, 3), 1, device), perceptron((4, w, 3), 2, device)) for w in (2, 5)],
        "loss_fn": perceptron_loss,
    },
    "dropout_stable_path": {
        "model_a": lambda device: perceptron((4, 6, 5, 3), 1, device),
        "model_b": lambda device: perceptron((4, 6, 5, 3), 2, device),
        "loss_fn": perceptron_loss,
    },
    "neuron_replication_path": {"model_a": lambda device: perceptron((4, 3, 2), 1, device), "loss_fn": perceptron_loss},
    "train_fn": noisy_descent,
    "fit_fn": fit,
    "spec": lambda device: SPEC,
    "features_fn": layer_outputs,
    "logits_fn": logits,
}
