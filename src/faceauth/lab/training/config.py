"""A TOML file to a checked configuration. Unknown keys are errors that name the nearest known one."""

import difflib
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from faceauth.errors import ConfigError, DataError, UsageError
from faceauth.lab.data.augment import AugmentConfig
from faceauth.lab.data.blend import BLENDED
from faceauth.lab.data.dataset import read_dataset
from faceauth.lab.data.examples import Examples, from_corpus, from_manifest, with_extra
from faceauth.lab.data.splits import FRACTIONS, check_folds, shares
from faceauth.preprocess import PreprocessSpec

Name = Annotated[str, Field(pattern=r"^[a-z0-9][A-Za-z0-9._-]*$")]  # of a run, and of its folder


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint: the known word most like a mistyped one, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}"


class Strict(BaseModel):
    """A table of a TOML file: unknown keys are errors, and nothing changes it once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Strict):
    """Which images, and who sees them.

    Either `root`, a corpus that is split here, or `manifest`, a prepared data set that is split already.
    `folds` are the sources held out together, each source once; `fake` and `real` name the only sources of their
    class to train on (all where they are empty). In `fake`, `blended` is the photographs with their own faces blended
    into them (`lab.data.blend`). `train_only` belongs to a corpus alone. `extra_sources` are further corpora, as
    `faceauth lab synthesize` writes them: trained on, never held out, never evaluated; without those of their images
    that are tied to images of the splits test and dev, or of `folds`.
    """

    root: Path | None = None
    manifest: Path | None = None
    extra_sources: list[Path] = []
    fake: list[str] = []
    real: list[str] = []
    cache: Path = Path("cache")
    split_seed: int = 0
    fractions: Annotated[tuple[float, float, float], AfterValidator(shares)] = FRACTIONS
    train_only: list[str] = []  # sources whose images are too much alike to be split: all in train
    folds: list[list[str]] = []
    sampling_power: float = Field(default=0.5, ge=0, le=1)  # a source is drawn in proportion to its count to this power
    train_fraction: float = Field(default=1.0, gt=0, le=1)  # of each source's train images

    @model_validator(mode="after")
    def _one_place(self) -> "DataConfig":
        if (self.root is None) == (self.manifest is None):
            raise ValueError("give either root, a corpus, or manifest, a prepared data set")
        return self

    def open(self) -> Examples:
        """The images. Raises DataError, and ConfigError where `train_only` names an unknown source."""
        if self.manifest is not None:
            examples = from_manifest(read_dataset(self.manifest))
        else:
            assert self.root is not None
            corpus = read_dataset(self.root)
            known = {row.source for row in corpus.rows}
            for name in set(self.train_only) - known:
                raise ConfigError(f"data.train_only: no source {name!r}", nearest(name, known))
            examples = from_corpus(corpus, self.cache, self.split_seed, self.fractions, self.train_only)
        for folder in self.extra_sources:
            if not folder.is_dir():
                make = f"make it: faceauth lab synthesize {folder} --corpus CORPUS --count 60 --seed 1"
                raise DataError(f"no folder {str(folder)!r} (data.extra_sources)", make)
            examples = with_extra(examples, read_dataset(folder), self.cache, {s for fold in self.folds for s in fold})
        return examples

    def held_out(self, examples: Examples, fold: int | None) -> list[str]:
        """The sources not to train on: those of the fold, and those that `fake` and `real` leave out.

        Raises:
            UsageError: no such fold. ConfigError: `fake` or `real` names an unknown source.
            DataError: the folds do not hold out every source once.
        """
        if fold is not None and not 1 <= fold <= len(self.folds):
            raise UsageError(f"no fold {fold}", f"the config has {len(self.folds)}, from 1")
        out = list(self.folds[fold - 1]) if fold is not None else []
        known = {label: examples.sources(label) for label in ("real", "fake")}
        if self.folds:
            check_folds(self.folds, {*known["real"], *known["fake"]}.difference(examples.extra))
        for label, only in (("real", self.real), ("fake", self.fake)):
            there = (*known[label], BLENDED) if label == "fake" else known[label]
            for name in set(only).difference(there):
                raise ConfigError(f"data.{label}: no {label} source {name!r}", nearest(name, there))
            out += [s for s in known[label] if only and s not in only and s not in out]
        return out


class StudyConfig(Strict):
    """The study's recipe: SGD with momentum, the rate halved where the test loss stands still, early stopping."""

    epochs: int = Field(default=30, ge=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    factor: float = Field(default=0.5, gt=0, lt=1)  # what the rate is multiplied by on a plateau
    patience: int = Field(default=2, ge=0)  # epochs without a better test loss before the rate falls
    stop_after: int = Field(default=5, ge=1)  # epochs without a better test loss before training ends


class DistillConfig(Strict):
    """A finished run that teaches the distillation token. Touvron et al., ICML 2021, arXiv 2012.12877."""

    teacher: Path
    kind: Literal["hard", "soft"] = "hard"  # its decision, or its probability
    weight: float = Field(default=0.5, ge=0, le=1)  # of the teacher's word beside the label's
    temperature: float = Field(default=3.0, gt=0)  # soft only: both logits are divided by it


class TrainConfig(Strict):
    """One experiment. Without `recipe` it is the modern one, whose budget `images` counts augmented crops.

    Attributes:
        network: pyramid, npr, safe, deit, vit, densenet, or timm/NAME.
        init: random, pretrained (the hub's `checkpoint`), or the folder of a saved checkpoint.
        freeze: the linear heads alone learn, on a backbone that stays as the checkpoint has it.
        architecture: what differs from the network's own architecture; a run writes down all of it.
        view: augmented, flipped (a plain crop, mirrored half of the time) or plain; by default as the recipe has it.
        mean, std: of the pixels in [0, 1]; by default the checkpoint's own.
        test_every: images between two measurements of the test loss; the study's recipe measures once an epoch.
        accumulate: passes that one batch is split into.
        layer_decay: of the learning rate from each layer to the one before it; 1 for none.
    """

    name: Name
    version: str = "0"
    recipe: Literal["modern", "study"] = "modern"
    network: str = "pyramid"
    init: str = "random"
    checkpoint: str | None = None
    freeze: bool = False
    architecture: dict[str, Any] = {}
    width: int = Field(default=24, ge=4, le=256)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    size: int = Field(default=128, ge=32, le=512)
    crop: float = Field(default=1.2, gt=0)
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    view: Literal["augmented", "flipped", "plain"] = "augmented"
    images: int | None = Field(default=None, ge=1)
    batch: int = Field(default=48, ge=2)
    accumulate: int = Field(default=1, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup: int = Field(default=200, ge=0)
    smoothing: float = Field(default=0.05, ge=0, lt=1)
    source_weight: float = Field(default=0.3, ge=0)  # of the softmax over sources beside the real/fake logit
    ema: float = Field(default=0.999, ge=0, lt=1)
    bf16: bool = True
    seed: int = Field(default=0, ge=0)
    log_every: int = Field(default=100, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)
    test_every: int = Field(default=20_000, ge=1)
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    study: StudyConfig = StudyConfig()
    distill: DistillConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _recipe_defaults(cls, data: Any) -> Any:
        """The study's recipe has neither regularisers nor augmentation beyond a mirror image."""
        if isinstance(data, dict) and data.get("recipe") == "study":
            plain = {"weight_decay": 0.0, "warmup": 0, "smoothing": 0.0, "source_weight": 0.0, "ema": 0.0}
            return plain | {"view": "augmented" if "augment" in data else "flipped"} | data
        return data

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        if self.recipe == "study":
            foreign = [k for k in ("images", "warmup", "smoothing", "source_weight", "ema") if getattr(self, k)]
            if foreign or self.layer_decay != 1:
                raise ValueError(f"{(foreign or ['layer_decay'])[0]} is no part of the study's recipe")
        elif self.images is None:
            raise ValueError("images, the training budget, is missing")
        elif self.study != StudyConfig():
            raise ValueError("[study] needs recipe = 'study'")
        if self.accumulate > self.batch:
            raise ValueError("accumulate is larger than the batch")
        if self.freeze and self.layer_decay != 1:
            raise ValueError("layer_decay has nothing to slow down: freeze lets the heads alone learn")
        if self.distill and self.network != "deit":
            raise ValueError("[distill] teaches a distillation token, which only network = 'deit' has")
        return self

    @property
    def preprocess(self) -> PreprocessSpec:
        """The preprocessing that this network is trained and used with."""
        own: dict[str, Any] = {k: v for k, v in (("mean", self.mean), ("std", self.std)) if v is not None}
        return PreprocessSpec(size=self.size, crop=self.crop, **own)


Table = TypeVar("Table", bound=BaseModel)


def read_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read one experiment; see `read_table`."""
    return read_table(path, TrainConfig, overrides)


def read_table(path: Path, kind: type[Table], overrides: Sequence[str] = ()) -> Table:
    """Read a TOML file as a checked table; `overrides` are `key=value`, dotted, the value in TOML.

    `base = "other.toml"` in the file, a path from where it lies, takes all from there that the file does not say
    itself, table by table.

    Raises:
        ConfigError: for a missing file, bad TOML, an unknown key, a value out of range, or bases in a circle.
    """
    files = _with_bases(path)
    data: dict[str, Any] = {}
    for _, said in reversed(files):
        data = _over(data, said)
    for override in overrides:
        _set(data, override)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise _explain(files, error, kind) from error


Files = list[tuple[Path, dict[str, Any]]]


def _with_bases(path: Path) -> Files:
    """What a file and the files below it say, each for itself, the file first."""
    files: Files = [(path, _read(path))]
    while (base := files[-1][1].pop("base", None)) is not None:
        above = files[-1][0]
        if not isinstance(base, str):
            raise ConfigError(f"{above}: base: the path of another TOML file, not {base!r}")
        place = above.parent / base
        if not place.is_file():
            raise ConfigError(f"{above}: base: there is no file {str(place)!r}")
        if any(place.samefile(known) for known, _ in files):
            raise ConfigError(f"{above}: base: {str(place)!r} leads back to itself")
        files.append((place, _read(place)))
    return files


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def _over(below: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """`below` with what is said over it, tables merged."""
    merged = {
        key: _over(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
        for key, value in said.items()
    }
    return below | merged


def _set(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override!r} is not key=value", "for example --set lr=0.001")
    try:
        parsed = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *parents, last = key.strip().split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {override!r}: {parent} is no table")
    data[last] = parsed


def _explain(files: Files, error: ValidationError, kind: type[BaseModel]) -> ConfigError:
    errors = error.errors()
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])  # a typo explains what is missing
    path = next((path for path, said in files if _says(said, first["loc"])), files[0][0])
    key = ".".join(map(str, first["loc"]))
    if first["type"] != "extra_forbidden":
        said = first["msg"].removeprefix("Value error, ")
        return ConfigError(f"{path}: {key}: {said}" if key else f"{path}: {said}")
    table: Any = kind
    for name in first["loc"][:-1]:
        inner = get_args(table.model_fields[name].annotation) or (table.model_fields[name].annotation,)
        table = inner[0]
    near = difflib.get_close_matches(str(first["loc"][-1]), table.model_fields, 1)
    return ConfigError(f"{path}: unknown key {key!r}", f"did you mean {near[0]!r}?" if near else None)


def _says(table: Any, loc: Sequence[int | str]) -> bool:
    """Whether a file's own table has the key that an error is about; an item of a list counts as the list."""
    for key in loc:
        if not isinstance(table, dict):
            return True
        if key not in table:
            return False
        table = table[key]
    return bool(loc)
