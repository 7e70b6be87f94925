"""Print how good a detector is: `python benchmarks/quality.py`. The table of docs/protocol.md, as Markdown.

Three columns (seen, unseen, all together), each on the same images as they are and saved again, with the two
shortcut baselines beside the model, and other detectors side by side with it. Needs the corpus and the fold models: see
docs/train.md for the commands.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from faceauth.errors import FaceAuthError
from faceauth.lab.data.sources import Record, read_corpus
from faceauth.lab.evaluation import metrics
from faceauth.lab.evaluation.baselines import audit, spectrum_svm
from faceauth.lab.evaluation.promise import RATES, changes, real_sources_left_out
from faceauth.lab.evaluation.protocol import Column, Judged, judge, verdicts, with_calibration
from faceauth.lab.evaluation.scoring import VARIANTS
from faceauth.lab.training.folder import commit
from faceauth.model_file import embedded_path
from side_by_side import Row, found_in, generated, rows_of, table

HERE = Path(__file__).resolve().parent
LEDGER = HERE / "dev_ledger.jsonl"


def main() -> None:
    """Parse, judge, print."""
    args = _arguments()
    try:
        folds = args.fold or sorted((HERE / "folds").glob("*.onnx"))
        judged = judge(args.model, folds, args.corpus, args.cache, args.part, workers=args.workers)
        if args.part == "dev":
            _log_opening(args.model, judged)
        judging = (judged.card, judged.folds, args.corpus, args.cache, args.part, args.workers)
        baselines = audit(*judging)
        beside = {"spectrum + SVM": spectrum_svm(*judging)} | baselines
        print("\n".join([*_report(args, judged, baselines), *_side_by_side(args, judged, beside)]))
    except FaceAuthError as error:
        sys.exit(f"error: {error}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=embedded_path(), help="model file to judge")
    parser.add_argument("--fold", type=Path, action="append", help="a fold's model file; benchmarks/folds/*.onnx")
    parser.add_argument("--beside", type=Path, default=Path("runs/beside"), help="what benchmarks/beside.py made")
    parser.add_argument("--corpus", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--open-dev", dest="part", action="store_const", const="dev", default="test",
        help="judge on the sealed dev images instead of test; the opening is written to benchmarks/dev_ledger.jsonl",
    )  # fmt: skip
    return parser.parse_args()


def _log_opening(model: Path, judged: Judged) -> None:
    row = {
        "opened": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": f"{judged.card.name} {judged.card.version}",
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "corpus_sha256": judged.card.data_sha256,
        "commit": commit(),
    }
    with open(LEDGER, "a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(row) + "\n")


def _swapped(record: Record) -> bool:
    """Face swaps, against the real photographs and films that they were made from."""
    return record.family == "swap" or record.source in {"dfdc-real", "ffhq-256"}


def _columns(seen: Column, unseen: Column, foreign: Column | None = None) -> dict[str, Column]:
    """The protocol's columns, and face swaps in a block of their own; without those that lack a class."""
    columns = {
        "seen": seen.where(generated),
        "unseen": unseen.where(generated),
        "all together": (seen + unseen).where(generated),
    }
    if foreign is not None:
        columns["swaps, never trained on"] = (foreign + seen).where(_swapped)
    return {name: c for name, c in columns.items() if len(c.records) and c.fake.any() and not c.fake.all()}


def _report(args: argparse.Namespace, judged: Judged, baselines: dict[str, tuple[Column, Column]]) -> Iterator[str]:
    card = judged.card
    digest = hashlib.sha256(args.model.read_bytes()).hexdigest()
    yield (
        f"{card.name} {card.version}, model {digest[:16]}, corpus {card.data_sha256[:16]}, "
        f"part {args.part}, split seed 0, commit {commit()[:12]}"
    )
    yield f"command: `python benchmarks/quality.py{' --open-dev' if args.part == 'dev' else ''}`"
    yield f"fake from {card.thresholds.fake:.3f}, real to {card.thresholds.real:.3f}; 95 % bootstrap intervals"
    columns = _columns(judged.seen, judged.unseen, judged.foreign)
    yield from _main_table(card.thresholds.fake, judged, columns)
    yield from _audit_table(baselines)
    yield from _fold_table(judged)
    yield from _source_table(judged)
    yield from _promise_table(judged)
    yield from _stability_table(judged, columns)


def _main_table(fake_from: float, judged: Judged, columns: dict[str, Column]) -> Iterator[str]:
    heads = ["column", "images", "n", "AUROC", "balanced accuracy", "TPR at 1 % FPR", "EER", "ECE", "Brier"]
    yield f"\n| {' | '.join([*heads, 'real called fake', 'fake caught', 'uncertain real / fake'])} |\n{'|---' * 12}|"
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
                f"{metrics.tpr_at_fpr(scores, fake):.3f} | "
                f"{metrics.eer(scores, fake):.3f} | {metrics.calibration_error(scores, fake):.3f} | "
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


def _side_by_side(args: argparse.Namespace, judged: Judged, beside: dict[str, tuple[Column, Column]]) -> Iterator[str]:
    own = Row.of_model(f"**{judged.card.name} {judged.card.version}**", judged.card, judged.seen, judged.unseen)
    families, left_out = found_in(args.beside, read_corpus(args.corpus))
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
        areas.append(
            [
                metrics.auroc(with_calibration(judged.card, judged.unseen, v)[rows], judged.unseen.fake[rows])
                for v in VARIANTS
            ]
        )
        yield f"| {', '.join(held)} | {rows.sum()} | {' | '.join(f'{a:.3f}' for a in areas[-1])} |"
    yield f"| **mean of the folds** | | {' | '.join(f'{a:.3f}' for a in np.mean(areas, axis=0))} |"


def _source_table(judged: Judged) -> Iterator[str]:
    yield "\nSource by source, share called fake (wanted: low for real, high for fake):\n"
    yield "| source | label | n | seen clean | seen web | seen hard | unseen clean | unseen web | unseen hard |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for source, label in [
        *zip(judged.card.sources, judged.card.labels, strict=True),
        ("photoshop", "edited"),
    ]:
        cells = []
        for column in (judged.edited if label == "edited" else judged.seen, judged.unseen):
            rows = column.where(lambda r, s=source: r.source == s)  # type: ignore[misc]
            for variant in VARIANTS[:3]:
                flagged = with_calibration(judged.card, rows, variant) >= judged.card.thresholds.fake
                cells.append(f"{flagged.mean():.0%}" if len(flagged) else "")
            count = len(rows.records) or locals().get("count", 0)
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
