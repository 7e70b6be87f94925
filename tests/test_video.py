"""Frames of a video: which are taken, whose face each is, what a track says, and what a hostile file can cost."""

import csv
import importlib
import json
import os
import re
import shutil
import signal
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from clips import grey, scene, write_clip
from command_line import faceauth
from conftest import encoded, needing, picture
from faceauth import video
from faceauth.detector import Detector
from faceauth.errors import ImageError
from faceauth.output import FIELDS, flat, writers
from faceauth.output.rows import VIDEO_FIELDS
from faceauth.verdict import Verdict
from faceauth.video import Clip, Follower, overlap

av = pytest.importorskip("av")
INPUTS = (Path(__file__).parent.parent / "docs" / "inputs.md").read_text()


@pytest.fixture(scope="module")
def two_people(tmp_path_factory):
    """Three seconds: one face that moves; from the second on another one at the right."""
    images = [scene(("vae-04", 10 + i, 40), *([("grace-hopper", 380, 40)] if i >= 10 else [])) for i in range(30)]
    return write_clip(tmp_path_factory.mktemp("clip") / "two.mp4", images)


def test_the_first_frame_of_each_second_is_taken(tmp_path):
    clip = Clip.open(write_clip(tmp_path / "c.mp4", [grey(8 * i) for i in range(25)]))
    found = list(clip.frames(1.0))
    assert [now for now, _ in found] == pytest.approx([0, 1, 2])
    assert [int(np.asarray(image).mean()) for _, image in found] == pytest.approx([0, 80, 160], abs=4)
    assert len(list(clip.frames(5.0))) == 13 and clip.stopped is None


def test_the_second_of_two_joined_clips_is_judged_too(tmp_path):
    parts = [
        write_clip(tmp_path / f"{i}.mpg", [grey(value)] * 60, rate=25, codec="mpeg2video")
        for i, value in enumerate((50, 200))
    ]
    (tmp_path / "c.mpg").write_bytes(b"".join(part.read_bytes() for part in parts))
    found = list(Clip.open(tmp_path / "c.mpg").frames(1.0))
    one = [now for now, _ in Clip.open(parts[0]).frames(1.0)]
    assert [now for now, _ in found] == pytest.approx(one * 2)
    assert [int(np.asarray(image).mean() > 125) for _, image in found] == [0] * len(one) + [1] * len(one)


def test_frames_a_little_out_of_order_begin_no_second_count(tmp_path, monkeypatch):
    image = grey(9)
    monkeypatch.setattr(
        Clip, "_decoded", lambda self: iter_of((t, lambda: image) for t in (0.1, 0.4, 0.3, 0.5, 0.2, 0.8, 1.2, 1.0))
    )
    assert [now for now, _ in Clip("c.avi", "0" * 64).frames(1.0)] == [0.1, 1.2]


def iter_of(values):
    """A generator, which can be closed."""
    yield from values


def test_a_track_over_times_that_begin_anew_is_from_the_first_to_the_last():
    rows = [{"track": 0, "time": t, "label": "real", "score": 0.1} for t in (4.0, 5.0, 0.0, 1.0)]
    (track,) = video.tracks(rows, Clip("c.mpg", "0" * 64))
    assert (track["from"], track["to"]) == (0.0, 5.0)


def test_each_face_keeps_its_track(two_people, model_path):
    rows = list(video.judge(Detector(model_path), Clip.open(two_people), 2.0))
    frames = [row for row in rows if row["row"] == "frame"]
    tracks = [row for row in rows if row["row"] == "track"]
    assert sorted({row["frame"] for row in frames}) == list(range(6))
    for row in frames:
        assert row["track"] == (0 if row["box"][0] < 300 else 1)
        assert row["path"] == str(two_people) and row["image_sha256"] == Clip.open(two_people).sha256
    assert [(t["track"], t["from"], t["to"], t["frames"]) for t in tracks] == [(0, 0.0, 2.5, 6), (1, 1.0, 2.5, 4)]
    scores = [row["score"] for row in frames if row["track"] == 1]
    assert tracks[1]["score"] == pytest.approx(np.mean(scores)) and tracks[1]["judged"] == 4
    assert sum(tracks[1][label] for label in ("real", "uncertain", "fake")) == 4


