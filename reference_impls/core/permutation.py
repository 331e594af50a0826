r"""Permutations of the units of a network: which tensors they act on, their algebra, and the assignment problem.

A hidden unit can change places with another of its layer, and the network computes the same function, if the rows that write the
units and the columns that read them are reordered together. A `PermutationSpec` says, for every tensor and axis, which named
permutation acts there. `permutation_spec` makes one by tracing a network; small ones are easily written by hand.

A permutation is an index tensor $p$ of shape (n,): unit $i$ of the result is unit $p_i$ of what it is applied to, so as a matrix
$P_{i, p_i} = 1$. Permutations of a whole network are a dict from permutation names to index tensors. In `transform` a permutation
may also be a matrix of shape (new units, old units): the soft maps of optimal transport and of relaxed matching.

Attention heads are blocks: a permutation of the units of queries and keys moves whole heads and reorders units within
heads, and the permutation of the values moves the heads alike. `PermutationSpec.blocks` names the permutations that
move the same blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from reference_impls.core.state_dict import StateDict, tied_to

Permutations = Mapping[str, Tensor]


@dataclass(frozen=True)
class PermutationSpec:
    """Which named permutation acts on which axis of which tensor.

    Attributes:
        axes: for every name of the state dict, one permutation name per axis; None where nothing acts (inputs, outputs, kernels).
        sizes: number of units of each permutation.
        repeats: entries per unit on an axis `(name, axis)`, where a unit owns several neighbours (flattened images). Else 1.
        reads: the axes `(name, axis)` on which a tensor takes in the units, such as the columns of a linear layer; the other
            axes write them or go along with them.
        buffers: names that are permuted too but are no part of the weights (running statistics).
        blocks: for permutations that move the same blocks (attention heads), the number of blocks.

    Example:
        >>> spec = PermutationSpec(
        ...     {"first.weight": ("hidden", None), "first.bias": ("hidden",), "second.weight": (None, "hidden")}, {"hidden": 2}
        ... )
        >>> model = {"first.weight": torch.tensor([[1.0], [2.0]]), "first.bias": torch.tensor([3.0, 4.0])}
        >>> model["second.weight"] = torch.tensor([[5.0, 6.0]])
        >>> {k: t.tolist() for k, t in apply_permutation(spec, {"hidden": torch.tensor([1, 0])}, model).items()}
        {'first.weight': [[2.0], [1.0]], 'first.bias': [4.0, 3.0], 'second.weight': [[6.0, 5.0]]}
    """

    axes: Mapping[str, tuple[str | None, ...]]
    sizes: Mapping[str, int]
    repeats: Mapping[tuple[str, int], int] = field(default_factory=dict)
    reads: frozenset[tuple[str, int]] | None = None
    buffers: frozenset[str] = frozenset()
    blocks: Mapping[tuple[str, ...], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.reads is None:  # by hand: the second axis of a weight reads
            reads = {(key, 1) for key, axes in self.axes.items() if len(axes) > 1 and axes[1] is not None}
            object.__setattr__(self, "reads", frozenset(reads))
        unknown = sorted({p for axes in self.axes.values() for p in axes if p is not None} - set(self.sizes))
        if unknown:
            raise ValueError(f"axes name the permutations {unknown}, which have no size; sizes has {sorted(self.sizes)}")
        for names, count in self.blocks.items():
            for name in names:
                if name not in self.sizes or self.sizes[name] % count:
                    raise ValueError(f"blocks: {name!r} has {self.sizes.get(name)} units, which do not make {count} blocks")

    def places(self, name: str) -> list[tuple[str, int]]:
        """Return the `(tensor name, axis)` on which a permutation acts, in the order of the state dict."""
        return [(key, axis) for key, axes in self.axes.items() for axis, p in enumerate(axes) if p == name]

    def coordinates(self) -> list[tuple[str, ...]]:
        """Return the permutations that are chosen together: each alone, and those of the same blocks as one."""
        together = {name: names for names in self.blocks for name in names}
        return list(dict.fromkeys(together.get(name, (name,)) for name in self.sizes))

    def check(self, *state_dicts: StateDict) -> None:
        """Refuse state dicts whose names or shapes are not those of the spec."""
        for state_dict in state_dicts:
            missing = [key for key in self.axes if key not in state_dict]
            extra = [key for key in state_dict if key not in self.axes]
            if missing or extra:
                raise ValueError(f"the spec and the state dict differ: missing {missing[:3]}, not in the spec {extra[:3]}")
            for key, axes in self.axes.items():
                shape = tuple(state_dict[key].shape)
                if len(shape) != len(axes):
                    raise ValueError(f"{key!r} has shape {shape}; the spec describes {len(axes)} axes")
                for axis, name in enumerate(axes):
                    if name is not None and shape[axis] != (need := self.sizes[name] * self.repeats.get((key, axis), 1)):
                        raise ValueError(f"{key!r} has {shape[axis]} entries on axis {axis}; permutation {name!r} needs {need}")


def permutation_spec(network: nn.Module, example_input: Tensor | tuple) -> PermutationSpec:
    """Return the spec of a network, found by tracing it with torch.fx on an example input.

    An operation that the tracer does not know fixes every unit that enters it: the spec may then allow fewer
    permutations than the network has, never one that changes its function. Inputs and outputs are never permuted.

    Raises:
        ValueError: torch.fx cannot trace the network's forward.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> permutation_spec(network, torch.zeros(1, 3)).axes
        {'0.weight': ('0', None), '0.bias': ('0',), '2.weight': (None, '0'), '2.bias': (None,)}
    """
    from reference_impls.core.permutation_tracing import trace  # torch.fx is slow to import

    return trace(network, example_input)


# --- applying -------------------------------------------------------------------------------------------------------


def apply_permutation(spec: PermutationSpec, permutations: Permutations, state_dict: StateDict) -> dict[str, Tensor]:
    """Return the state dict with its units reordered, running statistics included; ties stay tied, values keep their bits.

    Permutations that are not given leave their units in place.

    Raises:
        ValueError: names or shapes that are not the spec's, something that is no permutation or that tears blocks apart.
    """
    spec.check(state_dict)
    check_permutations(spec, permutations)
    return _dress({key: transform(spec, permutations, key, tensor) for key, tensor in state_dict.items()}, state_dict)


def transform(
    spec: PermutationSpec, maps: Permutations, key: str, tensor: Tensor, *, skip: int | None = None, inverses: Permutations = {}
) -> Tensor:
    """Return one tensor with a map applied on every axis that has one, except on axis `skip`.

    Args:
        spec: where the maps act.
        maps: by permutation name, an index tensor (n,) or a matrix (new units, old units).
        key: name of the tensor.
        tensor: its value.
        skip: an axis to leave alone.
        inverses: maps to use instead where the tensor reads the units; a permutation is its own inverse transpose and needs none.
    """
    for axis, name in enumerate(spec.axes[key]):
        if name is None or axis == skip:
            continue
        given = inverses.get(name) if (key, axis) in spec.reads and name in inverses else maps.get(name)
        if given is None:
            continue
        given, repeat = given.to(tensor.device), spec.repeats.get((key, axis), 1)
        if given.is_floating_point():
            front = tensor.movedim(axis, 0)  # (old units * repeat, ...)
            mapped = given.to(tensor.dtype) @ front.reshape(given.shape[1], -1)
            tensor = mapped.reshape(given.shape[0] * repeat, *front.shape[1:]).movedim(0, axis)
        else:
            index = (given[:, None] * repeat + torch.arange(repeat, device=tensor.device)).reshape(-1)
            tensor = tensor.index_select(axis, index)
    return tensor


def unit_rows(spec: PermutationSpec, key: str, axis: int, tensor: Tensor) -> Tensor:
    """Return the entries of a tensor that belong to each unit of an axis as rows, (units, entries)."""
    front = tensor.movedim(axis, 0)
    return front.reshape(front.shape[0] // spec.repeats.get((key, axis), 1), -1)


def unit_similarity(spec: PermutationSpec, name: str, a: StateDict, b: StateDict, maps: Permutations) -> Tensor:
    r"""Return $S_{ij}$, the inner product of all weights of unit i of `a` and unit j of `b`, other axes of `b` mapped; (n, n).

    Its inner product with a permutation matrix is what that permutation adds to $\langle\theta_A, \pi(\theta_B)\rangle$.
    """
    places = [(key, axis) for key, axis in spec.places(name) if key in a and key not in spec.buffers]
    return sum(
        unit_rows(spec, key, axis, a[key].double())
        @ unit_rows(spec, key, axis, transform(spec, maps, key, b[key].double(), skip=axis)).T
        for key, axis in places
    )


def _dress(tensors: Mapping[str, Tensor], like: StateDict) -> dict[str, Tensor]:
    """Give tensors memory of their own and the ties of `like`."""
    ties, out = tied_to(like), {}
    for key in like:
        out[key] = out[ties[key]] if key in ties else tensors[key].detach().clone(memory_format=torch.contiguous_format)
    return out


# --- algebra --------------------------------------------------------------------------------------------------------


def identity(spec: PermutationSpec, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Return the permutations that change nothing."""
    return {name: torch.arange(size, device=device) for name, size in spec.sizes.items()}


