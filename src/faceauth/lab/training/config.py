"""A TOML file to a checked configuration. Unknown keys are errors that name the nearest known one."""

import difflib
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from faceauth.errors import ConfigError
from faceauth.lab.data.augment import AugmentConfig
from faceauth.lab.data.dataset import Examples, from_corpus, from_manifest
from faceauth.lab.data.manifest import read_manifest
from faceauth.lab.data.sources import read_corpus
from faceauth.lab.data.split import FRACTIONS
from faceauth.preprocess import PreprocessSpec


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Strict):
    """Which images, and who sees them.

    Either `root`, a corpus that is split here, or `manifest`, a prepared data set that is split already.
    `folds` are the sources held out together, each source once; `fake` names the only fake sources to train on
    (all where it is empty).
    """

    root: Path | None = None
    manifest: Path | None = None
    fake: list[str] = []
    cache: Path = Path("cache")
    split_seed: int = 0
    fractions: tuple[float, float, float] = FRACTIONS
    folds: list[list[str]] = []
    temper: float = Field(default=0.5, ge=0, le=1)  # a source is drawn in proportion to its count to this power

    @model_validator(mode="after")
    def _one_place(self) -> "DataConfig":
        if (self.root is None) == (self.manifest is None):
            raise ValueError("give either root, a corpus, or manifest, a prepared data set")
        return self

    def open(self) -> Examples:
        """The images. Raises DataError."""
        if self.manifest is not None:
            return from_manifest(read_manifest(self.manifest))
        assert self.root is not None
        return from_corpus(read_corpus(self.root), self.cache, self.split_seed, self.fractions)


class TrainConfig(_Strict):
    """One experiment. `images` is the training budget: how many augmented crops the network sees."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    version: str = "0"
    network: str = "pyramid"
    width: int = Field(default=24, ge=4, le=256)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    size: int = Field(default=128, ge=32, le=512)
    crop: float = Field(default=1.2, gt=0)
    images: int = Field(ge=1)
    batch: int = Field(default=48, ge=2)
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup: int = Field(default=200, ge=0)
    smoothing: float = Field(default=0.05, ge=0, lt=1)
    source_weight: float = Field(default=0.3, ge=0)  # of the softmax over sources beside the real/fake logit
    ema: float = Field(default=0.999, ge=0, lt=1)
    bf16: bool = True
    seed: int = 0
    log_every: int = Field(default=100, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()

    @property
    def preprocess(self) -> PreprocessSpec:
        """The preprocessing that this network is trained and used with."""
        return PreprocessSpec(size=self.size, crop=self.crop)


def read_config(path: Path, overrides: list[str] | None = None) -> TrainConfig:
    """Read a TOML config; `overrides` are `key=value`, dotted, the value in TOML.

    Raises:
        ConfigError: for a missing file, bad TOML, an unknown key, or a value out of range.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    for override in overrides or []:
        _set(data, override)
    try:
        return TrainConfig.model_validate(data)
    except ValidationError as error:
        raise _explain(path, error) from error


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


def _explain(path: Path, error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] != "extra_forbidden":
        return ConfigError(f"{path}: {key}: {first['msg']}")
    tables = {"data": DataConfig.model_fields, "augment": AugmentConfig.model_fields}
    near = difflib.get_close_matches(
        str(first["loc"][-1]), tables.get(str(first["loc"][0]), TrainConfig.model_fields), 1
    )
    return ConfigError(f"{path}: unknown key {key!r}", f"did you mean {near[0]!r}?" if near else None)
