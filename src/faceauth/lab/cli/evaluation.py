"""Judging: `calibrate` a model file, `evaluate` models, `embed`, `tsne` and `spectrum`, and a `report` of it all."""

from pathlib import Path
from typing import Annotated

import typer

from faceauth.errors import UsageError
from faceauth.lab.cli.needs import need_lab

Runs = Annotated[list[Path], typer.Argument(help="Finished runs' folders, or model files.", metavar="RUN...")]
Run = Annotated[Path, typer.Argument(help="A finished run's folder, or a model file.")]
ManifestOption = Annotated[
    Path | None, typer.Option("--manifest", help="The prepared data set; by default the run's own.")
]
Rewritten = Annotated[Path, typer.Argument(help="A finished run, or a model file, whose metadata is rewritten.")]
CorpusOption = Annotated[
    Path | None, typer.Option("--corpus", help="The corpus that it was trained on, not a manifest.")
]
Folds = Annotated[list[Path] | None, typer.Option("--fold", help="A fold's model file; repeat for every fold.")]
Cache = Annotated[Path, typer.Option(help="Where crops, scores and embeddings are kept.")]
Workers = Annotated[int, typer.Option(help="Processes or threads.", min=1)]
Seed = Annotated[int, typer.Option(help="Of the choice of images, and of what else is drawn.")]
PerSource = Annotated[int | None, typer.Option(help="At most so many images of each source; all by default.", min=1)]


def register(app: typer.Typer) -> None:
    """Add this room's commands."""
    for command in (calibrate, prototypes, evaluate, embed, tsne, spectrum, report):
        app.command()(command)


def calibrate(
    model: Rewritten,
    manifest: ManifestOption = None,
    corpus: CorpusOption = None,
    folds: Folds = None,
    cache: Cache = Path("cache"),
    workers: Workers = 1,
) -> None:
    """Fit calibration and thresholds on the test split, and write them into the model file.

    Without it a model file makes no promise. The promise of 5 % false alarms is kept on sources that the model knows,
    and the file says so. With a corpus and --fold models, each of which scores the test images of the sources it was
    trained without, it is kept on unseen sources.

    \b
    Examples:
      faceauth lab calibrate runs/deit
      faceauth lab calibrate runs/embedded/detector.onnx --corpus ../shared/data \\
        --fold runs/embedded-fold1/detector.onnx --fold runs/embedded-fold2/detector.onnx
    """
    need_lab()
    from faceauth.lab.evaluation import evaluate as on_manifest
    from faceauth.lab.evaluation import protocol as on_corpus

    if corpus is None:
        if folds:
            raise UsageError("--fold needs --corpus", "the folds are those of a corpus")
        card = on_manifest.calibrate(model, manifest, cache, workers)
    elif manifest is not None:
        raise UsageError("--corpus and --manifest at once", "choose the one that the model was trained on")
    else:
        card = on_corpus.calibrate(model, corpus, folds or [], cache, workers)
    limits = card.thresholds
    typer.echo(f"score = sigmoid({card.calibration.scale:.3f} x logit {card.calibration.shift:+.3f})")
    typer.echo(f"fake from {limits.fake:.3f}, real to {limits.real:.3f}, on {limits.measured_on}")


def prototypes(
    model: Rewritten,
    manifest: ManifestOption = None,
    corpus: CorpusOption = None,
    folds: Folds = None,
    also: Annotated[
        list[str] | None, typer.Option("--also", help="A source it was not trained on, to be named too; repeatable.")
    ] = None,
    cache: Cache = Path("cache"),
    workers: Workers = 1,
) -> None:
    """Let a model file name generators: write prototypes of its sources into it, for detect and learn.

    They are fitted on train images and calibrated on test. With --fold models the threshold of "unknown" is set on
    generators that a model was trained without; otherwise by taking each one's prototype away, which is kinder.

    \b
    Examples:
      faceauth lab prototypes runs/deit
      faceauth lab prototypes runs/embedded/detector.onnx --corpus ../shared/data \\
        --fold runs/embedded-fold1/detector.onnx --fold runs/embedded-fold2/detector.onnx
    """
    need_lab()
    from faceauth.lab.evaluation import prototypes as made
    from faceauth.lab.evaluation.subjects import open_examples, open_subjects

    [subject] = open_subjects([model])
    if corpus is not None and manifest is None:
        looked = made.look_at_corpus([subject.file, *(folds or [])], corpus, cache, workers)
    elif corpus is not None or folds:
        raise UsageError("--fold needs --corpus, and --corpus no --manifest", "the folds are those of a corpus")
    else:
        _, examples = open_examples([subject], manifest, "train")
        looked = made.look_at_prepared(subject.file, examples, cache, workers)
    found = made.prototypes(looked, also or [])
    made.write(subject.file, found)
    typer.echo(f"{len(found.kinds)} prototypes from {found.fitted_on}; temperature {found.temperature:.2f}")
    typer.echo(f"unknown fitted on {found.unknown.fitted_on}")