def invert(permutations: Permutations) -> dict[str, Tensor]:
    """Return the permutations that undo the given ones.

    Example:
        >>> invert({"hidden": torch.tensor([2, 0, 1])})
        {'hidden': tensor([1, 2, 0])}
    """
    return {name: index.argsort() for name, index in permutations.items()}


def compose(second: Permutations, first: Permutations) -> dict[str, Tensor]:
    """Return the permutations that apply `first` and then `second`.

    Example:
        >>> compose({"hidden": torch.tensor([1, 0, 2])}, {"hidden": torch.tensor([2, 0, 1])})
        {'hidden': tensor([0, 2, 1])}
    """
    return {name: first[name][second[name]] for name in first}


def random_permutations(spec: PermutationSpec, generator: torch.Generator) -> dict[str, Tensor]:
    """Return uniformly drawn permutations; blocks move as wholes and their units within them."""
    draw = lambda n: torch.randperm(n, generator=generator)  # noqa: E731
    out = {}
    for names in spec.coordinates():
        count = spec.blocks.get(names, 1)
        order = draw(count)
        for name in names:
            size = spec.sizes[name] // count
            out[name] = torch.cat([block * size + draw(size) for block in order])
    return {name: out[name] for name in spec.sizes}


def as_matrices(permutations: Permutations, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Return permutations as matrices, row i holding its 1 in column p_i.

    Example:
        >>> as_matrices({"hidden": torch.tensor([1, 0])}, torch.float32)
        {'hidden': tensor([[0., 1.],
                [1., 0.]])}
    """
    return {name: torch.eye(len(p), dtype=dtype, device=p.device)[p] for name, p in permutations.items()}


def check_permutations(spec: PermutationSpec, permutations: Permutations) -> None:
    """Refuse index tensors that are no permutations of the spec."""
    for name, index in permutations.items():
        if name not in spec.sizes:
            raise ValueError(f"the spec has no permutation {name!r}; it has {sorted(spec.sizes)}")
        if sorted(index.tolist()) != list(range(spec.sizes[name])):
            raise ValueError(f"{name!r} is no permutation of {spec.sizes[name]} units: {index.tolist()[:8]}")
    for names, count in spec.blocks.items():
        orders = []
        for name in names:
            if name in permutations:
                blocks = (permutations[name] // (spec.sizes[name] // count)).reshape(count, -1)
                if (blocks != blocks[:, :1]).any():
                    raise ValueError(f"{name!r} tears its {count} blocks apart; whole blocks change places")
                orders.append(blocks[:, 0].tolist())
        if any(order != orders[0] for order in orders):
            raise ValueError(f"{', '.join(names)} move the same blocks, but are given the orders {orders}")


# --- the assignment problem -----------------------------------------------------------------------------------------


def solve_assignment(similarity: Tensor) -> Tensor:
    r"""Return the permutation $p$ that maximises $\sum_i S_{i, p_i}$, an index tensor (n,).

    Raises:
        ImportError: SciPy, which solves it, is missing.

    Example:
        >>> solve_assignment(torch.tensor([[1.0, 4.0], [2.0, 4.0]]))
        tensor([1, 0])
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError('the assignment problem needs SciPy: pip install "model-fusion-atlas[alignment]"') from error
    columns = linear_sum_assignment(similarity.detach().cpu().numpy(), maximize=True)[1]
    return torch.as_tensor(columns, device=similarity.device)


def match_units(spec: PermutationSpec, similarities: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Return the best permutations of one coordinate, given each one's matrix of unit similarities (n, n).

    Blocks are matched exactly: every block with every other, units within; then the blocks by what their units add up to.
    """
    names = tuple(names)
    count = spec.blocks.get(names, 1)
    if count == 1:
        return {name: solve_assignment(similarities[name]) for name in names}
    inner, value = {}, torch.zeros(count, count, dtype=torch.float64)
    for name in names:
        size = spec.sizes[name] // count
        pieces = similarities[name].reshape(count, size, count, size)
        for i in range(count):
            for j in range(count):
                inner[name, i, j] = solve_assignment(pieces[i, :, j])
                value[i, j] += pieces[i, torch.arange(size), j, inner[name, i, j]].sum().cpu()
    order = solve_assignment(value).tolist()
    return {
        name: torch.cat([j * (spec.sizes[name] // count) + inner[name, i, j] for i, j in enumerate(order)]) for name in names
    }


def nearest_permutations(spec: PermutationSpec, matrices: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""Return the permutations of all layers that maximise $\langle P_l, M_l \rangle$ for given matrices $M_l$, (n, n).

    For doubly stochastic matrices these are the closest permutations. Blocks are matched as wholes.

    Example:
        >>> nearest_permutations(PermutationSpec({"w": ("h",)}, {"h": 2}), {"h": torch.tensor([[0.4, 0.6], [0.6, 0.4]])})
        {'h': tensor([1, 0])}
    """
    found: dict[str, Tensor] = {}
    for names in spec.coordinates():
        found |= match_units(spec, matrices, names)
    return {name: found[name] for name in spec.sizes}


# --- activations ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def unit_activations(
    spec: PermutationSpec, network: nn.Module, state_dict: StateDict, inputs: Tensor, *, written: bool = False
) -> dict[str, Tensor]:
    """Return the values of all units over a batch, by permutation name, (samples, units).

    Taken where a layer reads the units (after normalisation and nonlinearity); units that no layer reads, such as queries
    and keys, and all units if `written`, are taken where a layer with a weight matrix writes them. Images and tokens count
    every position as a sample; several places follow one another as further samples.
    """
    reads, writes = _watch_layers(spec, network, state_dict, inputs)
    out = {}
    for name in spec.sizes:
        places = [value for of, _, value in reads if of == name and not written]
        out[name] = torch.cat(places or [value for of, _, value in writes if of == name])
    return out


@torch.no_grad()
def layer_activations(spec: PermutationSpec, network: nn.Module, state_dict: StateDict, inputs: Tensor) -> dict[str, Tensor]:
    """Return what every layer with a weight matrix writes into hidden units, by layer name, (samples, units)."""
    return {layer: value for _, layer, value in _watch_layers(spec, network, state_dict, inputs)[1]}


def check_activations(spec: PermutationSpec, activations_a: Mapping[str, Tensor], activations_b: Mapping[str, Tensor]) -> None:
    """Refuse activations that lack a permutation of the spec, have other numbers of units, or other samples in B than in A."""
    for name, size in spec.sizes.items():
        shapes = [tuple(x[name].shape) if name in x else None for x in (activations_a, activations_b)]
        if None in shapes or shapes[0] != shapes[1] or len(shapes[0]) != 2 or shapes[0][1] != size or not shapes[0][0]:
            need = f"(samples, {size}) for both models, of the same samples"
            raise ValueError(f"activations of {name!r} must be {need}; received {shapes[0]} and {shapes[1]}")


def unit_correlation(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Return the correlations of the units over the samples, (units of A, units of B), in float64.

    A unit that is constant correlates with nothing.

    Example:
        >>> z = torch.tensor([[1.0, 0.0, 5.0], [-1.0, 1.0, 5.0], [1.0, 2.0, 5.0], [-1.0, 3.0, 5.0]])
        >>> unit_correlation(z, z[:, 1:]).round(decimals=2)
        tensor([[-0.4500,  0.0000],
                [ 1.0000,  0.0000],
                [ 0.0000,  0.0000]], dtype=torch.float64)
    """
    a, b = (z.double() - z.double().mean(dim=0) for z in (z_a, z_b))
    a, b = (torch.where((norm := z.norm(dim=0)) > 0, z / norm, 0) for z in (a, b))
    return a.T @ b


def _watch_layers(spec: PermutationSpec, network: nn.Module, state_dict: StateDict, inputs: Tensor) -> tuple[list, list]:
    """One pass that keeps (permutation, layer, (samples, units)) wherever a weight matrix reads or writes units."""
    modules, reads, writes, handles = dict(network.named_modules()), [], [], []

    def samples(value: Tensor, name: str, module: nn.Module) -> Tensor:
        if isinstance(module, nn.modules.conv._ConvNd):
            value = value.movedim(1, -1)
        units = spec.sizes[name]
        return value.reshape(-1, units, value.shape[-1] // units).movedim(1, 2).reshape(-1, units)

    def watch(layer: str, key: str) -> None:
        def hook(module: nn.Module, given: tuple, result: Tensor) -> None:
            for axis, name in enumerate(spec.axes[key]):
                if name is not None and (key, axis) in spec.reads:
                    reads.append((name, layer, samples(given[0], name, module)))
                elif name is not None:
                    writes.append((name, layer, samples(result, name, module)))

        handles.append(modules[layer].register_forward_hook(hook))

    training = network.training
    try:
        network.eval()
        for key, axes in spec.axes.items():
            layer = key.rpartition(".")[0]
            if any(axes) and key.endswith("weight") and len(axes) > 1 and layer in modules:
                watch(layer, key)
        torch.func.functional_call(network, dict(state_dict), (inputs,))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return reads, writes
