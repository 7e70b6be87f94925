"""Write docs/cli.md from --help and docs/detect.svg from a run over samples/: `python docs/make.py`."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
COMMANDS = (
    [], ["detect"], ["learn"], ["forget"], ["provenance"], ["explain"], ["verify"], ["report-case"], ["embed"],
    ["spectrum"], ["video"], ["serve"], ["mcp"],
    ["model", "info"], ["lab", "sources"],
    ["lab", "corpus", "fetch"], ["lab", "prepare"], ["lab", "train"], ["lab", "export"], ["lab", "encoder"],
    ["lab", "calibrate"], ["lab", "prototypes"], ["lab", "score"], ["lab", "evaluate"], ["lab", "ablate"],
    ["lab", "nested"], ["lab", "attribution"], ["lab", "embed"], ["lab", "tsne"], ["lab", "spectrum"],
    ["lab", "reference"], ["lab", "heatmap"], ["lab", "report"], ["lab", "study"], ["lab", "synthesize"],
    ["lab", "launder"], ["lab", "finder"],
)  # fmt: skip


def cli_page() -> str:
    """The page: every command's own help."""
    parts = ["# The command line\n\nWritten by `python docs/make.py` from `--help`; a test keeps it true.\n"]
    environment = os.environ | {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"}
    for command in COMMANDS:
        words = ["-m", "faceauth", *command, "--help"]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True, env=environment)
        text = done.stdout.replace("python -m faceauth", "faceauth").strip()
        parts.append(f"## {' '.join(['faceauth', *command])}\n\n```\n{text}\n```\n")
    return "\n".join(parts)


def picture() -> str:
    """What `faceauth detect samples/` shows on a terminal, as SVG without outside references."""
    from rich.console import Console

    from faceauth.detector import Detector
    from faceauth.inputs import expand
    from faceauth.output import TableOutput

    os.chdir(DOCS.parent)
    console = Console(record=True, width=92, file=io.StringIO(), force_terminal=True)
    console.print("[bold]$ faceauth detect samples/[/bold]")
    table = TableOutput(io.StringIO())
    for verdict in Detector().stream(expand(["samples/"]).references):
        table.write(verdict)
    console.print(table.table())
    svg = console.export_svg(title="faceauth", unique_id="faceauth")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    (DOCS / "cli.md").write_text(cli_page(), encoding="utf-8")
    (DOCS / "detect.svg").write_text(picture(), encoding="utf-8")
