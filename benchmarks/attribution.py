"""Print how well a model names what made a face: `python benchmarks/attribution.py`. Tables of docs/attribution.md.

Known generators by the model itself; unknown and taught ones by the models trained without them. Judged on test
images unless told otherwise: what `unknown` means is fitted on other generators than the one judged, but the
temperature on test too, so that figure alone is flattered there. Needs the corpus and the fold models (docs/train.md).
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import copyfile

import numpy as np

from faceauth.attribution import Attributor, Prototypes
from faceauth.errors import FaceAuthError
from faceauth.lab.evaluation import naming, prototypes, tables
from faceauth.lab.evaluation.ledger import open_dev
from faceauth.lab.evaluation.naming import Fold, Taken
from faceauth.lab.evaluation.prototypes import SEEN_IN, Left, Looked
from faceauth.lab.training.folder import commit
from faceauth.model_file import ModelFile, embedded_path

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Parse, look, judge, print."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--model", type=Path, default=embedded_path(), help="model file to evaluate")
    asked.add_argument("--fold", type=Path, action="append", help="a fold's model file; benchmarks/folds/*.onnx")
    asked.add_argument("--corpus", type=Path, default=HERE.parent.parent / "shared" / "data")
    asked.add_argument("--cache", type=Path, default=Path("cache"))
    asked.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked.add_argument(
        "--open-dev", dest="part", action="store_const", const="dev", default="test",
        help="the sealed dev images instead of test; the opening is written to benchmarks/dev_ledger.jsonl first",
    )  # fmt: skip
    asked.add_argument("--also", action="append", help="a source the model was not trained on, to be named too")
    asked.add_argument("--figures", type=Path, help="a folder for the confusion matrix and the tree as pictures")
    args = asked.parse_args()
    models = [args.model, *(args.fold or sorted((HERE / "folds").glob("*.onnx")))]
    parts = ("train", "test", "dev") if args.part == "dev" else ("train", "test")
    try:
        if args.part == "dev":
            card = ModelFile(args.model).card
            models_sha256 = {card.name: hashlib.sha256(args.model.read_bytes()).hexdigest()}
            open_dev(HERE / "dev_ledger.jsonl", card.data_sha256, models_sha256, "attribution")
        looked = prototypes.look_at_corpus(models, args.corpus, args.cache, args.workers, parts)
        found = prototypes.prototypes(looked, args.also or [])
        folds, left = naming.folds(found, looked)
        for line in _report(args, looked, found, folds, left):
            print(line, flush=True)
    except FaceAuthError as error:
        sys.exit(f"error: {error}")


def _report(
    args: argparse.Namespace, looked: Looked, found: Prototypes, folds: Sequence[Fold], left: Sequence[Left]
) -> Iterator[str]:
    card = looked.cards[0]
    digest = hashlib.sha256(args.model.read_bytes()).hexdigest()
    yield (
        f"{card.name} {card.version}, model {digest[:16]}, corpus {card.data_sha256[:16]}, part {args.part}, "
        f"split seed 0, commit {commit()[:12]}"
    )
    yield f"command: `python benchmarks/attribution.py{' --open-dev' if args.part == 'dev' else ''}`"
    yield f"prototypes of {found.fitted_on}; temperature {found.temperature:.2f}; 95 % bootstrap intervals"
    yield from _known(args.part, looked, found)
    yield from _unknown(args.part, looked, folds, left)
    yield from _learning(args.part, looked, folds)
    yield from _timing(args, looked, folds)
    yield from _map(args, looked, found)


def _known(part: str, looked: Looked, found: Prototypes) -> Iterator[str]:
    attributor = Attributor(found)
    sources = {k.name for k in found.kinds}
    rows = looked.where(lambda r: r.source in sources, part)
    named = [naming.name(attributor, looked, 0, rows, variant) for variant in range(len(SEEN_IN))]
    yield "\nKnown generators, share of fakes named right (wanted: generator 0.92 / 0.85, family 0.95 / 0.90):\n"
    yield f"| named right | {' | '.join(SEEN_IN)} |\n|---|{'---|' * len(SEEN_IN)}"
    for kind in ("generators", "families"):
        for closed, given in ((True, "given that it is one of them"), (False, "camera and unknown are answers too")):
            yield f"| {kind}, {given} | {' | '.join(str(n.accuracy(kind, closed)) for n in named)} |"
    cells = [np.mean([a.generator == "camera" for a, f in zip(n.answers, n.fake, strict=True) if not f]) for n in named]
    yield f"| real photographs: camera | {' | '.join(f'{c:.3f}' for c in cells)} |"
    heads = " | ".join(f"{kind}, {variant}" for kind in ("given a known fake", "all answers") for variant in SEEN_IN)
    yield f"\n| generator | n | {heads} |\n|---|---|{'---|' * 2 * len(SEEN_IN)}"
    for generator in sorted({g for g, f in zip(named[0].generators, named[0].fake, strict=True) if f}):
        own = named[0].generators == generator
        cells = [n.right("generators", closed)[own].mean() for closed in (True, False) for n in named]
        yield f"| {generator} | {own.sum()} | {' | '.join(f'{c:.2f}' for c in cells)} |"


def _unknown(part: str, looked: Looked, folds: Sequence[Fold], left: Sequence[Left]) -> Iterator[str]:
    of = {fold.model: fold for fold in folds}
    rows = [naming.novel(of[one.model], one, looked, v) for one in left if one.model in of for v in range(len(SEEN_IN))]
    if not rows:
        return
    yield "\nUnknown against known, each generator left out by a model trained without it (wanted: AUROC 0.85).\n"
    if part == "dev":
        yield "These images are those of test: on the left-out generators nothing was fitted.\n"
    yield "| left out | variant | n | AUROC | called unknown | known called unknown | else taken for |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        taken = ", ".join(f"{name} {count}" for name, count in row.taken_for)
        yield (
            f"| {row.generator} | {SEEN_IN[row.variant]} | {row.images} | {row.auroc} | {row.said:.2f} | "
            f"{row.of_known:.2f} | {taken} |"
        )
    for variant, label in enumerate(SEEN_IN):
        mean = np.mean([r.auroc.value for r in rows if r.variant == variant])
        yield f"| **mean** | {label} | | **{mean:.3f}** | | | |"


def _learning(part: str, looked: Looked, folds: Sequence[Fold]) -> Iterator[str]:
    variants = range(len(SEEN_IN))
    lessons = [(fold, source) for fold in folds for source in naming.lessons_of(fold, looked, part)]
    rows = [t for fold, source in lessons for t in naming.teach(fold, looked, source, part, variants)]
    if not rows:
        return
    if whole := sorted({s for fold in folds for s in fold.held} - {s for _, s in lessons}):
        yield f"\nNot taught, as all their images are train or none is: {', '.join(whole)}."
    yield f"\n`learn` with {naming.LESSON} images of a source left out, mean of {naming.DRAWS} lessons; before → after."
    yield "Wanted: recall 0.70, others down by at most 0.01; false alarms of a taught camera halved.\n"
    for fake in (True, False):
        first = "recall | own called fake" if fake else "own called fake (false alarms)"
        yield (
            f"\n| taught {'generator' if fake else 'camera'} | variant | lesson | n | {first} | others named right | "
            + ("known fakes caught | known real called fake | other unseen fakes caught | refused |")
        )
        yield "|---" * (10 + fake) + "|"
        chosen = [t for t in rows if t.fake == fake]
        yield from (_taken_row(t) for t in chosen)
        for variant in range(len(SEEN_IN)) if chosen else ():
            yield _mean_row([t for t in chosen if t.variant == variant])


def _pair(pair: tuple[float, float]) -> str:
    return "" if np.isnan(pair).any() else f"{pair[0]:.3f} → {pair[1]:.3f}"


def _taken_row(t: Taken) -> str:
    recall = f"{t.recall:.2f} | " if t.fake else ""
    pairs = " | ".join(_pair(p) for p in (t.flagged, t.others, t.caught, t.alarms, t.unseen))
    refused = f"{t.refused}/{naming.DRAWS}"
    return f"| {t.source} | {SEEN_IN[t.variant]} | {t.lesson} | {t.images} | {recall}{pairs} | {refused} |"


def _mean_row(rows: Sequence[Taken]) -> str:
    names = ("flagged", "others", "caught", "alarms", "unseen")
    values = [np.array([p for r in rows if not np.isnan(p := getattr(r, name)).any()]) for name in names]
    pairs = [v.mean(axis=0) if len(v) else np.full(2, np.nan) for v in values]
    recall = f"**{np.mean([r.recall for r in rows]):.2f}** | " if rows[0].fake else ""
    cells = " | ".join(_pair((float(p[0]), float(p[1]))) for p in pairs)
    return f"| **mean** | {SEEN_IN[rows[0].variant]} | | | {recall}{cells} | |"


def _timing(args: argparse.Namespace, looked: Looked, folds: Sequence[Fold]) -> Iterator[str]:
    """`learn` on 50 files of the first held-out generator that has as many, with a model that lacks it."""
    from faceauth import learning
    from faceauth.detector import Detector

    for fold in folds:
        for source in naming.lessons_of(fold, looked, args.part):
            rows = looked.where(lambda r, s=source: r.source == s and r.fake, "train")  # type: ignore[misc]
            if rows.sum() < learning.MOST:
                continue
            paths = [args.corpus / looked.records[i].path for i in np.flatnonzero(rows)[: learning.MOST]]
            models = args.fold or sorted((HERE / "folds").glob("*.onnx"))
            with tempfile.TemporaryDirectory() as folder:
                model = Path(folder) / "model.onnx"
                copyfile(models[fold.model - 1], model)
                prototypes.write(model, fold.prototypes)
                (Path(folder) / "pictures").mkdir()
                for path in paths:
                    copyfile(path, Path(folder) / "pictures" / path.name)
                detector = Detector(model, learned=False)
                start, processor = time.perf_counter(), time.process_time()
                try:
                    learning.learn(detector, "taught", Path(folder) / "pictures", Path(folder) / "learned.json")
                    said = "learned"
                except FaceAuthError as error:
                    said = f"refused ({error.message})"
                spent = f"{time.perf_counter() - start:.1f} s ({time.process_time() - processor:.1f} s of one core)"
            yield f"\n`learn` on {learning.MOST} images of {source}: {spent}, {said} (wanted: under 30 s)."
            return


def _map(args: argparse.Namespace, looked: Looked, found: Prototypes) -> Iterator[str]:
    table = naming.confusion(found, looked, args.part, 0)
    yield "\nWhich source is likeliest (columns) for images of a true source (rows), clean:\n"
    yield tables.markdown(table)
    yield "\nPrototypes joined step by step, nearest first (average linkage, in standard deviations within a source):\n"
    yield "| distance | joined | with |\n|---|---|---|"
    for a, b, distance in naming.joins(found):
        yield f"| {distance:.1f} | {a} | {b} |"
    if args.figures:
        from faceauth.lab.evaluation import figures

        title = f"{looked.cards[0].name}: likeliest source, {args.part}, clean"
        figures.save(figures.confusion(table, title), args.figures / "confusion.png", args.figures / "confusion.svg")
        figures.save(figures.tree(found), args.figures / "tree.png", args.figures / "tree.svg")


if __name__ == "__main__":
    main()
