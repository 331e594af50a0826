import pytest
import torch

import reference_impls as ri
from reference_impls.task_vectors.damc import decouple, decoupled_linear
from tests.methods.task_vectors import multimodal


def pair():
    image = decouple({"w": torch.tensor([[1.0]])}, "image", ["w"])
    audio = decouple({"w": torch.tensor([[3.0]])}, "audio", ["w"])
    image["image.w"], audio["audio.w"] = torch.tensor([[10.0]]), torch.tensor([[20.0]])
    return image, audio


def test_text_weights_are_merged_and_modality_weights_kept():
    composed = ri.damc(pair())
    assert {k: v.item() for k, v in composed.items()} == {"w": 2.0, "image.w": 10.0, "audio.w": 20.0}
    assert ri.damc(pair(), weights=[1.0, 0.5])["w"].item() == 2.5  # the coefficients need not sum to one


def test_every_token_passes_through_its_own_weights():
    composed = ri.damc(pair())
    weights = {"image": composed["image.w"], "audio": composed["audio.w"], None: composed["w"]}
    tokens = torch.ones(2, 3, 1)
    assert decoupled_linear(tokens, ["image", None, "audio"], weights)[1].tolist() == [[10.0], [2.0], [20.0]]


def test_a_decoupled_model_computes_what_it_did_until_it_is_trained():
    model = {**multimodal.language_model(0), **multimodal.encoder("top", 1)}
    inputs = multimodal.images().test[0][:5]
    before = multimodal.forward(model, inputs, ("top",))
    assert torch.allclose(multimodal.forward(decouple(model, "top", multimodal.LAYERS), inputs, ("top",)), before, atol=1e-5)


def test_without_decoupled_weights_it_is_naive_mc():
    models = [{"a": torch.tensor([x]), f"{n}.encoder": torch.tensor([1.0])} for n, x in (("image", 1.0), ("audio", 4.0))]
    assert ri.damc(models)["a"].item() == ri.naive_mc(models)["a"].item() == 2.5


def test_it_beats_naive_mc_on_both_modalities():
    gains = []
    for seed in (0, 1, 2):
        score = lambda models: multimodal.accuracy(ri.naive_mc(models), ("top", "bottom"), multimodal.images().test)  # noqa: E731
        gains.append(score(multimodal.trained(seed, decoupled=True)) - score(multimodal.trained(seed, decoupled=False)))
    assert min(gains) > 0.05  # measured: 26, 22 and 11 points


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no models"):
        ri.damc([])
    with pytest.raises(ValueError, match="3 weights for 2 models"):
        ri.damc(pair(), weights=[1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"the model has no \['v'\]"):
        decouple({"w": torch.ones(1)}, "image", ["v"])
