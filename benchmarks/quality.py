"""Print how good a detector is: `python benchmarks/quality.py`. The tables of docs/train.md, as Markdown.

Three columns (seen, unseen, all together), each on the same images as they are and saved again, with the two
shortcut baselines beside the model, and other detectors side by side with it. Needs the corpus and the fold models: see
docs/train.md for the commands.
"""

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from faceauth.errors import FaceAuthError
from faceauth.lab.data.dataset import ImageRow, read_dataset
from faceauth.lab.evaluation import metrics
from faceauth.lab.evaluation.baselines import audit, spectrum_svm
from faceauth.lab.evaluation.promise import RATES, changes, real_sources_left_out
from faceauth.lab.evaluation.protocol import Column, Judged, judge, verdicts, with_calibration
from faceauth.lab.evaluation.scoring import VARIANTS
from faceauth.lab.training.folder import commit
from faceauth.model_file import ModelFile
from judging import HERE, folds_of, log_opening, parser
from side_by_side import Row, found_in, generated, rows_of, table

SWAPS = {"DFDC": ("dfdc-real", "dfdc-fake"), "inswapper": ("ffhq-256", "inswapper")}  # with what they were made from


def main() -> None:
    """Parse, judge, print."""
    asked = parser(__doc__)
    asked.add_argument("--blended", type=Path, default=HERE / "blended.onnx", help="a model of configs/blended.toml")
    asked.add_argument("--swaps", type=Path, default=HERE / "swaps.onnx", help="a model of configs/swaps.toml")
    asked.add_argument("--beside", type=Path, default=Path("runs/beside"), help="what benchmarks/beside.py made")
    args = asked.parse_args()
    try:
        judged = judge(args.model, folds_of(args), args.corpus, args.cache, args.part, workers=args.workers)
        if args.part == "dev":
            log_opening("quality", args.model, judged.card)
        judging = (judged.card, judged.folds, args.corpus, args.cache, args.part, args.workers)
        baselines = audit(*judging)
        beside = {"spectrum + SVM": spectrum_svm(*judging)} | baselines
        print("\n".join([*_report(args, judged, baselines), *_side_by_side(args, judged, beside)]))
    except FaceAuthError as error:
        sys.exit(f"error: {error}")


def _swapped(record: ImageRow) -> bool:
    """Face swaps, against the real photographs and films that they were made from."""
    return any(record.source in names for names in SWAPS.values())


def _columns(seen: Column, unseen: Column) -> dict[str, Column]:
    """The protocol's columns of generated faces, without those that lack a class."""
    columns = {
        "seen": seen.where(generated),
        "unseen": unseen.where(generated),
        "all together": (seen + unseen).where(generated),
    }
    return {name: column for name, column in columns.items() if _whole(column)}


def _whole(column: Column) -> bool:
    return bool(len(column.records) and column.fake.any() and not column.fake.all())


def _report(args: argparse.Namespace, judged: Judged, baselines: dict[str, tuple[Column, Column]]) -> Iterator[str]:
    card = judged.card
    digest = hashlib.sha256(args.model.read_bytes()).hexdigest()
    yield (
        f"{card.name} {card.version}, model {digest[:16]}, corpus {card.data_sha256[:16]}, "
        f"part {args.part}, split seed 0, commit {commit()[:12]}"
    )
    yield f"command: `python benchmarks/quality.py{' --open-dev' if args.part == 'dev' else ''}`"
    yield f"fake from {card.thresholds.fake:.3f}, real to {card.thresholds.real:.3f}; 95 % bootstrap intervals"
    columns = _columns(judged.seen, judged.unseen)
    yield from _main_table(card.thresholds.fake, judged, columns)
    yield from _swap_table(args, judged)
    yield from _audit_table(baselines)
    yield from _fold_table(judged)
    yield from _source_table(judged)
    yield from _promise_table(judged)
    yield from _stability_table(judged, columns)


