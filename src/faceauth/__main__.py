"""The `faceauth` command: the core's commands, and the laboratory's beside them as `faceauth lab`."""

import sys


def main() -> None:
    """Run the command line; exits the process."""
    try:  # imported here, so that worker processes, which import this module anew, do without
        from faceauth.cli import app
        from faceauth.console import run
        from faceauth.lab.cli import app as lab
    except KeyboardInterrupt:
        sys.exit(130)
    if "lab" not in {group.name for group in app.registered_groups}:
        app.add_typer(lab, name="lab")
    run(app)


if __name__ == "__main__":
    main()
