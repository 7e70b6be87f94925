"""The roof: the `faceauth` command, the hall's own commands with each wing's beside them."""

from faceauth.cli import app, run
from faceauth.cli_provenance import provenance
from faceauth.lab.cli import app as lab

app.command()(provenance)
app.add_typer(lab, name="lab")


def main() -> None:
    """Run the command line; exits the process."""
    run(app)


if __name__ == "__main__":
    main()
