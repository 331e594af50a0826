"""The toy zoo keeps what it promises: determinism, and families whose models have the properties they are named for."""

from __future__ import annotations

import pytest
import torch

from reference_impls.core import toy_zoo as zoo
from reference_impls.core.permutation import apply_permutation, permutation_spec, random_permutations
from reference_impls.core.toy_zoo import training

SEEDS = (0, 1, 2)
AFFORDABLE = [(a, s) for a in ("mlp", "residual") for s in SEEDS] + [("conv", 0), ("vit", 0)]  # the others train longer


def combine(models, weights):
    first = models[0]
    return {
        name: sum(w * m[name] for w, m in zip(weights, models, strict=True)) if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }


def average(models):
    return combine(models, [1 / len(models)] * len(models))


def task_arithmetic(family, coefficient):
    n = len(family.finetuned)
    return combine([family.base, *family.finetuned], [1 - n * coefficient] + [coefficient] * n)


def own_accuracies(family):
    return [
        zoo.accuracy(family.network, model, task.test)
        for model, task in zip(family.finetuned, family.tasks, strict=True)
    ]


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_FUSION_ATLAS_CACHE", str(tmp_path))
    monkeypatch.setattr(training, "_memory", {})
    return tmp_path


def test_two_fresh_trainings_give_the_same_bits_whatever_the_global_random_state(fresh_cache, monkeypatch):
    torch.manual_seed(1)
    first = zoo.multitask("mlp", seed=3)
    monkeypatch.setattr(training, "_memory", {})
    for file in fresh_cache.iterdir():
        file.unlink()
    torch.manual_seed(2)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        state = torch.get_rng_state()
        second = zoo.multitask("mlp", seed=3)
        assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert all(
        same(a, b) for a, b in zip((first.base, *first.finetuned), (second.base, *second.finetuned), strict=True)
    )


def test_the_disk_gives_back_values_order_dtypes_and_ties(fresh_cache, monkeypatch):
    weight = torch.randn(2, 3)
    model = {"z": weight, "steps": torch.tensor(3), "a": torch.ones(1, dtype=torch.float16), "tied": weight}
    training.cached("test", {}, lambda: [model])
    monkeypatch.setattr(training, "_memory", {})
    (found,) = training.cached("test", {}, lambda: pytest.fail("trained again"))
    assert same(found, model) and [t.dtype for t in found.values()] == [t.dtype for t in model.values()]
    assert found["tied"].data_ptr() == found["z"].data_ptr() != found["a"].data_ptr()


def test_a_damaged_file_is_trained_again_and_leaves_no_scraps(fresh_cache, monkeypatch):
    make = lambda: [{"w": torch.ones(2)}]  # noqa: E731
    training.cached("test", {}, make)
    (file,) = fresh_cache.iterdir()
    file.write_bytes(file.read_bytes()[:20])
    monkeypatch.setattr(training, "_memory", {})
    assert same(training.cached("test", {}, make)[0], {"w": torch.ones(2)})
    assert list(fresh_cache.iterdir()) == [file]


def test_a_folder_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MODEL_FUSION_ATLAS_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(training, "_memory", {})
    assert same(training.cached("test", {}, lambda: [{"w": torch.ones(2)}])[0], {"w": torch.ones(2)})


def test_callers_cannot_spoil_the_zoo():
    family = zoo.split_classes("mlp")
    kept = zoo.clone(family.models[0])
    family.models[0]["layers.0.weight"].zero_()
    family.tasks[0].train[0].zero_()
    again = zoo.split_classes("mlp")
    assert same(again.models[0], kept)
    assert again.tasks[0].train[0].abs().sum() > 0


def test_sums_in_another_order_give_the_same_network():
    # permuted hidden units change nothing but the order of sums, as another processor does; in float32 the weights end up 0.2 apart
    network, split = zoo.build("residual"), zoo.digits(flat=True).train
    spec = permutation_spec(network, split[0][:2])
    permutations = random_permutations(spec, torch.Generator().manual_seed(1))
    start = zoo.initialise(network, torch.Generator().manual_seed(0))
    moved = apply_permutation(spec, permutations, start)
    options = {"num_steps": 300, "lr": 3e-3}
    end, end_of_moved = (zoo.train(network, s, split, generator=torch.Generator().manual_seed(0), **options) for s in (start, moved))
    end = apply_permutation(spec, permutations, end)
    assert all(torch.allclose(end[name], end_of_moved[name], rtol=0, atol=1e-6) for name in end)


