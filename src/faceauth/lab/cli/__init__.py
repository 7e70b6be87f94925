"""`faceauth lab`: the laboratory's commands, in the order in which a study is done. Heavy imports inside commands."""

import typer

from faceauth.lab.cli import data, evaluation, explaining, training

app = typer.Typer(
    help="Train and evaluate detectors. Needs pip install 'faceauth[lab]'.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(data.corpus, name="corpus")
for command in (
    data.sources, data.prepare, data.synthesize, data.launder,
    training.train, training.export, training.encoder, training.finder,
    evaluation.calibrate, evaluation.prototypes, evaluation.score, evaluation.evaluate, evaluation.ablate,
    evaluation.nested, evaluation.attribution, evaluation.embed, evaluation.tsne, evaluation.spectrum,
    evaluation.report, explaining.reference, explaining.heatmap, training.study,
):  # fmt: skip
    app.command()(command)
