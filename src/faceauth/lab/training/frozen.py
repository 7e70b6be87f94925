"""Detectors on frozen encoders: a linear head for every fold, and the one that ships, which is their mean.

A config names the encoders, the views and the data set. Features come from the store (`lab.training.features`), where
every fold's model finds them; fitting all folds of two seeds takes minutes. A fold's model is fitted to the train
split of the kinds that its fold does not hold out, or, in the second deal, of the sources.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from faceauth.errors import DataError
from faceauth.files import replacing
from faceauth.lab.data.dataset import DataSet, ImageRow, need_hashes, read_dataset
from faceauth.lab.data.splits import ALTERED, deal, given_or_assigned, may_fit, tie
from faceauth.lab.data.variants import BLEND, TRAIN, VARIANTS
from faceauth.lab.progress import tracked
from faceauth.lab.run_info import file_sha256
from faceauth.lab.training.config import Name, Strict, read_table
from faceauth.lab.training.features import FeatureStore, Task, extract
from faceauth.lab.training.linear import LinearHead, fit, mean_head, weights
from faceauth.preprocess import PreprocessSpec

Bools = npt.NDArray[np.bool_]
View = Annotated[str, Field(pattern=rf"^({'|'.join(VARIANTS)}|({TRAIN}|{BLEND})\d+)$")]


class ViewsConfig(Strict):
    """Which views training sees, and how many images of each source (in the order of a hash) have them."""

    train: tuple[View, ...] = Field(("clean", "train-1"), min_length=1)
    blend: tuple[View, ...] = ("blend-1",)
    per_source: int = Field(100, ge=1)
    blend_per_source: int = Field(40, ge=1)
    variants: dict[View, int] = Field(default_factory=lambda: dict.fromkeys(VARIANTS, 24))


class HeadConfig(Strict):
    """The linear head: l2 as in `linear.fit`; groups of one class weigh their size to the power `power`."""

    l2: float = Field(0.5, gt=0, allow_inf_nan=False)
    power: float = Field(0.0, ge=0, le=1)
    groups: str = Field("kind", pattern="^(kind|source)$")


class FrozenConfig(Strict):
    """A detector on frozen encoders.

    Paths are relative to the config's folder; `credit` names encoder and licence; `blocks` are the first and the last
    of CLIP's blocks whose features are used, all by default: what ships ends with the last.
    """

    name: Name
    version: str
    credit: str = ""
    data: Path
    kinds: Path
    encoders: dict[str, Path] = Field(min_length=1)
    blocks: tuple[int, int] | None = None
    preprocess: PreprocessSpec
    views: ViewsConfig = ViewsConfig()
    head: HeadConfig = HeadConfig()
    swap_head: HeadConfig = HeadConfig()
    deals: tuple[Literal["kind", "source"], ...] = ("kind", "source")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1), min_length=1)
    folds: int = Field(6, ge=2)

    @model_validator(mode="after")
    def _by_kind(self) -> "FrozenConfig":
        if "kind" not in self.deals:
            raise ValueError("deals: 'kind' must be among them, for what ships is made of the folds by kind")
        return self


def read_config(path: Path) -> FrozenConfig:
    """Read and check a TOML config. Raises ConfigError, naming the key."""
    config = read_table(path, FrozenConfig)
    here = path.parent
    paths = {name: here / file for name, file in config.encoders.items()}
    return config.model_copy(update={"data": here / config.data, "kinds": here / config.kinds, "encoders": paths})


class FoldKey(NamedTuple):
    """Which fold's model: of the deal by kind or by source, a seed, a fold."""

    deal: str
    seed: int
    fold: int


@dataclass(frozen=True, slots=True)
class Dealt:
    """A data set with splits and folds: rows with their split, what ties them, and by deal and seed each row's fold."""

    data: DataSet
    rows: tuple[ImageRow, ...]
    components: list[int]
    folds: dict[tuple[str, int], list[int]]

    def column(self, name: str) -> npt.NDArray[np.str_]:
        """(rows,) one attribute of every row, such as `split`, `label` or `family`."""
        return np.array([getattr(row, name) for row in self.rows])

    def real_or_generated(self) -> Bools:
        """(rows,) which rows outside dev are real or generated: no edited, swapped or restored images."""
        no_part = np.isin(self.column("family"), ALTERED) | (self.column("label") == "edited")
        return np.asarray(~no_part & (self.column("split") != "dev"))

    def held(self, key: FoldKey) -> Bools:
        """(rows,) which rows a fold's model must not be fitted to."""
        return np.equal(self.folds[key.deal, key.seed], key.fold)

    def may_fit(self, key: FoldKey) -> Bools:
        """(rows,) which rows it may be fitted to: those tied to a row held out are not among them."""
        return np.array(may_fit(self.components, self.folds[key.deal, key.seed], key.fold))


