"""Nothing that makes a run faster changes a verdict: every way to a picture gives the rows of a plain pass over it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

import scenes
from conftest import encoded
from faceauth.detector import Detector
from faceauth.faces import CenterFaceFinder
from faceauth.images import decoding

pytestmark = pytest.mark.slow
OF_A_RUN = ("path", "path_id", "ms", "judged_at")  # fields of a row that no two runs share
PORTRAIT = scenes.portrait("grace-hopper")


def turned(orientation, image):
    """A JPEG whose EXIF says how it has to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, "JPEG", quality=90, exif=exif)


def variants():
    """Name to bytes: codecs, qualities, sizes, a picture turned in its EXIF or lying on its side, one called fake, a group."""
    made = {f"jpeg-{q}.jpg": encoded(PORTRAIT, "JPEG", quality=q) for q in (90, 40)}
    made["progressive.jpg"] = encoded(PORTRAIT, "JPEG", quality=85, progressive=True)
    made["large.jpg"] = encoded(PORTRAIT.resize((2048, 2410)), "JPEG", quality=90)
    made["exif.jpg"] = turned(6, PORTRAIT.transpose(Image.Transpose.ROTATE_90))
    made["side.jpg"] = encoded(PORTRAIT.transpose(Image.Transpose.ROTATE_270), "JPEG", quality=90)
    made["picture.png"] = encoded(PORTRAIT)
    made["picture.webp"] = encoded(PORTRAIT, "WEBP", quality=80)
    made["generated.png"] = encoded(scenes.portrait("vae-04"))
    made["group.jpg"] = encoded(scenes.group((900, 500), 4, 150, 2)[0], "JPEG", quality=90)
    return made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity")
    for name, data in variants().items():
        (folder / name).write_bytes(data)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def detector():
    return Detector("fast", learned=False)


@pytest.fixture(scope="module")
def expected(detector, pictures):
    """The rows of each picture, by the command's own one worker."""
    return [told(verdict) for verdict in detector.stream(pictures)]


def told(verdict):
    assert verdict.error is None
    return [without_run(row) for row in verdict.rows()]


def without_run(row):
    return {key: value for key, value in row.items() if key not in OF_A_RUN}


def test_a_plain_pass_over_all_pixels_gives_the_same_boxes_and_scores(detector, pictures, expected):
    """Pillow alone, the whole picture, one face at a time."""
    card, find = detector.model.card, CenterFaceFinder()
    for path, rows in zip(pictures, expected, strict=True):
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
        faces = find(image)
        pixels = (card.preprocess.normalize(card.preprocess.cut(image, face)[None]) for face in faces)
        scores = [float(card.calibration(detector.model.run(p).logit)[0]) for p in pixels]
        assert [row["box"] for row in rows] == [list(face.box) for face in faces], path.name
        assert [row["score"] for row in rows] == pytest.approx(scores, abs=1e-6), path.name
        assert (rows[0]["width"], rows[0]["height"]) == image.size


def test_the_variants_reach_every_branch(expected):
    assert [len(rows) for rows in expected].count(1) == len(expected) - 1
    assert {row["label"] for rows in expected for row in rows} >= {"fake", "uncertain"}  # `fake` was looked at again
    assert len({rows[0]["score"] for rows in expected}) > len(expected) - 2  # no answer is another picture's


@pytest.mark.parametrize("options", [{"workers": 2}, {"timeout": 60}])
def test_workers_and_threads_give_the_same_rows(detector, pictures, expected, options):
    assert [told(v) for v in detector.stream(pictures, **options)] == expected


def test_bytes_and_lists_give_the_same_rows(detector, pictures, expected, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{path}\n" for path in pictures))
    for way in ([path.read_bytes() for path in pictures], f"@{listed}"):
        assert [told(v) for v in detector.detect(way)] == expected


def test_pixels_give_the_same_faces(detector, pictures, expected):
    for path, rows in zip(pictures, expected, strict=True):
        with Image.open(path) as file:
            pixels = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
        own = told(detector.detect(pixels)[0])
        assert own == [row | {"image_sha256": None, "says_itself": own[0]["says_itself"]} for row in rows]


def test_the_command_with_two_workers_writes_the_same_rows(pictures, expected, tmp_path):
    output = tmp_path / "o.jsonl"
    command = [
        "detect",
        str(pictures[0].parent),
        "-o",
        str(output),
        "--model",
        "fast",
        "--no-learned",
        "--workers",
        "2",
    ]
    subprocess.run([sys.executable, "-m", "faceauth", *command], check=True, capture_output=True)
    written = [without_run(json.loads(line)) for line in output.read_text().splitlines()]
    assert written == [row for rows in expected for row in rows]


def test_a_reduced_decode_finds_the_same_faces_and_calls_them_the_same(detector, pictures, expected, monkeypatch):
    """What is done to pictures of more than 50 million pixels, done to one of five."""
    monkeypatch.setattr(decoding, "FULL", 2_000_000)
    ((path, rows),) = ((p, r) for p, r in zip(pictures, expected, strict=True) if p.name == "large.jpg")
    (row,) = told(detector.judge(path))
    assert row != rows[0]
    assert row["label"] == rows[0]["label"]
    assert row["box"] == pytest.approx(rows[0]["box"], abs=0.01 * row["width"])
    assert row["score"] == pytest.approx(rows[0]["score"], abs=0.05)