def _main_table(fake_from: float, judged: Judged, columns: dict[str, Column]) -> Iterator[str]:
    heads = f"column | images | n | AUROC | balanced accuracy at {fake_from:.3f} | at 0.5 | TPR at 1 % FPR | EER | "
    heads += "ECE (by chance) | Brier | real called fake | fake caught | uncertain real / fake"
    yield f"\n| {heads} |\n{'|---' * 13}|"
    balanced = partial(metrics.balanced_accuracy, threshold=fake_from)
    for name, column in columns.items():
        fake, groups = column.fake, column.groups
        for variant in VARIANTS:
            scores = with_calibration(judged.card, column, variant)
            wanted: dict[str, metrics.Metric] = {"area": metrics.auroc, "balanced": balanced}
            found = metrics.intervals(wanted, scores, fake, groups)
            unsure = verdicts(judged.card, column, variant) == "uncertain"
            yield (
                f"| {name} | {variant} | {len(fake)} | {found['area']} | {found['balanced']} | "
                f"{metrics.balanced_accuracy(scores, fake):.3f} | "
                f"{metrics.tpr_at_fpr(scores, fake):.3f} | "
                f"{metrics.eer(scores, fake):.3f} | {metrics.calibration_error(scores, fake):.3f} "
                f"({metrics.calibration_chance(scores, fake):.3f}) | "
                f"{metrics.brier(scores, fake):.3f} | "
                f"{(scores[~fake] >= fake_from).mean():.1%} | {(scores[fake] >= fake_from).mean():.1%} | "
                f"{unsure[~fake].mean():.1%} / {unsure[fake].mean():.1%} |"
            )


def _audit_table(baselines: dict[str, tuple[Column, Column]]) -> Iterator[str]:
    yield "\nThe shortcut audit, AUROC of classifiers that see no face:\n"
    yield f"| baseline | column | {' | '.join(VARIANTS)} |\n|---|---|{'---|' * len(VARIANTS)}"
    for name, (seen, unseen) in baselines.items():
        for part, column in _columns(seen, unseen).items():
            areas = [metrics.auroc(column.logits[:, i], column.fake) for i in range(len(VARIANTS))]
            yield f"| {name} | {part} | {' | '.join(f'{a:.3f}' for a in areas)} |"


def _swap_table(args: argparse.Namespace, judged: Judged) -> Iterator[str]:
    """Face swaps: by the judged model, by one that knows blended photographs alone, and by one of swaps alone."""
    by = {f"{judged.card.name}, never trained on them": judged}
    for path, name in (
        (args.blended, "blended photographs alone, never trained on them or what they were made from"),
        (args.swaps, "swaps alone, new images of its sources"),
    ):
        if path.is_file() and ModelFile(path).card.data_sha256 == judged.card.data_sha256:
            by[name] = judge(path, (), args.corpus, args.cache, args.part, workers=args.workers)
    rows = {}
    for name, found in by.items():
        rows[name] = whole = (found.foreign + found.seen).where(_swapped)
        rows |= {f"{name}: {kind}": whole.where(_of(names)) for kind, names in SWAPS.items()}
    yield "\nFace swaps, against the films and photographs that they were made from, AUROC:\n"
    yield f"| scored by | real / fake | {' | '.join(VARIANTS)} |\n|---|---|{'---|' * len(VARIANTS)}"
    for name, column in rows.items():
        if _whole(column):
            areas = [metrics.auroc(column.logits[:, i], column.fake) for i in range(len(VARIANTS))]
            counts = f"{(~column.fake).sum()} / {column.fake.sum()}"
            yield f"| {name} | {counts} | {' | '.join(f'{a:.3f}' for a in areas)} |"


def _of(names: tuple[str, ...]) -> Callable[[ImageRow], bool]:
    return lambda record: record.source in names


def _side_by_side(args: argparse.Namespace, judged: Judged, beside: dict[str, tuple[Column, Column]]) -> Iterator[str]:
    own = Row.of_model(f"**{judged.card.name} {judged.card.version}**", judged.card, judged.seen, judged.unseen)
    families, left_out = found_in(args.beside, read_dataset(args.corpus))
    trained = rows_of(families, args.corpus, args.cache, args.part, args.workers)
    yield from table([own, *trained, *(Row(name, *columns) for name, columns in beside.items())], left_out)


