"""A small convolutional network taught by a detector on a frozen encoder; all but its last layer is an encoder itself.

The student sees the teacher's images in the teacher's views and more, at a size of its own. Beside the labels it
learns the teacher's logits, and where the teacher's features lie: their first principal components carry what the
teacher's encoder learned elsewhere. Hinton et al., 2015, arXiv 1503.02531; Romero et al., FitNets, ICLR 2015, arXiv
1412.6550.
"""

import copy
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from faceauth.errors import ConfigError, DataError
from faceauth.files import replacing
from faceauth.lab.data.dataset import ImageRow
from faceauth.lab.data.splits import ALTERED
from faceauth.lab.data.variants import VARIANTS
from faceauth.lab.progress import tracked
from faceauth.lab.run_info import file_sha256
from faceauth.lab.training.config import read_table
from faceauth.lab.training.encoders import write_encoder
from faceauth.lab.training.frozen import (
    Examples,
    FoldKey,
    Heads,
    Prepared,
    ViewsConfig,
    fit_heads,
    state_digest,
    tasks,
)
from faceauth.lab.training.linear import Line
from faceauth.lab.training.networks import import_timm
from faceauth.lab.training.pixels import PixelViews, cut_views
from faceauth.lab.training.quantize import BATCH, quantized
from faceauth.preprocess import PreprocessSpec

Bools = npt.NDArray[np.bool_]
Class = Literal["real", "generated", "swapped"]
SHARES: dict[Class, float] = {"real": 0.5, "generated": 0.375, "swapped": 0.125}  # of a batch
COMPONENTS = 128  # principal components of the teacher's features that the student learns
SMOOTHING = 0.1  # of the labels
OTHER_VIEW = 0.3  # weight of what the teacher said of another view of the same image
DECAY = 0.99  # of the moving average of the weights, which is what counts in the end
AGREEMENT = 0.2  # root mean square difference that 8 bits may make to the logits, relative to their spread
RANGED = 40  # batches of views that the ranges of 8-bit activations are set by
EMBEDDED_VIEWS = 2  # training views of the student that its embedding and prototypes are made of
HEAD_RATE = 3.0  # learning rate of the layers above the backbone, relative to the backbone's


class StudentConfig(BaseModel):
    """A student and its lessons. Paths are relative to the config's folder.

    Attributes:
        teacher: the TOML file of a frozen detector, whose data set, kinds, folds and features these are.
        network: a network of timm; weights: what it starts from, safetensors with timm's names.
        views: those of the student; the variants are the teacher's.
        deals, seeds: folds of the teacher for which a student is trained.
        steps, batch, lr: of AdamW with one cycle of the learning rate.
        logits, components: weights of the teacher's logits and features beside the labels; 0 for none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    credit: str
    teacher: Path
    network: str
    weights: Path
    preprocess: PreprocessSpec
    views: ViewsConfig
    deals: tuple[Literal["kind", "source"], ...] = ("kind",)
    seeds: tuple[int, ...] = (0,)
    steps: int = Field(300, ge=1)
    batch: int = Field(32, ge=8)
    lr: float = Field(6e-4, gt=0)
    logits: float = Field(1.0, ge=0)
    components: float = Field(1.0, ge=0)


def read_student(path: Path) -> StudentConfig:
    """Read and check a TOML config. Raises ConfigError, naming the key."""
    config = read_table(path, StudentConfig)
    here = path.parent
    return config.model_copy(update={"teacher": here / config.teacher, "weights": here / config.weights})


def prepare_student(config: StudentConfig, teacher: Prepared) -> Prepared:
    """The teacher's data set as the student sees it: with its own name, size and views, for the folds it is asked for.

    Raises:
        DataError: the weights that the student starts from are missing.
    """
    if not config.weights.is_file():
        raise DataError(f"no weights {str(config.weights)!r}", "see the head of configs/fast.toml")
    own = {key: getattr(config, key) for key in ("name", "version", "credit", "preprocess", "deals", "seeds")}
    views = config.views.model_copy(update={"variants": teacher.config.views.variants})
    said = [config.model_dump(mode="json", exclude={"teacher", "weights"}), state_digest(teacher)]
    digest = hashlib.sha256(json.dumps([*said, file_sha256(config.weights)], sort_keys=True).encode()).hexdigest()
    return replace(
        teacher,
        config=teacher.config.model_copy(update={**own, "views": views}),
        folds={key: of for key, of in teacher.folds.items() if key[0] in config.deals and key[1] in config.seeds},
        encoders=(teacher.encoders[0], digest),
    )


def cut(prepared: Prepared, cache: Path, workers: int) -> PixelViews:
    """The student's views, cut where they are not yet."""
    wanted = list(tasks(prepared.config, prepared.data, prepared.rows))
    return cut_views(wanted, prepared.config.preprocess, cache, workers)