def evaluate(
    runs: Runs,
    manifest: ManifestOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A folder for evaluation.json, .md and a CSV a table.")
    ] = None,
    open_dev: Annotated[
        bool, typer.Option("--open-dev", help="Judge on the sealed dev split; written in each run's dev_ledger.jsonl.")
    ] = False,
    per_source: PerSource = None,
    cache: Cache = Path("cache"),
    workers: Workers = 1,
    seed: Seed = 0,
) -> None:
    """Judge models on a prepared data set: the study's table, the protocol's, and the shortcut audit.

    Models are judged on the test split, in one pass over its images. Without a calibration of its own, a model is
    calibrated on the test images of the sources that it knows.

    \b
    Examples:
      faceauth lab evaluate runs/deit
      faceauth lab evaluate runs/deit runs/vit runs/densenet -o evaluation --workers 4
      faceauth lab evaluate model.onnx --manifest study/manifest.xlsx --per-source 500
      faceauth lab evaluate runs/deit --open-dev
    """
    need_lab()
    from faceauth.lab.evaluation.evaluate import evaluate as evaluate_
    from faceauth.lab.evaluation.report import text, write_evaluation
    from faceauth.lab.evaluation.subjects import manifest_of, open_subjects

    subjects = open_subjects(runs)
    part = "dev" if open_dev else "test"
    found = evaluate_(subjects, manifest or manifest_of(subjects), part, cache, workers, seed, per_source)
    if output:
        write_evaluation(found, output)
    typer.echo(text(found), nl=False)


def embed(
    run: Run,
    manifest: ManifestOption = None,
    split: Annotated[str, typer.Option(help="train or test; dev is opened by evaluate alone.")] = "test",
    output: Annotated[Path, typer.Option("-o", "--output", help="A .npz or .parquet file.")] = Path("embeddings.npz"),
    cache: Cache = Path("cache"),
    workers: Workers = 1,
) -> None:
    """Write the embedding before the head of every prepared image of a split, with path, source, target and score.

    \b
    Examples:
      faceauth lab embed runs/deit
      faceauth lab embed runs/deit --split train -o train.parquet
    """
    need_lab()
    from faceauth.lab.evaluation import embeddings
    from faceauth.lab.evaluation.subjects import open_examples, open_subjects

    [subject] = open_subjects([run])
    embeddings.check_suffix(output)
    _, examples = open_examples([subject], manifest, split)
    found = embeddings.embed(subject, examples, split, cache, workers)
    found.save(output)
    typer.echo(f"{output}: {found.embedding.shape[0]} embeddings of {found.embedding.shape[1]} values")


