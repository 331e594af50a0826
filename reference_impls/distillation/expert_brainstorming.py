r"""Multiple expert brainstorming, MEB-Net (zhai2020multiple).

Networks of different architectures, trained on one domain, are to serve on another that has no labels. In every epoch
the unlabelled samples are clustered by the experts' averaged features, and the clusters are the classes of that epoch.
Each expert learns them from the pseudo labels, and from what the other experts say: their predictions and their ratios
of distances, as given by the average of their weights over time, which errs less than the weights of the moment. An
expert speaks the louder, the better its own features separate the new domain into clusters.

Notation: f_k the features of expert k, p_k its class probabilities, K the number of experts; \bar f_k and \bar p_k
those of its temporal average; y-tilde the pseudo label; i+ and i- the farthest sample of the same cluster and the
nearest of another one in the batch, as f_k sees them; w_e the authority of expert e.

Departures: every expert sees the same images, without random augmentation; features are scaled to length 1 before they
are averaged and clustered, so that no architecture counts for more (the paper leaves this open).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def expert_brainstorming(
    networks: Sequence[nn.Module],
    batches: Iterable[Tensor | tuple[Tensor, ...]],
    *,
    num_clusters: int = 10,
    authority: bool = True,
    soft_id_weight: float = 0.5,
    soft_triplet_weight: float = 0.8,
    ema_decay: float = 0.999,
    smoothing: float = 0.1,
    clusters_per_batch: int = 16,
    samples_per_cluster: int = 4,
    num_epochs: int = 5,
    num_steps: int = 40,
    lr: float = 1e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> nn.ModuleList:
    r"""Adapt experts to an unlabelled domain by pseudo labels and by what they learn from one another.

    $$
    \mathcal{L} = \sum_k (1 - \lambda_{id}) \mathcal{L}_{id}^k + (1 - \lambda_{tr}) \mathcal{L}_{tr}^k
    + \frac{1}{K - 1} \sum_k \sum_{e \neq k} w_e \big( \lambda_{id} \mathcal{L}_{mid}^{k \leftarrow e}
    + \lambda_{tr} \mathcal{L}_{mtr}^{k \leftarrow e} \big), \qquad
    w_e = \frac{K J_e}{\sum_k J_k}, \quad
    J_e = \frac{\sum_c n_c \|\mu_c - \mu\|^2}{\sum_c \sum_{i \in c} \|\bar f_e(x_i) - \mu_c\|^2}
    $$

    $\mathcal{L}_{id}$ is the cross-entropy of $p_k$ with the (smoothed) pseudo label, $\mathcal{L}_{mid}$ that with
    $\bar p_e$. With $T(f) = e^{\|f_i - f_{i-}\|} / (e^{\|f_i - f_{i+}\|} + e^{\|f_i - f_{i-}\|})$, $\mathcal{L}_{tr}$
    is the binary cross-entropy of $T(f_k)$ with 1 and $\mathcal{L}_{mtr}$ that with $T(\bar f_e)$.

    Args:
        networks: the experts, K >= 1, trained on the source domain: inputs to features (n, d), d the same for all.
        batches: unlabelled inputs of the target domain, or tuples of which the first element is inputs.
        num_clusters: of the k-means clustering. Default 10: for toys; 500 in the authors' code.
        authority: False gives every expert the authority 1, the paper's ablation. Default True: the paper.
        soft_id_weight: $\lambda_{id}$ in [0, 1]. Default 0.5: the authors' code.
        soft_triplet_weight: $\lambda_{tr}$ in [0, 1]. Default 0.8: the authors' code.
        ema_decay: of the temporal average, in [0, 1); in step t it is at most 1 - 1/t. Default 0.999: the authors'
            code.
        smoothing: share of the label that is spread over all clusters. Default 0.1: the authors' code.
        clusters_per_batch: clusters that a batch is drawn from. Default 16: the authors' code.
        samples_per_cluster: drawn from each. Default 4: the authors' code.
        num_epochs: clusterings. Default 5: for toys; 40 in the authors' code.
        num_steps: optimiser steps (Adam) an epoch. Default 40: for toys; 800 in the authors' code.
        lr: step size. Default 1e-3: for toys; 3.5e-4 in the authors' code.
        generator: of the clusterings and the batches. Default None: a generator with seed 0.
        progress: called with the step, counted over all epochs, and the loss.

    Returns:
        The temporally averaged experts, in evaluation mode; each answers for itself.

    Raises:
        ValueError: no experts or batches, fewer samples than clusters, features of different widths, weights outside
            [0, 1].

    Example:
        Means -3 and 3 of two clusters of two: between them 4 * 9, within them 4 * 1. Then the two authorities add up to
        2.

        >>> scatter(torch.tensor([[-4.0], [-2.0], [2.0], [4.0]]), torch.tensor([0, 0, 1, 1])).item()
        9.0

    References:
        zhai2020multiple, the sections on the mutual learning of experts and on authority regularization.
    """
    inputs = torch.cat([batch if isinstance(batch, Tensor) else batch[0] for batch in list(batches)] or [torch.zeros(0)])
    if not networks or len(inputs) < max(num_clusters, 1):
        raise ValueError(f"received {len(networks)} experts and {len(inputs)} inputs; {num_clusters} clusters need as many")
    if not (0 <= soft_id_weight <= 1 and 0 <= soft_triplet_weight <= 1 and 0 <= ema_decay < 1):
        raise ValueError(f"weights {soft_id_weight}, {soft_triplet_weight} and decay {ema_decay} must lie in [0, 1]")
    generator = generator or torch.Generator().manual_seed(0)
    experts = nn.ModuleList(copy.deepcopy(network).train() for network in networks)
    means = copy.deepcopy(experts)
    step = 0
    for _ in range(num_epochs):
        # Step 1: clusters of the averaged features are the classes of this epoch; authority by each expert's own
        # clusters.
        with torch.no_grad():
            features = [F.normalize(mean.eval()(inputs)) for mean in means]
        if len({f.shape[1] for f in features}) > 1:
            raise ValueError(f"the experts' features have widths {[f.shape[1] for f in features]}; one width is needed")
        labels, centres = k_means(sum(features) / len(features), num_clusters, generator)
        weights = torch.ones(len(features), device=inputs.device)
        if authority and len(features) > 1:
            own = torch.stack([scatter(f, k_means(f, num_clusters, generator)[0]) for f in features])
            weights = len(own) * own / own.sum()
        heads = nn.ParameterList(nn.Parameter(F.normalize(centres)) for _ in experts)  # classifiers start at the centres
        mean_heads = [F.normalize(centres) for _ in experts]
        optimizer = torch.optim.Adam([*experts.parameters(), *heads.parameters()], lr=lr)
        # Step 2: brainstorming.
        for _ in range(num_steps):
            index = _draw(labels, clusters_per_batch, samples_per_cluster, generator)
            x, y = inputs[index], labels[index]
            f = [expert(x) for expert in experts]
            p = [g @ head.T for g, head in zip(f, heads)]
            with torch.no_grad():
                mean_f = [mean.train()(x) for mean in means]
                mean_p = [(g @ head.T).softmax(dim=1) for g, head in zip(mean_f, mean_heads)]
            loss = x.new_zeros(())
            for k in range(len(experts)):
                own_triplet, soft_triplet = triplet_losses(f[k], y, mean_f)
                loss = loss + (1 - soft_id_weight) * F.cross_entropy(p[k], y, label_smoothing=smoothing)
                loss = loss + (1 - soft_triplet_weight) * own_triplet
                for e in (e for e in range(len(experts)) if e != k):
                    said = soft_id_weight * F.cross_entropy(p[k], mean_p[e]) + soft_triplet_weight * soft_triplet[e]
                    loss = loss + weights[e] / (len(experts) - 1) * said
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            kept = min(1 - 1 / step, ema_decay)
            with torch.no_grad():  # Step 3: temporal averages, of parameters and classifiers
                for mean, new in zip([*means.parameters(), *mean_heads], [*experts.parameters(), *heads]):
                    mean.mul_(kept).add_(new, alpha=1 - kept)
            if progress is not None:
                progress(step - 1, loss.item())
    return means.eval()


def triplet_losses(f: Tensor, labels: Tensor, others: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The softmax triplet loss of the hardest pairs, with the target 1 and with each other expert's own ratio."""
    distance = torch.cdist(f, f, compute_mode="donot_use_mm_for_euclid_dist")
    same = labels[:, None] == labels
    positive = distance.detach().masked_fill(~same, -1).argmax(dim=1, keepdim=True)
    negative = distance.detach().masked_fill(same, torch.inf).argmin(dim=1, keepdim=True)
    pairs = torch.cat([positive, negative], dim=1)  # (n, 2)
    log_ratio = distance.gather(1, pairs).log_softmax(dim=1)
    targets = [torch.cdist(g, g).gather(1, pairs).softmax(dim=1) for g in others]
    return -log_ratio[:, 1].mean(), [-(t * log_ratio).sum(dim=1).mean() for t in targets]


