"""`import torch`, answered by borch: PyTorch's interface on NumPy, so that a method's own source runs in a browser.

These are not PyTorch's kernels. What borch 1.14.1 lacks and the methods here use is added below; what is still missing is
refused with an error that names it. float64 is stored as float32 here. Random numbers are PyTorch's (`torch_random`).
"""

import sys
import types
from contextlib import contextmanager

import borch
import numpy as np
import torch_random
from borch import Tensor, nn

FACTORIES = "arange as_tensor empty empty_like eye full full_like linspace ones ones_like tensor zeros zeros_like"


def install():
    """Let `import torch`, `scipy.optimize` and `ot` mean what is here; once, before anything imports them."""
    sys.modules["torch"] = borch
    borch.install("torch")
    _complete_tensors()
    _complete_modules()
    borch.autograd.Function = Function
    borch.func = _module("torch.func", functional_call=functional_call, grad=grad, jacrev=jacrev, vmap=vmap)
    borch.func.jvp = _absent("torch.func.jvp")
    borch.fx = _module("torch.fx")
    borch.random = _module("torch.random", fork_rng=fork_rng)
    _module("scipy", optimize=_module("scipy.optimize", linear_sum_assignment=linear_sum_assignment))
    _module("ot", emd=emd, sinkhorn=sinkhorn)


def _module(name, **members):
    module = sys.modules[name] = types.ModuleType(name)
    vars(module).update(members)
    return module


def _absent(name):
    def refuse(*_, **__):
        raise borch.BorchError(f"{name} is not in the browser's runtime; run this with PyTorch")

    return refuse


# --- tensors ---------------------------------------------------------------------------------------------------------


