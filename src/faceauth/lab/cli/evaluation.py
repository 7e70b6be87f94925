"""Evaluation: `calibrate` a model file, `evaluate` scores or models, `embed`, `tsne`, `spectrum` and `report`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faceauth.cli_options import Address
from faceauth.errors import UsageError
from faceauth.lab.cli.common import EngineName, chosen, need_lab, need_tables

if TYPE_CHECKING:
    from faceauth.lab.evaluation.ledger import Opening

Runs = Annotated[list[Path], typer.Argument(help="Finished runs' folders, or model files.", metavar="RUN...")]
Run = Annotated[Path, typer.Argument(help="A finished run's folder, or a model file.")]
ManifestOption = Annotated[
    Path | None, typer.Option("--manifest", help="The prepared data set; by default the run's own.")
]
Rewritten = Annotated[Path, typer.Argument(help="A finished run, or a model file, whose metadata is rewritten.")]
Cache = Annotated[Path, typer.Option(help="Where crops, scores and embeddings are kept.")]
Workers = Annotated[int, typer.Option(help="Processes or threads.", min=1)]
Seed = Annotated[int, typer.Option(help="Of the choice of images, and of what else is drawn.", min=0)]
Split = Annotated[str, typer.Option(help="train or test; dev is opened by evaluate alone.")]
PerSource = Annotated[int | None, typer.Option(help="At most so many images of each source; all by default.", min=1)]
Encoders = Annotated[Path, typer.Argument(help="A TOML experiment with [encoders], such as configs/accurate.toml.")]
RunFolders = Annotated[Path, typer.Option(help="Where run folders are made; one that was cut off goes on.")]
Features = Annotated[Path, typer.Option(help="Where features are kept.")]


def calibrate(
    model: Rewritten,
    scores: Annotated[
        Path | None, typer.Option("--scores", help="A table of scores of the model, or of its fold models.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The model's name in the table, where it is another than the file's.")
    ] = None,
    manifest: ManifestOption = None,
    cache: Cache = Path("cache"),
    workers: Workers = 1,
) -> None:
    """Fit calibration and thresholds, and write them into the model file.

    With --scores they are fitted on the table's held-out rows: images of kinds that the scoring model was not trained
    on. Without it a run is calibrated on the test images of its own prepared data set. The file says which. Kinds weigh
    the same within a class, and both classes weigh the same.

    \b
    Examples:
      faceauth lab calibrate runs/deit
      faceauth lab calibrate runs/accurate/detector.onnx --scores scores.parquet
    """
    need_lab()
    from faceauth.lab.evaluation import candidates, cross_fit, score_sets, score_table
    from faceauth.lab.training.onnx_file import rewrite

    if scores is not None and manifest is not None:
        raise UsageError("--scores and --manifest at once", "choose the one that the model is to be calibrated with")
    [candidate] = candidates.open_candidates([model])
    if scores is None:
        [scores], _ = _score_runs([model], cache / "calibration", manifest, cache, workers)
    rows = score_sets.answered(score_sets.score_rows(score_table.read(scores)))
    names = score_sets.detectors(rows)
    wanted = (name,) if name else (candidate.name, candidate.card.name)
    found = next((n for n in wanted if n in names), None)
    if found is None:
        raise UsageError(f"the table has no model {wanted[-1]!r}", f"say with --name which one of {', '.join(names)}")
    card = cross_fit.fit_card(candidate.card, rows[rows["model"] == found])
    rewrite(candidate.file, card)
    limits = card.thresholds
    typer.echo(f"score = sigmoid({card.calibration.scale:.3f} x logit {card.calibration.shift:+.3f})")
    typer.echo(f"fake from {limits.fake:.3f}, real to {limits.real:.3f}, on {limits.measured_on}")


def prototypes(
    model: Rewritten,
    manifest: ManifestOption = None,
    also: Annotated[
        list[str] | None, typer.Option("--also", help="A source it was not trained on, to be named too; repeatable.")
    ] = None,
    cache: Cache = Path("cache"),
    workers: Workers = 1,
) -> None:
    """Let a model file name generators: write prototypes of its sources into it, for detect and learn.

    They are fitted on train images and calibrated on test. The threshold of "unknown" is set by taking each generator's
    prototype away in turn.

    \b
    Examples:
      faceauth lab prototypes runs/deit
    """
    need_lab()
    from faceauth.lab.evaluation import prototypes as made
    from faceauth.lab.evaluation.candidates import open_candidates, open_examples

    [candidate] = open_candidates([model])
    _, examples = open_examples([candidate], manifest, "train")
    embedded = made.embed_prepared(candidate.file, examples, cache, workers)
    found = made.prototypes(embedded, also or [])
    made.write(candidate.file, found)
    typer.echo(f"{len(found.kinds)} prototypes from {found.fitted_on}; temperature {found.temperature:.2f}")
    typer.echo(f"unknown fitted on {found.unknown.fitted_on}")


def evaluate(
    given: Annotated[
        list[Path],
        typer.Argument(metavar="SCORES...", help="Tables of scores (.parquet), or finished runs and model files."),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A folder for JSON, Markdown, CSV and an HTML page.")
    ] = None,
    models: Annotated[
        list[str] | None, typer.Option("--model", help="Evaluate only this model of the tables; repeatable.")
    ] = None,
    open_dev: Annotated[
        bool, typer.Option("--open-dev", help="Figures of the sealed dev set; the ledger gets a line first.")
    ] = False,
    ledger: Annotated[
        Path | None, typer.Option(help="By default dev_ledger.jsonl beside the table of scores, or the manifest.")
    ] = None,
    manifest: ManifestOption = None,
    per_source: PerSource = None,
    cache: Cache = Path("cache"),
    workers: Workers = 1,
    seed: Seed = 0,
) -> None:
    """Evaluate tables of scores: everything that the protocol names, with the controls beside every model.

    Prints the tables, and with -o writes them. Runs and model files are first scored on a prepared data set, the split
    test, into OUTPUT/scores.parquet; --manifest, --per-source, --workers and --seed are theirs.

    \b
    Examples:
      faceauth lab evaluate scores.parquet controls.parquet -o report/
      faceauth lab evaluate scores.parquet --model clip -o report/ --open-dev
      faceauth lab evaluate runs/deit runs/vit -o evaluation --workers 4
    """
    need_tables()
    from faceauth.lab.evaluation.evaluate import evaluate_files, open_tables
    from faceauth.lab.evaluation.pages import text, write_evaluation

    if all(path.suffix == ".parquet" for path in given):
        tables = given
        opening = open_tables(tables, ledger or tables[0].parent / "dev_ledger.jsonl") if open_dev else None
    else:
        folder = output or cache / "evaluation"
        tables, opening = _score_runs(given, folder, manifest, cache, workers, seed, per_source, open_dev, ledger)
    found = evaluate_files(tables, models or (), opening)
    if output:
        write_evaluation(found, output)
    typer.echo(text(found), nl=False)


def _score_runs(
    runs: list[Path], folder: Path, manifest: Path | None, cache: Path, workers: int, seed: int = 0,
    per_source: int | None = None, open_dev: bool = False, ledger: Path | None = None,
) -> tuple[list[Path], "Opening | None"]:  # fmt: skip
    """Score runs on their prepared data set; the table's file, and the ledger's line where dev is opened."""
    if any(path.suffix == ".parquet" for path in runs):
        raise UsageError("tables of scores and runs at once", "give the tables of scores alone")
    need_lab()
    from faceauth.lab.data.dataset import read_dataset
    from faceauth.lab.evaluation.candidates import manifest_of, open_candidates
    from faceauth.lab.evaluation.ledger import open_dev as open_
    from faceauth.lab.evaluation.prepared import score_prepared

    candidates = open_candidates(runs)
    opened = read_dataset(manifest or manifest_of(candidates))
    opening = None
    if open_dev:
        models = {c.name: c.sha256 for c in candidates}
        opening = open_(ledger or opened.root / "dev_ledger.jsonl", opened.sha256, models, "score and evaluate")
    path = folder / "scores.parquet"
    score_prepared(candidates, opened, path, cache, workers, seed, per_source, opening)
    return [path], opening


def score(
    config: Annotated[Path, typer.Argument(help="A config with [encoders]: its data set, kinds, variants and folds.")],
    models: Annotated[list[Path] | None, typer.Argument(help="Model files to score beside the controls.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The table of scores.")] = Path("scores.parquet"),
    cache: Cache = Path("cache"),
    workers: Annotated[
        int | None, typer.Option(help="Processes; one, with --engine ray one a processor of the cluster.", min=1)
    ] = None,
    engine: EngineName = None,
    address: Address = None,
) -> None:
    """Score model files, and the controls that see no face, on a data set in every variant of the protocol.

    Computed once and kept in the cache. Dev images take no part. Fold models of frozen encoders are scored by
    faceauth lab train --folds; give both tables to faceauth lab evaluate.

    \b
    Examples:
      faceauth lab score configs/accurate.toml -o controls.parquet --workers 2
      faceauth lab score configs/accurate.toml old.onnx other.onnx -o scores.parquet
      faceauth lab score configs/accurate.toml -o controls.parquet --engine ray --address auto
    """
    need_lab()
    from faceauth.lab.evaluation import score_models, score_table
    from faceauth.lab.run_info import run_info
    from faceauth.lab.training.frozen import deal_rows, read_config

    read = read_config(config)
    dealt = deal_rows(read, cache)
    with chosen(engine, address, workers) as given:
        store = score_models.ScoreStore(cache)
        table, fitted_on = score_models.score(read, dealt, models or [], store, given or 1)
    score_table.write(output, table, {**run_info(dealt.data.sha256), "controls": fitted_on})
    typer.echo(f"{output}: {len(table)} rows of {table['model'].nunique()} models")


def ablate(
    config: Encoders,
    blocks: Annotated[
        int, typer.Option(help="Blocks of the transformer, to leave some out; 0 for another network.", min=0)
    ] = 0,
    runs: RunFolders = Path("runs"),
    cache: Features = Path("cache"),
    workers: Workers = 1,
) -> None:
    """Say what each part of a detector on a frozen encoder is worth: fit it without, on the same folds.

    Features, views, families and shares of the training images, and the weights of the fit, one change at a time. One
    seed of each deal, and the output that tells generated from real images alone: AUROC, the mean over the folds.

    \b
    Examples:
      faceauth lab ablate configs/accurate.toml --blocks 12
      faceauth lab ablate configs/fast.toml
    """
    need_lab()
    from faceauth.lab.evaluation.ablations import ablations
    from faceauth.lab.evaluation.tables import markdown
    from faceauth.lab.training.frozen import examples, prepare, read_config

    prepared = prepare(read_config(config), cache, workers)
    typer.echo(markdown(ablations(prepared, examples(prepared), runs / prepared.config.name, blocks)))


def nested(
    config: Encoders,
    runs: RunFolders = Path("runs"),
    cache: Features = Path("cache"),
    workers: Workers = 1,
) -> None:
    """Say what the model that ships does with kinds it has never seen: make it again without each fold.

    The scores of faceauth lab train --folds are those of single heads; what ships is their mean, with a threshold set
    on single heads. Here heads, threshold and mean are made without a fold, which the mean then judges.

    \b
    Example:
      faceauth lab nested configs/accurate.toml
    """
    need_lab()
    from faceauth.lab.evaluation.nested import nested as nested_
    from faceauth.lab.evaluation.tables import markdown
    from faceauth.lab.training.frozen import examples, prepare, read_config

    prepared = prepare(read_config(config), cache, workers)
    typer.echo(markdown(nested_(prepared, examples(prepared), runs / prepared.config.name)))


def attribution(
    config: Annotated[Path, typer.Argument(help="A config with [encoders] that faceauth lab train --folds has run.")],
    runs: Annotated[Path, typer.Option(help="Where its run folder is.")] = Path("runs"),
    cache: Cache = Path("cache"),
    workers: Workers = 1,
) -> None:
    """Say how well a model on frozen encoders names what made a picture: known generators, unknown and taught ones.

    On test images. Unknown and taught ones are named by the folds' models, whose embedding and prototypes were made
    without them.

    \b
    Example:
      faceauth lab attribution configs/accurate.toml
    """
    need_lab()
    from faceauth.lab.evaluation import tables
    from faceauth.lab.evaluation.open_set import attribution_tables
    from faceauth.lab.evaluation.ship import embed_shipped
    from faceauth.lab.training.frozen import examples, prepare, read_config

    prepared = prepare(read_config(config), cache, workers)
    embedded = embed_shipped(prepared, examples(prepared), runs / prepared.config.name)
    views = prepared.config.views.train[: embedded.outputs[0].logit.shape[1]]
    for title, rows in attribution_tables(embedded, views).items():
        typer.echo(f"## {title}\n\n{tables.markdown(rows)}\n")


def embed(
    run: Run,
    manifest: ManifestOption = None,
    split: Split = "test",
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
    from faceauth.lab.evaluation import candidates, embeddings

    [candidate] = candidates.open_candidates([run])
    if output.suffix not in {".npz", ".parquet"}:
        raise UsageError(
            f"embeddings are not written as {output.suffix or 'a file without suffix'}", ".npz or .parquet"
        )
    _, examples = candidates.open_examples([candidate], manifest, split)
    found = embeddings.embed(candidate, examples, split, cache, workers)
    found.save(output)
    typer.echo(f"{output}: {found.embedding.shape[0]} embeddings of {found.embedding.shape[1]} values")


def tsne(
    run: Run,
    manifest: ManifestOption = None,
    split: Split = "test",
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
    from faceauth.detector import Detector
    from faceauth.lab.evaluation import candidates, embeddings, figures, pages, tables

    [candidate] = candidates.open_candidates([run])
    file = output / "map.npz"
    if place and file.is_file():
        map_ = embeddings.load_map(file, candidate.sha256)
    else:
        opened, examples = candidates.open_examples([candidate], manifest, split)
        chosen = embeddings.embed(candidate, examples, split, cache, workers, per_source, seed)
        map_ = embeddings.tsne(chosen, seed, perplexity, candidate.sha256, opened.sha256)
        map_.save(file)
        figures.save(figures.tsne_map(map_, candidate.name), output, "tsne")
        pages.write(output / "tsne.csv", tables.to_csv(embeddings.table(map_)))
        pages.write(output / "clusters.csv", tables.to_csv(clusters := embeddings.clusters(chosen, seed)))
        typer.echo(tables.markdown(clusters))
    if place:
        embedded = Detector(candidate.file, learned=False).embed([str(path) for path in place])
        points = map_.place(embedded).tolist()
        named = {str(path): point for path, point in zip(place, points, strict=True)}
        figures.save(figures.tsne_map(map_, candidate.name, named), output, "placed")
        for path, (x, y) in named.items():
            typer.echo(f"{path}: {x:.2f}, {y:.2f}; nearest {map_.nearest((x, y))}")


def spectrum(
    manifest: Annotated[Path, typer.Option(help="The prepared data set.")],
    split: Split = "test",
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
    from faceauth.lab.evaluation import candidates, figures, pages, tables
    from faceauth.lab.evaluation.spectrum import CAVEAT, source_spectra

    _, examples = candidates.open_examples([], manifest, split)
    found = source_spectra(examples, split, per_source, seed, workers)
    figures.save(figures.spectrum_grid(found), output, "spectra")
    figures.save(figures.spectrum_profiles(found), output, "profiles")
    pages.write(output / "profiles.csv", tables.to_csv([row for s in found for row in s.rows()]))
    typer.echo(CAVEAT, err=True)
    typer.echo(tables.markdown([s.summary() for s in found]))


def report(
    runs: Runs,
    manifest: ManifestOption = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page; Markdown is written beside it.")] = Path(
        "report.html"
    ),
    evaluation: Annotated[
        Path | None, typer.Option(help="An evaluation.json of these runs; by default they are evaluated on test now.")
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
    from faceauth.lab.evaluation.candidates import manifest_of, open_candidates
    from faceauth.lab.evaluation.evaluate import evaluate_files
    from faceauth.lab.evaluation.report import read_evaluation
    from faceauth.lab.evaluation.report import report as report_

    if output.suffix.lower() not in {".html", ".htm"}:
        raise UsageError(f"a report is not written as {output.suffix or 'a file without suffix'}", "-o report.html")
    candidates = open_candidates(runs)
    path = manifest or manifest_of(candidates)
    opened = read_dataset(path)
    if evaluation:
        found = read_evaluation(evaluation, candidates, opened)
    else:
        tables, _ = _score_runs(runs, cache / "report", path, cache, workers, seed, per_source)
        found = evaluate_files(tables)
    for file in report_(candidates, opened, found, output, cache, workers, seed, pictures):
        typer.echo(file)