def test_a_face_keeps_its_number_over_a_gap_and_not_over_a_long_one():
    follow, here, there = Follower(), (0, 0, 100, 100), (300, 0, 400, 100)
    assert follow([here, there]) == [0, 1]
    assert follow([(310, 0, 410, 100), (10, 10, 110, 110)]) == [1, 0]
    assert follow([here]) == [0]
    assert follow([here, there]) == [0, 1]
    for _ in range(video.GONE):
        assert follow([here]) == [0]
    assert follow([there, here]) == [2, 0]
    assert follow([None, here]) == [None, 0]


def test_two_faces_never_share_a_track():
    follow = Follower()
    assert follow([(0, 0, 100, 100)]) == [0]
    assert follow([(0, 0, 90, 100), (0, 0, 100, 100)]) == [1, 0]


def test_overlap_is_intersection_over_union():
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == overlap((0, 0, 10, 10), (50, 50, 60, 60)) == 0


def test_a_track_is_what_most_of_its_frames_are_called(tmp_path):
    clip = Clip("c.mp4", "0" * 64)
    seen = [("fake", 0.9), ("fake", 0.8), ("real", 0.1), ("uncertain", None)]
    rows = [{"track": 0, "time": float(i), "label": label, "score": s} for i, (label, s) in enumerate(seen)]
    (track,) = video.tracks(rows, clip)
    assert (track["label"], track["frames"], track["judged"], track["fake"]) == ("fake", 4, 3, 2)
    assert (track["lowest"], track["highest"], track["score"]) == (0.1, 0.9, pytest.approx(0.6))
    assert "of 3 frames 1 real, 0 uncertain, 2 fake" in video.sentence(track)
    (even,) = video.tracks(rows[1:3], clip)
    assert even["label"] == "uncertain"


@pytest.fixture
def run(model_path, monkeypatch):
    """A command with the small model, in this process alone."""
    monkeypatch.setattr("faceauth.cpus.usable_cpus", lambda: 1)
    return lambda *words, **options: faceauth(*words, "--model", model_path, **options)


def lasting(lines):
    """The rows of JSON Lines, without what differs from run to run."""
    return [{k: v for k, v in json.loads(line).items() if k not in PASSING} for line in lines.splitlines()]


PASSING = {"ms", "judged_at"}
TABLES = [".jsonl", ".json", ".csv", ".xlsx", needing("pyarrow", ".parquet")]


def test_the_command_writes_frames_and_tracks_and_says_what_was_measured(two_people, run, tmp_path):
    output = tmp_path / "rows.jsonl"
    code, out, err = run("video", two_people, "-o", output)
    rows = lasting(output.read_text())
    assert (code, out) == (0, "") and "nothing was measured on video" in err
    assert [r["row"] for r in rows].count("track") == 2 and [r["time"] for r in rows[:3]] == [0.0, 1.0, 1.0]
    assert run("video", two_people, "-o", output)[0] == 2
    code, out, _ = run("video", two_people, terminal=True)
    assert code == 0 and out.startswith("face 1, 0.0 to 2.0 s: ") and len(out.splitlines()) == 2


@pytest.mark.slow
def test_detect_does_with_a_clip_what_video_does(two_people, run):
    for words, terminal in (((), False), (("-o", "-"), True), ((), True)):
        one = run("detect", two_people, *words, terminal=terminal)
        other = run("video", two_people, *words, terminal=terminal)
        assert one[0] == other[0] == 0 and one[2] == other[2]
        if terminal and not words:
            assert one[1] == other[1] and one[1].startswith("face 1, ")
        else:
            assert lasting(one[1]) == lasting(other[1])


@pytest.mark.parametrize("command", ["detect", "video"])
def test_frames_that_could_not_be_judged_are_counted_and_end_with_3(tmp_path, run, monkeypatch, command):
    clip = write_clip(tmp_path / "c.mp4", [grey(9)] * 25)
    code, out, err = run(command, clip, terminal=True)
    assert (code, out) == (0, "no face found in any frame, nothing judged\n") and "could not" not in err
    judge, failing = Detector.judge, []
    failed = Verdict(None, (), "m", "0" * 64, error="not judged: it took more than 1 s (raise --timeout)")

    def judged(self, source):
        return failed if failing.pop(0) else judge(self, source)

    monkeypatch.setattr(Detector, "judge", judged)
    for which, said in (([1, 1, 1], ""), ([0, 1, 0], "no face found in any other frame, nothing judged\n")):
        failing[:] = which
        code, out, err = run(command, clip, terminal=True)
        assert (code, out) == (3, said)
        assert err.startswith(f"{sum(which)} of 3 frames could not be judged: {failed.error}\n")
        failing[:] = which
        assert run(command, clip, "-o", tmp_path / "o.jsonl", "--overwrite")[0] == 3
        rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
        assert [row["error"] is not None for row in rows] == [bool(f) for f in which]
    failing[:] = [0, 1, 0]
    if command == "detect":
        assert run(command, clip, "--fail-on", "no-face")[0] == 4


