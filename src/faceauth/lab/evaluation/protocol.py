"""The tables of the protocol: every function takes scored rows (`cross_fit.cross_fitted`) and gives rows of a table.

The headline of a model is the mean over the folds of both seeds, with the worst fold, the pooled figure, the spread
between the seeds and an interval from resampling kinds beside it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import pandas as pd

from faceauth.lab.data.variants import ROBUSTNESS
from faceauth.lab.evaluation import metrics
from faceauth.lab.evaluation.metrics import Bools, Floats
from faceauth.lab.evaluation.score_sets import SEEN, SPECIAL, UNSEEN, VARIANTS

Row = dict[str, Any]
DRAWS = 500  # of the bootstrap
PREVALENCES = (1 / 2, 1 / 10, 1 / 100)
FAMILIES = {"gan": "GAN", "diffusion": "diffusion"}
PLAIN = ("real", "GAN", "diffusion", "other generated", "swapped", "restored", "edited")


@dataclass(frozen=True, slots=True)
class FoldSet:
    """The rows of one seed, fold, set and variant, as arrays of one length.

    Attributes:
        score: calibrated P(fake); ranking: what AUROC, TPR and EER order the images by, see `cross_fit.cross_fitted`;
            called: whether the verdict is fake; fake: the label; kinds: of the images.
    """

    seed: int
    fold: int
    score: Floats
    ranking: Floats
    called: Floats
    fake: Bools
    kinds: Any


def _auroc(f: FoldSet, weights: Floats | None) -> Any:
    return metrics.auroc(f.ranking, f.fake, weights)


FIGURES: Mapping[str, Callable[[FoldSet, Floats | None], Any]] = {
    "AUROC": _auroc,
    "TPR at 5 % FPR": lambda f, w: metrics.tpr_at_fpr(f.ranking, f.fake, w, 0.05),
    "TPR at 1 % FPR": lambda f, w: metrics.tpr_at_fpr(f.ranking, f.fake, w, 0.01),
    "balanced accuracy": lambda f, w: metrics.balanced_accuracy(f.called, f.fake, w, 0.5),
    "EER": lambda f, w: metrics.eer(f.ranking, f.fake, w),
    "ECE, classes balanced": lambda f, w: metrics.calibration_error(f.score, f.fake, w),
    "ECE, raw": lambda f, w: metrics.calibration_error(f.score, f.fake, w, balanced=False),
    "Brier": lambda f, w: metrics.brier(f.score, f.fake, w),
}
WITH_INTERVAL = ("AUROC", "balanced accuracy")


def fold_sets(rows: pd.DataFrame) -> list[FoldSet]:
    """Real and generated images by seed and fold; a fold that lacks a class is left out."""
    found = []
    rows = rows[rows["group"].isin(("real", "generated"))]
    for (seed, fold), part in rows.groupby(["seed", "fold"]):
        fake = (part["group"] == "generated").to_numpy()
        if fake.any() and not fake.all():
            score, ranking = part["score"].to_numpy(float), part["ranking"].to_numpy(float)
            called, kinds = (part["verdict"] == "fake").to_numpy(float), part["kind"].to_numpy(str)
            found.append(FoldSet(int(seed), int(fold), score, ranking, called, fake, kinds))
    return found


def columns(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Unseen and seen rows of one model and deal; a set without a class is left out.

    Where one class alone has unseen images they are laid against the seen of the other, and the name says so.
    """
    both = {"real", "generated"}
    unseen, seen = rows[rows["held_out"]], rows[rows["set"] == SEEN]
    there = both & set(unseen["group"])
    if there == both:
        yield main_set(rows), unseen
    elif there:
        [one], [other] = there, both - there
        yield f"unseen {one}, seen {other}", pd.concat([unseen, seen[seen["group"] == other]])
    if both <= set(seen["group"]):
        yield SEEN, seen


def main_set(rows: pd.DataFrame) -> str:
    """The name of the unseen set of a model's rows of one deal, or seen where nothing is held out."""
    held = rows[rows["held_out"]]["set"]
    return str(held.iloc[0]) if len(held) else SEEN


def by_variant(rows: pd.DataFrame, variants: Sequence[str] = VARIANTS) -> dict[str, pd.DataFrame]:
    """The rows of each variant that is there, in the order given, by default the protocol's."""
    parts = dict(iter(rows.groupby("variant")))
    return {variant: parts[variant] for variant in variants if variant in parts}