def test_training_changes_neither_its_start_nor_the_network():
    network, task = zoo.build("conv"), zoo.digits()
    start = zoo.initialise(network, torch.Generator().manual_seed(0))
    kept, parameters = zoo.clone(start), zoo.clone(network.state_dict())
    out = zoo.train(network, start, task.train, num_steps=3, lr=1e-2, generator=torch.Generator().manual_seed(1))
    assert same(start, kept) and same(network.state_dict(), parameters) and not network.training
    assert out["norm1.num_batches_tracked"] == 3 and not torch.equal(out["head.weight"], start["head.weight"])


@pytest.mark.parametrize("architecture", ["mlp", "conv", "vit", "residual"])
@pytest.mark.parametrize("seed", SEEDS)
def test_fine_tuned_models_are_good_and_their_average_is_not(architecture, seed):
    family = zoo.multitask(architecture, seed)
    own = own_accuracies(family)
    base = [zoo.accuracy(family.network, family.base, task.test) for task in family.tasks]
    others = [zoo.accuracy(family.network, family.finetuned[0], task.test) for task in family.tasks[1:]]
    merged = zoo.mean_accuracy(family.network, average(family.finetuned), family.tasks)
    assert min(own) >= 0.92
    assert all(o >= b + 0.1 for o, b in zip(own, base, strict=True))
    assert max(others) <= 0.7  # fine-tuning on one task costs the others
    assert merged <= sum(own) / len(own) - 0.1  # plain averaging leaves room
    assert merged >= sum(base) / len(base)  # and is still worth something


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_tasks", [3, 4])
def test_task_arithmetic_with_a_chosen_coefficient_beats_the_average_of_perceptrons(seed, num_tasks):
    family = zoo.multitask("mlp", seed, num_tasks)
    accuracies = {
        c: sum(zoo.accuracy(family.network, task_arithmetic(family, c), t.val) for t in family.tasks)
        for c in (0.4, 0.5, 0.6, 0.8)
    }
    chosen = max(accuracies, key=accuracies.get)
    merged = zoo.mean_accuracy(family.network, task_arithmetic(family, chosen), family.tasks)
    assert merged >= zoo.mean_accuracy(family.network, average(family.finetuned), family.tasks) + 0.04


def test_the_base_does_not_depend_on_the_number_of_tasks():
    assert same(zoo.multitask("mlp", num_tasks=3).base, zoo.multitask("mlp", num_tasks=4).base)
    assert same(zoo.multitask("mlp").base, zoo.soup("mlp").base)
    assert same(zoo.multitask("mlp").base, zoo.adapters("mlp").base)


@pytest.mark.parametrize(("architecture", "seed"), AFFORDABLE)
def test_a_soup_is_about_as_good_as_its_models(architecture, seed):
    family = zoo.soup(architecture, seed)
    accuracies = [zoo.accuracy(family.network, model, family.task.test) for model in family.finetuned]
    merged = zoo.accuracy(family.network, average(family.finetuned), family.task.test)
    assert len(accuracies) == 5 and min(accuracies) >= 0.82 and len(set(accuracies)) > 1
    assert merged >= sum(accuracies) / 5 - 0.02


@pytest.mark.parametrize(("architecture", "seed"), AFFORDABLE)
def test_independent_models_have_a_loss_barrier_between_them(architecture, seed):
    family = zoo.independent(architecture, seed)
    loss = lambda state_dict: zoo.loss(family.network, state_dict, family.task.test).item()  # noqa: E731
    ends = [loss(model) for model in family.models]
    middle = loss(average(family.models))
    assert family.base is None and max(ends) <= 0.35
    assert middle - sum(ends) / 2 >= (1.0 if architecture in ("conv", "vit") else 0.3)


def test_independent_models_come_in_any_number_and_width():
    family = zoo.independent("mlp", count=3, width=32)
    assert [model["layers.0.weight"].shape for model in family.models] == [(32, 64)] * 3
    assert min(zoo.accuracy(family.network, model, family.task.test) for model in family.models) >= 0.9


@pytest.mark.parametrize("same_init", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_models_of_disjoint_classes_know_their_half_and_no_more(seed, same_init):
    family = zoo.split_classes("mlp", seed, same_init)
    assert [task.classes for task in family.tasks] == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9)]
    assert min(own_accuracies(family)) >= 0.96
    assert all(zoo.accuracy(family.network, model, family.task.test) <= 0.55 for model in family.models)
    assert (family.base is not None) == same_init