def read_table(path):
    """The columns of a file, and its rows as they are in it."""
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8-sig") as file:
            columns, *rows = csv.reader(file)
    elif path.suffix == ".parquet":
        table = importlib.import_module("pyarrow.parquet").read_table(path)
        columns, rows = table.column_names, [list(row.values()) for row in table.to_pylist()]
    else:
        with zipfile.ZipFile(path) as book:
            sheet = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml"))
        lines = [
            {re.sub(r"\d", "", c.get("r")): "".join(c.itertext()) for c in line} for line in sheet.iter(f"{SHEET}row")
        ]
        places = list(lines[0])
        columns, *rows = [[line.get(place, "") for place in places] for line in lines]
    return columns, rows


SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


@pytest.mark.parametrize("suffix", TABLES)
def test_every_format_holds_the_same_rows(two_people, run, tmp_path, suffix):
    told = lasting(run("detect", two_people)[1])
    assert run("detect", two_people, "-o", tmp_path / f"o{suffix}")[:2] == (0, "")
    assert [p.name for p in tmp_path.iterdir()] == [f"o{suffix}"]
    if suffix in {".jsonl", ".json"}:
        text = (tmp_path / f"o{suffix}").read_text()
        rows = lasting(text) if suffix == ".jsonl" else json.loads(text)
        assert [{k: v for k, v in row.items() if k not in PASSING} for row in rows] == told
        return
    columns, rows = read_table(tmp_path / f"o{suffix}")
    assert tuple(columns) == VIDEO_FIELDS and len(rows) == len(told)
    for row, known in zip(rows, told, strict=True):
        table = flat(dict.fromkeys(VIDEO_FIELDS) | known)
        for name, value in zip(columns, row, strict=True):
            if name in PASSING:
                continue
            if suffix == ".parquet":
                assert value == (known.get("box") if name == "box" else table[name])
            elif isinstance(table[name], float):
                assert float(value) == pytest.approx(table[name], rel=1e-12)
            else:
                assert value == ("" if table[name] is None else str(table[name]))


def test_the_fields_are_in_the_order_of_the_documents(two_people, model_path):
    rows = list(video.judge(Detector(model_path), Clip.open(two_people), 1.0))
    assert tuple(rows[0]) == VIDEO_FIELDS[: VIDEO_FIELDS.index("from")]
    assert set(rows[-1]) <= set(VIDEO_FIELDS)
    assert set(VIDEO_FIELDS) - set(rows[0]) < set(rows[-1])
    cells = re.findall(r"^\| (`.*?`|those of a photograph) \|", INPUTS[INPUTS.index("## Video") :], re.MULTILINE)
    words = " ".join(cells).replace("those of a photograph", " ".join(FIELDS))
    assert tuple(re.findall(r"\w+", words)) == VIDEO_FIELDS


def test_options_that_judge_pictures_of_a_video_are_honoured(two_people, run):
    rows = lasting(run("detect", two_people, "--threshold", "0.001", "--no-recheck", "--workers", "1")[1])
    assert {r["threshold"] for r in rows if r["row"] == "frame"} == {0.001}
    assert {r["label"] for r in rows} == {"fake"}
    for label, code in (("real,fake", 4), ("uncertain,no-face", 0)):
        assert run("detect", two_people, "--threshold", "0.001", "--no-recheck", "--fail-on", label)[0] == code


