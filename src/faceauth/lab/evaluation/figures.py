"""Figures in one style: colours that colour-blind readers tell apart, real as circles, fake as triangles.

Matplotlib through its objects, without a window or a global state. It knows nothing of models or files of images.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from faceauth.files import replacing
from faceauth.lab.evaluation.embeddings import Map
from faceauth.lab.evaluation.spectrum import SourceSpectrum

# Tol's muted scheme (Paul Tol, Colour Schemes, SRON/EPS/TN/09-002, 2021) and black.
PALETTE = (
    "#332288", "#88CCEE", "#117733", "#DDCC77", "#CC6677", "#44AA99", "#882255", "#999933", "#AA4499", "#000000",
)  # fmt: skip
LINES = ("-", "--", ":")
MARKERS = {"real": "o", "fake": "^"}
WIDTH = 8.4  # inches; 1210 pixels at DPI
DPI = 144


# Decorates what makes or writes a figure; the same data give the same file.
styled = matplotlib.rc_context({
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "axes.titlesize": 11, "legend.frameon": False, "figure.constrained_layout.use": True,
    "svg.hashsalt": "faceauth", "font.family": "DejaVu Sans", "text.parse_math": False,
})  # fmt: skip


@styled
def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as NAME.png and NAME.svg into a folder, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, metadata in (("png", None), ("svg", {"Date": None})):
        with replacing(folder / f"{name}.{kind}") as part:
            figure.savefig(part, format=kind, dpi=DPI, metadata=metadata)


@styled
def png(figure: Figure) -> bytes:
    """A figure as a PNG file's bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


def colours(sources: Sequence[str]) -> dict[str, str]:
    """A colour for each source, in order; after ten they come again, and the marker tells real from fake."""
    return {source: PALETTE[i % len(PALETTE)] for i, source in enumerate(sources)}


@styled
def tsne_map(map_: Map, name: str, placed: Mapping[str, Sequence[float]] | None = None) -> Figure:
    """A map, coloured by source and marked by class; `placed` are paths and points of new images on it."""
    e = map_.embedded
    order = sorted({(-int(t), str(s)) for t, s in zip(e.target, e.source, strict=True)})
    colour = colours([source for _, source in order])
    figure = Figure(figsize=(WIDTH, 5.6))
    axes = figure.subplots()
    for target, source in order:
        here, label = map_.points[e.source == source], "real" if target else "fake"
        axes.scatter(
            here[:, 0], here[:, 1], s=22, c=colour[source], marker=MARKERS[label], alpha=0.8, linewidths=0.3,
            edgecolors="white", label=f"{source} ({label})",
        )  # fmt: skip
    for title, (x, y) in (placed or {}).items():
        axes.scatter([x], [y], s=170, c="#EE3377", marker="*", edgecolors="black", linewidths=0.8, zorder=3)
        label = Path(title).name
        axes.annotate(label, (x, y), xytext=(7, 7), textcoords="offset points", fontsize=9, fontweight="bold")
    axes.set(xticks=[], yticks=[], title=f"{name}: embeddings of {len(e.path)} images")
    axes.set_xlabel(f"t-SNE, seed {map_.seed}, perplexity {map_.perplexity:g}; distances between groups mean little")
    figure.legend(loc="outside right upper", fontsize=9, title="● real   ▲ fake")
    return figure


