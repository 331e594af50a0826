"""What runs a demo: in the page's worker, and in the test that compares the browser's runtime with PyTorch."""

import contextlib
import io
import json
import linecache
import sys
import time
import traceback

import torch_on_borch

NAME = "demo.py"
_ran = {"code": None, "space": None}


def start(folder):
    """Once: `folder` holds the project's modules."""
    sys.path.insert(0, folder)
    torch_on_borch.install()


def run(method, code, values, recorded=None):
    """Run a demo with values of its controls; JSON in, JSON out.

    The answer holds the drawing, its words, what was printed, the seconds it took, and the largest difference from the recorded
    numbers if there are any; or what went wrong and at which line.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            began = time.perf_counter()
            record = _record(method, code, json.loads(values))
            seconds = time.perf_counter() - began
        from docs.demos.picture import difference
        from tools.drawing import svg

        answer = {"svg": svg(record), "title": record["title"], "reading": record["reading"], "seconds": seconds}
        if recorded:
            answer["difference"] = difference(json.loads(recorded), record)
    except Exception as error:
        answer = {"error": "".join(traceback.format_exception_only(error)).strip(), "line": _line(error), "where": _where(error)}
    return json.dumps(answer | {"printed": printed.getvalue()})


def _record(method, code, values):
    if _ran["code"] != code:
        linecache.cache[NAME] = (len(code), None, code.splitlines(keepends=True), NAME)
        space = {"__name__": "demo"}
        exec(compile(code, NAME, "exec"), space)  # the reader's own code, in the reader's own browser
        _ran.update(code=code, space=space)
    whole = {control.name for control in _ran["space"].get("CONTROLS", ()) if _is_whole(control)}
    return _ran["space"]["demo"](**{name: int(v) if name in whole else v for name, v in values.items()}).record(method)


def _is_whole(control):
    return all(isinstance(part, int) for part in (control.low, control.high, control.start, control.step))


def _line(error):
    """The last line of the demo that the error passed through."""
    if isinstance(error, SyntaxError) and error.filename == NAME:
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == NAME]
    return lines[-1] if lines else None


def _where(error):
    """The project's module that raised it, where it was not the demo itself."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        for folder in ("reference_impls/", "docs/demos/"):
            if folder in frame.filename:
                return f"{frame.filename[frame.filename.index(folder) :]}, line {frame.lineno}"
    return None
