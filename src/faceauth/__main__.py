"""The `faceauth` command: the core's commands, and the laboratory's beside them as `faceauth lab`."""

import os
import sys


def script() -> None:
    """Run the command line as a process of its own; at its end nothing else has to run on."""
    try:
        main()
    except SystemExit as leaving:
        workers = sys.modules.get("faceauth.workers")
        if workers and workers.abandoned():  # a thread in an image that was given up can crash a closing interpreter
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
            os._exit(leaving.code if isinstance(leaving.code, int) else 1)
        raise


def main() -> None:
    """Run the command line; exits the process."""
    try:  # imported here, so that worker processes, which import this module anew, do without
        from faceauth.cli import app, engines
        from faceauth.cli_embed import embed, spectrum
        from faceauth.cli_explain import explain, report_case, verify
        from faceauth.cli_learn import forget, learn
        from faceauth.cli_mcp import mcp
        from faceauth.cli_provenance import provenance
        from faceauth.cli_video import video
        from faceauth.console import run
        from faceauth.lab.cli import app as lab
        from faceauth.scale.engine import detect as detect_with_ray
        from faceauth.server.cli import serve
    except KeyboardInterrupt:
        print("interrupted before anything was read", file=sys.stderr)
        sys.exit(130)
    engines["ray"] = detect_with_ray
    if "lab" not in {group.name for group in app.registered_groups}:
        for command in (learn, forget, provenance, explain, verify, report_case, embed, spectrum, video, serve, mcp):
            app.command()(command)
        app.add_typer(lab, name="lab")
    run(app)


if __name__ == "__main__":
    script()