@dataclass(frozen=True, slots=True)
class Prepared(Dealt):
    """A data set ready to be fitted: `encoders` are their SHA-256 in the config's order."""

    config: FrozenConfig
    store: FeatureStore
    encoders: tuple[str, ...]


def deal_rows(config: FrozenConfig, cache: Path) -> Dealt:
    """Read the data set, split it as its rows say or by `splits.assign`, and deal it into folds.

    Raises DataError where it cannot be read, split or dealt.
    """
    data = read_dataset(config.data, config.kinds)
    need_hashes(data.rows)
    store = FeatureStore(cache, config.preprocess)
    components = tie(data.rows, store.dhashes([(r.sha256, data.file(r)) for r in data.rows]))
    splits = given_or_assigned(data.rows, components)
    rows = tuple(replace(row, split=split) for row, split in zip(data.rows, splits, strict=True))
    folds = {
        (str(by), seed): deal(rows, components, seed, config.folds, by) for by in config.deals for seed in config.seeds
    }
    return Dealt(data, rows, components, folds)


def prepare(config: FrozenConfig, cache: Path, workers: int) -> Prepared:
    """Deal the data set, and compute the features that the store lacks.

    Raises DataError where an encoder is missing, or the data set cannot be read or dealt.
    """
    for path in config.encoders.values():
        if not path.is_file():
            raise DataError(f"no encoder {str(path)!r}", "make it with: faceauth lab encoder")
    dealt = deal_rows(config, cache)
    encoders = {file_sha256(path): path for path in config.encoders.values()}
    store = FeatureStore(cache, config.preprocess)
    extract(list(tasks(config, dealt.data, dealt.rows)), encoders, config.preprocess, store, workers)
    return Prepared(dealt.data, dealt.rows, dealt.components, dealt.folds, config, store, tuple(encoders))


def tasks(config: FrozenConfig, data: DataSet, rows: Sequence[ImageRow], training: bool = True) -> Iterator[Task]:
    """The views wanted of each image: of the first `per_source` of a source by hash those of training, and so on.

    Args:
        training: whether the views of training are wanted beside the protocol's variants.
    """
    position: dict[str, int] = {}
    for row in sorted(rows, key=lambda r: hashlib.sha256(r.sha256.encode()).hexdigest()):
        n = position[row.source] = position.get(row.source, -1) + 1
        views = [name for name, most in config.views.variants.items() if n < most]
        if training and n < config.views.per_source and row.label != "edited":
            # training sees the protocol's variants of the images that are scored, of no others
            views += [v for v in config.views.train if v not in views and (v == "clean" or v not in VARIANTS)]
            if row.label == "real" and n < config.views.blend_per_source:
                views += config.views.blend
        if views:
            yield Task(str(data.file(row)), row.sha256, tuple(views))


def scored_views(prepared: Prepared, found: "Examples") -> Bools:
    """(n,) which views are scored: the protocol's variants, of as many images as the config says."""
    of = tasks(prepared.config, prepared.data, prepared.rows, training=False)
    quota = {(task.sha256, view) for task in of for view in task.views}
    sha256 = (prepared.rows[i].sha256 for i in found.row)
    return np.array([pair in quota for pair in zip(sha256, found.view.tolist(), strict=True)])


@dataclass(frozen=True, slots=True)
class Examples:
    """Every computed view of every image, as parallel arrays of length n.

    Attributes:
        features: (n, d) float16, the encoders' side by side; row: index of the image in `Prepared.rows`; view: its
            name.
    """

    features: npt.NDArray[np.float16]
    row: npt.NDArray[np.int64]
    view: npt.NDArray[np.str_]


def examples(prepared: Prepared) -> Examples:
    """Load what the config asks for; views without a face are left out."""
    faces = prepared.store.faces(prepared.encoders[0])
    index = {row.sha256: i for i, row in enumerate(prepared.rows)}
    keys = [
        (task.sha256, view)
        for task in tasks(prepared.config, prepared.data, prepared.rows)
        for view in task.views
        if faces.get((task.sha256, view), 0) > 0
    ]
    parts = [prepared.store.read(encoder, keys) for encoder in prepared.encoders]
    if prepared.config.blocks:
        from faceauth.lab.training.encoders import columns_of

        [path] = prepared.config.encoders.values()
        parts = [np.ascontiguousarray(parts[0][:, columns_of(path, prepared.config.blocks, parts[0].shape[1])])]
    return Examples(
        parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1),
        np.array([index[image] for image, _ in keys]),
        np.array([view for _, view in keys]),
    )