def _complete_tensors():
    borch.float64 = borch.double = borch.dtype("float64", np.float32)  # the name is kept apart, for random numbers
    borch.finfo = lambda dtype, exact=borch.finfo: exact(borch.float32)
    Tensor.double = Tensor.float
    for name in FACTORIES.split():
        setattr(borch, name, _anywhere(getattr(borch, name)))
    borch.Generator = torch_random.Generator
    for function in (rand, randn, randint, randperm, multinomial, rand_like, randn_like, manual_seed):
        setattr(borch, function.__name__, function)
    borch.cdist = lambda a, b, p=2.0, compute_mode=None: cdist(a, b, p)
    norm = Tensor.norm
    Tensor.norm = lambda self, p=2, dim=None, keepdim=False: (
        euclidean(self, dim, keepdim) if p in (2, 2.0) and self.requires_grad else norm(self, p, dim, keepdim)
    )
    Tensor.__rpow__ = lambda self, base: (self * float(np.log(base))).exp()
    Tensor.__invert__ = borch.logical_not
    Tensor.unflatten = unflatten
    Tensor.data_ptr = lambda self: self._array.__array_interface__["data"][0]
    Tensor.stride = lambda self: tuple(step // self._array.itemsize for step in self._array.strides)


def _anywhere(factory):
    """The same factory with a `device`: everything is on the one there is."""
    return lambda *arguments, device=None, **options: factory(*arguments, **options)


def unflatten(self, dim, sizes):
    at = dim % self.dim()
    return self.reshape(*self.shape[:at], *sizes, *self.shape[at + 1 :])


def euclidean(x, dim=None, keepdim=False):
    """The norm, whose gradient at zero is zero as PyTorch's."""
    length = np.sqrt(np.square(x._array).sum(axis=dim, keepdims=True))
    slope = np.divide(x._array, length, out=np.zeros_like(x._array), where=length > 0)
    value = length if keepdim else length.reshape(()) if dim is None else length.squeeze(dim)
    return x._make(value, (x,), lambda g: (np.reshape(g, length.shape) * slope,), "NormBackward")


def cdist(a, b, p=2.0):
    if p != 2.0:
        raise borch.BorchError(f"torch.cdist(p={p}) is not in the browser's runtime; run this with PyTorch")
    return euclidean(a.unsqueeze(-2) - b.unsqueeze(-3), -1)


# --- random numbers --------------------------------------------------------------------------------------------------


_DEFAULT = []  # the generator of calls without one, made once `torch` is there


def _of(generator):
    if generator is None and not _DEFAULT:
        _DEFAULT.append(torch_random.Generator())
    return _DEFAULT[0] if generator is None else generator


def manual_seed(seed):
    return _of(None).manual_seed(seed)


def _shape(sizes):
    return tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes


def rand(*size, generator=None, dtype=None, device=None, requires_grad=False):
    shape = _shape(size)
    drawn = _of(generator).uniform(int(np.prod(shape)), double=dtype == borch.float64)
    return Tensor(drawn.reshape(shape), requires_grad)


def randn(*size, generator=None, dtype=None, device=None, requires_grad=False):
    shape = _shape(size)
    drawn = _of(generator).normal(int(np.prod(shape)), double=dtype == borch.float64)
    return Tensor(drawn.reshape(shape), requires_grad)


def rand_like(tensor, dtype=None, device=None):
    return rand(tensor.shape, dtype=dtype)


def randn_like(tensor, dtype=None, device=None):
    return randn(tensor.shape, dtype=dtype)


def randint(*bounds, size=None, generator=None, dtype=None, device=None):
    *bounds, size = bounds if size is None else (*bounds, size)
    low, high = (0, *bounds)[-2:]
    return Tensor(_of(generator).integers(int(low), int(high), int(np.prod(size))).reshape(tuple(size)))


def randperm(n, generator=None, dtype=None, device=None):
    return Tensor(_of(generator).permutation(n))


def multinomial(weights, num_samples, replacement=False, generator=None):
    if replacement:
        raise borch.BorchError("torch.multinomial(replacement=True) is not in the browser's runtime; run this with PyTorch")
    return Tensor(_of(generator).choice(weights._array, num_samples))


# --- modules ---------------------------------------------------------------------------------------------------------


def _complete_modules():
    nn.modules = _module("torch.nn.modules")
    nn.modules.conv = _module("torch.nn.modules.conv", _ConvNd=nn.Conv2d)
    nn.modules.batchnorm = _module("torch.nn.modules.batchnorm", _BatchNorm=nn.BatchNorm2d)
    nn.init = _module("torch.nn.init", normal_=normal_, uniform_=uniform_)
    nn.init.zeros_, nn.init.ones_ = (lambda tensor: _fill(tensor, 0.0)), (lambda tensor: _fill(tensor, 1.0))
    nn.utils.skip_init = lambda kind, *arguments, **options: kind(*arguments, **options)
    nn.functional.normalize = lambda x, p=2.0, dim=1, eps=1e-12: x / euclidean(x, dim, True).clamp(min=eps)
    nn.functional.cross_entropy = _soft_targets(nn.functional.cross_entropy)
    linear, convolution = nn.Linear.__init__, nn.Conv2d.__init__
    nn.Linear.__init__ = lambda self, *sizes, bias=True, device=None, dtype=None: linear(self, *sizes, bias=bias)

    def pairs(self, inputs, outputs, kernel_size, *rest, **options):
        convolution(self, inputs, outputs, kernel_size, *rest, **options)
        self.kernel_size = (kernel_size,) * 2 if isinstance(kernel_size, int) else tuple(kernel_size)

    nn.Conv2d.__init__ = pairs
    nn.Sequential.__getitem__ = lambda self, i: nn.Sequential(*self._layers[i]) if isinstance(i, slice) else self._layers[i]
    nn.ParameterList.append = append
    nn.ParameterList.__init__ = lambda self, values=(): (nn.Module.__init__(self), self.extend(values))[0]
    nn.ParameterList.__getitem__ = lambda self, i: list(self._params.values())[i]
    for function in (named_parameters, parameters, state_dict, set_submodule, register_forward_hook, __call__):
        setattr(nn.Module, function.__name__, function)


def append(self, value):
    """A plain tensor becomes a parameter, as in PyTorch."""
    self._params[str(len(self._params))] = value if isinstance(value, nn.Parameter) else nn.Parameter(value)
    return self


def named_parameters(self, prefix=""):
    """Every parameter once, under its first name."""
    seen = set()
    for path, module in self.named_modules():
        for name, parameter in module._params.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{prefix}{path}.{name}" if path else f"{prefix}{name}", parameter


def parameters(self):
    return (parameter for _, parameter in self.named_parameters())


def state_dict(self, prefix=""):
    """In PyTorch's order, and sharing memory with the module as there."""
    out = {f"{prefix}{name}": parameter.detach() for name, parameter in self._params.items() if parameter is not None}
    for name, value in self._buffers.items():
        if value is not None and name not in self.__dict__.get("_nonpersistent", ()):
            out[f"{prefix}{name}"] = value.detach() if isinstance(value, Tensor) else Tensor(np.asarray(value))
    for name, module in self._modules.items():
        if module is not None:
            out |= module.state_dict(f"{prefix}{name}.")
    return out


def set_submodule(self, target, module):
    *path, name = target.split(".")
    parent = self.get_submodule(".".join(path))
    parent._modules[name] = module
    if hasattr(parent, "_layers"):
        parent._layers[int(name)] = module
    object.__setattr__(parent, name, module)


def register_forward_hook(self, hook):
    hooks = self.__dict__.setdefault("_forward_hooks", [])
    hooks.append(hook)
    return types.SimpleNamespace(remove=lambda: hooks.remove(hook))


def __call__(self, *arguments, **options):
    output = self.forward(*arguments, **options)
    for hook in self.__dict__.get("_forward_hooks", ()):
        changed = hook(self, arguments, output)
        output = output if changed is None else changed
    return output


def _soft_targets(hard):
    """`cross_entropy` that takes probabilities too."""

    def cross_entropy(logits, target, reduction="mean", **options):
        if not target.is_floating_point():
            return hard(logits, target, reduction=reduction, **options)
        losses = -(target * logits.log_softmax(1)).sum(1)
        return losses.mean() if reduction == "mean" else losses.sum() if reduction == "sum" else losses

    return cross_entropy


def normal_(tensor, mean=0.0, std=1.0, generator=None):
    return _fill(tensor, randn(*tensor.shape, generator=generator)._array * std + mean)


def uniform_(tensor, a=0.0, b=1.0, generator=None):
    return _fill(tensor, rand(*tensor.shape, generator=generator)._array * (b - a) + a)


def _fill(tensor, values):
    tensor._array[...] = values
    return tensor


def functional_call(network, weights, arguments, tie_weights=True):
    """The network's output with other weights: they stand in its modules during the call."""
    before = []
    for key, value in weights.items():
        *path, name = key.split(".")
        module = network.get_submodule(".".join(path))
        group = next((g for g in (module._params, module._buffers) if name in g), None)
        if group is None:
            raise KeyError(f"the network has no parameter or buffer {key!r}")
        before.append((module, group, name, group[name]))
        tied = group[name] if tie_weights and group is module._params else None
        _put(module, group, name, value)
        for other in network.modules() if tied is not None else ():
            for alias in [n for n, p in other._params.items() if p is tied]:
                before.append((other, other._params, alias, tied))
                _put(other, other._params, alias, value)
    try:
        return network(*(arguments if isinstance(arguments, tuple) else (arguments,)))
    finally:
        for place in before[::-1]:
            _put(*place)


def _put(module, group, name, value):
    group[name] = value
    object.__setattr__(module, name, value)


# --- derivatives -----------------------------------------------------------------------------------------------------


class Function:
    """`torch.autograd.Function`: a function with a backward pass of its own."""

    def save_for_backward(self, *tensors):
        self.saved_tensors = tensors

    @classmethod
    def apply(cls, *arguments):
        context = cls()
        with borch.no_grad():
            value = cls.forward(context, *arguments)

        def backward(gradient):
            with borch.no_grad():
                found = cls.backward(context, Tensor(gradient))
            found = found if isinstance(found, tuple) else (found,)
            return tuple(g._array for g, a in zip(found, arguments) if isinstance(a, Tensor))

        return value._make(value._array, tuple(a for a in arguments if isinstance(a, Tensor)), backward, cls.__name__)


def grad(function):
    """The gradient of a scalar function by its first argument: a tensor or a dict of tensors."""

    def gradient(first, *rest):
        named = first if isinstance(first, dict) else {"": first}
        leaves = {key: value.detach().clone().requires_grad_() for key, value in named.items()}
        value = function(leaves if isinstance(first, dict) else leaves[""], *rest)
        found = dict(zip(leaves, borch.autograd.grad(value, list(leaves.values()), materialize_grads=True)))
        return found if isinstance(first, dict) else found[""]

    return gradient


def jacrev(function):
    """The Jacobian of a vector-valued function by its first argument, row by row."""

    def jacobian(first, *rest):
        size = function(first, *rest).shape[0]
        return _stacked([grad(lambda x, *r, i=i: function(x, *r)[i])(first, *rest) for i in range(size)], 0)

    return jacobian


def vmap(function, in_dims=0, out_dims=0, chunk_size=None):
    """The function over a leading axis, one call at a time."""

    def mapped(*arguments):
        axes = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(arguments)
        tensors = [list(a.values())[0] if isinstance(a, dict) else a for a in arguments]
        size = next(tensor.shape[axis] for tensor, axis in zip(tensors, axes) if axis is not None)
        calls = ([a if axis is None else _at(a, axis, i) for a, axis in zip(arguments, axes)] for i in range(size))
        return _stacked([function(*call) for call in calls], out_dims)

    return mapped


def _at(value, axis, i):
    return {k: v.select(axis, i) for k, v in value.items()} if isinstance(value, dict) else value.select(axis, i)


def _stacked(values, axis):
    if isinstance(values[0], dict):
        return {key: borch.stack([value[key] for value in values], axis) for key in values[0]}
    return borch.stack(values, axis)


@contextmanager
def fork_rng(devices=()):
    """Leave the global random numbers as they were."""
    state = _of(None).get_state()
    try:
        yield
    finally:
        _of(None).set_state(state)


# --- SciPy and POT, as far as they are used --------------------------------------------------------------------------


def linear_sum_assignment(cost, maximize=False):
    """Rows to columns at the least cost in sum: shortest augmenting paths with potentials, O(n^3)."""
    cost = np.array(cost, dtype=float) * (-1 if maximize else 1)
    if cost.shape[0] > cost.shape[1]:
        columns, rows = linear_sum_assignment(cost.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    n, m = cost.shape
    u, v, owner = np.zeros(n + 1), np.zeros(m + 1), np.zeros(m + 1, dtype=int)  # owner: row of a column, from 1; 0 for none
    for row in range(1, n + 1):
        owner[0], column = row, 0
        least, before, used = np.full(m + 1, np.inf), np.zeros(m + 1, dtype=int), np.zeros(m + 1, dtype=bool)
        while owner[column]:
            used[column] = True
            reduced = cost[owner[column] - 1] - u[owner[column]] - v[1:]
            better = ~used[1:] & (reduced < least[1:])
            least[1:][better], before[1:][better] = reduced[better], column
            following = int(np.argmin(np.where(used, np.inf, least)))
            step = least[following]
            u[owner[used]] += step
            v[used] -= step
            least[~used] -= step
            column = following
        while column:
            owner[column] = owner[before[column]]
            column = before[column]
    columns = np.zeros(n, dtype=int)
    columns[owner[1:][owner[1:] > 0] - 1] = np.flatnonzero(owner[1:])
    return np.arange(n), columns


def emd(rows, columns, cost, numItermax=None):
    """The exact transport plan between uniform masses: an assignment of equal shares, as many as both sides divide."""
    n, m = cost.shape
    shares = np.lcm(n, m)
    expanded = np.repeat(np.repeat(cost._array, shares // n, 0), shares // m, 1)
    plan = np.zeros((n, m))
    np.add.at(plan, tuple(at // (shares // side) for at, side in zip(linear_sum_assignment(expanded), (n, m))), 1 / shares)
    return Tensor(plan)


def sinkhorn(rows, columns, cost, reg, method=None, numItermax=1000, warn=False):
    """The transport plan with an entropy: rows and columns scaled in turn, in logarithms."""
    logits = -np.asarray(cost._array, dtype=float) / reg
    a, b = np.log(np.asarray(rows._array, dtype=float)), np.log(np.asarray(columns._array, dtype=float))
    f, g = np.zeros(len(a)), np.zeros(len(b))
    for _ in range(numItermax):
        g = b - np.logaddexp.reduce(logits + f[:, None], axis=0)
        f = a - np.logaddexp.reduce(logits + g, axis=1)
        plan = np.exp(logits + f[:, None] + g)
        if np.abs(plan.sum(0) - np.exp(b)).sum() < 1e-9:
            break
    return Tensor(plan)