@pytest.mark.parametrize(
    "words",
    [
        ["--whole-image"],
        ["--resume", "-o", "o.jsonl"],
        ["--dedupe"],
        ["--previous", "x.jsonl"],
        ["--engine", "ray", "-o", "o/"],
        ["--address", "auto"],
        ["--max-pixels", "5"],
        ["--max-bytes", "5"],
    ],
)
def test_options_for_photographs_alone_are_refused_with_a_clip(two_people, run, tmp_path, words):
    code, out, err = run("detect", two_people, *words, cwd=tmp_path)
    assert (code, out) == (2, "") and err.startswith(f"error: a video is judged without {words[0]}\nhint: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["detect", "video"])
@pytest.mark.parametrize("output", ["o.html", "o.txt", "o", "o/", "o.csv/"])
def test_outputs_that_hold_no_rows_of_a_video_are_refused_with_those_that_do(
    two_people, run, tmp_path, command, output
):
    code, out, err = run(command, two_people, "-o", output, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err == (
        f"error: cannot write rows of a video to {output!r}\n"
        "hint: end the name in .jsonl, .json, .csv, .xlsx, .parquet\n"
    )


def test_an_output_is_replaced_when_asked_and_a_folder_never(two_people, run, tmp_path):
    (tmp_path / "o.csv").write_text("precious")
    (tmp_path / "d.csv").mkdir()
    assert "exists" in run("detect", two_people, "-o", tmp_path / "o.csv")[2]
    assert (tmp_path / "o.csv").read_text() == "precious"
    assert run("detect", two_people, "-o", tmp_path / "o.csv", "--overwrite")[0] == 0
    assert (tmp_path / "o.csv").read_text(encoding="utf-8-sig").startswith("row,frame,time,track,path,")
    code, _, err = run("detect", two_people, "-o", tmp_path / "d.csv", "--overwrite")
    assert code == 2 and "is not a regular file" in err


@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize(("failure", "code", "said"), [
    (None, 143, "interrupted\n"),
    (ImageError("'c.mp4': no frame could be decoded"), 3, "error: 'c.mp4': no frame could be decoded\n"),
    (OSError(28, "No space left on device"), 1, "error: cannot write {!r}: No space left on device\nhint: is the disk full, or read-only?\n"),
])  # fmt: skip
def test_a_run_that_ends_early_leaves_the_file_that_was_there(
    two_people, run, tmp_path, monkeypatch, suffix, failure, code, said
):
    closed, judge = [], video.judge

    def breaks_off(*words, **options):
        try:
            yield next(judge(*words, **options))
            if failure:
                raise failure
            signal.raise_signal(signal.SIGTERM)
        finally:
            closed.append(True)

    monkeypatch.setattr(video, "judge", breaks_off)
    output = tmp_path / f"o{suffix}"
    output.write_text("precious")
    assert run("detect", two_people, "-o", output, "--overwrite") == (code, "", said.format(str(output)))
    assert output.read_text() == "precious" and list(tmp_path.iterdir()) == [output] and closed


def test_a_full_disk_ends_the_judging_too(two_people, run, tmp_path, monkeypatch):
    class Full(writers.CsvWriter):
        def write(self, row):
            raise OSError(28, "No space left on device")

    ended, judge = [], video.judge

    def judged(*words, **options):
        try:
            yield from judge(*words, **options)
        finally:
            ended.append(sys.exc_info()[0])

    monkeypatch.setattr(video, "judge", judged)
    monkeypatch.setitem(writers.WRITERS, ".csv", Full)
    code, _, err = run("detect", two_people, "-o", tmp_path / "o.csv")
    assert code == 1 and "No space left" in err and not list(tmp_path.iterdir())
    assert ended == [GeneratorExit]


def test_no_format_that_needs_a_package_is_begun_without_it(two_people, run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(video, "judge", None)
    code, _, err = run("detect", two_people, "-o", tmp_path / "o.parquet")
    assert code == 1 and "faceauth[parquet]" in err


def test_the_name_of_a_clip_is_no_formula(two_people, run, tmp_path):
    shutil.copy(two_people, tmp_path / "=1+1.mp4")
    assert run("detect", "=1+1.mp4", "-o", "o.csv", cwd=tmp_path)[0] == 0
    columns, rows = read_table(tmp_path / "o.csv")
    assert {row[columns.index("path")] for row in rows} == {f".{os.sep}=1+1.mp4"}


def test_a_video_among_photographs_is_a_row_that_says_what_to_do(two_people, run, tmp_path):
    picture().save(tmp_path / "p.png")
    for others in (
        [tmp_path / "p.png"],
        [tmp_path],
        [two_people, tmp_path / "p.png"],
        [shutil.copy(two_people, tmp_path / "2.mp4")],
    ):
        code, out, err = run("detect", two_people, *others)
        rows = [json.loads(line) for line in out.splitlines()]
        assert code == 3 and len(rows) == 2 and "nothing was measured on video" not in err
        assert "a video" in rows[0]["error"] and "row" not in rows[0]
        assert "faceauth video VIDEO" in rows[0]["error"] and "pip install" not in rows[0]["error"]
    shutil.copy(two_people, tmp_path / "-")
    code, out, _ = run("detect", "-", stdin=two_people.read_bytes(), cwd=tmp_path)
    assert code == 3 and "a video" in json.loads(out)["error"]


def test_a_clip_that_is_given_twice_is_judged_once(two_people, run, tmp_path):
    (tmp_path / "link.mp4").symlink_to(two_people)
    once = lasting(run("detect", two_people)[1])
    for others in ([two_people], [os.path.relpath(two_people, tmp_path), "link.mp4"]):
        code, out, _ = run("detect", two_people, *others, cwd=tmp_path)
        assert code == 0 and lasting(out) == once
    assert run("detect", two_people, "none.mp4", cwd=tmp_path)[0] == 3


def test_a_clip_without_a_frame_is_one_line_and_no_file(two_people, run, tmp_path):
    head = two_people.read_bytes()[:3000]
    for data in (
        head,
        head[:32],
        b"\0\0\0\x18ftypisom",
        b"RIFF\0\0\0\0AVI ",
        b"\x1a\x45\xdf\xa3" + b"\xff" * 90,
        b"FLV\x01",
    ):
        (tmp_path / "c.mp4").write_bytes(data)
        code, out, err = run("detect", tmp_path / "c.mp4", "-o", tmp_path / "o.xlsx")
        assert (code, out) == (3, "") and err.startswith("error: ") and "no frame could be decoded" in err
        assert "Errno" not in err
        assert [line.split(":")[0] for line in err.splitlines()] == ["error", "hint"]
        assert [p.name for p in tmp_path.iterdir()] == ["c.mp4"]


def test_a_clip_that_goes_away_is_one_line(two_people, tmp_path):
    clip = Clip.open(shutil.copy(two_people, tmp_path / "c.mp4"))
    (tmp_path / "c.mp4").unlink()
    with pytest.raises(ImageError, match="no frame could be decoded"):
        list(clip.frames(1.0))


@pytest.mark.parametrize(
    "content", [b"#EXTM3U\nhttps://example.org/a.ts\n", b"ffconcat version 1.0\nfile /etc/passwd\n"]
)
def test_a_list_of_other_files_is_no_video(tmp_path, content):
    (tmp_path / "c.mp4").write_bytes(content)
    with pytest.raises(ImageError, match="is no video"):
        Clip.open(tmp_path / "c.mp4")


def test_pictures_and_missing_files_are_refused(tmp_path):
    (tmp_path / "p.mp4").write_bytes(encoded(picture()))
    for path in (tmp_path / "p.mp4", tmp_path / "none.mp4", tmp_path):
        with pytest.raises(ImageError):
            Clip.open(path)


def test_a_damaged_clip_gives_what_can_be_decoded_or_one_line(two_people, tmp_path):
    whole = two_people.read_bytes()
    rng = np.random.default_rng(0)
    for i in range(8):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 200):
            data[at] = rng.integers(256)
        data[4:8] = b"ftyp"
        path = tmp_path / f"{i}.mp4"
        path.write_bytes(data[: len(data) - i * 5000] if i % 2 else data)
        try:
            assert all(isinstance(image, Image.Image) for _, image in Clip.open(path).frames(1.0))
        except ImageError as error:
            assert "\n" not in str(error)
    path.write_bytes(whole[:3000])
    with pytest.raises(ImageError, match="no frame could be decoded"):
        list(Clip.open(path).frames(1.0))


def test_frames_their_pixels_and_the_time_are_bounded(two_people, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "MOST", 2)
    clip = Clip.open(two_people)
    assert len(list(clip.frames(10.0))) == 2 and "stopped after 2 frames" in clip.stopped
    monkeypatch.setattr(video, "PATIENCE", -1.0)
    with pytest.raises(ImageError, match="decoding takes too long"):
        list(Clip.open(two_people).frames(1.0))
    monkeypatch.setattr(video, "PATIENCE", 60.0)
    monkeypatch.setattr(video, "LARGEST", 640 * 320 - 1)
    with pytest.raises(ImageError, match="640 x 320 pixels is too large, the limit is 204,799"):
        list(Clip.open(two_people).frames(1.0))
