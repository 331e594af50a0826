"""Placeholder."""


def add_parser(commands):
    commands.add_parser("fmt").set_defaults(run=run)


def run(args):
    return 1
