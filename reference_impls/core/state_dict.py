r"""The vector space of state dicts.

A method sees a model as one vector $\theta \in \mathbb{R}^d$. A state dict is more than that: it also holds integer
buffers (counters), half-precision tensors, and tied weights, one tensor under two names. `to_vector` strips a state
dict to the vector: floating-point tensors only, each tied group once, in float32 (float64 stays float64). Methods compute on
vectors, which are plain dicts from name to tensor. `to_state_dict` dresses the result again: keys, key order, shapes, dtypes
and ties of a given model, with its integer buffers. Half precision is thus accumulated in float32 and rounded once.

The tensors may be too large for memory: see `core.blocks`, whose functions `zip_entries`, `zip_rows` and `zip_map` apply name by
name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor

from .blocks import entrywise, rowwise, whole

StateDict = Mapping[str, Tensor]
Vector = dict[str, Tensor]


def check_same_structure(*state_dicts: StateDict) -> None:
    """Refuse models that differ in keys, shapes, dtypes, devices or tied weights.

    Raises:
        ValueError: with the first difference found, or when there is no model at all.

    Example:
        >>> check_same_structure({"w": torch.zeros(2)}, {"w": torch.zeros(3)})
        Traceback (most recent call last):
        ValueError: 'w' has shape (2,) in the first model and (3,) in model 2; all models need one architecture
    """
    if not state_dicts:
        raise ValueError("received no models; at least one state dict is needed")
    first, *others = state_dicts
    ties = tied_to(first)
    for number, other in enumerate(others, start=2):
        missing, extra = [k for k in first if k not in other], [k for k in other if k not in first]
        if missing or extra:
            raise ValueError(f"model {number} differs from the first in its keys: missing {missing[:3]}, extra {extra[:3]}")
        for key, tensor in first.items():
            for what, a, b in (
                ("shape", tuple(tensor.shape), tuple(other[key].shape)),
                ("dtype", tensor.dtype, other[key].dtype),
                ("device", tensor.device, other[key].device),
            ):
                if a != b:
                    need = "one device" if what == "device" else "one architecture"
                    raise ValueError(
                        f"{key!r} has {what} {a} in the first model and {b} in model {number}; all models need {need}"
                    )
        for key, owner in ties.items():
            if not torch.equal(other[key], other[owner]):
                raise ValueError(
                    f"{key!r} and {owner!r} are tied in the first model but differ in model {number}; untie them in all models"
                )


def tied_to(state_dict: StateDict) -> dict[str, str]:
    """Return, for each name that shares its memory with an earlier name, that earlier name.

    Example:
        >>> w = torch.ones(2)
        >>> tied_to({"embed": w, "head": w, "bias": torch.ones(2)})
        {'head': 'embed'}
    """
    owners: dict[tuple, str] = {}
    ties = {}
    for key, tensor in state_dict.items():
        if tensor.numel() == 0:  # empty tensors may all share the null pointer
            continue
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        owner = owners.setdefault(place, key)
        if owner != key:
            ties[key] = owner
    return ties


def to_vector(state_dict: StateDict) -> Vector:
    """Return the floating-point tensors, each tied group once, detached and in at least float32.

    The result may share memory with the input; methods never write into it.

    Example:
        >>> v = to_vector({"w": torch.ones(2, dtype=torch.bfloat16), "steps": torch.tensor(3)})
        >>> {k: t.dtype for k, t in v.items()}
        {'w': torch.float32}
    """
    ties = tied_to(state_dict)
    return {
        key: tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
        for key, tensor in state_dict.items()
        if tensor.is_floating_point() and key not in ties
    }


def to_state_dict(vector: Vector, like: StateDict) -> dict[str, Tensor]:
    """Return `vector` with the keys, key order, dtypes, ties and integer buffers of `like`; nothing shares memory with it.

    Example:
        >>> like = {"w": torch.zeros(2, dtype=torch.float16), "steps": torch.tensor(3)}
        >>> to_state_dict({"w": torch.tensor([1.0, 2.0])}, like)
        {'w': tensor([1., 2.], dtype=torch.float16), 'steps': tensor(3)}
    """
    ties = tied_to(like)
    out: dict[str, Tensor] = {}
    for key, tensor in like.items():
        if key in ties:
            out[key] = out[ties[key]]
        elif key in vector:
            out[key] = vector[key].detach().to(tensor.dtype, copy=True)
        else:
            out[key] = tensor.detach().clone()
    return out


def task_vector(finetuned: StateDict, base: StateDict) -> Vector:
    r"""Return $\tau = \theta - \theta_0$ (ilharco2023task, Sec. 2) as a vector.

    Example:
        >>> task_vector({"w": torch.tensor([3.0])}, {"w": torch.tensor([1.0])})
        {'w': tensor([2.])}
    """
    check_same_structure(base, finetuned)
    ties = tied_to(base)  # a model read from a file may hold two equal copies of what the base ties
    theta, theta_0 = to_vector(finetuned), to_vector(base)
    return {key: entrywise(torch.sub, theta[key], theta_0[key]) for key in theta_0 if key not in ties}


def linear_combination(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector:
    r"""Return $\sum_i w_i v_i$, summed in the order given.

    Example:
        >>> linear_combination([{"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}], [0.5, 0.5])
        {'w': tensor([2.])}
    """
    if len(vectors) != len(weights):
        raise ValueError(f"received {len(vectors)} vectors and {len(weights)} weights; one weight per vector is needed")
    if not vectors:
        raise ValueError("received no vectors; at least one is needed")
    return zip_entries(lambda *tensors: weighted_sum(tensors, weights), *vectors)


def weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    r"""Return $\sum_i w_i x_i$ of tensors of one shape, summed in the order given.

    Example:
        >>> weighted_sum([torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])], [1.0, 0.5])
        tensor([2.5000, 4.0000])
    """
    if len(tensors) == 1:
        return weights[0] * tensors[0]
    return reduce(torch.add, (x if w == 1 else w * x for x, w in zip(tensors, weights)))


def zip_entries(function: Callable[..., Tensor], *vectors: Vector) -> Vector:
    """Apply an entrywise `function` to the tensors of one name in all the vectors, name by name.

    Example:
        >>> zip_entries(torch.maximum, {"w": torch.tensor([1.0, 5.0])}, {"w": torch.tensor([2.0, 3.0])})
        {'w': tensor([2., 5.])}
    """
    return {key: entrywise(function, *(vector[key] for vector in vectors)) for key in vectors[0]}


def zip_rows(function: Callable[..., Tensor], *vectors: Vector) -> Vector:
    """Apply a `function` that treats each row (slice along the first dimension) on its own, name by name."""
    return {key: rowwise(function, *(vector[key] for vector in vectors)) for key in vectors[0]}


def zip_map(function: Callable[..., Tensor], *vectors: Vector) -> Vector:
    """Apply `function` to the whole tensors of one name in all the vectors, name by name.

    Example:
        >>> zip_map(torch.dot, {"w": torch.tensor([1.0, 5.0])}, {"w": torch.tensor([2.0, 3.0])})
        {'w': tensor(17.)}
    """
    return {key: whole(function, *(vector[key] for vector in vectors)) for key in vectors[0]}


def flatten(vector: Vector) -> Tensor:
    """Return all entries of a vector as one tensor of shape (d,), in key order.

    Example:
        >>> flatten({"w": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([3.0])})
        tensor([1., 2., 3.])
    """
    return torch.cat([tensor.reshape(-1) for tensor in vector.values()]) if vector else torch.zeros(0)


def unflatten(flat: Tensor, like: Vector) -> Vector:
    """Cut a tensor of shape (d,) into the names and shapes of `like`: the inverse of `flatten`.

    Example:
        >>> unflatten(torch.tensor([1.0, 2.0, 3.0]), {"w": torch.zeros(1, 2), "b": torch.zeros(1)})
        {'w': tensor([[1., 2.]]), 'b': tensor([3.])}
    """
    if flat.numel() != (total := sum(t.numel() for t in like.values())):
        raise ValueError(f"received {flat.numel()} entries; {total} are needed")
    out, start = {}, 0
    for key, tensor in like.items():
        out[key] = flat[start : start + tensor.numel()].reshape(tensor.shape).to(tensor.dtype)
        start += tensor.numel()
    return out


def inner_product(a: Vector, b: Vector) -> Tensor:
    r"""Return $\langle a, b\rangle = \sum_j a_j b_j$ over all entries, accumulated in float64; a scalar tensor.

    Example:
        >>> inner_product({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 4.0])})
        tensor(11., dtype=torch.float64)
    """
    products = [(a[key].double() * b[key].double()).sum() for key in a]
    return torch.stack(products).sum() if products else torch.zeros((), dtype=torch.float64)


def norm(a: Vector) -> Tensor:
    r"""Return the Euclidean norm $\lVert a\rVert_2$ over all entries; a scalar float64 tensor.

    Example:
        >>> norm({"w": torch.tensor([3.0]), "b": torch.tensor([4.0])})
        tensor(5., dtype=torch.float64)
    """
    return inner_product(a, a).sqrt()
