"""One-for-all distillation: features of any architecture are turned into scores and compared there."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import generator, loss_of, moons, staged, teacher
from reference_impls.distillation.ofa_kd import ofa_kd

CONTROLS = [
    Control("gamma", 1.0, 2.0, 1.5, 0.25),
    Control("branch_weight", 0.0, 2.0, 1.0, 0.5),
    Control("num_steps", 10, 60, 40, 10),
]


def demo(gamma, branch_weight, num_steps):
    few, many = moons(1, count=12, noise=0.25), moons(2, count=80, noise=0.25)
    source = teacher(many, widths=(2, 16, 2))
    student = staged(2, 8, 8, 2)
    learned = ofa_kd(
        source, student, [few], gamma=gamma, branch_weight=branch_weight, num_steps=num_steps, lr=0.03, generator=generator(0)
    )
    alone = teacher(few, widths=(2, 8, 8, 2))
    ways = {"teacher": source, "student alone": alone, "OFA-KD": learned}
    return Picture(
        title="Loss on a hundred points of a student that has twelve labels",
        reading="The teacher has seen many points. Its scores tell the student more than the labels do; gamma weighs the "
        "right class the more, the surer the teacher is.",
        x="",
        y="loss on new points",
        kind="bar",
        at=list(ways),
        series={"loss": [loss_of(network, moons(3, count=100, noise=0.25)) for network in ways.values()]},
    )
