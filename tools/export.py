"""Placeholder."""


def add_parser(commands):
    commands.add_parser("export").set_defaults(run=run)


def run(args):
    return 1