@pytest.mark.parametrize(("architecture", "seed"), [pair for pair in AFFORDABLE if pair[0] != "conv"])
def test_adapters_turn_the_base_into_good_models(architecture, seed):
    family = zoo.adapters(architecture, seed)
    assert min(own_accuracies(family)) >= 0.88
    assert all(
        A.shape == (4, family.base[name].shape[1]) and B.shape == (family.base[name].shape[0], 4)
        for adapter in family.adapters
        for name, (A, B) in adapter.items()
    )
    name, (A, B) = next(iter(family.adapters[0].items()))
    assert torch.allclose(family.finetuned[0][name], family.base[name] + family.scaling * B @ A)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_language_models_are_best_on_their_own_domain(seed, tied):
    family = zoo.language_models(seed, tied)
    losses = torch.tensor(
        [[zoo.loss(family.network, m, t.test).item() for t in family.tasks] for m in (family.base, *family.finetuned)]
    )
    own = losses[1:].diagonal()
    assert (own <= losses[0] - 0.4).all()  # better than the base at home
    assert (losses[1:] >= own + 1).sum() == 6  # and far worse than the specialist elsewhere
    if tied:
        assert family.finetuned[0]["head.weight"].data_ptr() == family.finetuned[0]["embed.weight"].data_ptr()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_second_language_model_reads_every_domain_with_another_vocabulary(seed):
    first, second = zoo.language_models(seed), zoo.second_language_model(seed)
    assert second.tokenizer.pieces != first.tokenizer.pieces
    text = zoo.corpus("code", 300, seed=9)
    assert second.tokenizer.decode(second.tokenizer.encode(text)) == text
    assert len(second.tokenizer.encode(text)) < len(first.tokenizer.encode(text)) == len(text)
    losses = [zoo.loss(second.network, second.models[0], task.test).item() for task in second.tasks]
    assert max(losses) <= 1.2  # log(73) = 4.3 nats a token for guessing


def test_a_causal_model_does_not_see_the_future():
    family = zoo.language_models()
    tokens = family.tasks[0].test[0][:1]
    changed = tokens.clone()
    changed[:, 10:] = 0
    a, b = (zoo.logits(family.network, family.base, x) for x in (tokens, changed))
    assert torch.equal(a[:, :10], b[:, :10]) and not torch.allclose(a[:, 10:], b[:, 10:])


def test_networks_can_be_traced():
    for network in (*map(zoo.build, ("mlp", "conv", "vit", "residual")), zoo.CharLM(5, 8)):
        assert torch.fx.symbolic_trace(network).graph is not None


def test_transformed_digits_have_known_answers():
    upright, rotated = zoo.digits("upright"), zoo.digits("rotate90")
    assert upright.train[0].shape == (1000, 1, 8, 8) and zoo.digits(flat=True).test[0].shape == (497, 64)
    assert upright.train[0].min() == -1 and upright.train[0].max() == 1
    assert torch.equal(rotated.train[0].rot90(-1, (2, 3)), upright.train[0])
    assert torch.equal(zoo.digits("invert").val[0], -upright.val[0])
    one = torch.ones(1, 1, 8, 8)  # checker: a pixel keeps its sign where row + column is even
    assert zoo.TRANSFORMS["checker"](one)[0, 0, :2, :2].tolist() == [[1, -1], [-1, 1]]
    with pytest.raises(ValueError, match="transform must be one of"):
        zoo.digits("sideways")


def test_the_bayes_rule_of_the_blobs_is_the_nearest_centre():
    task = zoo.gaussian_blobs(count=8000)  # accuracy Phi(1 / 0.5) = 0.9772, standard error 0.003
    inputs, targets = task.test
    assert ((inputs[:, 0] > 0) == targets.bool()).float().mean().item() == pytest.approx(0.9772, abs=0.01)
    assert len(zoo.two_moons().train[0]) == 200


def test_batches_hold_every_example_once():
    task = zoo.gaussian_blobs(count=100)
    parts = zoo.batches(task.train, 16)
    assert [len(x) for x, _ in parts] == [16, 16, 16, 2]
    assert torch.equal(torch.cat([x for x, _ in parts]), task.train[0])
    shuffled = torch.cat([x for x, _ in zoo.batches(task.train, 16, torch.Generator().manual_seed(0))])
    assert not torch.equal(shuffled, task.train[0])
    assert torch.equal(shuffled.sort(0).values, task.train[0].sort(0).values)


def test_unknown_names_and_numbers_are_refused():
    with pytest.raises(ValueError, match="architecture must be one of"):
        zoo.soup("lstm")
    with pytest.raises(ValueError, match="num_tasks must be 1 to 4"):
        zoo.multitask(num_tasks=5)
    with pytest.raises(ValueError, match="linear layers"):
        zoo.adapters("conv")
    with pytest.raises(ValueError, match="domain must be one of"):
        zoo.corpus("poems", 10)
    with pytest.raises(ValueError, match="no piece of the vocabulary"):
        zoo.language_models().tokenizer.encode("É")
