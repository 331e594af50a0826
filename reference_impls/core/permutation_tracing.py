r"""How `permutation_spec` finds the permutations of a network: one pass over its torch.fx graph.

Every axis of every tensor, parameters included, is a product of *atoms*: classes of units that must be permuted alike.
An operation either carries atoms through (elementwise), ties the atoms of its operands together (a sum, a contraction),
splits an atom (heads out of a width) or fixes it (slicing, inputs, outputs). An unknown operation fixes whatever enters
it, which is always right: where nothing moves, nothing can go wrong. What is left free in the end are the permutations.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn

from reference_impls.core.permutation import PermutationSpec

Dim = list[int]  # the atoms of one axis, outermost first


class Atoms:
    """Union-find over classes of units; a class may be fixed, and may be split into an outer and an inner class."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.size: list[int] = []
        self.fixed: list[bool] = []
        self.parts: list[Dim | None] = []

    def new(self, size: int, fixed: bool = False) -> int:
        self.parent.append(len(self.parent))
        self.size.append(size)
        self.fixed.append(fixed)
        self.parts.append(None)
        return len(self.parent) - 1

    def find(self, atom: int) -> int:
        while self.parent[atom] != atom:
            atom = self.parent[atom]
        return atom

    def leaves(self, dim: Dim) -> Dim:
        out = []
        for atom in map(self.find, dim):
            out += [atom] if self.parts[atom] is None else self.leaves(self.parts[atom])
        return [atom for atom in out if self.size[atom] != 1]

    def fix(self, *dims: Dim) -> None:
        for dim in dims:
            for atom in self.leaves(dim):
                self.fixed[atom] = True

    def split(self, atom: int, outer: int) -> Dim:
        self.parts[atom] = [self.new(outer, self.fixed[atom]), self.new(self.size[atom] // outer, self.fixed[atom])]
        return self.parts[atom]

    def unify(self, a: Dim, b: Dim) -> None:
        """Tie two axes together; where their sizes do not fit into each other, fix both."""
        left, right = self.leaves(a), self.leaves(b)
        while left and right:
            x, y = left.pop(0), right.pop(0)
            if x == y:
                continue
            if self.size[x] != self.size[y]:
                large, small = (x, y) if self.size[x] > self.size[y] else (y, x)
                if self.size[large] % self.size[small]:
                    return self.fix(a, b)
                outer, inner = self.split(large, self.size[small])
                (left if large == x else right).insert(0, inner)
                x, y = outer, small
            self.parent[x] = y
            self.fixed[y] = self.fixed[y] or self.fixed[x]
            left, right = self.leaves(left), self.leaves(right)

    def regroup(self, dims: list[Dim], shape: tuple[int, ...]) -> list[Dim]:
        """The axes after a reshape, splitting atoms where the new shape cuts through them."""
        atoms, out = self.leaves([atom for dim in dims for atom in dim]), []
        for length in shape:
            dim: Dim = []
            while length > 1:
                atom = atoms.pop(0)
                if self.size[atom] > length:
                    if self.size[atom] % length:
                        self.fix(*dims)
                        return [[self.new(n, fixed=True)] for n in shape]
                    atom, rest = self.split(atom, length)
                    atoms.insert(0, rest)
                elif length % self.size[atom]:
                    self.fix(*dims)
                    return [[self.new(n, fixed=True)] for n in shape]
                dim.append(atom)
                length //= self.size[atom]
            out.append(dim)
        return out


@dataclass
class Value:
    """A value of the graph with the atoms of its axes; `key` is set for parameters and buffers."""

    value: Any
    dims: list[Dim]
    key: str | None = None


ELEMENTWISE = frozenset(
    "add sub rsub mul truediv div neg pow abs exp log sqrt rsqrt square relu gelu silu sigmoid tanh softplus leaky_relu elu "
    "hardtanh relu6 mish clamp maximum minimum where masked_fill dropout softmax log_softmax gt lt ge le eq ne logical_not "
    "float to type type_as contiguous clone detach iadd imul ones_like zeros_like".split()
)
REDUCTIONS = frozenset("mean sum amax amin var std prod".split())
RESHAPES = frozenset("flatten unflatten reshape view".split())
POOLS = (nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd)
POOLS += (nn.modules.pooling._AdaptiveMaxPoolNd,)
ACTIVATIONS = (nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.ELU, nn.Softplus, nn.ReLU6, nn.Hardtanh)
ACTIVATIONS += (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Softmax, nn.LogSoftmax)


class Tracing:
    """One pass over the graph: `rule` says for every operation what happens to the axes."""

    def __init__(self, network: nn.Module) -> None:
        self.atoms = Atoms()
        self.network = network
        self.tensors: dict[int, Value] = {}  # by identity: tied tensors share their axes
        self.reads: set[tuple[int, int]] = set()
        for key, tensor in network.state_dict(keep_vars=True).items():
            if id(tensor) not in self.tensors:
                self.tensors[id(tensor)] = Value(tensor, [[self.atoms.new(n)] for n in tensor.shape], key)
        self.touched: set[str] = set()

    def run(self, graph: fx.Graph, inputs: tuple) -> None:
        values: dict[fx.Node, Any] = {}
        given = iter(inputs)
        for node in graph.nodes:
            args = fx.map_arg(node.args, values.__getitem__)
            kwargs = fx.map_arg(node.kwargs, values.__getitem__)
            if node.op == "placeholder":
                value = next(given, None)
                values[node] = self.frozen(value if value is not None else (node.args[0] if node.args else None))
            elif node.op == "output":
                self.fix_all((args, kwargs))
            elif node.op == "get_attr":
                tensor = self.attribute(node.target)
                values[node] = self.parameter(tensor) if id(tensor) in self.tensors else self.frozen(tensor)
            elif node.op == "call_module":
                module = self.network.get_submodule(node.target)
                values[node] = self.module(module, args, module(*strip(args), **strip(kwargs)))
            else:
                is_method = node.op == "call_method"
                name = (node.target if is_method else node.target.__name__).strip("_")
                plain = strip(args)
                function: Callable = getattr(plain[0], node.target) if is_method else node.target
                result = function(*plain[is_method:], **strip(kwargs))
                tensor = isinstance(result, Tensor)
                values[node] = self.operation(name, args, kwargs, result) if tensor else self.other(name, args, result)

    def attribute(self, target: str) -> Any:
        value: Any = self.network
        for part in target.split("."):
            value = getattr(value, part)
        return value

    def parameter(self, tensor: Tensor | None) -> Value | None:
        if tensor is None:
            return None
        self.touched.add(self.tensors[id(tensor)].key)
        return self.tensors[id(tensor)]

    def frozen(self, value: Any) -> Value:
        return Value(value, [[self.atoms.new(n, fixed=True)] for n in value.shape] if isinstance(value, Tensor) else [])

    def fix_all(self, values: Any) -> None:
        for value in tensors_in(values):
            self.atoms.fix(*value.dims)

    def unknown(self, values: Any, result: Any) -> Value:
        self.fix_all(values)
        return self.frozen(result)

    def other(self, name: str, args: tuple, result: Any) -> Value:
        """Shapes and sizes carry no units; a tuple of tensors (chunk, split) is fixed."""
        if name not in ("size", "getattr", "dim", "numel", "len") and not isinstance(result, int | float | bool):
            self.fix_all(args)
        return Value(result, [])

    # --- modules

    def module(self, module: nn.Module, args: tuple, result: Any) -> Value:
        own = {name: self.parameter(tensor) for name, tensor in module.named_parameters(recurse=False)}
        weight, bias = own.get("weight"), own.get("bias")
        x, unify = args[0], self.atoms.unify
        if isinstance(module, nn.Linear):
            return self.linear(x, weight, bias, result)
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return self.conv(x, weight, bias, module.groups, result)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for name in ("weight", "bias", "running_mean", "running_var"):
                if (tensor := self.parameter(getattr(module, name))) is not None:
                    unify(tensor.dims[0], x.dims[1])
            return Value(result, x.dims)
        if isinstance(module, nn.LayerNorm | nn.RMSNorm):
            for tensor in (weight, bias):
                for mine, theirs in zip(tensor.dims if tensor else [], x.dims[-len(module.normalized_shape) :]):
                    unify(mine, theirs)
            return Value(result, x.dims)
        if isinstance(module, nn.GroupNorm):
            channels = module.num_channels
            unify(x.dims[1], [self.atoms.new(module.num_groups), self.atoms.new(channels // module.num_groups)])
            for tensor in (weight, bias):
                if tensor is not None:
                    unify(tensor.dims[0], x.dims[1])
            return Value(result, x.dims)
        if isinstance(module, nn.Embedding):
            self.atoms.fix(weight.dims[0])
            return Value(result, [*x.dims, weight.dims[1]])
        if isinstance(module, ACTIVATIONS):
            return Value(result, x.dims)
        if isinstance(module, POOLS) and isinstance(result, Tensor):
            self.atoms.fix(*x.dims[2:])
            return Value(result, [*x.dims[:2], *self.frozen(result).dims[2:]])
        if isinstance(module, nn.Flatten | nn.Unflatten):
            return Value(result, self.atoms.regroup(x.dims, result.shape))
        for tensor in (*module.parameters(), *module.buffers()):
            self.atoms.fix(*self.parameter(tensor).dims)
        return self.unknown(args, result)

    def linear(self, x: Value, weight: Value, bias: Value | None, result: Tensor) -> Value:
        self.atoms.unify(x.dims[-1], weight.dims[1])
        if bias is not None:
            self.atoms.unify(bias.dims[0], weight.dims[0])
        self.reads.add((id(weight.value), 1))
        return Value(result, [*x.dims[:-1], weight.dims[0]])

    def conv(self, x: Value, weight: Value, bias: Value | None, groups: int, result: Tensor) -> Value:
        self.atoms.fix(*weight.dims[2:], *x.dims[2:])
        if groups == 1:
            self.atoms.unify(x.dims[1], weight.dims[1])
            self.reads.add((id(weight.value), 1))
        elif groups == weight.value.shape[0] == x.value.shape[1]:  # depthwise: each channel stays itself
            self.atoms.unify(x.dims[1], weight.dims[0])
        else:
            self.atoms.fix(x.dims[1], *weight.dims)
        if bias is not None:
            self.atoms.unify(bias.dims[0], weight.dims[0])
        return Value(result, [x.dims[0], weight.dims[0], *self.frozen(result).dims[2:]])

    # --- functions and methods of tensors

    def operation(self, name: str, args: tuple, kwargs: dict, result: Tensor) -> Value:
        atoms, given = self.atoms, tensors_in((args, kwargs))
        x = args[0] if args and isinstance(args[0], Value) else None
        if name in ELEMENTWISE:
            return self.broadcast(given, result)
        if x is None or not isinstance(x.value, Tensor):
            return self.unknown((args, kwargs), result)
        axes = lambda value: [a % x.value.dim() for a in (value if isinstance(value, tuple | list) else (value,))]  # noqa: E731
        plain, options = strip(args), strip(kwargs)
        if name in REDUCTIONS:
            dims = plain[1] if len(plain) > 1 else options.get("dim")
            gone = axes(dims) if dims is not None else range(x.value.dim())
            keep = result.dim() == x.value.dim()
            return Value(result, [[] if a in gone else d for a, d in enumerate(x.dims) if keep or a not in gone])
        if name in RESHAPES:
            return Value(result, atoms.regroup(x.dims, tuple(result.shape)))
        if name in ("transpose", "permute", "t", "swapaxes"):
            order = torch.arange(x.value.numel() and x.value.dim())
            if name == "permute":
                order = axes(plain[1] if isinstance(plain[1], tuple | list) else plain[1:])
            else:
                order = order.tolist()
                i, j = axes(plain[1:3]) if len(plain) > 2 else (0, 1)
                order[i], order[j] = order[j], order[i]
            return Value(result, [x.dims[a] for a in order])
        if name in ("unsqueeze", "squeeze"):
            return Value(result, atoms.regroup(x.dims, tuple(result.shape)))
        if name == "expand":
            new = self.frozen(result).dims
            aligned = [[]] * (result.dim() - x.value.dim()) + x.dims
            return Value(result, [d if atoms.leaves(d) else n for d, n in zip(aligned, new)])
        if name in ("triu", "tril"):
            atoms.fix(*x.dims[-2:])
            return Value(result, x.dims)
        if name == "cumsum":
            atoms.fix(x.dims[axes(plain[1] if len(plain) > 1 else options["dim"])[0]])
            return Value(result, x.dims)
        if name in ("matmul", "bmm") and x.value.dim() > 1 and args[1].value.dim() > 1:
            return self.matmul(x, args[1], result)
        if name == "linear":
            return self.linear(x, args[1], args[2] if len(args) > 2 else kwargs.get("bias"), result)
        if name in ("adaptive_avg_pool2d", "avg_pool2d", "max_pool2d", "boolean_dispatch"):
            atoms.fix(*x.dims[2:])
            return Value(result, [*x.dims[:2], *self.frozen(result).dims[2:]])
        if name == "getitem":
            return self.getitem(x, plain[1], result)
        return self.unknown((args, kwargs), result)

    def broadcast(self, given: list[Value], result: Tensor) -> Value:
        dims: list[Dim] = [[] for _ in result.shape]
        for value in given:
            for axis in range(1, value.value.dim() + 1):
                if value.value.shape[-axis] == 1:
                    continue
                if dims[-axis]:
                    self.atoms.unify(dims[-axis], value.dims[-axis])
                else:
                    dims[-axis] = value.dims[-axis]
        return Value(result, dims)

    def matmul(self, a: Value, b: Value, result: Tensor) -> Value:
        self.atoms.unify(a.dims[-1], b.dims[-2])
        batch = [Value(v.value[..., 0, 0], v.dims[:-2]) for v in (a, b)]
        return Value(result, [*self.broadcast(batch, result[..., 0, 0]).dims, a.dims[-2], b.dims[-1]])

    def getitem(self, x: Value, index: Any, result: Tensor) -> Value:
        index = index if isinstance(index, tuple) else (index,)
        if not all(isinstance(i, int | slice) for i in index):
            return self.unknown(x, result)
        dims = []
        for axis, dim in enumerate(x.dims):
            i = index[axis] if axis < len(index) else slice(None)
            if i != slice(None):
                self.atoms.fix(dim)
            if isinstance(i, slice):
                dims.append(dim if i == slice(None) else [self.atoms.new(result.shape[len(dims)], fixed=True)])
        return Value(result, dims)


def strip(values: Any) -> Any:
    """The plain values of whatever holds `Value`s."""
    if isinstance(values, Value):
        return values.value
    if isinstance(values, dict):
        return {k: strip(v) for k, v in values.items()}
    if isinstance(values, slice):
        return slice(strip(values.start), strip(values.stop), strip(values.step))
    return type(values)(map(strip, values)) if type(values) in (tuple, list) else _sequence(values)


def _sequence(values: Any) -> Any:
    return [strip(v) for v in values] if isinstance(values, tuple | list) and not isinstance(values, torch.Size) else values


def tensors_in(values: Any) -> list[Value]:
    if isinstance(values, Value):
        return [values] if isinstance(values.value, Tensor) else []
    parts = values.values() if isinstance(values, dict) else values if isinstance(values, tuple | list) else ()
    return [v for part in parts for v in tensors_in(part)]


@torch.no_grad()
def trace(network: nn.Module, example_input: Tensor | tuple) -> PermutationSpec:
    """See `reference_impls.core.permutation.permutation_spec`."""
    network = copy.deepcopy(network).eval()
    try:
        graph = fx.Tracer().trace(network)
    except Exception as error:  # torch.fx raises whatever the forward raises on a symbolic value
        raise ValueError(
            f"torch.fx cannot trace {type(network).__name__}: {error}. Its forward must not branch on the values or shapes "
            "of tensors; write the PermutationSpec by hand otherwise"
        ) from error
    tracing = Tracing(network)
    tracing.run(graph, example_input if isinstance(example_input, tuple) else (example_input,))
    return _spec(tracing)


def _spec(tracing: Tracing) -> PermutationSpec:
    atoms, state = tracing.atoms, tracing.network.state_dict(keep_vars=True)
    for value in tracing.tensors.values():
        if value.key not in tracing.touched:
            atoms.fix(*value.dims)
    dims = [dim for value in tracing.tensors.values() for dim in value.dims]
    while not all([_expressible(atoms, dim, dims) for dim in dims]):
        pass
    names: dict[tuple[int, ...], str] = {}
    axes, repeats, reads, blocks = {}, {}, set(), {}
    for key, tensor in state.items():
        row: list[str | None] = []
        for axis, dim in enumerate(tracing.tensors[id(tensor)].dims):
            free = tuple(a for a in atoms.leaves(dim) if not atoms.fixed[a])
            if free and free not in names:
                base = key.rpartition(".")[0] or key
                names[free] = base if base not in names.values() else f"{key}.{axis}"
            row.append(names.get(free))
            if free:
                size = prod(atoms.size[a] for a in free)
                if tensor.shape[axis] != size:
                    repeats[key, axis] = tensor.shape[axis] // size
                if (id(tensor), axis) in tracing.reads and not (axis == 1 and _is_embedding(tracing.network, key)):
                    reads.add((key, axis))
        axes[key] = tuple(row)
    for free, name in names.items():
        if len(free) == 2:
            blocks.setdefault(free[0], []).append(name)
    return PermutationSpec(
        axes,
        {name: prod(atoms.size[a] for a in free) for free, name in names.items()},
        repeats,
        frozenset(reads),
        frozenset(name for name, _ in tracing.network.named_buffers()),
        {tuple(members): atoms.size[outer] for outer, members in blocks.items()},
    )


def _is_embedding(network: nn.Module, key: str) -> bool:
    return isinstance(network.get_submodule(key.rpartition(".")[0]), nn.Embedding)


def _expressible(atoms: Atoms, dim: Dim, dims: list[Dim]) -> bool:
    """True if an axis is one class, or blocks and units in them, followed by fixed neighbours only; else fix it."""
    leaves = atoms.leaves(dim)
    free = [a for a in leaves if not atoms.fixed[a]]
    fine = leaves[: len(free)] == free and len(free) <= 2 and len(set(free)) == len(free)
    for other in dims if fine else ():
        theirs = [a for a in atoms.leaves(other) if not atoms.fixed[a]]
        if len(free) == 2 and theirs and free != theirs:  # blocks may be shared, but only as the blocks of other units
            fine = fine and not (free[1] in theirs or (free[0] in theirs and (theirs[0] != free[0] or len(theirs) != 2)))
    if not fine:
        atoms.fix(dim)
    return fine or not free