class Student(nn.Module):
    """Pixels (n, 3, size, size) to logits (n, 2), generated and swapped, and components (n, COMPONENTS)."""

    def __init__(self, network: str) -> None:
        """Random weights. Raises ConfigError for an unknown network."""
        super().__init__()
        timm = import_timm()
        if not timm.is_model(network):
            raise ConfigError(f"timm has no network {network!r}", "see timm.list_models()")
        self.backbone = timm.create_model(network, num_classes=0)
        self.drop = nn.Dropout(0.2)
        self.logits = nn.Linear(self.backbone.num_features, 2)
        self.components = nn.Linear(self.backbone.num_features, COMPONENTS)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = self.drop(self.backbone(pixels))
        return self.logits(features), self.components(features)

    def heads(self) -> Heads:
        """The last layer, as lines on the features."""
        weight, bias = self.logits.weight.detach().numpy(), self.logits.bias.detach().numpy()
        return Heads(*(Line(w.copy(), float(b)) for w, b in zip(weight, bias, strict=True)))


@dataclass(frozen=True, slots=True)
class Lessons:
    """What a teacher says of the views that it has features of: logits (n, 2) and components (n, COMPONENTS)."""

    place: dict[tuple[str, str], int]
    logits: npt.NDArray[np.float32]
    components: npt.NDArray[np.float32]

    def find(self, image: str, view: str) -> tuple[int, float]:
        """Where the lesson on a view stands, -1 for nowhere, and its weight; that on another view counts less."""
        if (image, view) in self.place:
            return self.place[image, view], 1.0
        others = [self.place[image, v] for v in ("train-1", "clean") if (image, v) in self.place]
        return (others[0], OTHER_VIEW) if others and not view.startswith("blend-") else (-1, 0.0)


def lessons(teacher: Prepared, found: Examples, heads: Heads, allowed: Bools) -> Lessons:
    """From the teacher's heads and features, on the training views of the allowed rows (by index)."""
    from sklearn.decomposition import PCA

    chosen = np.flatnonzero(np.isin(found.view, teacher.config.views.train) & allowed[found.row])
    features = found.features[chosen]
    values = features.astype(np.float32)
    values -= values.mean(axis=0)
    values /= values.std(axis=0) + np.float32(1e-3)
    count = min(COMPONENTS, *values.shape)
    components = np.zeros((len(values), COMPONENTS), np.float32)
    components[:, :count] = PCA(
        count, svd_solver="randomized", iterated_power=2, random_state=0
    ).fit_transform(values)  # fmt: skip
    images = [teacher.rows[row].sha256 for row in found.row[chosen]]
    return Lessons(
        {key: i for i, key in enumerate(zip(images, found.view[chosen].tolist(), strict=True))},
        np.stack([heads.generated(features), heads.swapped(features)], axis=1).astype(np.float32),
        components / components.std(),
    )


class Drawn(NamedTuple):
    """One view in a batch: its class, and its place in `PixelViews`."""

    of: Class
    view: int


class Sampler:
    """Draws batches: classes by `SHARES`, within a class kinds by the square root of their size, then any view."""

    def __init__(self, groups: dict[Class, dict[str, list[int]]], batch: int, seed: int) -> None:
        """`groups`: places of views by class and kind. Raises DataError for a class without any."""
        if missing := [name for name in SHARES if not groups.get(name)]:
            raise DataError(f"no {missing[0]} images to train a student on", "add sources, or use fewer folds")
        self.rng = np.random.default_rng(seed)
        self.views = {name: list(kinds.values()) for name, kinds in groups.items()}
        self.chances = {name: np.sqrt([len(v) for v in kinds]) for name, kinds in self.views.items()}
        self.counts = {name: round(batch * share) for name, share in SHARES.items()}

    def draw(self) -> Iterator[Drawn]:
        """One batch, class by class."""
        for name, count in self.counts.items():
            chances = self.chances[name] / self.chances[name].sum()
            for kind in self.rng.choice(len(chances), count, p=chances):
                views = self.views[name][kind]
                yield Drawn(name, views[int(self.rng.integers(len(views)))])


