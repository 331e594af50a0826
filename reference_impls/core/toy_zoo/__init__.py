"""Toy zoo: small trained models and tasks with known answers, the same on every run.

| call | returns | what is trained |
| --- | --- | --- |
| `multitask(architecture, seed, num_tasks=3)` | `Family` | one model per transformed digit task, one shared head |
| `soup(architecture, seed, count=5)` | `Family` | models of one task from one base, other learning rates and orders |
| `independent(architecture, seed, count=2, width=None)` | `Family` | models of one task, each initialised anew |
| `split_classes(architecture, seed, same_init=False)` | `Family` | a model of digits 0-4, one of digits 5-9, ten outputs |
| `adapters(architecture, seed, rank=4, num_tasks=3)` | `AdapterFamily` | one low-rank adapter per task of `multitask` |
| `language_models(seed, tied=False)` | `LanguageFamily` | a transformer per text domain, one base, character tokens |
| `second_language_model(seed)` | `LanguageFamily` | one recurrent model of all domains, another vocabulary |

Architectures are "mlp", "residual", "conv" (batch normalisation) and "vit"; there are no adapters for "conv". On "conv"
and "vit" the best coefficient of task arithmetic is about one over the number of tasks, on the perceptrons it is more.

    from reference_impls.core import toy_zoo
    family = toy_zoo.multitask("mlp", seed=0)
    merged = ri.ties_merging(family.base, family.finetuned)
    toy_zoo.mean_accuracy(family.network, merged, family.tasks)   # on the test splits
    toy_zoo.loss(family.network, merged, family.tasks[0].val)     # differentiable scalar
    toy_zoo.logits(family.network, merged, inputs)                # functional call
    toy_zoo.train(family.network, merged, family.tasks[0].train, num_steps=50, lr=1e-3, generator=generator)

Data: `digits(transform)`, `two_moons(seed)`, `gaussian_blobs(seed)`, `corpus(domain, length)`, `text_task(domain,
tokenizer)`; a `Task` has `train`, `val` and `test`, each `(inputs, targets)`, and `batches(split, size)` cuts a split.
Digit inputs are flat (n, 64) for "mlp" and "residual", images (n, 1, 8, 8) for "conv" and "vit", values in [-1, 1].

Models are trained once with a single thread, kept in `MODEL_FUSION_ATLAS_CACHE` (or `~/.cache/model-fusion-atlas`) and
in memory. Every call returns fresh tensors, so callers may do with them what they like.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..lora import merge_adapter
from .data import TRANSFORMS, Split, Task, batches, digits, gaussian_blobs, join, restrict, two_moons
from .networks import MLP, CharLM, ConvNet, RecurrentLM, ResidualNet, VisionTransformer
from .text import DOMAINS, Tokenizer, character_tokenizer, corpus, pair_tokenizer, text_task
from .training import StateDict, accuracy, cached, clone, cross_entropy, initialise, logits, loss, train, train_adapter

__all__ = [
    "MLP", "CharLM", "ConvNet", "RecurrentLM", "ResidualNet", "VisionTransformer",
    "TRANSFORMS", "Split", "Task", "batches", "digits", "gaussian_blobs", "join", "restrict", "two_moons",
    "DOMAINS", "Tokenizer", "character_tokenizer", "corpus", "pair_tokenizer", "text_task",
    "StateDict", "accuracy", "clone", "cross_entropy", "initialise", "logits", "loss", "train", "train_adapter",
    "Adapter", "AdapterFamily", "Family", "LanguageFamily", "adapters", "build", "independent", "language_models",
    "mean_accuracy", "multitask", "second_language_model", "soup", "split_classes",
]  # fmt: skip

ARCHITECTURES: dict[str, tuple[Callable[[int], nn.Module], int]] = {  # how to build at a width, default width
    "mlp": (lambda width: MLP((64, width, 64, 10)), 256),
    "conv": (lambda width: ConvNet(width), 16),
    "vit": (lambda width: VisionTransformer(width), 32),
    "residual": (lambda width: ResidualNet(width, 64), 128),
}

TASKS = ("rotate90", "invert", "checker", "mirror")

# The base knows a little of each task: `seen` training examples of it, beside upright digits and digits whose contrast
# is inverted in rows, columns and halves. Fewer make the tasks more alien to one another, so that merging is harder.
# (seen; steps, learning rate of the base; steps, learning rate of the fine-tuning; lowest learning rate of a soup)
_RECIPES = {
    "mlp": (20, 200, 1e-3, 200, 1e-3, 5e-4),
    "conv": (200, 300, 2e-3, 100, 5e-4, 2.5e-4),
    "vit": (300, 400, 3e-3, 250, 1.5e-3, 2.5e-4),
    "residual": (100, 200, 1e-3, 200, 5e-4, 2.5e-4),
}


@dataclass(frozen=True)
class Family:
    """Models of one architecture with the tasks they were trained for.

    Attributes:
        network: the architecture in evaluation mode; its own parameters mean nothing.
        base: the base model theta_0, or None where there is none.
        finetuned: state dicts theta_1..n.
        tasks: one task per model, or a single task that all models share.
    """

    network: nn.Module
    base: StateDict | None
    finetuned: tuple[StateDict, ...]
    tasks: tuple[Task, ...]

    @property
    def models(self) -> tuple[StateDict, ...]:
        """The same as `finetuned`, for methods that assume no common base."""
        return self.finetuned

    @property
    def task(self) -> Task:
        """The examples of all tasks as one task (of a single task: itself)."""
        return self.tasks[0] if len(self.tasks) == 1 else join(self.tasks)


Adapter = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class AdapterFamily(Family):
    """A family whose fine-tuned models are the base plus a low-rank update.

    Attributes:
        adapters: per task, weight name -> (A (rank, inputs), B (outputs, rank)).
        scaling: fine-tuned weight = base weight + scaling * B A.
    """

    adapters: tuple[Adapter, ...]
    scaling: float


@dataclass(frozen=True)
class LanguageFamily(Family):
    """A family of language models.

    Attributes:
        tokenizer: what the token ids of the tasks mean.
    """

    tokenizer: Tokenizer


def build(architecture: str, width: int | None = None) -> nn.Module:
    """A network by name ("mlp", "conv", "vit" or "residual") in evaluation mode, with parameters of zero."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture must be one of {sorted(ARCHITECTURES)}, got {architecture!r}")
    make, default = ARCHITECTURES[architecture]
    return _quiet(lambda: make(default if width is None else width))