@styled
def roc_curves(curves: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Figure:
    """ROC curves of several models: on the left as it is, on the right the false alarms on a log axis.

    A model without a curve (no points) keeps its colour for the next figure.
    """
    figure = Figure(figsize=(WIDTH, 4.2))
    left, right = figure.subplots(1, 2)
    for i, (name, curve) in enumerate(curves.items()):
        if not curve["fpr"]:
            continue
        line: dict[str, Any] = {"color": PALETTE[i % len(PALETTE)], "linestyle": LINES[i // len(PALETTE) % 3]}
        left.plot(curve["fpr"], curve["tpr"], label=name, **line)
        right.plot(np.maximum(curve["fpr"], 1e-3), curve["tpr"], **line)
    left.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    right.plot(x := np.geomspace(1e-3, 1, 50), x, color="grey", linewidth=0.8)
    right.axvline(0.01, color="grey", linestyle=":", linewidth=0.8)
    left.set(xlabel="real called fake", ylabel="fake caught", title=title)
    right.set(xlabel="real called fake (log)", xscale="log", xlim=(1e-3, 1), title="few false alarms")
    right.xaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside right upper", fontsize=9)
    return figure


@styled
def reliability(bins: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Share of fakes against the score, for several models; calibrated scores lie on the diagonal."""
    figure = Figure(figsize=(WIDTH, 4.2))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for i, (name, filled) in enumerate(bins.items()):
        x, y = [b["score"] for b in filled], [b["fake"] for b in filled]
        axes.plot(x, y, marker="o", markersize=4, color=PALETTE[i % len(PALETTE)], label=name)
    axes.set(xlabel="score", ylabel="share of fakes, classes weighing the same", aspect="equal")
    axes.set(xlim=(0, 1), ylim=(0, 1), title="Calibration")
    figure.legend(loc="outside right upper", fontsize=9)
    return figure


@styled
def training_curves(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """The losses that runs logged by step; everything called loss has a line."""
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    for i, (name, rows) in enumerate(logs.items()):
        kinds = sorted({k for row in rows for k, v in row.items() if k.endswith("loss") and v is not None})
        for j, kind in enumerate(kinds):
            points = [(row["step"], row[kind]) for row in rows if row.get(kind) is not None and "step" in row]
            line: dict[str, Any] = {"color": PALETTE[i % len(PALETTE)], "linestyle": LINES[j % 3]}
            marker = "o" if len(points) == 1 else None
            axes.plot(*zip(*points, strict=True), marker=marker, label=f"{name}, {kind}", **line)
    axes.set(xlabel="step", ylabel="loss", title="Training")
    figure.legend(loc="outside right upper", fontsize=9)
    return figure


@styled
def folds(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """AUROC of every fold, clean, of the models and of the controls beside them; the line is each row's mean.

    The rows are those of the table `control_folds`, see `evaluate`.
    """
    rows = [row for row in rows if row["variant"] == "clean"]
    first = rows[0]["set"] if rows else ""
    points: dict[str, list[float]] = {}
    for row in (row for row in rows if row["set"] == first):
        for name, value in row.items():
            if name in {"model", "set", "variant", "seed", "fold"} or value is None:
                continue
            title = row["model"] if name == "AUROC" else f"{row['model']}: {name}"
            points.setdefault(title, []).append(value)
    figure = Figure(figsize=(WIDTH, 1.2 + 0.3 * len(points)))
    axes = figure.subplots()
    for i, (title, values) in enumerate(points.items()):
        colour = PALETTE[0] if ": " not in title else PALETTE[4]
        axes.scatter(values, [-i] * len(values), s=26, color=colour, alpha=0.6)
        axes.plot([float(np.mean(values))] * 2, [-i - 0.3, -i + 0.3], color=colour)
    axes.axvline(0.5, color="grey", linewidth=0.8)
    axes.set_yticks([-i for i in range(len(points))], list(points))
    axes.set(xlabel="AUROC", xlim=(0, 1), title=f"Fold by fold, {first}, clean")
    return figure


@styled
def confusion(counts: Mapping[str, npt.NDArray[np.int64]], named: Sequence[str], title: str) -> Figure:
    """Which source the model names (columns), as a share of each true source (rows), of which `counts` has one."""
    shares = np.array([of / max(of.sum(), 1) for of in counts.values()])
    figure = Figure(figsize=(WIDTH, 2.2 + 0.27 * len(counts)))
    axes = figure.subplots()
    axes.grid(False)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(named)), named, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(counts)), [f"{source} ({of.sum()})" for source, of in counts.items()])
    for (y, x), share in np.ndenumerate(shares):
        if share >= 0.005:
            axes.text(x, y, f"{share:.0%}", ha="center", va="center", fontsize=8, color="w" if share > 0.6 else "k")
    axes.set(xlabel="named", ylabel="true source (images)", title=title)
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


@styled
def spectrum_grid(found: Sequence[SourceSpectrum]) -> Figure:
    """The two-dimensional spectrum of each source, on one scale."""
    columns = min(6, len(found))
    lines = -(-len(found) // columns)
    low, high = np.percentile(np.stack([s.log_power for s in found]), [1, 99.8])
    figure = Figure(figsize=(WIDTH, 1.7 * lines + 0.5))
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for axes, s in zip(grid.ravel(), found, strict=False):
        image = axes.imshow(s.log_power, cmap="viridis", vmin=low, vmax=high)
        axes.set_title(f"{s.source}\n{'fake' if s.fake else 'real'}, {s.images} images", fontsize=7.5)
    figure.colorbar(image, ax=grid, shrink=0.8, label="dB")
    return figure


@styled
def spectrum_profiles(found: Sequence[SourceSpectrum]) -> Figure:
    """Radial profiles, and their difference from the mean of the real sources, with 95 % intervals."""
    colour = colours([s.source for s in found])
    figure = Figure(figsize=(WIDTH, 7.6))
    above, below = figure.subplots(2, 1, sharex=True)
    for s in found:
        line: dict[str, Any] = {"color": colour[s.source], "linestyle": "--" if s.fake else "-", "linewidth": 1.3}
        band: dict[str, Any] = {"color": colour[s.source], "alpha": 0.15, "linewidth": 0}
        above.plot(s.frequency, s.profile, label=f"{s.source} ({'fake' if s.fake else 'real'})", **line)
        above.fill_between(s.frequency, s.low, s.high, **band)
        below.plot(s.frequency, s.difference, **line)
        below.fill_between(s.frequency, s.difference_low, s.difference_high, **band)
    below.axhline(0, color="grey", linewidth=0.8)
    above.set(ylabel="power of the residual, dB", title="Radial profiles of the noise residual, 95 % intervals")
    below.set(ylabel="difference from real, dB", xlabel="frequency, cycles a pixel of the prepared image")
    figure.legend(loc="outside right upper", fontsize=9, title="— real   - - fake")
    return figure
