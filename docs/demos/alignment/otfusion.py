"""Two networks of different width: which units of the second go into each unit of the first."""

from docs.demos.picture import Control, Picture
from docs.demos.toys import mlp, moons, trained, units
from reference_impls.alignment.otfusion import transport_maps

CONTROLS = [Control("width_a", 2, 8, 6, 1), Control("width_b", 2, 12, 9, 1), Control("reg", 0.0, 1.0, 0.0, 0.1)]


def demo(width_a, width_b, reg):
    task = moons()
    first, second = mlp(2, width_a, 2), mlp(2, width_b, 2)
    a, b = trained(first, task, 1), trained(second, task, 2)
    plan = transport_maps(a, b, units(first), reg=reg)["0"]
    return Picture(
        title="Shares of the second network's hidden units in each hidden unit of the first",
        reading="Every row sums to one and every column to the same: where the widths differ, units are split. A "
        "little entropy (reg) spreads each row over more of them.",
        x="unit of the second network",
        y="unit of the first",
        kind="heat",
        at=[f"B{i}" for i in range(1, width_b + 1)],
        series={f"A{i}": row for i, row in enumerate(plan, 1)},
    )
