"""Named mathematical objects that the methods share: state dicts as vectors, statistics, permutations, the toy zoo.
"""
