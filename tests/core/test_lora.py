"""Low-rank updates, and the exact decomposition of their sums."""

from __future__ import annotations

import pytest
import torch

from reference_impls.core.lora import low_rank_update, merge_adapter, randomized_svd, svd_of_low_rank_sum, truncated_svd


def factors(seed, m=9, n=7, ranks=(2, 3)):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(r, n, generator=generator), torch.randn(m, r, generator=generator)) for r in ranks
    ]


SHAPES = [(9, 7, (2, 3)), (4, 7, (3, 3)), (7, 4, (3, 3)), (5, 5, (1,)), (3, 3, (4, 4))]


@pytest.mark.parametrize(("m", "n", "ranks"), SHAPES)
def test_the_svd_from_the_factors_is_the_svd_of_the_sum(m, n, ranks):
    pairs = factors(0, m, n, ranks)
    weights = [0.5, -2.0][: len(pairs)]
    full = sum(w * B @ A for w, (A, B) in zip(weights, pairs, strict=True))
    U, S, Vh = svd_of_low_rank_sum(pairs, weights)
    k = min(m, n, sum(ranks))
    assert U.shape == (m, k) and S.shape == (k,) and Vh.shape == (k, n)
    torch.testing.assert_close(S, torch.linalg.svdvals(full)[:k], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(U * S @ Vh, full, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(U.T @ U, torch.eye(k), rtol=0, atol=1e-5)
    torch.testing.assert_close(Vh @ Vh.T, torch.eye(k), rtol=0, atol=1e-5)


def test_a_product_scaled_by_hand():
    # B A = [[2], [1]] [[3, -1]] = [[6, -2], [3, -1]], half of it
    A, B = torch.tensor([[3.0, -1.0]]), torch.tensor([[2.0], [1.0]])
    assert low_rank_update(A, B, 0.5).tolist() == [[3, -1], [1.5, -0.5]]


def test_merging_adds_the_update_in_float32_and_keeps_structure():
    tied = torch.full((2, 2), 256.0, dtype=torch.bfloat16)
    base = {"b": torch.ones(2), "w": tied, "head": tied, "steps": torch.tensor(3)}
    adapter = {"w": (torch.full((1, 2), 1.0), torch.full((2, 1), 1.5))}
    merged = merge_adapter(base, adapter, 2.0)  # 256 + 3 = 259 rounds to 260 in bfloat16, and 256 stays in the base
    assert list(merged) == list(base) and merged["w"].dtype == torch.bfloat16
    assert merged["w"].float().unique().tolist() == [260] and base["w"].float().unique().tolist() == [256]
    assert merged["head"].data_ptr() == merged["w"].data_ptr() and merged["b"] is not base["b"]
    assert torch.equal(merge_adapter(base, {})["w"], base["w"])


def test_truncation_drops_the_small_singular_values():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 4, generator=generator)
    U, S, Vh = truncated_svd(matrix, 2)
    error = torch.linalg.matrix_norm(matrix - U * S @ Vh)
    assert error.item() == pytest.approx(torch.linalg.svdvals(matrix)[2:].norm().item(), rel=1e-4)


def test_a_part_of_an_update_has_the_bits_of_the_whole():
    (A, B), = factors(0, m=150, n=90, ranks=(5,))
    whole = low_rank_update(A, B, 0.7)
    assert torch.allclose(whole, 0.7 * (B @ A), atol=1e-5)
    assert torch.equal(low_rank_update(A, B[64:128], 0.7), whole[64:128])


@pytest.mark.parametrize("shape", [(300, 120), (120, 300)])
def test_the_randomized_svd_is_nearly_as_good_as_the_best(shape):
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(size, 120, generator=generator))[0] for size in (300, 120))
    spectrum = torch.arange(1, 121.0) ** -0.5  # falls slowly
    matrix = left * spectrum @ right.T
    matrix = matrix.T if shape[0] < shape[1] else matrix
    U, S, Vh = randomized_svd(matrix, 8)
    assert (U.shape, S.shape, Vh.shape) == ((shape[0], 8), (8,), (8, shape[1]))
    best = spectrum[8:].norm()
    assert best <= torch.linalg.matrix_norm(matrix - U * S @ Vh) * 1.0001 < 1.01 * best
    assert torch.allclose(S, spectrum[:8], rtol=0.05)


def test_the_randomized_svd_finds_a_low_rank_exactly():
    (A, B), = factors(0, m=200, n=100, ranks=(6,))
    U, S, Vh = randomized_svd(B @ A, 6)
    assert torch.allclose(U * S @ Vh, B @ A, atol=1e-4)
    assert torch.equal(randomized_svd(B @ A, 6)[1], S)
    with pytest.raises(ValueError, match="rank must be 1"):
        randomized_svd(B @ A, 101)


def test_refusals():
    A, B = torch.ones(2, 3), torch.ones(4, 2)
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(4, 3\)"):
        low_rank_update(A, torch.ones(4, 3))
    with pytest.raises(ValueError, match="does not have"):
        merge_adapter({"w": torch.ones(4, 3)}, {"v": (A, B)})
    with pytest.raises(ValueError, match="its update"):
        merge_adapter({"w": torch.ones(4, 4)}, {"w": (A, B)})
    tied = torch.ones(4, 3)
    with pytest.raises(ValueError, match="tied to 'w'"):
        merge_adapter({"w": tied, "v": tied}, {"v": (A, B)})
    with pytest.raises(ValueError, match="rank must be 1"):
        truncated_svd(B, 3)
    with pytest.raises(ValueError, match="no factors"):
        svd_of_low_rank_sum([])
    with pytest.raises(ValueError, match="1 weights for 2 pairs"):
        svd_of_low_rank_sum([(A, B), (A, B)], [1.0])
    with pytest.raises(ValueError, match="common n and m"):
        svd_of_low_rank_sum([(A, B), (torch.ones(2, 5), B)])