def train_student(
    config: StudentConfig, rows: Sequence[ImageRow], cut: PixelViews, taught: Lessons, allowed: Bools
) -> Student:
    """One student, fitted to the training views of the allowed rows (by index); the same input gives the same one.

    Raises:
        DataError: weights of another network, or a class without images.
    """
    torch.manual_seed(config.seeds[0])
    student = _initial(config)
    average = copy.deepcopy(student).eval()
    index = {row.sha256: i for i, row in enumerate(rows)}
    of = np.array([index[image] for image in cut.image.tolist()])
    sampler = Sampler(_groups(config, rows, cut.view, of, allowed), config.batch, config.seeds[0])
    generator = torch.Generator().manual_seed(config.seeds[0])
    quick = [*student.logits.parameters(), *student.components.parameters()]
    optimizer = torch.optim.AdamW([{"params": student.backbone.parameters()}, {"params": quick}], weight_decay=0.02)
    rates = [config.lr, config.lr * HEAD_RATE]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=config.steps, pct_start=0.1)
    student.train()
    for step in tracked(range(config.steps), config.steps, "training the student"):
        drawn = list(sampler.draw())
        pixels = _moved(_inputs(cut, [d.view for d in drawn], config.preprocess), generator)
        logits, components = student(pixels.contiguous(memory_format=torch.channels_last))
        found = [taught.find(str(cut.image[d.view]), str(cut.view[d.view])) for d in drawn]
        loss = _loss(config, [d.of for d in drawn], found, logits, components, taught)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        _follow(average, student, min(DECAY, (2 + step) / (11 + step)))
    return average


def _initial(config: StudentConfig) -> Student:
    student = Student(config.network)
    missing = student.backbone.load_state_dict(load_file(config.weights), strict=False).missing_keys
    if missing:
        raise DataError(f"{str(config.weights)!r} lacks {missing[0]}", f"give weights of timm's {config.network}")
    return student.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _groups(
    config: StudentConfig, rows: Sequence[ImageRow], views: npt.NDArray[np.str_], of: npt.NDArray[np.int64],
    allowed: Bools,
) -> dict[Class, dict[str, list[int]]]:  # fmt: skip
    """Places of the views that may be trained on, by class and kind; blended photographs count as swapped."""
    groups: dict[Class, dict[str, list[int]]] = {name: defaultdict(list) for name in SHARES}
    for place, (view, i) in enumerate(zip(views.tolist(), of.tolist(), strict=True)):
        row, blended = rows[i], view in config.views.blend
        if not allowed[i] or row.label == "edited" or not (blended or view in config.views.train):
            continue
        if blended or row.family == "swap":
            groups["swapped"][row.kind].append(place)
        elif row.family not in ALTERED:
            groups["real" if row.label == "real" else "generated"][row.kind].append(place)
    return groups


def _inputs(cut: PixelViews, places: Iterable[int], spec: PreprocessSpec) -> Tensor:
    return torch.from_numpy(spec.normalize(np.stack([cut.pixels[place] for place in places])))