def with_matched(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """As `by_variant`; last the clean rows of the matched images."""
    parts = by_variant(rows)
    if {"matched", "clean"} <= set(parts):
        matched, clean = (pd.MultiIndex.from_frame(parts[v][["seed", "fold", "image"]]) for v in ("matched", "clean"))
        if (same := clean.isin(matched)).any():
            parts["clean, matched images"] = parts["clean"][same]
    return parts


def headline(rows: pd.DataFrame, draws: int = DRAWS) -> list[Row]:
    """One model's figures for each set and variant; see the module. Counts are of images, not of rows."""
    return [
        {"set": name, "variant": variant, **_summary(part, sets, draws)}
        for name, column in columns(rows) for variant, part in with_matched(column).items()
        if (sets := fold_sets(part))
    ]  # fmt: skip


def _summary(part: pd.DataFrame, sets: Sequence[FoldSet], draws: int) -> Row:
    areas = np.array([FIGURES["AUROC"](s, None) for s in sets])
    seeds = sorted({s.seed for s in sets})
    by_seed = [float(np.mean([a for a, s in zip(areas, sets, strict=True) if s.seed == seed])) for seed in seeds]
    row: Row = {"folds": len(sets), **_image_counts(part)}
    for name, figure in FIGURES.items():
        value = float(np.mean([figure(s, None) for s in sets]))
        row[name] = value if name not in WITH_INTERVAL else interval(figure, sets, value, draws)
        if name == "AUROC":
            row["AUROC, worst fold"] = float(areas.min())
            row["AUROC, pooled"] = pooled(metrics.auroc, part, "ranking")
            row["AUROC, spread of seeds"] = max(by_seed) - min(by_seed) if len(seeds) > 1 else None
        if name == "ECE, raw":
            row["ECE, raw, by chance"] = float(np.mean([metrics.calibration_error_by_chance(s.score) for s in sets]))
            row["ECE, pooled"] = pooled(partial(metrics.calibration_error, balanced=False), part)
    return row


def interval(figure: Callable[[FoldSet, Floats | None], Any], sets: Sequence[FoldSet], value: float, draws: int) -> Row:
    """The 95 % percentile interval of the mean over folds, kinds drawn with replacement, the same for all seeds.

    A fold that loses a class in a draw is left out of that draw's mean. A single kind of each class has no interval.
    """
    kinds, fake = np.concatenate([s.kinds for s in sets]), np.concatenate([s.fake for s in sets])
    if all(len(np.unique(kinds[fake == label])) < 2 for label in (False, True)):
        return {"value": value, "low": None, "high": None}  # every draw of one kind is the same
    drawn = metrics.kind_draws(kinds, fake, draws, seed=0)
    values = np.full((len(sets), draws), np.nan)
    for row, s in zip(values, sets, strict=True):
        weights = np.stack([drawn[kind, bool(label)] for kind, label in zip(s.kinds.tolist(), s.fake, strict=True)], 1)
        whole = (weights[:, s.fake].sum(1) > 0) & (weights[:, ~s.fake].sum(1) > 0)
        if whole.any():
            row[whole] = figure(s, weights[whole])
    there = ~np.isnan(values)
    enough = there.any(0)
    means = np.where(there, values, 0).sum(0)[enough] / there.sum(0)[enough]
    low, high = np.percentile(means, [2.5, 97.5]).tolist() if len(means) else (None, None)
    return {"value": value, "low": low, "high": high}


def pooled(figure: Callable[[Floats, Bools], Any], part: pd.DataFrame, column: str = "score") -> float:
    """A figure of all folds' calibrated scores together, the mean over seeds."""
    part = part[part["group"].isin(("real", "generated"))]
    by_seed = [p for _, p in part.groupby("seed")]
    return float(np.mean([figure(p[column].to_numpy(float), (p["group"] == "generated").to_numpy()) for p in by_seed]))


def fold_table(rows: pd.DataFrame) -> list[Row]:
    """AUROC and more for each set, variant, seed and fold, with the kinds held out."""
    found = []
    for name, column in columns(rows):
        for variant, part in with_matched(column).items():
            for s in fold_sets(part):
                held = sorted(set(s.kinds.tolist())) if name in UNSEEN.values() else []
                found.append({
                    "set": name, "variant": variant, "seed": s.seed, "fold": s.fold, "real": int((~s.fake).sum()),
                    "fake": int(s.fake.sum()),
                    **{f: float(FIGURES[f](s, None)) for f in ("AUROC", "TPR at 5 % FPR", "balanced accuracy")},
                    "held out": ", ".join(held),
                })  # fmt: skip
    return found


def seen_beside_unseen(headlines: Sequence[Row]) -> list[Row]:
    """From `headline`'s rows: AUROC of new images of known kinds beside that of unseen ones, and the difference."""
    areas = {(r["model"], r["set"], r["variant"]): r["AUROC"]["value"] for r in headlines}
    return [
        {
            "model": m, "variant": v, "AUROC, seen": areas[m, SEEN, v], "unseen": name, "AUROC, unseen": unseen,
            "difference": areas[m, SEEN, v] - unseen,
        }
        for (m, name, v), unseen in areas.items() if name in UNSEEN.values() and (m, SEEN, v) in areas
    ]  # fmt: skip


def special_table(rows: pd.DataFrame) -> list[Row]:
    """Face swaps, restored and edited images in rows of their own, against the real images of the same fold.

    AUROC is the mean over folds that have both; `by swap_logit` is from the model's second answer where it has one.
    """
    found = []
    for name in dict.fromkeys((main_set(rows), SEEN)):
        column = rows[rows["set"] == name]
        for group in SPECIAL:
            for variant, part in with_matched(column).items():
                own = part[part["group"] == group]
                if own.empty:
                    continue
                found.append({
                    "set": name, "images": group, "variant": variant, "n": own["image"].nunique(),
                    "AUROC": _against_real(part, group, "ranking"),
                    "by swap_logit": _against_real(part, group, "swap_logit"), **_shares(own),
                })  # fmt: skip
    return found


def robustness_table(rows: pd.DataFrame) -> list[Row]:
    """What each change alone does to the images that were scored in all of them: AUROC, TPR, what is called fake.

    The first row of a set is the clean one; `verdict changed` is the share of images that are called otherwise there.
    """
    found = []
    keys = ["seed", "fold", "image"]
    for name, column in columns(rows):
        parts = by_variant(column[column["group"].isin(("real", "generated"))], ("clean", *ROBUSTNESS))
        if len(parts) < 2 or "clean" not in parts:
            continue
        verdicts = {variant: part.set_index(keys)["verdict"].astype(str) for variant, part in parts.items()}
        common = reduce(pd.MultiIndex.intersection, [v.index for v in verdicts.values()])
        for variant, part in parts.items():
            part = part[pd.MultiIndex.from_frame(part[keys]).isin(common)]
            if not (sets := fold_sets(part)):
                continue
            fake = part["verdict"] == "fake"
            found.append({
                "set": name, "variant": variant, **_image_counts(part),
                **{f: float(np.mean([FIGURES[f](s, None) for s in sets])) for f in ("AUROC", "TPR at 5 % FPR")},
                "real called fake": float(fake[part["group"] == "real"].mean()),
                "generated caught": float(fake[part["group"] == "generated"].mean()),
                "verdict changed": float((verdicts[variant][common] != verdicts["clean"][common]).mean()),
            })  # fmt: skip
    return found


def _against_real(part: pd.DataFrame, group: str, column: str) -> float | None:
    areas = [area(fold, column, group) for _, fold in part.groupby(["seed", "fold"])]
    there = [value for value in areas if value is not None]
    return float(np.mean(there)) if there else None


def area(rows: pd.DataFrame, column: str, group: str = "generated") -> float | None:
    """AUROC of a column, real against a group's images, without rows that lack a value; None without both."""
    rows = rows[rows["group"].isin(("real", group)) & rows[column].notna()]
    fake = (rows["group"] == group).to_numpy()
    return float(metrics.auroc(rows[column].to_numpy(float), fake)) if fake.any() and not fake.all() else None


def source_table(rows: pd.DataFrame, called: str) -> list[Row]:
    """For each source and set the share called fake and the share uncertain, in every variant.

    The rows are of real sources, where a low share is wanted, or of the others; `called` names the first share.
    """
    found = []
    for (name, source), part in rows.groupby(["set", "source"]):
        first = part.iloc[0]
        row: Row = {
            "source": str(source), "images": str(first["group"]), "kind": str(first["kind"]), "set": str(name),
            "n": part["image"].nunique(),
        }  # fmt: skip
        for what, verdict in ((called, "fake"), ("uncertain", "uncertain")):
            row |= {f"{what}, {v}": float((own["verdict"] == verdict).mean()) for v, own in by_variant(part).items()}
        found.append(row)
    return sorted(found, key=lambda r: (r["images"], r["set"] == SEEN, r["source"]))


def plain_table(rows: pd.DataFrame) -> list[Row]:
    """Of real, GAN, diffusion and swapped images, how many are called real, uncertain and fake; unseen ones.

    A model without unseen rows is answered by its seen ones, and the row says so. Shares are of images.
    """
    name = main_set(rows)
    rows = rows[rows["set"] == name]
    generated = rows["family"].astype(object).map(FAMILIES).fillna("other generated")
    named = rows["group"].astype(object).replace({"swap": "swapped"})
    rows = rows.assign(plain=named.where(rows["group"] != "generated", generated))
    found = []
    for variant, part in by_variant(rows).items():
        for what in PLAIN:
            own = part[part["plain"] == what]
            if not own.empty:
                n = own["image"].nunique()
                found.append({"set": name, "variant": variant, "pictures": what, "n": n, **_shares(own)})
    return found


def worth_table(rows: pd.DataFrame) -> list[Row]:
    """What "fake" is worth: of the images called fake, the share that is, where one in two, ten, a hundred is fake.

    p TPR / (p TPR + (1 - p) FPR), from the unseen real and generated images. Where no real image of n is called fake,
    FPR is taken as 1 / (n + 1).
    """
    name = main_set(rows)
    found = []
    for variant, part in by_variant(rows[rows["set"] == name]).items():
        real, fake = (part[part["group"] == group]["verdict"] == "fake" for group in ("real", "generated"))
        if real.empty or fake.empty:
            continue
        caught, alarms = float(fake.mean()), max(float(real.mean()), 1 / (len(real) + 1))
        found.append({
            "set": name, "variant": variant, "real called fake": float(real.mean()), "generated caught": caught,
            **{f"one in {round(1 / p)}": p * caught / (p * caught + (1 - p) * alarms) for p in PREVALENCES},
        })  # fmt: skip
    return found


def worst(rows: pd.DataFrame, count: int = 6) -> list[Row]:
    """The real images with the highest and the fakes with the lowest scores, clean, on the wrong side of 0.5."""
    whole = {"real", "generated"} <= set(rows[rows["held_out"]]["group"])
    rows = rows[(rows["variant"] == "clean") & (rows["label"] != "edited")]
    rows = rows[rows["held_out"]] if whole else rows
    found: list[Row] = []
    for label in ("real", "fake"):
        own = rows[rows["label"] == label].groupby("image", as_index=False).first()
        wrong = own[(own["score"] > 0.5) if label == "real" else (own["score"] < 0.5)]
        wrong = wrong.sort_values("score", ascending=label == "fake", kind="stable").head(count)
        found += wrong.assign(label=label)[["image", "source", "label", "score"]].to_dict("records")
    return found


def _image_counts(part: pd.DataFrame) -> Row:
    images = part.drop_duplicates("image")
    real, fake = images[images["group"] == "real"], images[images["group"] == "generated"]
    return {
        "kinds": f"{real['kind'].nunique()} / {fake['kind'].nunique()}", "real": len(real), "fake": len(fake),
    }  # fmt: skip


def _shares(rows: pd.DataFrame) -> Row:
    names = {"real": "called real", "uncertain": "uncertain", "fake": "called fake"}
    return {name: float((rows["verdict"] == verdict).mean()) for verdict, name in names.items()}


def roc_points(scores: Floats, fake: Bools, points: int = 200) -> dict[str, list[float]]:
    """A ROC curve of at most about `points` points, evenly spaced on a log axis of the false-positive rate."""
    fpr, tpr = metrics.roc(scores, fake)
    at = np.unique(np.concatenate([np.geomspace(1e-3, 1, points), [0]]))
    thin = np.unique(np.searchsorted(fpr, at, side="right") - 1)
    return {"fpr": [0.0, *fpr[thin].tolist()], "tpr": [0.0, *tpr[thin].tolist()]}


def reliability(scores: Floats, fake: Bools, bins: int = 10) -> list[dict[str, float]]:
    """Mean score and share of fakes in equally wide bins, both classes weighing the same; empty bins left out."""
    weight = np.where(fake, 1 / fake.sum(), 1 / (~fake).sum())
    which = np.minimum((scores * bins).astype(int), bins - 1)
    return [
        {
            "score": float(np.average(scores[rows], weights=weight[rows])),
            "fake": float(np.average(fake[rows], weights=weight[rows])), "n": int(rows.sum()),
        }
        for b in range(bins) if (rows := which == b).any()
    ]  # fmt: skip
