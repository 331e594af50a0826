"""`python -m reference_impls COMMAND`: the reference functions on models on disk. One module a command."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from functools import partial

gc.disable()  # what torch's import makes lives to the end; searching it for garbage, now and at the exit, takes a third of the time
from reference_impls.checkpoints import combine, compare, extract, merge, plan  # noqa: E402
from reference_impls.checkpoints.errors import CheckpointError  # noqa: E402

gc.freeze()
gc.enable()

EXIT_CODES = """exit codes:
  0    done
  1    refused: a model, a configuration or a request that can't be used; one line says why
  2    wrong usage of the command line
  3    the system refused: no space, no permission, no memory
  130  interrupted (Ctrl-C); merge --resume goes on
"""


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    parser = argparse.ArgumentParser(
        prog="python -m reference_impls",
        description="Merge and compare models on disk.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    full_names = partial(argparse.ArgumentParser, allow_abbrev=False)  # what a method lacks mustn't pass for another's beginning
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=full_names)
    for module in (merge, plan):
        module.add_parser(commands, argv)
    for module in (compare, extract, combine):
        module.add_parser(commands)
    try:
        args = parser.parse_args(argv)
        return args.run(args)
    except CheckpointError as error:
        return _say(str(error), 1)
    except BrokenPipeError:  # the reader went away: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 3
    except OSError as error:
        what = error.strerror or str(error)
        return _say(f"{error.filename}: {what}" if error.filename else what, 3)
    except MemoryError:
        return _say("not enough memory", 3)
    except KeyboardInterrupt:
        return _say("interrupted", 130)


def _say(message: str, code: int) -> int:
    print("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
