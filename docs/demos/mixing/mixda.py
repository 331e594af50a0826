"""Mixture of domain adapters: knowledge of each domain in an adapter, and a gate that mixes them for a task."""

import torch

from docs.demos.picture import Control, Picture
from docs.demos.toys import clusters, mlp, trained
from reference_impls.mixing.mixda import mixda

CONTROLS = [Control("num_steps", 0, 60, 30, 10), Control("bottleneck", 1, 8, 4, 1)]


def demo(num_steps, bottleneck):
    network, domains = mlp(2, 10, 2), [clusters(domain, tasks=2) for domain in range(2)]
    base = trained(network, clusters(5, tasks=7), steps=40)
    mixed = mixda(
        network, base, [[domain] for domain in domains], domains, ["2"], bottleneck=bottleneck, num_steps=num_steps, lr=0.02
    )
    network.load_state_dict(base)
    error = lambda net, task: torch.nn.functional.cross_entropy(net(task[0]), task[1])
    with torch.no_grad():
        losses = {name: [error(net, domain) for domain in domains] for name, net in (("base", network), ("with adapters", mixed))}
    return Picture(
        title="Loss in two domains: the frozen base, and the same with gated domain adapters",
        reading="The base stays frozen. Adapters learn their own domain first; then a gate, trained on both, gives inputs"
        " of either domain their mixture. No steps leave the base as it was.",
        x="domain",
        y="loss",
        kind="bar",
        at=["domain 1", "domain 2"],
        series=losses,
    )
