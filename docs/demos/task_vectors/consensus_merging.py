"""Consensus merging drops the weights that matter to one task only, and those that matter to none."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import entries, task_vectors
from reference_impls.task_vectors.consensus_merging import consensus_merging
from reference_impls.task_vectors.task_arithmetic import task_arithmetic

CONTROLS = [Control("min_tasks", 0, 3, 2, 1), Control("threshold", 0.0, 2.0, 0.6, 0.2)]


def demo(min_tasks, threshold):
    base, finetuned = task_vectors(seed=1)
    total = task_arithmetic(base, finetuned)
    merged = consensus_merging(base, finetuned, min_tasks=min_tasks, threshold=threshold)
    return Picture(
        title="Three task vectors, their sum, and the part of it that enough tasks use",
        reading="A task uses a weight if its own movement outweighs the threshold times what the others do to it; weights "
        "used by fewer tasks than min_tasks go back to the base.",
        x="weight",
        y="model",
        kind="heat",
        at=entries(12),
        series={f"model {i}": model["w"] for i, model in enumerate(finetuned, 1)} | {"sum": total["w"], "consensus": merged["w"]},
    )