def _fold_table(judged: Judged) -> Iterator[str]:
    if not judged.folds:
        return
    yield "\nFold by fold, AUROC on the sources held out:\n"
    yield f"| held out | n | {' | '.join(VARIANTS)} |\n|---|---|{'---|' * len(VARIANTS)}"
    areas = []
    for number, held in enumerate(judged.folds, start=1):
        rows = judged.unseen.fold == number
        fake = judged.unseen.fake[rows]
        if fake.all() or not fake.any():
            continue  # a collection of photographs alone, without a generator to tell it from
        areas.append([metrics.auroc(with_calibration(judged.card, judged.unseen, v)[rows], fake) for v in VARIANTS])
        yield f"| {', '.join(held)} | {rows.sum()} | {' | '.join(f'{a:.3f}' for a in areas[-1])} |"
    yield f"| **mean of the folds** | | {' | '.join(f'{a:.3f}' for a in np.mean(areas, axis=0))} |"


def _source_table(judged: Judged) -> Iterator[str]:
    yield "\nSource by source, share called fake (wanted: low for real, high for fake):\n"
    yield "| source | label | n | seen clean | seen web | seen hard | unseen clean | unseen web | unseen hard |"
    yield "|---|---|---|---|---|---|---|---|---|"
    known = dict(zip(judged.card.sources, judged.card.labels, strict=True))
    for column in (judged.foreign, judged.edited):
        known |= {record.source: record.label for record in column.records}
    for source, label in known.items():
        cells, count = [], 0
        for column in (judged.seen, judged.unseen + judged.foreign + judged.edited):
            rows = column.where(lambda r, s=source: r.source == s)  # type: ignore[misc]
            for variant in VARIANTS[:3]:
                flagged = with_calibration(judged.card, rows, variant) >= judged.card.thresholds.fake
                cells.append(f"{flagged.mean():.0%}" if len(flagged) else "")
            count = max(count, len(rows.records))
        yield f"| {source} | {label} | {count} | {' | '.join(cells)} |"


def _promise_table(judged: Judged) -> Iterator[str]:
    yield "\nFalse alarms on real sources left out: the threshold is set on the other sources' photos of this part,"
    yield "clean, web and hard pooled, to keep the rate promised:\n"
    yield "| promised | source left out | n | called fake at the first look | called fake |\n|---|---|---|---|---|"
    rows = list(real_sources_left_out(judged.card, judged.unseen if judged.folds else judged.seen))
    for rate in RATES:
        kept = [row for row in rows if row.promised == rate and row.threshold is not None]
        if not kept:
            yield f"| {rate:.0%} | *too few real photos to promise it* | | | |"
        for row in kept:
            yield f"| {rate:.0%} | {row.source} | {row.n} | {row.first:.1%} | {row.measured:.1%} |"
        rates = np.array([(row.first, row.measured) for row in kept], float).reshape(-1, 2)
        for name, of in (("mean", np.mean), ("worst", np.max)) if kept else ():
            first, called = of(rates, axis=0)
            yield f"| **{rate:.0%}** | **{name}** | | {first:.1%} | {called:.1%} |"


def _stability_table(judged: Judged, columns: dict[str, Column]) -> Iterator[str]:
    yield "\nVerdicts that change when a clean picture is saved again, and those that flip between real and fake:\n"
    yield "| column | saved again | changed, first look alone | changed | flipped, first look alone | flipped |"
    yield "|---|---|---|---|---|---|"
    for name, column in columns.items():
        for c in changes(judged.card, column):
            shares = (c.changed_alone, c.changed, c.flipped_alone, c.flipped)
            yield f"| {name} | {c.variant} | {' | '.join(f'{share:.1%}' for share in shares)} |"


if __name__ == "__main__":
    main()
