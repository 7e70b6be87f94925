"""`faceauth lab`: the laboratory's commands, in the order in which a study is done. Heavy imports inside commands."""

import typer

from faceauth.lab.cli import data, evaluation, explaining, study, training

app = typer.Typer(
    help="Train and evaluate detectors. Needs pip install 'faceauth[lab]'.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for room in (data, training, evaluation, explaining, study):
    room.register(app)
