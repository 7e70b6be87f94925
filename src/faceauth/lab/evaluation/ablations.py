"""What each part of a detector on a frozen encoder is worth: it is fitted again without it, on the same folds.

The output that tells generated from real images alone is fitted, and one seed of each deal, so that a change takes
minutes. Features come from the store; nothing is computed anew.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faceauth.errors import DataError, UsageError
from faceauth.files import write_bytes
from faceauth.lab.data.splits import ALTERED
from faceauth.lab.evaluation import metrics
from faceauth.lab.progress import tracked
from faceauth.lab.training.frozen import (
    Examples,
    FoldKey,
    HeadConfig,
    Prepared,
    ViewsConfig,
    fit_generated,
    scored_views,
    state_digest,
)

PARTS = ("class tokens", "patch means", "patch deviations")  # of every block, as `encoders.ClipBlocks` orders them
SHARES = (0.25, 0.5, 0.75)  # of the kinds, for the curves
SEED = 0
SHOWN = ("clean", "web", "hard", "edited", "noise")
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Change:
    """One change to a detector: None leaves a part as it is.

    Attributes:
        columns: indices of the features that are kept; rows: the images that may be fitted to.
    """

    part: str
    name: str
    columns: npt.NDArray[np.int64] | None = None
    rows: Bools | None = None
    views: ViewsConfig | None = None
    head: HeadConfig | None = None


def ablations(prepared: Prepared, found: Examples, run: Path, blocks: int) -> list[dict[str, Any]]:
    """A row a change: AUROC on what each deal holds out, the mean over its folds; none where one lacks a class to fit.

    Args:
        run: keeps what was computed, in `ablations.json`; a run that was cut off goes on.
        blocks: of the transformer whose features these are; 0 where they are another network's. Raises UsageError
            where the features are not those of so many.
    """
    if blocks and found.features.shape[1] % (blocks * len(PARTS)):
        what = f"{found.features.shape[1]} features are not those of {blocks} blocks"
        raise UsageError(what, "CLIP ViT-B/16 has 12; 0 for a network that is no transformer")
    run.mkdir(parents=True, exist_ok=True)
    file = run / "ablations.json"
    known: dict[str, dict[str, float]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    wanted = list(changes(prepared, found.features.shape[1], blocks))
    rows = []
    for change in tracked(wanted, len(wanted), "ablations"):
        key = f"{state_digest(prepared)}: {change.part}: {change.name}"
        if key not in known:
            known[key] = {}
            with suppress(DataError):  # a fold without a class left to fit: the change has no figures
                known[key] = _figures(prepared, found, change)
            write_bytes(file, json.dumps(known, indent=1).encode())
        rows.append({"part": change.part, "what is fitted": change.name, **known[key]})
    return rows


def changes(prepared: Prepared, features: int, blocks: int) -> Iterator[Change]:
    """The whole model, and then one change at a time."""
    yield Change("", "the whole model")
    if blocks:
        yield from _block_changes(np.arange(features).reshape(blocks, len(PARTS), -1))
    config = prepared.config
    yield from _view_changes(config.views)
    yield from _data_changes(prepared)
    for l2 in (0.05, 5.0):
        head = config.head.model_copy(update={"l2": l2})
        yield Change("head", f"l2 {l2:g} in place of {config.head.l2:g}", head=head)
    sources = HeadConfig(l2=config.head.l2, power=0.5, groups="source")
    yield Change("head", "sources weigh the square root of their size", head=sources)


def _block_changes(columns: npt.NDArray[np.int64]) -> Iterator[Change]:
    """`columns` (blocks, parts, width): the index of every feature."""
    for n, part in enumerate(PARTS):
        yield Change("features", f"{part} alone", columns[:, n].ravel())
    third = len(columns) // 3
    for name, kept in {
        f"the first {third} blocks": columns[:third],
        f"the middle {third} blocks": columns[third : 2 * third],
        f"the last {third} blocks": columns[-third:],
        "the last block": columns[-1:],
    }.items():
        yield Change("features", f"{name} alone", kept.ravel())


def _view_changes(views: ViewsConfig) -> Iterator[Change]:
    """Other views to train on, where they are others and there are any."""
    train = views.train
    edited = [v for v in train if v.startswith("train-")]
    others = {
        "files as they are alone": ("clean",),
        "without edited views": tuple(v for v in train if v not in edited),
        "one edited view in place of all": tuple(v for v in train if v not in edited[1:]),
        "without web and hard": tuple(v for v in train if v not in {"web", "hard"}),
        "without files as they are": tuple(v for v in train if v != "clean"),
    }
    for name, chosen in others.items():
        if chosen and chosen != train:
            yield Change("views", name, views=views.model_copy(update={"train": chosen}))


def _data_changes(prepared: Prepared) -> Iterator[Change]:
    """Families and shares of the kinds that are left out of training; what is tested stays."""
    family, kinds = prepared.column("family"), prepared.column("kind")
    fake = prepared.column("label") == "fake"
    for name in sorted(set(family[fake]) - set(ALTERED)):
        yield Change("data", f"without {name}", rows=family != name)
    for what, of_class in (("photographs", ~fake), ("generators", fake & ~np.isin(family, ALTERED))):
        ordered = sorted(set(kinds[of_class]), key=lambda kind: hashlib.sha256(f"{SEED}:{kind}".encode()).hexdigest())
        for share in SHARES:
            kept = ordered[: max(1, round(share * len(ordered)))]
            name = f"{share:.0%} of the kinds of {what} ({len(kept)} of {len(ordered)})"
            yield Change("kinds", name, rows=~of_class | np.isin(kinds, kept))


def _figures(prepared: Prepared, found: Examples, change: Change) -> dict[str, float]:
    """AUROC by deal and variant: the mean over the folds of one seed."""
    config = prepared.config
    update = {"views": change.views or config.views, "head": change.head or config.head}
    changed = replace(prepared, config=config.model_copy(update=update))
    examples = found if change.columns is None else replace(found, features=found.features[:, change.columns])
    train = (prepared.column("split") == "train") & (True if change.rows is None else change.rows)
    scored = _scored(prepared, found)
    figures: dict[str, list[float]] = {}
    for deal, fold in ((d, f) for d in config.deals for f in range(config.folds)):
        key = FoldKey(deal, SEED, fold)
        head = fit_generated(changed, examples, train & prepared.may_fit(key))
        held = prepared.held(key)[found.row] & scored
        for variant in SHOWN:
            of = held & (found.view == variant)
            fake = (prepared.column("label") == "fake")[found.row[of]]
            if fake.any() and not fake.all():
                value = float(metrics.auroc(head(examples.features[of]), fake))
                figures.setdefault(f"unseen {deal}, {variant}", []).append(value)
    return {name: float(np.mean(values)) for name, values in figures.items()}


def _scored(prepared: Prepared, found: Examples) -> Bools:
    """(n,) which views are scored: of real and generated images outside dev, the variants that the config says."""
    return prepared.real_or_generated()[found.row] & scored_views(prepared, found)
