"""The command, run in this process or in one of its own."""

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

from faceauth.__main__ import main


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def faceauth(*arguments, stdin=b"", cwd=None, terminal=False):
    """Run the command in this process, as the installed script does; stderr is no terminal, nor stdout unless asked."""
    out, err = _Terminal() if terminal else io.StringIO(), io.StringIO()
    before = os.getcwd()
    os.chdir(cwd or before)
    try:
        with (
            mock.patch.object(sys, "argv", ["faceauth", *map(str, arguments)]),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
    except SystemExit as leaving:
        return leaving.code or 0, out.getvalue(), err.getvalue()
    finally:
        os.chdir(before)
    raise AssertionError("the command did not exit")


def command(*arguments):
    """The words that run it in a process of its own."""
    return [sys.executable, "-m", "faceauth", *map(str, arguments)]


def start(*arguments, **options):
    """Begin it in a process of its own."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(*arguments), **(pipes | options))


def wait_for(condition, seconds=60):
    """What the condition returns as soon as that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come true in time")


def read_rows(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def lasting(rows):
    """Rows without what differs from run to run."""
    return sorted(json.dumps({k: v for k, v in r.items() if k not in {"ms", "judged_at"}}) for r in rows)
