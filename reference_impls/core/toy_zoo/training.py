"""Evaluation and deterministic training, and a cache on disk for what was trained."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from .data import Split

StateDict = dict[str, Tensor]


def logits(network: nn.Module, state_dict: StateDict, inputs: Tensor) -> Tensor:
    """Outputs of `network` with the tensors of `state_dict`, in evaluation mode; differentiable, nothing is changed.

    Of tied weights the state dict may have one name (it stands for all) or all of them (each is used as it is).
    """
    training = network.training
    network.eval()
    tie_weights = len(state_dict) < len(network.state_dict())
    try:
        return torch.func.functional_call(network, state_dict, (inputs,), tie_weights=tie_weights)
    finally:
        network.train(training)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy; outputs (..., classes), targets (...)."""
    return nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def loss(network: nn.Module, state_dict: StateDict, split: Split) -> Tensor:
    """Mean cross-entropy of a split: a differentiable scalar."""
    return cross_entropy(logits(network, state_dict, split[0]), split[1])


@torch.no_grad()
def accuracy(network: nn.Module, state_dict: StateDict, split: Split) -> float:
    """Share of right predictions, in [0, 1]."""
    return (logits(network, state_dict, split[0]).argmax(-1) == split[1]).float().mean().item()


def clone(state_dict: StateDict) -> StateDict:
    """Deep copy that keeps tied tensors tied."""
    copies: dict[tuple[int, torch.Size], Tensor] = {}
    out = {}
    for name, tensor in state_dict.items():
        key = (tensor.data_ptr(), tensor.shape) if tensor.numel() else (id(tensor), tensor.shape)
        copies.setdefault(key, tensor.detach().clone())
        out[name] = copies[key]
    return out


