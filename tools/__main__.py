"""`python -m tools COMMAND`: check, fmt, new, import, export, refresh, links, issue, report, site, runtime. One module a command."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from tools import check, export, fmt, importing, issue, links, new, refresh, report
from tools.catalog import CatalogError


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    parser = argparse.ArgumentParser(prog="python -m tools", description="Check, mend and publish the catalog.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (check, fmt, new, importing, export, refresh, links, issue, report):
        module.add_parser(commands)
    commands.add_parser("site", help="write the generated pages of the site", add_help=False)
    commands.add_parser("runtime", help="put the browser's Python into the built site", add_help=False)
    try:
        if argv[:1] in (["site"], ["runtime"]):  # read their own arguments; imported only when asked for
            return import_module(f"tools.{argv[0]}").main(argv[1:]) or 0
        args = parser.parse_args(argv)
        return args.run(args)
    except CatalogError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader went away: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