class Heads(NamedTuple):
    """The two linear heads of one model: generated against real, and swapped or blended against real."""

    generated: LinearHead
    swapped: LinearHead


def fit_heads(prepared: Prepared, found: Examples, allowed: Bools) -> Heads:
    """Fit both heads to the training views of the allowed rows (by index). Raises DataError where a class is empty."""
    return Heads(fit_generated(prepared, found, allowed), fit_swapped(prepared, found, allowed))


def fit_generated(prepared: Prepared, found: Examples, allowed: Bools) -> LinearHead:
    """The linear head that tells generated from real images; as `fit_heads`."""
    seen = np.isin(found.view, prepared.config.views.train)
    family, label = (prepared.column(name)[found.row] for name in ("family", "label"))
    chosen = allowed[found.row] & seen & ~np.isin(family, ALTERED)
    return _fit(prepared, found, prepared.config.head, chosen, label == "fake")


def fit_swapped(prepared: Prepared, found: Examples, allowed: Bools) -> LinearHead:
    """The linear head that tells swapped and blended from real images; as `fit_heads`."""
    seen, blended = (np.isin(found.view, views) for views in (prepared.config.views.train, prepared.config.views.blend))
    family, label = (prepared.column(name)[found.row] for name in ("family", "label"))
    swapped = family == "swap"
    chosen = allowed[found.row] & (blended | (seen & (swapped | (label != "fake"))))
    return _fit(prepared, found, prepared.config.swap_head, chosen, swapped | blended)


def _fit(prepared: Prepared, found: Examples, config: HeadConfig, chosen: Bools, fake: Bools) -> LinearHead:
    chosen = chosen & (prepared.column("label")[found.row] != "edited")
    if len(set(fake[chosen].tolist())) < 2:
        raise DataError("one class is empty where a linear head is to be fitted", "add sources, or use fewer folds")
    names = prepared.column(config.groups)[found.row]
    blended = np.isin(found.view, prepared.config.views.blend)
    groups = np.where(blended, np.char.add("blended ", names), names)[chosen]
    weight = weights(groups, fake[chosen], config.power)
    return fit(found.features[chosen], fake[chosen], weight, config.l2)


def fit_folds(prepared: Prepared, found: Examples, runs: Path) -> dict[FoldKey, Heads]:
    """The heads of every fold of both deals, kept in `runs` as they are made: a run that was cut off goes on."""
    train, start = prepared.column("split") == "train", f"heads-{state_digest(prepared)}"
    wanted = [FoldKey(*dealt, fold) for dealt in prepared.folds for fold in range(prepared.config.folds)]
    return {
        key: kept_heads(
            runs / f"{start}-{key.deal}-{key.seed}-{key.fold}.npz", prepared, found, train & prepared.may_fit(key)
        )
        for key in tracked(wanted, len(wanted), "fitting folds")
    }


def kept_heads(file: Path, prepared: Prepared, found: Examples, allowed: Bools) -> Heads:
    """As `fit_heads`; fitted once, and kept in `file`, which is written whole or not at all."""
    if not file.is_file():
        heads = fit_heads(prepared, found, allowed)
        with replacing(file) as part, open(part, "wb") as stream:
            np.savez(
                stream, generated=heads.generated.weight, generated_bias=heads.generated.bias,
                swapped=heads.swapped.weight, swapped_bias=heads.swapped.bias,
            )  # fmt: skip
    return load_heads(file)


def state_digest(prepared: Prepared) -> str:
    """16 hexadecimal digits that change with whatever the heads are fitted to."""
    config = prepared.config
    views = config.views.model_dump(exclude={"variants"})
    trained = {name: config.views.variants[name] for name in config.views.train if name in config.views.variants}
    heads = [config.head.model_dump(), config.swap_head.model_dump(), config.seeds, config.folds]
    heads += [config.blocks] if config.blocks else []
    given = [row.split for row in prepared.data.rows]
    heads += [given] if any(given) else []
    folds = [[*key, *of] for key, of in prepared.folds.items()]
    state = [heads, views, trained, prepared.data.sha256, prepared.encoders, prepared.store.path.name, folds]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def load_heads(path: Path) -> Heads:
    """What `kept_heads` wrote."""
    with np.load(path) as file:
        return Heads(*(LinearHead(file[name], float(file[f"{name}_bias"])) for name in Heads._fields))


def mean_heads(heads: Sequence[Heads]) -> Heads:
    """The heads whose logits are the means of the others': the model that ships."""
    return Heads(*map(mean_head, zip(*heads, strict=True)))
