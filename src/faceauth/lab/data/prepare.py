"""From folders and archives to a prepared data set: found, chosen, split, stored, and written into a manifest.

This is the order of events and nothing more: `importers` find, `sampling` chooses, `splits` divides, `storing` reads
and writes. A million images are never all opened: each source is asked for as many as are wanted, in an order drawn by
the seed, and for more where one cannot be used. A run that was broken off goes on when the same command is given again.
"""

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from faceauth import __version__
from faceauth.cpus import usable_cpus
from faceauth.errors import ConfigError, DataError, UsageError
from faceauth.files import locked
from faceauth.lab.data import importers
from faceauth.lab.data.archives import Item
from faceauth.lab.data.dataset import AGAIN, DataSet, ImageRow, read_dataset
from faceauth.lab.data.importers import Found
from faceauth.lab.data.journal import SCRATCH, Journal, finish, read_plan, read_state, sweep, write_plan, write_state
from faceauth.lab.data.sampling import Outcome, choose, order, quotas
from faceauth.lab.data.splits import given_or_assigned, shares, tie
from faceauth.lab.data.storing import IMAGES, JPEG, SPEC, Job, destination, move_all, store, write_manifest
from faceauth.lab.parallel import Workers, as_it_is, parallel
from faceauth.lab.progress import tracked

Say = Callable[[str], None]
Drawn = dict[str, dict[str, Item]]  # the images of every source by name, in the order drawn for it


