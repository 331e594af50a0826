"""Time the matching methods against the width: `python -m docs.figures.measure_cost [method ...]`.

Two perceptrons 64-w-w-10 of random weights are matched, with one thread, in seconds of processor time, which other processes
disturb least. Every cell is the median of three runs, of one run where it takes more than five seconds; a row ends where the
next cell, at eight times the last one, would take more than a minute. Results go to `docs/figures/cost_of_matching.json`.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from docs.figures.measure import HERE, _short_lists
from reference_impls.alignment.activation_matching import activation_matching
from reference_impls.alignment.c2m3 import universe_permutations
from reference_impls.alignment.cca_merge import cca_merge
from reference_impls.alignment.covariance_matching import covariance_matching
from reference_impls.alignment.deep_align import deep_align
from reference_impls.alignment.frank_wolfe_matching import frank_wolfe_matching
from reference_impls.alignment.gamf import graduated_assignment
from reference_impls.alignment.mudsc import mudsc
from reference_impls.alignment.otfusion import otfusion
from reference_impls.alignment.permutation_search import permutation_search
from reference_impls.alignment.sinkhorn_rebasin import sinkhorn_rebasin
from reference_impls.alignment.ste_matching import ste_matching
from reference_impls.alignment.weight_matching import weight_matching
from reference_impls.alignment.zipit import zipit
from reference_impls.core import toy_zoo
from reference_impls.core.permutation import PermutationSpec, permutation_spec, unit_activations
from reference_impls.core.statistics import gram_matrices

FILE = HERE / "cost_of_matching.json"
WIDTHS = (256, 512, 1024, 2048)
LIMIT = 60.0


@dataclass(frozen=True)
class Inputs:
    """What a method may need, made before its time starts."""

    a: dict[str, Tensor]
    b: dict[str, Tensor]
    c: dict[str, Tensor]
    spec: PermutationSpec
    activations: list[dict[str, Tensor]]  # of a and b, over 500 inputs
    grams: list[dict[str, Tensor]]
    loss: Callable[[dict[str, Tensor]], Tensor]  # of 200 examples


# method -> (what is run, its cost in words, the call); w units a layer, s samples
METHODS: dict[str, tuple[str, str, Callable[[Inputs], object]]] = {
    "weight_matching": (
        "until nothing changes",
        "an assignment and products of matrices a layer and round, O(w³)",
        lambda i: weight_matching(i.a, i.b, i.spec),
    ),
    "activation_matching": (
        "500 samples",
        "one product O(s w²) and one assignment O(w³) a layer",
        lambda i: activation_matching(*i.activations, i.spec),
    ),
    "covariance_matching": (
        "second moments given",
        "one pass: products and an assignment a layer, O(w³)",
        lambda i: covariance_matching(i.a, i.b, i.spec, i.grams),
    ),
    "mudsc": (
        "500 samples, until nothing changes",
        "as weight matching, and correlations once, O(s w²)",
        lambda i: mudsc(i.a, i.b, *i.activations, i.spec),
    ),
    "otfusion": (
        "exact transport",
        "costs O(w²) for each input of a unit, so O(w³), and a network simplex a layer, a little above O(w³)",
        lambda i: otfusion(i.a, i.b, i.spec),
    ),
    "frank_wolfe_matching": (
        "10 iterations",
        "products of matrices and an assignment a layer and iteration, O(w³); four evaluations of the objective each",
        lambda i: frank_wolfe_matching(i.a, i.b, i.spec, max_iter=10, tol=0.0),
    ),
    "c2m3": (
        "3 models, 10 iterations",
        "for n models n assignments and n products a layer and iteration, O(n w³); six evaluations of the objective each",
        lambda i: universe_permutations([i.a, i.b, i.c], i.spec, max_iter=10, tol=0.0),
    ),
    "gamf": (
        "2 models, defaults",
        "products of matrices O(w³) and Sinkhorn scalings O(w²) in each of 90 rounds, one assignment at the end",
        lambda i: graduated_assignment([i.a, i.b], i.spec),
    ),
    "sinkhorn_rebasin": (
        "10 gradient steps",
        "products of matrices and the solution of a linear system a layer and step, O(w³)",
        lambda i: sinkhorn_rebasin(i.a, i.b, i.spec, num_steps=10),
    ),
    "ste_matching": (
        "3 gradient steps",
        "a weight matching a step, and a gradient of the loss",
        lambda i: ste_matching(i.a, i.b, i.spec, i.loss, num_steps=3),
    ),
    "permutation_search": (
        "10 exchanges",
        "a copy of the weights and a loss an exchange, O(s w²); good orders need many exchanges, the more the wider",
        lambda i: permutation_search(i.a, i.b, i.spec, i.loss, num_steps=10),
    ),
    "deep_align": (
        "10 gradient steps",
        "features O(w²), soft alignments moved through the weights O(w³) a layer and step",
        lambda i: deep_align(i.a, i.b, i.spec, [i.a, i.b], num_steps=10),
    ),
    "zipit": (
        "500 samples",
        "w greedy merges a layer, each a search through (2w)² pairs, O(w³)",
        lambda i: zipit(i.a, i.b, *i.activations, i.spec),
    ),
    "cca_merge": (
        "500 samples",
        "covariances O(s w²) and decompositions O(w³) a layer",
        lambda i: cca_merge(i.a, i.b, *i.activations, i.spec),
    ),
}


def main(argv: list[str]) -> int:
    torch.set_num_threads(1)
    chosen = argv or list(METHODS)
    if unknown := sorted(set(chosen) - set(METHODS)):
        print(f"no such method: {', '.join(unknown)}; there are {', '.join(METHODS)}", file=sys.stderr)
        return 2
    known = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {"rows": [], "rounds": []}
    seconds = {row["method"]: row["seconds"] for row in known["rows"]}
    rounds = [] if "weight_matching" in chosen else known["rounds"]
    seconds |= {method: [] for method in chosen}
    for width in WIDTHS:
        inputs = make(width)
        if "weight_matching" in chosen:
            rounds.append(rounds_of_weight_matching(inputs))
        for method in chosen:
            done = seconds[method]
            if len(done) == WIDTHS.index(width) and (not done or 8 * done[-1] <= LIMIT):
                done.append(float(f"{timed(METHODS[method][2], inputs):.3g}"))
                print(f"{method}, width {width}: {done[-1]:g} s", flush=True)
    FILE.write_text(_short_lists(json.dumps(record(seconds, rounds), indent=1, ensure_ascii=False)) + "\n", encoding="utf-8")
    return 0


def make(width: int) -> Inputs:
    network = toy_zoo.MLP((64, width, width, 10)).eval()
    a, b, c = (toy_zoo.initialise(network, torch.Generator().manual_seed(seed)) for seed in range(3))
    inputs, targets = toy_zoo.digits(flat=True).train
    spec = permutation_spec(network, inputs[:2])
    activations = [unit_activations(spec, network, model, inputs[:500], written=True) for model in (a, b)]
    grams = [gram_matrices(network, model, [(inputs[:500], None)]) for model in (a, b)]
    return Inputs(a, b, c, spec, activations, grams, lambda model: toy_zoo.loss(network, model, (inputs[:200], targets[:200])))


def rounds_of_weight_matching(inputs: Inputs) -> int:
    """After how many rounds nothing changes any more."""
    match = lambda **options: weight_matching(inputs.a, inputs.b, inputs.spec, **options)  # noqa: E731
    final, count = match(), 1
    while any(not torch.equal(p, final[name]) for name, p in match(max_iter=count).items()):
        count += 1
    return count


def timed(call: Callable[[Inputs], object], inputs: Inputs) -> float:
    times: list[float] = []
    while len(times) < 3 and (not times or times[0] <= 5):
        began = time.process_time()
        call(inputs)
        times.append(time.process_time() - began)
    return statistics.median(times)


def record(seconds: dict[str, list[float]], rounds: list[int]) -> dict:
    rows = [
        {"method": method, "run": run, "grows": grows, "seconds": seconds[method]}
        for method, (run, grows, _) in METHODS.items()
        if method in seconds
    ]
    command = "python -m docs.figures.measure_cost"
    return {"widths": list(WIDTHS), "limit": LIMIT, "command": command, "rounds": rounds, "rows": rows}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
