"""What counts as the same title, and what does not."""

import pytest

from tools.titles import near_same


def same(a: str, b: str) -> bool:
    found = list(near_same([("a", a), ("b", b)]))
    assert found in ([], [("b", "a")])
    assert found == [("b", "a")] if list(near_same([("a", b), ("b", a)])) else found == []  # either way round
    return bool(found)


@pytest.mark.parametrize(
    "a, b",
    [
        ("Model Soups", "model soups"),
        ("Fine-Tuning Models", "Finetuning models"),
        ("Naïve Bayes, merged", "Naive Bayes: Merged"),
        ("ＴＩＥＳ Merging", "TIES-Merging"),
        ("TIES-Merging: Resolving Interference When Merging Models", "Resolving Interference when Merging Models"),
        ("Resolving Interference When Merging Models", "Resolving Interferense When Merging Models"),
        ("Averaging the Weights of Many Models", "Averaging Weights of Many Models"),
        ("Optimisation over Many Merged Models", "Optimization over many merged models"),
        ("A Survey of Model Merging", "A Survey on Model Merging"),
        ("A Survey on Merging Models", "A Survey on Merging Model"),
    ],
)
def test_these_are_the_same(a, b):
    assert same(a, b)


@pytest.mark.parametrize(
    "a, b",
    [
        ("Model Soups", "Sparse Model Soups"),
        ("Merging Models in Theory, Part 1", "Merging Models in Theory, Part 2"),
        ("Merging Models in Theory, Part I", "Merging Models in Theory, Part II"),
        ("Editing Models with Task Arithmetic", "Editing Models with Layer Arithmetic"),
        ("Merging Models by Uniform Averaging", "Merging Models by Fisher Averaging"),
        ("REPAIR: A Survey", "ZipIt: A Survey"),
        ("One: An Empirical Study of Model Merging", "Two: An Empirical Study of Model Merging"),
    ],
)
def test_these_are_not_the_same(a, b):
    assert not same(a, b)


def test_titles_of_one_paper_are_not_compared_with_each_other():
    assert list(near_same([("a", "Merging Many Models Well"), ("a", "Merging many models well")])) == []


def test_a_pair_is_told_once():
    titles = [("a", "Merging Many Models Well"), ("a", "Merging Many Model Well"), ("b", "Merging many models well")]
    assert list(near_same(titles)) == [("b", "a")]