class PrepareConfig(BaseModel):
    """What a data set is made of: the options of `faceauth lab prepare`, or a `[prepare]` table.

    `data` names each source and where it lies, `PATH`, `PATH:real` or `PATH:fake`; `leave_out` are sources of a folder
    with an images.csv that are not wanted; `download` are sources to fetch from the Hugging Face hub; `mode` is what
    is stored: crops, or the files as they are, copied, hard-linked or moved.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: dict[str, str] = {}
    count: Annotated[int, Field(ge=2)] | None = None
    fractions: Annotated[tuple[float, float, float], AfterValidator(shares)] = (0.8, 0.1, 0.1)
    seed: int = Field(default=0, ge=0)
    strict: bool = False
    mode: Literal["crop", "copy", "link", "move"] = "crop"
    leave_out: list[str] = []
    download: list[str] = []


def prepare_config(values: Mapping[str, Any]) -> PrepareConfig:
    """A checked configuration. Raises ConfigError for an unknown key or a value out of range."""
    try:
        return PrepareConfig.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        near = difflib.get_close_matches(key, PrepareConfig.model_fields, 1)
        hint = f"did you mean {near[0]!r}?" if near and first["type"] == "extra_forbidden" else None
        raise ConfigError(f"prepare: {key}: {first['msg']}", hint) from error


def prepare(config: PrepareConfig, output: Path, workers: Workers | None = None, say: Say = print) -> DataSet:
    """Make a data set, or finish one that was started; a finished one is read and returned.

    Args:
        output: a new or empty folder, or one that this configuration was started in.
        workers: as of `faceauth.lab.parallel`, all processors by default; the result does not depend on them.
        say: takes one line at a time of what was found, left out and done.

    Raises:
        UsageError: a source or folder that makes no sense; another process is preparing the same folder.
        DataError: data that cannot make up the set: an empty source, one too small with `strict`, a file under both
            labels, a folder that cannot be written.
    """
    try:
        output.absolute().parent.mkdir(parents=True, exist_ok=True)
        with locked(output.absolute()):
            return _prepare(config, output, workers or usable_cpus(), say)
    except OSError as error:
        raise DataError(f"cannot write the data set: {error.strerror}: {error.filename}", AGAIN) from error


def _prepare(config: PrepareConfig, output: Path, workers: Workers, say: Say) -> DataSet:
    if read_state(output, _identity(config)).get("finished"):
        say(f"{output} is finished already")
        sweep(output)
        return read_dataset(output / "manifest.xlsx")
    rows = read_plan(output)
    if rows is not None:
        say("going on with the moves that were broken off")
    else:
        rows = _choose_and_store(config, output, _find(config, output, say), workers, say)
        if config.mode == "move":
            write_plan(output, rows)
    if config.mode == "move":
        moves = ((origin, output / row.path, row.sha256) for row, origin in rows)
        for _ in tracked(move_all(moves), len(rows), "moving"):
            continue
    manifest = write_manifest(output, [row for row, _ in rows])
    finish(output)
    for line in summary(manifest):
        say(line)
    return manifest


def _identity(config: PrepareConfig) -> dict[str, Any]:
    """What makes two runs the same: `strict` changes nothing in a result."""
    return config.model_dump(mode="json", exclude={"strict"})


def _state(config: PrepareConfig, sources: Mapping[str, Found]) -> dict[str, Any]:
    """What `prepare.json` keeps of how a data set was made."""
    found = [
        {
            "Folder": f.source, "class": f.label, "family": f.family, "licence": f.licence, "home": f.home,
            "path": f.items[0].place.path, "images": len(f.items), "left_out": dict(+f.dropped), "missing": f.missing,
        }
        for f in sources.values()
    ]  # fmt: skip
    stored = {"size": SPEC.size, "crop": SPEC.crop, **JPEG} if config.mode == "crop" else "as they are"
    made = {"faceauth": __version__, "config": _identity(config), "stored": stored}
    return made | {"sources": found, "finished": False}


def _find(config: PrepareConfig, output: Path, say: Say) -> dict[str, Found]:
    places = dict(config.data)
    for name in config.download:
        say(f"fetching {name}, or finding it in the hub's cache")
        places[name] = str(importers.download(name))
    if not places:
        raise UsageError("no data is named", "--data NAME=PATH, once a source; `faceauth lab sources` lists the known")
    sources: dict[str, Found] = {}
    for name, given in places.items():
        for found in importers.find(name, given, output / SCRATCH):
            if found.source in sources:
                raise UsageError(f"two sources are called {found.source}", "leave one out, or give it another name")
            sources[found.source] = found
    if unknown := sorted(set(config.leave_out) - set(sources)):
        raise UsageError(f"cannot leave out {', '.join(unknown)}", f"there are {', '.join(sorted(sources))}")
    kept = {name: found for name, found in sorted(sources.items()) if name not in config.leave_out}
    for name, found in kept.items():
        say(found.line())
        place = found.items[0].place
        if config.mode in {"link", "move"} and place.kind != "folder":
            raise UsageError(f"{name} lies in an archive, so --{config.mode} cannot take its files", "use --copy")
        if place.kind == "folder" and output.resolve().is_relative_to(Path(place.file).resolve()):
            raise UsageError(f"{str(output)!r} lies inside the source {name}", "give a folder outside of it")
    return kept


def _choose_and_store(
    config: PrepareConfig, output: Path, sources: dict[str, Found], workers: Workers, say: Say
) -> list[tuple[ImageRow, Path]]:
    """The rows of the manifest, and where each image lies now."""
    labels = {name: found.label for name, found in sources.items()}
    drawn = {name: _drawn(found, config.seed) for name, found in sources.items()}
    sizes = {name: len(items) for name, items in drawn.items()}
    wanted = _wanted(config, labels, sizes, say)  # what cannot be done is refused before anything is written
    output.mkdir(parents=True, exist_ok=True)
    write_state(output, _state(config, sources))
    for folder in (SCRATCH, *(f"{IMAGES}/{name}" for name in sources)):
        (output / folder).mkdir(parents=True, exist_ok=True)
    with Journal(output) as journal:
        _forget(journal, config.mode, output)
        while True:
            choice = choose(wanted, drawn, journal.outcomes)
            if choice.unknown:
                _look(choice.unknown, drawn, config.mode, output, journal, workers)
                _refuse_both_labels(labels, drawn, journal)
            elif choice.usable:
                sizes |= choice.usable
                wanted = _wanted(config, labels, sizes, say)
            else:
                break
    for source, items in drawn.items():
        if broken := [(n, o.error) for n in items if (o := journal.outcomes.get((source, n))) and o.error]:
            say(f"{source}: {len(broken):,} images cannot be used, others took their place; {': '.join(broken[0])}")
    chosen = [
        (sources[source], drawn[source][name], journal.outcomes[source, name])
        for source, names in choice.picked.items()
        for name in names
    ]
    rows = _rows(config, chosen)
    kept = {row.path for row, _ in rows}
    for source, name in journal.outcomes:  # what was stored and then not chosen, nothing else
        path = destination(source, name, config.mode)
        if path not in kept:
            (output / path).unlink(missing_ok=True)
    return rows


def _drawn(found: Found, seed: int) -> dict[str, Item]:
    by_name = {item.name: item for item in found.items}  # the last of those that share a name, as unpacking has it
    return {name: by_name[name] for name in order(by_name, f"{seed}:{found.source}")}


def _wanted(config: PrepareConfig, labels: dict[str, str], sizes: dict[str, int], say: Say) -> dict[str, int]:
    wanted = quotas(labels, sizes, config.count)
    if config.count:
        classes = Counter(labels.values())
        need = {name: config.count // 2 // classes[label] for name, label in labels.items()}
        small = ", ".join(f"{n} has {sizes[n]:,} of {need[n]:,}" for n in sorted(labels) if sizes[n] < need[n])
        if small and config.strict:
            raise DataError(f"too small for {config.count:,} images: {small}", "ask for fewer, or leave --strict off")
        if small:
            total = sum(wanted.values())
            say(f"too small: {small}; others of their class give more where they can: {total:,} images in all")
    return wanted


def _forget(journal: Journal, mode: str, output: Path) -> None:
    """Forget what could not be read, which may have been mended, and what is no longer stored."""
    for (source, name), outcome in list(journal.outcomes.items()):
        stored = mode == "move" or (output / destination(source, name, mode)).exists()
        if outcome.error or not stored:
            del journal.outcomes[source, name]


def _look(
    unknown: list[tuple[str, str]], drawn: Drawn, mode: str, output: Path, journal: Journal, workers: Workers
) -> None:
    jobs = [
        Job(drawn[source][name], str(output / destination(source, name, mode)), str(output / SCRATCH), mode)
        for source, name in unknown
    ]
    for (source, name), outcome in zip(unknown, parallel(as_it_is, store, jobs, workers, "preparing"), strict=True):
        journal.add(source, name, outcome)


def _refuse_both_labels(labels: Mapping[str, str], drawn: Drawn, journal: Journal) -> None:
    """Raises DataError for a file that is both real and fake."""
    first: dict[str, tuple[str, str]] = {}
    for source, items in drawn.items():
        for name, item in items.items():
            outcome = journal.outcomes.get((source, name))
            if outcome is None or outcome.error:
                continue
            label, origin = first.setdefault(outcome.sha256, (labels[source], item.origin))
            if label != labels[source]:
                raise DataError(
                    f"one file is under both labels: {origin!r} is {label}, {item.origin!r} is {labels[source]}",
                    "remove it from one of them",
                )


def _rows(config: PrepareConfig, chosen: list[tuple[Found, Item, Outcome]]) -> list[tuple[ImageRow, Path]]:
    rows = [
        ImageRow(
            destination(f.source, i.name, config.mode), f.source, f.label, f.family, f.source, i.group, f.source,
            o.sha256, face=o.face, original=i.origin, width=o.width, height=o.height,
        )
        for f, i, o in chosen
    ]  # fmt: skip
    components = tie(rows, [o.dhash for _, _, o in chosen])
    splits = given_or_assigned(rows, components, config.seed, config.fractions)
    origins = [Path(i.place.file) / i.name for _, i, _ in chosen]
    placed = [(replace(r, split=s), origin) for r, s, origin in zip(rows, splits, origins, strict=True)]
    return sorted(placed, key=lambda pair: pair[0].path)


def summary(manifest: DataSet) -> Iterable[str]:
    """A line for each source: images in train, test and dev, and how many have no face that was found."""
    counts = Counter((r.source, r.split) for r in manifest.rows)
    faceless = Counter(r.source for r in manifest.rows if r.face is None)
    labels = {r.source: r.label for r in manifest.rows}
    yield f"{'source':24} {'class':5} {'train':>7} {'test':>7} {'dev':>7} {'no face':>8}"
    for source in sorted(labels, key=lambda s: (labels[s], s)):
        train, test, dev = (counts[source, s] for s in ("train", "test", "dev"))
        yield f"{source:24} {labels[source]:5} {train:7,} {test:7,} {dev:7,} {faceless[source]:8,}"