def scatter(features: Tensor, labels: Tensor) -> Tensor:
    """Inter-cluster scatter, about the mean of the centres, over intra-cluster scatter."""
    member = F.one_hot(labels).to(features.dtype)  # (n, clusters)
    counts = member.sum(dim=0)
    member, counts = member[:, counts > 0], counts[counts > 0]
    centres = member.T @ features / counts[:, None]
    between = (counts * (centres - centres.mean(dim=0)).square().sum(dim=1)).sum()
    return between / (features - member @ centres).square().sum().clamp_min(1e-12)


def k_means(x: Tensor, count: int, generator: torch.Generator, max_iter: int = 30) -> tuple[Tensor, Tensor]:
    """Labels and centres of Lloyd's algorithm from a k-means++ start."""
    centres = x[int(torch.randint(len(x), (), generator=generator))][None]
    while len(centres) < count:  # the next centre: drawn by the squared distance to the nearest one
        nearest = torch.cdist(x, centres).amin(dim=1).square().cpu()
        centres = torch.cat([centres, x[int(torch.multinomial(nearest + 1e-12, 1, generator=generator))][None]])
    for _ in range(max_iter):
        labels = torch.cdist(x, centres).argmin(dim=1)
        member = F.one_hot(labels, count).to(x.dtype)
        filled = member.sum(dim=0)[:, None]
        centres = torch.where(filled > 0, member.T @ x / filled.clamp_min(1), centres)
    return torch.cdist(x, centres).argmin(dim=1), centres


def _draw(labels: Tensor, clusters: int, samples: int, generator: torch.Generator) -> Tensor:
    """Indices of a batch: some clusters, some samples of each."""
    present = labels.unique()
    index = []
    for c in present[torch.randperm(len(present), generator=generator)[:clusters].to(labels.device)]:
        members = (labels == c).nonzero()[:, 0]
        index.append(members[torch.randint(len(members), (samples,), generator=generator).to(labels.device)])
    return torch.cat(index)
