"""One chosen image to its place in a prepared data set.

An image is read, hashed and decoded, its face is found, and it is stored: cropped by the detector's preprocessing and
saved once as JPEG, or as it is. Both classes come through here, and nothing here knows which is which.
"""

import errno
import hashlib
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from faceauth import images
from faceauth.errors import DataError, ImageError
from faceauth.faces import finder
from faceauth.lab.data.archives import Item
from faceauth.lab.data.sampling import Outcome
from faceauth.preprocess import PreprocessSpec

SPEC = PreprocessSpec(size=256, crop=1.3)
JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": 0}  # 4:4:4
IMAGES = "images"


@dataclass(frozen=True, slots=True)
class Job:
    """One image to be read and stored: `target` is the file to write, by way of `scratch`, a folder beside it;
    `mode` is crop, copy, link or move."""

    item: Item
    target: str
    scratch: str
    mode: str


def destination(folder: str, name: str, mode: str) -> str:
    """Where an image is stored, relative to the data set: readable, and unique for a name within its source."""
    stem, suffix = os.path.splitext(name)
    clean = re.sub(r"[^A-Za-z0-9.-]+", "_", stem).strip("._")[-80:]
    unique = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{IMAGES}/{folder}/{clean}-{unique}{'.jpg' if mode == 'crop' else suffix.lower()}"


def store(job: Job) -> Outcome:
    """Read one image and store it; with `move` it is read only.

    Raises:
        DataError: the data set's folder cannot be written. An unreadable image is an outcome, no error.
    """
    try:
        data = job.item.read()
        image = images.decode(data)
    except ImageError as error:
        return Outcome(error=error.message)
    faces = finder()(image)
    face = tuple(map(float, faces[0].box)) if faces else None
    try:
        face = _write(job, data, image, face)
    except OSError as error:
        if job.mode == "link" and error.errno in {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP}:
            what, hint = f"link {job.item.origin!r} into the data set", "use --copy instead"
        else:
            what, hint = f"write {job.target!r}", "the same command goes on where it stopped"
        raise DataError(f"cannot {what}: {error.strerror}", hint) from error
    box = (round(face[0], 2), round(face[1], 2), round(face[2], 2), round(face[3], 2)) if face else None
    return Outcome(hashlib.sha256(data).hexdigest(), images.dhash(image), image.width, image.height, box)


def _write(job: Job, data: bytes, image: Image.Image, face: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Store as the mode says; returns the face box in the stored file."""
    part = f"{job.scratch}/{socket.gethostname()}-{os.getpid()}.part"  # of one process of a cluster
    if job.mode == "crop":
        region = SPEC.region(face, *image.size)
        Image.fromarray(SPEC.resize(image, region)).save(part, **JPEG)
        k = SPEC.size / (region[2] - region[0])
        face = face and tuple((v - region[i % 2]) * k for i, v in enumerate(face))
    elif job.mode == "copy":
        Path(part).write_bytes(data)
    elif job.mode == "link":
        for old in (part, job.target):  # a rename between two links to one file would leave both
            Path(old).unlink(missing_ok=True)
        os.link(os.path.join(job.item.place.file, job.item.name), part)
    if job.mode != "move":
        os.replace(part, job.target)
    return face
