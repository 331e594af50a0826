import pytest
import torch

import reference_impls as ri
from reference_impls.core import toy_zoo


def sd(**values):
    return {name: torch.tensor([v]) for name, v in values.items()}


def test_each_layer_is_moved_by_the_modalities_that_have_it():
    seed = sd(lower=1.0, upper=10.0, spare=5.0)
    vision, language, cross = sd(lower=3.0, upper=11.0), sd(lower=0.0, upper=12.0), sd(upper=6.0)
    # lower: 1 + 0.5 * (2 - 1), upper: 10 + 0.5 * (1 + 2 - 4)
    merged = ri.modality_arithmetic(seed, [vision, language, cross], scaling_coef=0.5)
    assert {k: v.item() for k, v in merged.items()} == {"lower": 1.5, "upper": 9.5, "spare": 5.0}


def test_with_whole_models_it_is_task_arithmetic():
    draw = lambda seed: {"w": torch.randn(20, generator=torch.Generator().manual_seed(seed))}  # noqa: E731
    base, models = draw(0), [draw(1), draw(2)]
    a, b = ri.modality_arithmetic(base, models, scaling_coef=0.3), ri.task_arithmetic(base, models, scaling_coef=0.3)
    assert torch.allclose(a["w"], b["w"], atol=1e-6)
    assert torch.equal(ri.modality_arithmetic(base, models, scaling_coef=0.0)["w"], base["w"])


def test_order_of_modalities_does_not_matter():
    seed, models = sd(lower=0.0, upper=0.0), [sd(lower=1.0, upper=2.0), sd(upper=-4.0), sd(lower=8.0)]
    assert ri.modality_arithmetic(seed, models) == ri.modality_arithmetic(seed, models[::-1])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_beats_interpolation_and_needs_one_seed(seed):
    family = toy_zoo.multitask("residual", seed)
    vision, language = family.tasks[:2]
    is_upper = lambda name: name.startswith(("blocks.1", "head"))  # noqa: E731
    joint = tuple(torch.cat(parts) for parts in zip(vision.train, language.train))
    generator = torch.Generator().manual_seed(seed)
    trained = toy_zoo.train(family.network, family.base, joint, num_steps=200, lr=5e-4, generator=generator, trainable=is_upper)
    cross = {name: t for name, t in trained.items() if is_upper(name)}

    score = lambda model: toy_zoo.mean_accuracy(family.network, model, family.tasks[:2])  # noqa: E731
    merged = score(ri.modality_arithmetic(family.base, [*family.finetuned[:2], cross], scaling_coef=0.5))
    interpolated = score(ri.uniform_soup(family.finetuned[:2]))
    other = toy_zoo.multitask("residual", seed + 1)  # from another seed checkpoint
    foreign = score(ri.uniform_soup([family.finetuned[0], other.finetuned[1]]))
    assert merged > score(family.base) + 0.20 and merged > interpolated + 0.02  # measured: 28 to 31 and 3 to 6 points
    assert foreign < interpolated - 0.40  # measured: 46 to 66 points


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no models"):
        ri.modality_arithmetic(sd(a=0.0), [])
    with pytest.raises(ValueError, match=r"modality 2 has \['b'\]"):
        ri.modality_arithmetic(sd(a=0.0), [sd(a=1.0), sd(b=1.0)])
    with pytest.raises(ValueError, match="shape"):
        ri.modality_arithmetic(sd(a=0.0), [{"a": torch.zeros(2)}])