def _quiet(make: Callable[[], nn.Module]) -> nn.Module:
    """A network in evaluation mode with parameters of zero, made without touching the global random state."""
    with torch.random.fork_rng(devices=[]):
        network = make()
    for parameter in network.parameters():
        parameter.data.zero_()
    return network.eval()


def mean_accuracy(network: nn.Module, state_dict: StateDict, tasks: Sequence[Task]) -> float:
    """Mean over the tasks of the accuracy on their test splits."""
    return sum(accuracy(network, state_dict, task.test) for task in tasks) / len(tasks)


def _is_flat(architecture: str) -> bool:
    return architecture in ("mlp", "residual")


def _generator(seed: int, stream: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(1000 * seed + stream)


def _base(architecture: str, seed: int) -> StateDict:
    seen, num_steps, lr, *_ = _RECIPES[architecture]
    flat = _is_flat(architecture)
    known = [digits(name, flat=flat).train for name in ("upright", "rows", "columns", "left", "top")]
    known += [tuple(part[:seen] for part in digits(name, flat=flat).train) for name in TASKS]
    mixture = tuple(torch.cat(parts) for parts in zip(*known, strict=True))
    return train(build(architecture), None, mixture, num_steps=num_steps, lr=lr, generator=_generator(seed))


def multitask(architecture: str = "mlp", seed: int = 0, num_tasks: int = 3) -> Family:
    """One base that knows a little of every task, fine-tuned fully on each task: transformed digits, one shared head.

    Each fine-tuned model is good at its own task and poor at the others, and the plain average is good at none.

    Args:
        architecture: "mlp", "conv", "vit" or "residual".
        seed: of the initialisation and of the order of the examples.
        num_tasks: 1 to 4, the first of rotate90, invert, checker, mirror.
    """
    if not 1 <= num_tasks <= len(TASKS):
        raise ValueError(f"num_tasks must be 1 to {len(TASKS)}, got {num_tasks}")
    network, flat = build(architecture), _is_flat(architecture)
    tasks = tuple(digits(name, flat=flat) for name in TASKS[:num_tasks])
    *_, num_steps, lr, _ = _RECIPES[architecture]

    def make() -> list[StateDict]:
        base = _base(architecture, seed)
        return [base] + [
            train(network, base, task.train, num_steps=num_steps, lr=lr, generator=_generator(seed, 1 + t))
            for t, task in enumerate(tasks)
        ]

    base, *finetuned = cached("multitask", {"architecture": architecture, "seed": seed, "num_tasks": num_tasks}, make)
    return Family(network, base, tuple(finetuned), tasks)


def soup(architecture: str = "mlp", seed: int = 0, count: int = 5) -> Family:
    """`count` models of one task (rotate90) from the base of `multitask`; learning rate and order differ.

    The learning rates are 1, 2, 4, 8, 16 times the architecture's lowest, repeated if there are more than five models.
    """
    network, task = build(architecture), digits("rotate90", flat=_is_flat(architecture))
    *_, num_steps, _, lowest = _RECIPES[architecture]

    def make() -> list[StateDict]:
        base = _base(architecture, seed)
        return [base] + [
            train(
                network, base, task.train, num_steps=num_steps, lr=lowest * 2 ** (i % 5),
                generator=_generator(seed, 11 + i),
            )
            for i in range(count)
        ]  # fmt: skip

    base, *finetuned = cached("soup", {"architecture": architecture, "seed": seed, "count": count}, make)
    return Family(network, base, tuple(finetuned), (task,))


def independent(architecture: str = "mlp", seed: int = 0, count: int = 2, width: int | None = None) -> Family:
    """`count` models of upright digits, each from its own initialisation: nothing aligns their units.

    Args:
        architecture: "mlp", "conv", "vit" or "residual".
        seed: model i is drawn from the pair (seed, i).
        count: number of models.
        width: hidden width. Default None: the architecture's own.
    """
    network, task = build(architecture, width), digits(flat=_is_flat(architecture))

    def make() -> list[StateDict]:
        return [
            train(network, None, task.train, num_steps=300, lr=3e-3, generator=_generator(seed, 101 + i))
            for i in range(count)
        ]

    arguments = {"architecture": architecture, "seed": seed, "count": count, "width": width}
    return Family(network, None, tuple(cached("independent", arguments, make)), (task,))


def split_classes(architecture: str = "mlp", seed: int = 0, same_init: bool = False) -> Family:
    """A model of the digits 0-4 and one of the digits 5-9, ten outputs each; labels keep their numbers.

    `family.tasks[i].classes` are the labels that model i knows; `family.task` has all ten.

    Args:
        architecture: "mlp", "conv", "vit" or "residual".
        seed: of the initialisations and orders.
        same_init: True starts both from one initialisation, which is then `base`.
    """
    network, everything = build(architecture), digits(flat=_is_flat(architecture))
    tasks = (restrict(everything, range(5), "digits 0-4"), restrict(everything, range(5, 10), "digits 5-9"))

    def make() -> list[StateDict]:
        starts = [initialise(network, _generator(seed, 201 + i * (not same_init))) for i in range(2)]
        return starts[:1] + [
            train(network, start, task.train, num_steps=200, lr=3e-3, generator=_generator(seed, 211 + i))
            for i, (start, task) in enumerate(zip(starts, tasks, strict=True))
        ]

    arguments = {"architecture": architecture, "seed": seed, "same_init": same_init}
    base, *models = cached("split_classes", arguments, make)
    return Family(network, base if same_init else None, tuple(models), tasks)


def adapters(architecture: str = "mlp", seed: int = 0, rank: int = 4, num_tasks: int = 3) -> AdapterFamily:
    """One low-rank adapter of every linear layer per task, on the base of `multitask`, scaling 1.

    Args:
        architecture: "mlp", "vit" or "residual".
        seed: of base, adapters and orders.
        rank: of every adapter.
        num_tasks: 1 to 4, the first of rotate90, invert, checker, mirror.
    """
    if architecture not in ("mlp", "vit", "residual"):
        raise ValueError(f"adapters need an architecture of linear layers: mlp, vit or residual, got {architecture!r}")
    if not 1 <= num_tasks <= len(TASKS):
        raise ValueError(f"num_tasks must be 1 to {len(TASKS)}, got {num_tasks}")
    network, flat = build(architecture), _is_flat(architecture)
    tasks = tuple(digits(name, flat=flat) for name in TASKS[:num_tasks])
    *_, num_steps, lr, _ = _RECIPES[architecture]

    def make() -> list[StateDict]:
        base = _base(architecture, seed)
        trained = [
            train_adapter(
                network, base, task.train, rank=rank, num_steps=num_steps, lr=4 * lr,
                generator=_generator(seed, 301 + t),
            )
            for t, task in enumerate(tasks)
        ]  # fmt: skip
        return [base] + [{f"{n}.{k}": pair["AB".index(k)] for n, pair in a.items() for k in "AB"} for a in trained]

    arguments = {"architecture": architecture, "seed": seed, "rank": rank, "num_tasks": num_tasks}
    base, *flat_factors = cached("adapters", arguments, make)
    pairs = tuple({n[:-2]: (f[n], f[n[:-2] + ".B"]) for n in f if n.endswith(".A")} for f in flat_factors)
    return AdapterFamily(network, base, tuple(merge_adapter(base, a) for a in pairs), tasks, pairs, 1.0)


def language_models(seed: int = 0, tied: bool = False) -> LanguageFamily:
    """A character-level transformer trained briefly on a little of every domain, and fine-tuned on each.

    Args:
        seed: of the initialisation and of the orders.
        tied: True ties the output matrix to the embedding.
    """
    tokenizer = character_tokenizer()
    tasks = tuple(text_task(domain, tokenizer) for domain in DOMAINS)
    network = _quiet(lambda: CharLM(len(tokenizer.pieces), context=24, tied=tied))

    def make() -> list[StateDict]:
        mixture = tuple(torch.cat([task.train[i][:30] for task in tasks]) for i in range(2))
        options = {"lr": 3e-3, "batch_size": 32}
        base = train(network, None, mixture, num_steps=150, generator=_generator(seed, 401), **options)
        return [base] + [
            train(network, base, task.train, num_steps=80, generator=_generator(seed, 402 + t), **options)
            for t, task in enumerate(tasks)
        ]

    base, *finetuned = cached("language_models", {"seed": seed, "tied": tied}, make)
    return LanguageFamily(network, base, tuple(finetuned), tasks, tokenizer)


def second_language_model(seed: int = 0) -> LanguageFamily:
    """A recurrent model of all three domains with another vocabulary (pairs of characters, other ids); no base."""
    tokenizer = pair_tokenizer()
    tasks = tuple(text_task(domain, tokenizer) for domain in DOMAINS)
    network = _quiet(lambda: RecurrentLM(len(tokenizer.pieces)))

    def make() -> list[StateDict]:
        options = {"num_steps": 250, "lr": 5e-3, "batch_size": 32, "generator": _generator(seed, 501)}
        return [train(network, None, join(tasks).train, **options)]

    return LanguageFamily(network, None, tuple(cached("second_language_model", {"seed": seed}, make)), tasks, tokenizer)
