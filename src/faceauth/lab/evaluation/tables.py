"""Rows as tables: Markdown and CSV. An interval is a mapping of value, low and high."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
TITLES = {  # the tables of an evaluation, in order: a title, and how to read the rows
    "headline": ("Headline", "score = P(fake). Real against GAN and diffusion images. Unseen kind: held out with all "
        "its relatives; unseen source: other sources of its kind may be known. The mean over the folds of both seeds, "
        "with a 95 % interval from resampling kinds. Balanced accuracy is at the threshold for fake. ECE is given with "
        "both classes weighing the same, and raw; by chance: of calibrated scores on as few images. matched: face "
        "boxes of 128 px, one size and codec."),
    "plain": ("What pictures are called", "Shares of images, at the thresholds; unseen ones where there are some."),
    "worth": ("What fake is worth", "The share of images called fake that are fake, where one picture in two, in ten, "
        "in a hundred is."),
    "seen_unseen": ("Seen beside unseen", "AUROC on new images of the kinds trained on, and on what is held out."),
    "controls": ("Controls", "AUROC of what sees no face: facts of the file, a 16 x 16 thumbnail; and of the model "
        "with the face painted over, and all but the face. A control counts by its distance from 0.5."),
    "special": ("Swaps, restored, edited",
        "Against the real images of the same fold. Edited images are in neither class."),
    "robustness": ("What one change does", "The same images saved three times (JPEG, WEBP, JPEG), with noise, in grey, "
        "blurred, cropped, at half size and back, and laundered: put through an autoencoder of real faces "
        "(faceauth lab launder). Verdict changed: share that is called otherwise than clean."),
    "false_alarms": ("Thresholds and bounds", "split conformal: for this model and kinds it was not trained on. "
        "cross-conformal: for the fold models of a seed asked together (Vovk 2015; Barber et al. 2021), not for a "
        "model trained again on everything."),
    "left_out": ("Real kinds left out", "The threshold is set on the other kinds, the rate measured on that one."),
    "left_out_kinds": ("Real kinds left out, one by one", ""),
    "study": ("The study's table", "At logit 0; 1 = real is the positive class, as in the study. AUROC comes from "
        "scores. The study's printed AUROC (0.83243) equals its balanced accuracy, which stands beside it here."),
    "real_sources": ("Real sources", "Share called fake, wanted low, and share uncertain."),
    "fake_sources": ("Fake sources", "Share caught, wanted high, and share uncertain."),
    "worst": ("Worst mistakes", "On the wrong side of 0.5, clean."),
    "folds": ("Fold by fold", ""),
    "control_folds": ("Controls, fold by fold", "AUROC on the images that model and control both answer."),
    "calibration": ("Calibrations used", "score = sigmoid(scale x logit + shift); kinds and classes weigh the same."),
    "counts": ("Images", "Answered images of each variant; without a face and errors have no score."),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a title, with a sentence on how to read them; `key` names its file."""

    key: str
    title: str
    note: str
    rows: Sequence[Row]


def heads(rows: Sequence[Row]) -> list[str]:
    """The columns: every row's keys, in the order in which they first come. Rows need not have the same."""
    return list(dict.fromkeys(head for row in rows for head in row))


def cell(value: Any) -> str:
    """One value as text: three decimals, an interval in parentheses, a dash for what is not defined."""
    if isinstance(value, Mapping):
        between = cell(None) if value["low"] is None else f"{cell(value['low'])}-{cell(value['high'])}"
        return f"{cell(value['value'])} ({between})"
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table, a dash where a row lacks a column. HTML and bars in the values are made harmless."""
    columns = heads(rows)
    lines = [f"| {' | '.join(map(_plain, columns))} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(_plain(cell(row.get(head))) for head in columns)} |" for row in rows]
    return "\n".join(lines)


def _plain(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|")
    return " ".join(escaped.split())


def to_csv(rows: Sequence[Row]) -> str:
    """Comma-separated values at full precision; an interval takes three columns."""
    flat = [_flat(row) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, heads(flat), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for head, value in row.items():
        if isinstance(value, Mapping):
            flat |= {head: value["value"], f"{head} low": value["low"], f"{head} high": value["high"]}
        else:
            flat[head] = value
    return flat
