"""Placeholder."""


def add_parser(commands):
    commands.add_parser("check").set_defaults(run=run)


def run(args):
    return 1
