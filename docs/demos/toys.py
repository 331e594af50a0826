"""Tiny problems for the demos, small enough to train in a reader's browser.

base, models = task_vectors(seed)                     # three sparse updates of one vector, as state dicts
network = mlp(2, 16, 2)                               # an nn.Sequential with tanh between its linear layers
task = moons(seed), blobs(seed), clusters(task)       # (inputs (n, 2), targets (n,))
theta = trained(network, task, seed)                  # a state dict, from its own random start
theta = trained(network, task, start=other)           # fine-tuned from another
accuracy(network, theta, task), loss(network, theta, task)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from reference_impls.core.permutation import PermutationSpec

Task = tuple[Tensor, Tensor]
StateDict = dict[str, Tensor]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- vectors ---------------------------------------------------------------------------------------------------------


def task_vectors(seed: int = 0, size: int = 12, count: int = 3, share: float = 0.5) -> tuple[StateDict, list[StateDict]]:
    """A base of zeros and fine-tuned models: each moves a share of the entries far, the others a little."""
    g = generator(seed)
    far = (torch.rand(count, size, generator=g) < share).float()
    moves = torch.randn(count, size, generator=g) * (0.1 + 0.9 * far)
    return {"w": torch.zeros(size)}, [{"w": move.clone()} for move in moves]


def entries(size: int) -> list[str]:
    """Names for the entries of a vector."""
    return [str(i) for i in range(1, size + 1)]


# --- tasks in the plane ----------------------------------------------------------------------------------------------


def moons(seed: int = 0, count: int = 60, noise: float = 0.15, turn: float = 0.0) -> Task:
    """Two half moons, one class each; the whole picture turned by so many degrees."""
    g = generator(seed)
    angle = torch.rand(count, generator=g) * math.pi
    label = (torch.arange(count) % 2).float()
    across = torch.where(label == 0, angle.cos(), 1 - angle.cos()) - 0.5
    up = torch.where(label == 0, angle.sin(), 0.5 - angle.sin()) - 0.25
    points = torch.stack([across, up], dim=1) + noise * torch.randn(count, 2, generator=g)
    return _turned(points, turn), label.long()


def clusters(task: int = 0, tasks: int = 3, seed: int = 0, count: int = 40, spread: float = 0.35) -> Task:
    """One of several tasks around a circle: two neighbouring clouds of points, one class each."""
    g = generator(100 * seed + task)
    label = torch.arange(count) % 2
    angle = 2 * math.pi * (2 * task + label) / (2 * tasks)
    centres = 2 * torch.stack([angle.cos(), angle.sin()], dim=1)
    return centres + spread * torch.randn(count, 2, generator=g), label


def blobs(seed: int = 0, classes: int = 3, count: int = 60, spread: float = 0.4) -> Task:
    """As many clouds around a circle as there are classes."""
    g = generator(seed)
    label = torch.arange(count) % classes
    angle = 2 * math.pi * label / classes
    return 1.5 * torch.stack([angle.cos(), angle.sin()], dim=1) + spread * torch.randn(count, 2, generator=g), label


def _turned(points: Tensor, degrees: float) -> Tensor:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return points @ torch.tensor([[c, s], [-s, c]])


# --- networks --------------------------------------------------------------------------------------------------------


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with tanh between them; its weights are those of `trained` or `drawn`, never its own."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip(widths, widths[1:]):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def units(network: nn.Sequential) -> PermutationSpec:
    """Which units of an `mlp` may change places: those of every hidden layer. `permutation_spec` finds the same by tracing."""
    names = list(dict.fromkeys(key.rpartition(".")[0] for key in network.state_dict()))
    axes, sizes = {}, {}
    for before, name, after in zip([None, *names[:-1]], names, [*names[1:], None]):
        ahead, behind = (name if after else None), before
        axes |= {f"{name}.weight": (ahead, behind), f"{name}.bias": (ahead,)}
        if ahead:
            sizes[name] = len(network.state_dict()[f"{name}.bias"])
    return PermutationSpec(axes, sizes)


def hidden(network: nn.Sequential, theta: StateDict, inputs: Tensor) -> dict[str, Tensor]:
    """What the units of every hidden layer say, by the name of the layer."""
    out, layers = {}, list(network)
    for number, layer in enumerate(layers):
        if isinstance(layer, nn.Linear):
            inputs = inputs @ theta[f"{number}.weight"].T + theta[f"{number}.bias"]
        else:
            inputs = layer(inputs)
            out[str(number - 1)] = inputs
    return out


def drawn(network: nn.Module, seed: int = 0) -> StateDict:
    """Random weights, of a size that keeps signals as large as they are; biases zero."""
    g = generator(seed)
    return {
        key: torch.randn(tensor.shape, generator=g) / tensor.shape[1] ** 0.5 if tensor.dim() > 1 else torch.zeros(tensor.shape)
        for key, tensor in network.state_dict().items()
    }


def trained(
    network: nn.Module,
    task: Task | Sequence[Task],
    seed: int = 0,
    *,
    start: StateDict | None = None,
    steps: int = 60,
    lr: float = 0.05,
) -> StateDict:
    """Weights trained with Adam on all examples at once, from a random start or from given weights."""
    tasks = [task] if isinstance(task[0], Tensor) else task
    theta = {key: tensor.clone().requires_grad_() for key, tensor in (start or drawn(network, seed)).items()}
    optimizer = torch.optim.Adam(list(theta.values()), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(loss(network, theta, one) for one in tasks).backward()
        optimizer.step()
    return {key: tensor.detach() for key, tensor in theta.items()}


def staged(*widths: int, seed: int = 5) -> nn.Sequential:
    """An `mlp` with drawn weights as a Sequential of stages: each hidden layer with its tanh, then the head."""
    network = mlp(*widths)
    network.load_state_dict(drawn(network, seed))
    layers = list(network)
    hidden_stages = [nn.Sequential(*layers[i : i + 2]) for i in range(0, len(layers) - 1, 2)]
    return nn.Sequential(*hidden_stages, layers[-1])


def teacher(task: Task, seed: int = 0, widths: Sequence[int] = (2, 8, 2)) -> nn.Sequential:
    """A staged network trained on a task."""
    network = staged(*widths)
    network.load_state_dict(trained(network, task, seed))
    return network


def loss_of(network: Callable[[Tensor], Tensor], task: Task) -> Tensor:
    """The loss of a network with the weights that it has."""
    with torch.no_grad():
        return nn.functional.cross_entropy(network(task[0]), task[1])


def logits(network: nn.Module, theta: StateDict, inputs: Tensor) -> Tensor:
    return functional_call(network, theta, (inputs,))


def loss(network: nn.Module, theta: StateDict, task: Task) -> Tensor:
    return nn.functional.cross_entropy(logits(network, theta, task[0]), task[1])


def accuracy(network: nn.Module, theta: StateDict, task: Task) -> float:
    """In percent."""
    with torch.no_grad():
        return 100 * (logits(network, theta, task[0]).argmax(dim=1) == task[1]).float().mean().item()
