"""Expert brainstorming: networks from another domain cluster new inputs and teach one another what they found."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import blobs, generator, mlp, trained
from reference_impls.distillation.expert_brainstorming import expert_brainstorming, scatter

CONTROLS = [Control("num_steps", 0, 15, 10, 5), Control("shift", 0.0, 1.0, 0.4, 0.2)]


def demo(num_steps, shift):
    experts = []
    for seed in range(2):
        expert = mlp(2, 8, 3)
        expert.load_state_dict(trained(expert, blobs(seed, spread=0.3), seed=seed, steps=30))
        experts.append(expert)
    inputs, targets = blobs(7, spread=0.3)
    inputs = inputs + torch.tensor([shift, -shift])
    options = {"num_clusters": 3, "clusters_per_batch": 3, "num_epochs": 1, "ema_decay": 0.8, "lr": 0.01}
    after = expert_brainstorming(experts, [inputs], num_steps=num_steps, generator=generator(0), **options)
    apart = lambda network: scatter(torch.nn.functional.normalize(network(inputs), dim=1), targets)
    with torch.no_grad():
        series = {"before": [apart(one) for one in experts], "after": [apart(one) for one in after]}
    return Picture(
        title="How far apart the true classes lie in the features of two experts, against how far they spread",
        reading="No label of the new domain is used: what both find in the clusters is taught to each. Here the weaker expert "
        "gains, and the stronger one gives away some of its lead.",
        x="expert",
        y="between / within",
        kind="bar",
        at=["expert 1", "expert 2"],
        series=series,
    )
