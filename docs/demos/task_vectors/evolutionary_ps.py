"""Evolution in parameter space: weights and densities of the merge are searched by the score of what they give."""


from docs.demos.picture import Control, Picture
from docs.demos.toys import entries, task_vectors
from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.task_vectors.evolutionary_ps import evolutionary_ps

CONTROLS = [
    Control("num_evaluations", 10, 100, 50, 10),
    Control("sigma", 0.1, 0.5, 0.2, 0.1),
    Control("share", 0.0, 1.0, 0.8, 0.1),
]


def demo(num_evaluations, sigma, share):
    base, finetuned = task_vectors(seed=5, count=2)
    wanted = share * finetuned[0]["w"] + (1 - share) * finetuned[1]["w"]
    score = lambda model: -float((model["w"] - wanted).square().sum())
    found = evolutionary_ps(base, finetuned, score, group=lambda name: "", num_evaluations=num_evaluations, sigma=sigma)
    return Picture(
        title="Two task vectors, the model that scores best, and what two merges give",
        reading="The search never sees what is wanted, only how well each try scores; with more tries it comes nearer "
        "than the mean.",
        x="weight",
        y="",
        kind="heat",
        at=entries(12),
        series={
            "model 1": finetuned[0]["w"],
            "model 2": finetuned[1]["w"],
            "wanted": wanted,
            "mean": uniform_soup(finetuned)["w"],
            "evolved": found.model["w"],
        },
    )
