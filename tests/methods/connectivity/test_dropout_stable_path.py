import pytest
import torch
from torch import nn

import reference_impls as ri
from reference_impls.core import toy_zoo
from reference_impls.core.paths import interpolate

X = torch.tensor([[3.0], [-1.0], [0.5]])


def net(model, x):
    for i in range(len(model) // 2):
        x = x @ model[f"layers.{i}.weight"].T + model[f"layers.{i}.bias"]
        x = x.relu() if i < len(model) // 2 - 1 else x
    return x


def random_model(sizes, seed):
    network = toy_zoo.MLP(sizes)
    return toy_zoo.initialise(network, torch.Generator().manual_seed(seed))


def square(target, x):
    return lambda model: (net(model, x) - target).square().mean()


class DropoutMLP(toy_zoo.MLP):
    def forward(self, x):
        for layer in self.layers[:-1]:
            x = nn.functional.dropout(torch.relu(layer(x)), 0.5, self.training)
        return self.layers[-1](x)


def test_halved_network_by_hand():
    # hidden (3, 6) for the input 3; outputs 3 * 1 + 6 * 0.5 = 6; the first half alone, doubled, 6: no loss; undoubled
    # 3: (3 - 6)^2
    a = {"layers.0.weight": torch.tensor([[1.0], [2.0]]), "layers.0.bias": torch.zeros(2)}
    a |= {"layers.1.weight": torch.tensor([[1.0, 0.5]]), "layers.1.bias": torch.zeros(1)}
    loss, layers = square(6.0, X[:1]), ("layers.0", "layers.1")
    assert ri.dropout_stable_path(a, a, loss, layers=layers).max_loss == 0
    path = ri.dropout_stable_path(a, a, loss, layers=layers, rescale=1.0, num_points=3)
    assert path.stability_gap == 9 and path.losses.losses[:3].tolist() == [0, 2.25, 9]
    assert path.points[1]["layers.1.weight"].tolist() == [[1, 0]]


@pytest.mark.parametrize("sizes", [(1, 6, 4), (1, 6, 8, 4), (1, 5, 8, 7, 4)])
def test_every_segment_keeps_the_function_or_moves_only_the_last_layer(sizes):
    a, b = random_model(sizes, 1), random_model(sizes, 2)
    layers = [f"layers.{i}" for i in range(len(sizes) - 1)]
    path = ri.dropout_stable_path(a, b, square(torch.zeros(3, 4), X), layers=layers)
    assert all(torch.equal(path.points[0][k], a[k]) and torch.equal(path.points[-1][k], b[k]) for k in a)
    for p, q in zip(path.points, path.points[1:]):
        moved = {key.rpartition(".")[0] for key in a if not torch.equal(p[key], q[key])}
        if moved - {layers[-1]}:  # hidden units change: only such as nothing reads
            assert layers[-1] not in moved
            for t in (0.3, 1.0):
                assert torch.allclose(net(interpolate(p, q, t), X), net(p, X), atol=1e-5)


def test_highest_loss_is_that_of_a_corner():
    a, b = random_model((1, 6, 8, 4), 1), random_model((1, 6, 8, 4), 2)
    loss = square(torch.ones(3, 4), X)
    path = ri.dropout_stable_path(a, b, loss, num_points=9)
    assert path.max_loss.item() == pytest.approx(max(loss(p).item() for p in path.points))


def test_scaling_a_layer_up_and_the_next_one_down_changes_no_loss():
    a, b = random_model((1, 6, 4), 1), random_model((1, 6, 4), 2)
    scaled = {k: 4 * v if "0." in k else v / 4 if v.ndim == 2 else v for k, v in a.items()}
    loss, layers = square(torch.zeros(3, 4), X), ("layers.0", "layers.1")
    one, other = (ri.dropout_stable_path(m, b, loss, layers=layers).losses.losses for m in (a, scaled))
    assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_networks_trained_with_dropout_have_a_low_path_and_others_have_not(seed):
    # measured, highest loss: with dropout 0.10 to 0.17 on the path and 0.61 to 0.72 on the line; without dropout 0.32
    # to 0.83 on the path
    task, sizes = toy_zoo.digits(flat=True), (64, 128, 128, 10)
    plain = toy_zoo.MLP(sizes).eval()

    def path(network):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            generators = [torch.Generator().manual_seed(10 * seed + i) for i in range(2)]
            models = [toy_zoo.train(network, None, task.train, num_steps=300, lr=3e-3, generator=g) for g in generators]
        loss_fn = lambda model: toy_zoo.loss(plain, model, task.train)  # noqa: E731
        line = max(loss_fn(interpolate(*models, t)).item() for t in (0.25, 0.5, 0.75))
        return ri.dropout_stable_path(*models, loss_fn, num_points=3), line

    (stable, line), (unstable, _) = path(DropoutMLP(sizes)), path(plain)
    assert stable.max_loss < 0.4 * line and stable.max_loss < 0.55 * unstable.max_loss
    assert stable.stability_gap < 0.55 * unstable.stability_gap


def test_bad_input_is_refused():
    model = random_model((1, 4, 2), 0)
    loss, layers = square(0.0, X), ("layers.0", "layers.1")
    with pytest.raises(ValueError, match="all must be among"):
        ri.dropout_stable_path(model, model, loss)
    with pytest.raises(ValueError, match="have shapes"):
        ri.dropout_stable_path(model, model, loss, layers=layers[::-1])
    with pytest.raises(ValueError, match="shape"):
        ri.dropout_stable_path(model, random_model((1, 6, 2), 0), loss, layers=layers)