@contextmanager
def single_thread() -> Iterator[None]:
    """One thread inside, so that sums are taken in the same order on every machine; the setting is put back after."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def initialise(network: nn.Module, generator: torch.Generator) -> StateDict:
    """A state dict drawn anew by PyTorch's own initialisation of each layer; the global random state is untouched."""
    network = copy.deepcopy(network)
    seed = int(torch.randint(2**31, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return clone(network.state_dict())


def train(
    network: nn.Module,
    state_dict: StateDict | None,
    split: Split,
    *,
    num_steps: int,
    lr: float,
    generator: torch.Generator,
    weight_decay: float = 0.0,
    batch_size: int = 64,
    trainable: Callable[[str], bool] = lambda name: True,
) -> StateDict:
    """Train with Adam on shuffled batches and return a new state dict; the same arguments give the same bits.

    Training computes in float64 and rounds once, at the end. In float32 the last bits, in which processors differ, grow to
    other networks within a few hundred steps; in float64 they stay below what the rounding leaves.

    Args:
        network: the architecture; its own parameters are neither used nor changed.
        state_dict: where to start; None draws an initialisation with the generator.
        split: `(inputs, targets)`.
        num_steps: optimiser steps, >= 0.
        lr: step size of Adam.
        generator: source of the order of the examples.
        weight_decay: as in `torch.optim.Adam`.
        batch_size: examples a step.
        trainable: says by parameter name what is trained; the rest is frozen.
    """
    with single_thread():
        start = initialise(network, generator) if state_dict is None else state_dict
        network = copy.deepcopy(network)
        network.load_state_dict(start)
        network.double().train()
        parameters = [p for name, p in network.named_parameters() if trainable(name)]
        optimizer = torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, foreach=True)
        inputs, targets = _double(split[0]), split[1]
        order = torch.empty(0, dtype=torch.int64)
        for _ in range(num_steps):
            if len(order) < min(batch_size, len(inputs)):
                order = torch.randperm(len(inputs), generator=generator)
            index, order = order[:batch_size], order[batch_size:]
            step_loss = cross_entropy(network(inputs[index]), targets[index])
            optimizer.zero_grad()
            step_loss.backward()
            optimizer.step()
    return clone(network.float().state_dict())


def _double(tensor: Tensor) -> Tensor:
    """Floating-point numbers in float64, integers as they are."""
    return tensor.double() if tensor.is_floating_point() else tensor


def train_adapter(
    network: nn.Module,
    base: StateDict,
    split: Split,
    *,
    rank: int,
    num_steps: int,
    lr: float,
    generator: torch.Generator,
    scaling: float = 1.0,
    batch_size: int = 64,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Train low-rank factors of every linear layer with Adam in float64, rounded at the end; the base model is frozen.

    Returns:
        Weight name -> (A (rank, inputs), B (outputs, rank)); A starts Gaussian with variance 1 / inputs, B at zero.
    """
    with single_thread():
        names = [f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Linear)]
        factors = {}
        base = {name: _double(tensor) for name, tensor in base.items()}
        inputs, targets = _double(split[0]), split[1]
        for name in names:
            wide, narrow = base[name].shape
            A = torch.randn(rank, narrow, generator=generator).double() / narrow**0.5
            factors[name] = (A.requires_grad_(), torch.zeros(wide, rank, dtype=torch.float64, requires_grad=True))
        optimizer = torch.optim.Adam([f for pair in factors.values() for f in pair], lr=lr)
        order = torch.empty(0, dtype=torch.int64)
        for _ in range(num_steps):
            if len(order) < batch_size:
                order = torch.randperm(len(inputs), generator=generator)
            index, order = order[:batch_size], order[batch_size:]
            adapted = base | {name: base[name] + scaling * B @ A for name, (A, B) in factors.items()}
            step_loss = loss(network, adapted, (inputs[index], targets[index]))
            optimizer.zero_grad()
            step_loss.backward()
            optimizer.step()
    return {name: (A.detach().float(), B.detach().float()) for name, (A, B) in factors.items()}


# --- cache --------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """`MODEL_FUSION_ATLAS_CACHE`, or `~/.cache/model-fusion-atlas`."""
    folder = os.environ.get("MODEL_FUSION_ATLAS_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "model-fusion-atlas"


@lru_cache(maxsize=1)
def _source_digest() -> str:
    digest = hashlib.sha256(torch.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


_memory: dict[str, list[StateDict]] = {}


def cached(name: str, arguments: dict[str, object], make: Callable[[], list[StateDict]]) -> list[StateDict]:
    """The state dicts that `make` trains: from memory, else from disk, else trained now and kept in both.

    The key is the SHA-256 of the zoo's source, PyTorch's version and the arguments, so a changed zoo trains again.
    Every call returns fresh copies. A folder that can't be written costs speed, never an error.
    """
    description = json.dumps([name, arguments, _source_digest()], sort_keys=True)
    key = hashlib.sha256(description.encode()).hexdigest()[:32]
    if key not in _memory:
        path = cache_folder() / f"{name}-{key}.safetensors"
        found = _read(path)
        if found is None:
            with single_thread():
                found = make()
            _write(path, found)
        _memory[key] = found
    return [clone(state_dict) for state_dict in _memory[key]]


def _write(path: Path, state_dicts: list[StateDict]) -> None:
    from safetensors.torch import save

    names = [list(state_dict) for state_dict in state_dicts]  # safetensors keeps no order and no ties
    tensors, ties = {}, {}
    for i, state_dict in enumerate(state_dicts):
        first: dict[int, str] = {}
        for name, tensor in state_dict.items():
            owner = first.setdefault(tensor.data_ptr(), name)
            if owner == name:
                tensors[f"{i}/{name}"] = tensor.contiguous()
            else:
                ties[f"{i}/{name}"] = f"{i}/{owner}"
    data = save(tensors, {"names": json.dumps(names), "ties": json.dumps(ties)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            file.write(data)
        os.replace(file.name, path)  # atomic: a reader sees the whole file or none
    except OSError:
        return


def _read(path: Path) -> list[StateDict] | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        ties = json.loads(metadata["ties"])
        return [
            {name: tensors[ties.get(f"{i}/{name}", f"{i}/{name}")] for name in names}
            for i, names in enumerate(json.loads(metadata["names"]))
        ]
    except (OSError, SafetensorError, KeyError, TypeError):
        return None
