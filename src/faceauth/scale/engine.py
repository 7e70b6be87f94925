"""`faceauth detect --engine ray`: blocks of images as a Ray Data pipeline, with the detector in actors.

Ray Data gives out the blocks, starts and restarts actors, and tries again what was lost with one. A block's rows are
written whole under a name of its own, so neither a second try nor a second run can double or lose any.
"""

import os
from collections import Counter
from dataclasses import asdict, astuple
from typing import TYPE_CHECKING

from faceauth.console import Ended, Interrupted, notice, progress
from faceauth.errors import UsageError
from faceauth.scale.cluster import answers, connected, needs_ray

if TYPE_CHECKING:
    from faceauth.detector import Detector
    from faceauth.output import Previous
    from faceauth.scale.blocks import Block, Input
    from faceauth.scale.storage import Storage

GO_ON = "finished parts stay; go on with --resume"


def detect(
    detector: "Detector",
    images: list[str],
    output: str,
    workers: int,
    timeout: float,
    address: str | None,
    previous: "Previous | None",
    *,
    resume: bool,
    overwrite: bool,
    dedupe: bool,
) -> tuple["Counter[str]", list[str]]:
    """Judge all pictures that the arguments mean, and write their rows as Parquet parts, one a block.

    Args:
        images: paths and addresses (s3://bucket/prefix) of pictures, tar shards and Parquet files of image bytes.
        output: folder or address, ending in a slash.
        workers: actors; 0 for one a CPU of the cluster.
        timeout: seconds an image may take.
        address: of a Ray cluster; None starts a local one.
        previous: an output whose verdicts are taken for the pictures that it holds.
        resume: keep the parts that are finished. overwrite: replace all parts.
        dedupe: judge the first of files that show one picture, and give the others its faces (`faceauth.duplicates`).

    Returns:
        The tally of all images in the output (`faceauth.output.count`), and notes on what was passed over.

    Raises:
        MissingExtra: Ray is not installed.
        UsageError: no picture, or an output that holds other files, or parts that are of other inputs or settings.
        FaceAuthError: Ray or the storage gave up; --resume goes on.
    """
    needs_ray()
    from faceauth.scale.blocks import found
    from faceauth.scale.storage import Storage

    storage = Storage(output)
    inputs, notes = found(images, detector.limits.max_bytes)
    inputs = [one for one in inputs if not one.path.startswith(f"{storage.root}/")]
    work = planned(detector, inputs, dedupe, previous)
    before = _parts(storage)
    others = sorted(before - {block.name for block in work})
    _check(output, before, others, resume=resume, overwrite=overwrite)
    if resume:
        notice(f"{len(before)} of {len(work)} parts are in the output already")
    with connected(address):
        tally = judged(detector, work, output, workers, timeout, again=overwrite, dedupe=dedupe, previous=previous)
    for old in others:
        storage.remove(f"{storage.root}/{old}")
    return tally, notes


def planned(
    detector: "Detector", inputs: "list[Input]", dedupe: bool = False, previous: "Previous | None" = None
) -> "list[Block]":
    """The inputs in blocks, named after them and after what a row depends on beside its picture."""
    from faceauth import __version__
    from faceauth.detector import row_details
    from faceauth.scale.blocks import blocks, digest, local

    details = row_details(detector)
    settings = {
        "version": __version__, "model": detector.model.sha256, "threshold": float(detector.fake_from),
        "learned": details["learned_sha256"], "finder": details["face_finder"], "whole": detector.whole_image,
        "recheck": detector.recheck, "limits": asdict(detector.limits),
        "among": digest(inputs) if dedupe else None,
        "previous": astuple(local(str(previous.path.absolute()))) if previous else None,
    }  # fmt: skip
    return blocks(inputs, settings)


def _parts(storage: "Storage") -> set[str]:
    """The parts that the output holds. Raises UsageError where it holds other files."""
    names = {path.removeprefix(f"{storage.root}/") for path, _, _ in storage.files()}
    names = {name for name in names if not name.startswith(".")}  # of a run that was killed while it wrote
    if others := sorted(n for n in names if not (n.startswith("part-") and n.endswith(".parquet"))):
        raise UsageError(f"the output holds other files, {others[0]!r} among them", "name a new or empty folder")
    return names


def _check(output: str, before: set[str], others: list[str], *, resume: bool, overwrite: bool) -> None:
    """Raises UsageError where parts in the output stand against what is wanted."""
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other", "give one of the two")
    if before and not (resume or overwrite):
        raise UsageError(f"{output!r} holds parts already", "--resume to go on, or --overwrite to replace them")
    if resume and others:
        raise UsageError(
            f"{output!r} holds {others[0]}, of other images or settings",
            "give the same again, --overwrite, or name another folder",
        )


def judged(
    detector: "Detector",
    work: "list[Block]",
    output: str,
    workers: int,
    timeout: float,
    *,
    again: bool = False,
    dedupe: bool = False,
    previous: "Previous | None" = None,
) -> "Counter[str]":
    """Judge blocks in the cluster that is connected, and write their parts.

    Args:
        again: also those whose parts are there. The others are as for `detect`.

    Returns:
        The tally of all images of the blocks.

    Raises:
        FaceAuthError: Ray or the storage gave up, or the run was interrupted.
    """
    from faceauth.detector import row_details
    from faceauth.scale.copies import tasks
    from faceauth.scale.earlier import held
    from faceauth.scale.judge import Job, Judge, Task
    from faceauth.scale.storage import is_remote

    folder = output if is_remote(output) else os.path.abspath(output)
    model = detector.model.card.name, detector.model.sha256
    earlier = held(previous) if previous else None
    job = Job(detector.arguments, model, row_details(detector), timeout, folder, again, earlier)
    tally: Counter[str] = Counter()
    try:
        given = tasks(job, work, workers, GO_ON) if dedupe else [Task(block) for block in work]
        for counted in progress(answers(Judge, job, given, workers, GO_ON), len(work), "blocks"):
            tally.update(counted)
    except Interrupted as asked:
        raise Ended(asked.number, f"interrupted; {GO_ON}") from asked
    taken = tally.pop("known", 0)
    if previous:
        notice(f"{taken} of {tally['images']} images are taken from {previous.path}")
    return tally
