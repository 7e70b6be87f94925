"""Miniature trees laid out like the study's real downloads, made in code."""

import io
import tarfile
import zipfile

import numpy as np
from PIL import Image

from lab_corpus import face


def picture(seed, fake=False, format="JPEG"):
    """The bytes of one face of lab_corpus."""
    file = io.BytesIO()
    face(np.random.default_rng(seed), fake).save(file, format)
    return file.getvalue()


def put(root, name, data):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def celebahq(root, count=6, start=0):
    for i in range(count):
        put(root, f"{'train' if i % 3 else 'valid'}/{i:05}.jpg", picture(start + i))
    return root


def wiki_names(count):
    """Two photos of each person."""
    return [
        f"{10_000_000 + i // 2:08}"[-2:] + f"/{10_000_000 + i // 2}_1960-01-0{1 + i % 2}_2001.jpg" for i in range(count)
    ]


def wiki_mat(path, names, faceless=(), several=()):
    """A wiki.mat in the struct layout of IMDB-WIKI: one by one struct, its fields one by n."""
    from scipy.io import savemat

    n = len(names)
    cells = np.empty((1, n), object)
    boxes = np.empty((1, n), object)
    for i, name in enumerate(names):
        cells[0, i] = np.array([name])
        boxes[0, i] = np.array([[1.0, 1.0, 90.0, 90.0]])
    scores = np.array([[-np.inf if i in faceless else 3.0 + i for i in range(n)]])
    seconds = np.array([[2.5 if i in several else np.nan for i in range(n)]])
    struct = {
        "dob": np.zeros((1, n)), "photo_taken": np.full((1, n), 2001), "full_path": cells, "gender": np.ones((1, n)),
        "name": cells, "face_location": boxes, "face_score": scores, "second_face_score": seconds,
    }  # fmt: skip
    savemat(path, {"wiki": struct})


def wiki(root, count=8, start=100, mat=True, **scores):
    names = wiki_names(count)
    for i, name in enumerate(names):
        put(root, name, picture(start + i))
    if mat:
        wiki_mat(root / "wiki.mat", names, **scores)
    return root


def as_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def as_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def plain(root, count, start, fake=False, suffix="png"):
    """A folder of images without a known layout."""
    for i in range(count):
        put(root, f"{i:03}.{suffix}", picture(start + i, fake, "PNG" if suffix == "png" else "JPEG"))
    return root


def faces_of(count, start, prefix, fake=True):
    return {f"{prefix}{i:05}.jpg": picture(start + i, fake) for i in range(count)}


def image_size(data):
    return Image.open(io.BytesIO(data)).size
