"""What every method promises, tried on every method: found by listing files, called by the names of its inputs."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module, util
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reference_impls as ri
from tests.methods import toy_values

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
METHODS = ri.methods()


def required_names(name: str) -> list[str]:
    parameters = inspect.signature(getattr(ri, name)).parameters.values()
    return [p.name for p in parameters if p.default is p.empty]


def chapter_values(name: str, device: str) -> dict[str, Any]:
    chapter = METHODS[name].split(".")[1]
    module = f"tests.methods.{chapter}.toy_values"
    if util.find_spec(f"tests.methods.{chapter}") is None or util.find_spec(module) is None:
        return {}
    values = import_module(module).VALUES  # name -> make(device), or method -> {name -> make(device)}
    wanted = {key: make for key, make in values.items() if callable(make)} | values.get(name, {})
    return {key: make(device) for key, make in wanted.items() if key in required_names(name)}


def arguments(name: str, pool: dict[str, Any], device: str) -> dict[str, Any]:
    pool = {**pool, **chapter_values(name, device)}
    unknown = [n for n in required_names(name) if n not in pool]
    assert not unknown, f"{name} has unknown inputs {unknown}: use a canonical name or add a toy value"
    return {n: pool[n] for n in required_names(name)}


def sees_only_tensors(name: str) -> bool:
    return set(required_names(name)) <= toy_values.TENSOR_NAMES


def tensors(value: Any) -> list[Tensor]:
    """All tensors within a value, whatever holds them."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, nn.Module):
        return [*value.state_dict().values()]
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in tensors(v)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [t for f in dataclasses.fields(value) for t in tensors(getattr(value, f.name))]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [t for v in value for t in tensors(v)]
    if isinstance(value, float):
        return [torch.tensor(value, dtype=torch.float64)]
    return []


def same_bits(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(x.dtype == y.dtype and torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(a, b))


def check_call(name: str, pool: dict[str, Any], device: str) -> Any:
    given = arguments(name, pool, device)
    method = getattr(ri, name)
    before = [t.clone() for t in tensors(given)]
    random_state = torch.get_rng_state()
    result = method(**copy.copy(given))
    assert same_bits(before, tensors(given)), "the method changed its inputs"
    assert torch.equal(random_state, torch.get_rng_state()), "the method used torch's global random numbers"
    again = method(**copy.copy(given))
    assert same_bits(tensors(result), tensors(again)), "two calls gave different results"
    for tensor in tensors(result):
        assert not tensor.is_floating_point() or tensor.isfinite().all(), "the result is not finite"
    check_state_dict(result, given)
    return result


def check_state_dict(result: Any, given: dict[str, Any]) -> None:
    """A returned state dict keeps the structure of the model it came from and shares no memory with it."""
    like = given.get("base") or given.get("model_a") or (given.get("models") or given.get("finetuned") or [None])[0]
    if not isinstance(result, Mapping) or not isinstance(like, Mapping) or set(result) != set(like):
        return
    assert list(result) == list(like), "key order changed"
    memory = {t.data_ptr() for t in tensors(given) if t.numel()}
    for key, tensor in like.items():
        got = result[key]
        assert (got.shape, got.dtype, got.device) == (tensor.shape, tensor.dtype, tensor.device), key
        assert not got.numel() or got.data_ptr() not in memory, f"{key} shares memory with an input"
        if not tensor.is_floating_point():
            assert torch.equal(got, tensor), f"integer buffer {key} was not copied"
    if "tied.weight" in result:
        assert result["tied.weight"].data_ptr() == result["embed.weight"].data_ptr(), "tied weights came apart"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", METHODS)
def test_method_keeps_the_contract(name: str, device: str) -> None:
    pool = toy_values.tensor_inputs(device=device) if sees_only_tensors(name) else toy_values.network_inputs(device)
    check_call(name, pool, device)


@pytest.mark.parametrize("structure", toy_values.STRUCTURES)
@pytest.mark.parametrize("name", [*filter(sees_only_tensors, METHODS)])
def test_method_takes_every_structure(name: str, structure: str) -> None:
    check_call(name, toy_values.tensor_inputs(structure), "cpu")


@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("name", [*filter(sees_only_tensors, METHODS)])
def test_method_is_finite_on_constant_models(name: str, fill: float) -> None:
    check_call(name, toy_values.tensor_inputs(fill=fill), "cpu")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", [*filter(sees_only_tensors, METHODS)])
def test_half_precision_is_float32_rounded_once(name: str, dtype: torch.dtype) -> None:
    half = toy_values.tensor_inputs(dtype=dtype)
    result = check_call(name, half, "cpu")
    cast = lambda v: {k: t.float() if t.is_floating_point() else t for k, t in v.items()}  # noqa: E731
    widened = {
        key: cast(value) if isinstance(value, Mapping) else [cast(v) for v in value] if key in ("finetuned", "models") else value
        for key, value in half.items()
    }
    for model in [widened["base"], widened["model_a"], widened["model_b"], *widened["finetuned"], *widened["models"]]:
        model["tied.weight"] = model["embed.weight"]
    exact = getattr(ri, name)(**arguments(name, widened, "cpu"))
    if not isinstance(result, Mapping) or set(result) != set(half["base"]):
        return
    for key, tensor in result.items():
        assert torch.equal(tensor, exact[key].to(tensor.dtype)), f"{key}: not the float32 result rounded once"
