import pytest
import torch

import reference_impls as ri
from tests.methods.task_vectors import multimodal


def model(modality, own, *language):
    return {f"{modality}.encoder": torch.tensor([own]), "a": torch.tensor(language[0]), "b": torch.tensor(language[1])}


IMAGE, AUDIO, VIDEO = model("image", 7.0, 1.0, 2.0), model("audio", 8.0, 3.0, 4.0), model("video", 9.0, 8.0, 0.0)


def test_language_models_are_averaged_and_encoders_kept():
    composed = ri.naive_mc([IMAGE, AUDIO, VIDEO])
    assert {k: v.item() for k, v in composed.items()} == {
        "image.encoder": 7.0, "audio.encoder": 8.0, "video.encoder": 9.0, "a": 4.0, "b": 2.0,
    }  # fmt: skip
    assert ri.naive_mc([IMAGE, AUDIO], weights=[0.25, 0.75])["a"].item() == 2.5


def test_one_model_comes_back_and_models_without_encoders_are_souped():
    assert {k: v.item() for k, v in ri.naive_mc([IMAGE]).items()} == {k: v.item() for k, v in IMAGE.items()}
    plain = [{"a": torch.tensor([x, -x])} for x in (1.0, 5.0)]
    assert torch.equal(ri.naive_mc(plain)["a"], ri.uniform_soup(plain)["a"])


def test_order_of_models_does_not_matter():
    forwards, backwards = ri.naive_mc([IMAGE, AUDIO]), ri.naive_mc([AUDIO, IMAGE])
    assert all(torch.equal(forwards[k], backwards[k]) for k in forwards)


def test_encoders_of_one_name_are_averaged_unless_the_language_model_is_named():
    one, two = ({"encoder": torch.tensor([x]), "a": torch.tensor([x])} for x in (1.0, 3.0))
    assert ri.naive_mc([one, two])["encoder"].item() == 2.0
    with pytest.raises(ValueError, match="two models have 'encoder' of their own"):
        ri.naive_mc([one, two], shared=lambda name: name == "a")


def test_it_answers_on_both_modalities_and_better_on_average_than_with_one_of_the_language_models():
    gains, answers = [], []
    for seed in (0, 1, 2):
        top, bottom = multimodal.trained(seed, decoupled=False)
        score = lambda m: multimodal.accuracy(m, ("top", "bottom"), multimodal.images().test)  # noqa: E731
        composed = score(ri.naive_mc([top, bottom]))
        # the baseline: both encoders, and the language model of the one or of the other
        either = (score({**bottom, **top}) + score({**top, **bottom})) / 2
        gains.append(composed - either)
        answers.append(composed)
    assert sum(gains) / 3 > 0.03  # measured: 17, -6 and 7 points
    assert min(answers) > 0.25  # measured: 33, 35 and 57 percent where chance is 10


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no models"):
        ri.naive_mc([])
    with pytest.raises(ValueError, match="1 weights for 2 models"):
        ri.naive_mc([IMAGE, AUDIO], weights=[1.0])
    with pytest.raises(ValueError, match="shape"):
        ri.naive_mc([IMAGE, {**AUDIO, "a": torch.zeros(2)}])
