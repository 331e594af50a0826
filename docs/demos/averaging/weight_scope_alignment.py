"""Two models whose weights spread differently, trained towards one spread and averaged."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import drawn, mlp, moons
from reference_impls.averaging.uniform_soup import uniform_soup
from reference_impls.averaging.weight_scope_alignment import align_scopes, weight_scope_alignment

CONTROLS = [Control("coef", 0.0, 2.0, 1.0, 0.25), Control("num_steps", 0, 100, 60, 10), Control("wider", 1.0, 4.0, 3.0, 0.5)]


def demo(coef, num_steps, wider):
    network, tasks = mlp(2, 12, 2), [moons(0), moons(1)]
    models = [drawn(network, 0), {key: wider * w for key, w in drawn(network, 1).items()}]
    options = {"coef": coef, "num_steps": num_steps, "lr": 0.02}
    aligned = align_scopes(models, network, tasks, **options)
    plain = align_scopes(models, network, tasks, **options | {"coef": 0.0})
    spread = lambda theta: theta["0.weight"].std(unbiased=False).item()
    merged = weight_scope_alignment(models, network, tasks, **options)
    return Picture(
        title="Standard deviation of the first layer's weights",
        reading="Trained as usual the models keep their different spreads, and their average has neither; trained with "
        "the penalty both come to one spread.",
        x="",
        y="standard deviation",
        kind="bar",
        at=["model 1", "model 2", "average"],
        series={
            "trained as usual": [spread(theta) for theta in [*plain, uniform_soup(plain)]],
            "weight scope alignment": [spread(theta) for theta in [*aligned, merged]],
        },
    )