def _moved(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (n, 3, size, size) mirrored half of the time, enlarged by up to a quarter, and lit differently."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(len(pixels), generator=generator) * (high - low) + low

    side = uniform(0.8, 1.0)
    where = torch.zeros(len(pixels), 2, 3)
    where[:, 0, 0] = side * torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    where[:, 1, 1] = side
    where[:, 0, 2], where[:, 1, 2] = (uniform(-1, 1) * (1 - side) for _ in range(2))
    grid = F.affine_grid(where, list(pixels.shape), align_corners=False)
    shown = F.grid_sample(pixels, grid, mode="bilinear", align_corners=False)
    return shown * uniform(0.85, 1.15).view(-1, 1, 1, 1) + uniform(-0.1, 0.1).view(-1, 1, 1, 1)


def _loss(
    config: StudentConfig, classes: Sequence[Class], found: Sequence[tuple[int, float]], logits: Tensor,
    components: Tensor, taught: Lessons,
) -> Tensor:  # fmt: skip
    """Labels for both outputs, each on its classes, and what the teacher says of the views that it knows."""
    cross, names = F.binary_cross_entropy_with_logits, np.array(classes)
    target = torch.from_numpy((names != "real").astype(np.float32)) * (1 - SMOOTHING) + SMOOTHING / 2
    plain, swaps = torch.from_numpy(names != "swapped"), torch.from_numpy(names != "generated")
    loss = cross(logits[plain, 0], target[plain]) + 0.5 * cross(logits[swaps, 1], target[swaps])
    known = [i for i, (place, _) in enumerate(found) if place >= 0]
    if not known:
        return loss
    at = [found[i][0] for i in known]
    weight = torch.tensor([found[i][1] for i in known])
    weight = weight / weight.sum()
    said = torch.sigmoid(torch.from_numpy(taught.logits[at]))
    apart = cross(logits[known], said, reduction="none")
    of_both = apart[:, 0] * plain[known] + 0.5 * apart[:, 1] * swaps[known]
    distance = (components[known] - torch.from_numpy(taught.components[at])).square().mean(dim=1)
    return loss + config.logits * (of_both * weight).sum() + config.components * (distance * weight).sum()


@torch.no_grad()
def _follow(average: Student, student: Student, decay: float) -> None:
    for mean, value in zip(average.state_dict().values(), student.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def fit_student(
    config: StudentConfig, teacher: Prepared, found: Examples, cut: PixelViews, allowed: Bools, file: Path
) -> Student:
    """The student of one fold, from `file` where it was trained before, else trained now and written there.

    Args:
        teacher, found: the teacher's data set and features; its heads are fitted to the same rows as the student.
        allowed: (rows,) what both may be fitted to.
    """
    if not file.is_file():
        taught = lessons(teacher, found, fit_heads(teacher, found, allowed), allowed)
        weights = train_student(config, teacher.rows, cut, taught, allowed).state_dict()
        with replacing(file) as part:
            save_file({name: value.contiguous() for name, value in weights.items()}, part)
    student = Student(config.network)
    student.load_state_dict(load_file(file))
    return student.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]


@torch.no_grad()
def student_examples(student: Student, prepared: Prepared, cut: PixelViews) -> Examples:
    """The student's features, as `frozen.examples` gives the teacher's, of the variants and first training views."""
    chosen = np.flatnonzero(np.isin(cut.view, (*VARIANTS, *prepared.config.views.train[:EMBEDDED_VIEWS])))
    parts = []
    for places in tracked(np.array_split(chosen, -(-len(chosen) // 64)), -(-len(chosen) // 64), "student's features"):
        pixels = _inputs(cut, places, prepared.config.preprocess).contiguous(memory_format=torch.channels_last)
        parts.append(student.backbone(pixels).numpy().astype(np.float16))
    index = {row.sha256: i for i, row in enumerate(prepared.rows)}
    of = np.array([index[image] for image in cut.image[chosen].tolist()])
    return Examples(np.concatenate(parts), of, cut.view[chosen], cut.face[chosen])


def export_student(student: Student, cut: PixelViews, spec: PreprocessSpec, output: Path) -> float:
    """Write all but the heads as an ONNX encoder of 8-bit integers, scaled by every nth view.

    Returns:
        The root mean square difference that 8 bits make to the generated logits of other views, relative to their
        standard deviation.

    Raises:
        DataError: the difference is over `AGREEMENT`.
    """
    import onnx
    import onnxruntime as ort

    write_encoder(student.backbone, spec.size, output)
    whole, part = np.linspace(0, len(cut.view) - 1, 2 * RANGED * BATCH).astype(int), slice(None, None, 2)
    ranges, judged = ([_inputs(cut, places, spec).numpy() for places in whole[of].reshape(-1, BATCH)]
                      for of in (part, slice(1, None, 2)))  # fmt: skip
    with replacing(output) as file:
        onnx.save(quantized(output, ranges), file)
    session = ort.InferenceSession(str(output))
    now = np.concatenate([session.run(["features"], {"pixels": batch})[0] for batch in judged])
    with torch.no_grad():
        before = np.concatenate([student.backbone(torch.from_numpy(batch)).numpy() for batch in judged])
    head = student.heads().generated
    difference = float(np.sqrt(np.mean((head(now) - head(before)) ** 2)) / max(head(before).std(), 1e-9))
    if difference > AGREEMENT:
        raise DataError(f"8 bits change the logits by {difference:.2f} of their spread, over {AGREEMENT}")
    return difference


def student_file(run: Path, prepared: Prepared, key: FoldKey | None) -> Path:
    """Where the student of a fold is kept, or the one that ships."""
    fold = f"{key.deal}-{key.seed}-{key.fold}" if key else "all"
    return run / f"student-{state_digest(prepared)}-{fold}.safetensors"