def tsne(
    run: Run,
    manifest: ManifestOption = None,
    split: Annotated[str, typer.Option(help="train or test; dev is opened by evaluate alone.")] = "test",
    per_source: Annotated[int, typer.Option(help="Images of each source.", min=1)] = 50,
    perplexity: Annotated[
        float | None, typer.Option(help="How many neighbours an image has, about; 30, or fewer for few images.", min=1)
    ] = None,
    place: Annotated[
        list[Path] | None, typer.Option("--place", help="An image to place on the map; repeatable.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="A folder for the map.")] = Path("tsne"),
    cache: Cache = Path("cache"),
    workers: Workers = 1,
    seed: Seed = 0,
) -> None:
    """Draw the embeddings of some images of each source as a t-SNE map, and say in numbers how they cluster.

    Writes tsne.png, tsne.svg, tsne.csv, clusters.csv and map.npz. With --place, new images are laid on the map that
    the folder holds already, or on a new one, and drawn in placed.png and placed.svg; the map itself does not move.

    \b
    Examples:
      faceauth lab tsne runs/deit
      faceauth lab tsne runs/deit --place portrait.jpg --place other.jpg
    """
    need_lab()
    from faceauth.lab.evaluation import embeddings, figures, tables
    from faceauth.lab.evaluation.report import write
    from faceauth.lab.evaluation.subjects import open_examples, open_subjects

    [subject] = open_subjects([run])
    file = output / "map.npz"
    if place and file.is_file():
        map_ = embeddings.load_map(file, subject.sha256)
    else:
        opened, examples = open_examples([subject], manifest, split)
        chosen = embeddings.embed(subject, examples, split, cache, workers, per_source, seed)
        map_ = embeddings.tsne(chosen, seed, perplexity, subject.sha256, opened.sha256)
        map_.save(file)
        figures.save(figures.tsne_map(map_, subject.name), output / "tsne.png", output / "tsne.svg")
        write(output / "tsne.csv", tables.to_csv(embeddings.table(map_)))
        write(output / "clusters.csv", tables.to_csv(clusters := embeddings.clusters(chosen, seed)))
        typer.echo(tables.markdown(clusters))
    if place:
        points = map_.place(embeddings.placed(subject, place)).tolist()
        named = {str(path): point for path, point in zip(place, points, strict=True)}
        figures.save(figures.tsne_map(map_, subject.name, named), output / "placed.png", output / "placed.svg")
        for path, (x, y) in named.items():
            typer.echo(f"{path}: {x:.2f}, {y:.2f}; nearest {map_.nearest((x, y))}")


def spectrum(
    manifest: Annotated[Path, typer.Option(help="The prepared data set.")],
    split: Annotated[str, typer.Option(help="train or test; dev is opened by evaluate alone.")] = "test",
    per_source: Annotated[int, typer.Option(help="At most so many images of each source.", min=2)] = 200,
    output: Annotated[Path, typer.Option("-o", "--output", help="A folder.")] = Path("spectrum"),
    workers: Workers = 1,
    seed: Seed = 0,
) -> None:
    """Average log-power spectra of the noise residual of each source, radial profiles, and the difference from real.

    Prints how far each source lies from the mean of the real ones; writes spectra.png, profiles.png (and both as SVG)
    and profiles.csv. The images are the prepared faces, whose resize
    shapes every spectrum: sources are compared after it.

    \b
    Example:
      faceauth lab spectrum --manifest study/manifest.xlsx
    """
    need_lab()
    from faceauth.lab.evaluation import figures, tables
    from faceauth.lab.evaluation.report import write
    from faceauth.lab.evaluation.spectrum import CAVEAT, source_spectra
    from faceauth.lab.evaluation.subjects import open_examples

    _, examples = open_examples([], manifest, split)
    found = source_spectra(examples, split, per_source, seed, workers)
    figures.save(figures.spectrum_grid(found), output / "spectra.png", output / "spectra.svg")
    figures.save(figures.spectrum_profiles(found), output / "profiles.png", output / "profiles.svg")
    write(output / "profiles.csv", tables.to_csv([row for s in found for row in s.rows()]))
    typer.echo(CAVEAT, err=True)
    typer.echo(tables.markdown([s.summary() for s in found]))


def report(
    runs: Runs,
    manifest: ManifestOption = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page; Markdown is written beside it.")] = Path(
        "report.html"
    ),
    evaluation: Annotated[
        Path | None, typer.Option(help="An evaluation.json of these runs; by default they are judged on test now.")
    ] = None,
    pictures: Annotated[
        bool, typer.Option(help="Thumbnails of the worst mistakes; leave them out before you pass the page on.")
    ] = True,
    per_source: PerSource = None,
    cache: Cache = Path("cache"),
    workers: Workers = 1,
    seed: Seed = 0,
) -> None:
    """Write a report of runs: one HTML file that needs nothing else, and Markdown with its figures beside it.

    \b
    Examples:
      faceauth lab report runs/deit runs/vit
      faceauth lab report runs/deit --evaluation evaluation/evaluation.json --no-pictures
    """
    need_lab()
    from faceauth.lab.data.dataset import read_dataset
    from faceauth.lab.evaluation.evaluate import evaluate as evaluate_
    from faceauth.lab.evaluation.report import check_page, read_evaluation
    from faceauth.lab.evaluation.report import report as report_
    from faceauth.lab.evaluation.subjects import manifest_of, open_subjects

    check_page(output)
    subjects = open_subjects(runs)
    path = manifest or manifest_of(subjects)
    opened = read_dataset(path)
    if evaluation:
        found = read_evaluation(evaluation, subjects, opened)
    else:
        found = evaluate_(subjects, path, "test", cache, workers, seed, per_source)
    for file in report_(subjects, opened, found, output, cache, workers, seed, pictures):
        typer.echo(file)
