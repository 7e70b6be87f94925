"""Frames of a video: which are taken, whose face each is, what a track says, and what a hostile file can cost."""

import json
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image, ImageDraw

from command_line import faceauth
from conftest import encoded, picture
from faceauth import video
from faceauth.detector import Detector
from faceauth.errors import ImageError
from faceauth.video import Clip, Follower, overlap
from scenes import head

av = pytest.importorskip("av")


def write_clip(path, images, rate=10, codec="mpeg4"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, width=images[0].width, height=images[0].height)
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        stream.time_base = Fraction(1, rate)
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    return path


def grey(value, size=(64, 64)):
    return picture((value,) * 3, size)


def scene(*places):
    """Portraits on grey, at (name, left, top)."""
    image = grey(120, (640, 320))
    for name, left, top in places:
        image.paste(head(name, 120)[0], (left, top))
    return image


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


def test_a_clip_that_is_shown_turned_is_turned(tmp_path):
    upright = grey(20, (64, 32))
    ImageDraw.Draw(upright).rectangle((0, 0, 15, 31), fill=(255, 255, 255))
    frame = av.VideoFrame.from_image(upright)

    class Turned:
        rotation = -90

        def to_image(self):
            return frame.to_image()

    turned = video._upright(Turned())
    assert turned.size == (32, 64)
    assert np.asarray(turned)[:12].mean() > 240 > 60 > np.asarray(turned)[20:].mean()  # what was left is on top


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


def test_the_command_writes_frames_and_tracks_and_says_what_was_measured(two_people, model_path, tmp_path):
    output = tmp_path / "rows.jsonl"
    code, out, err = faceauth("video", two_people, "-o", output, "--model", model_path)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert (code, out) == (0, "") and "nothing was measured on video" in err
    assert [r["row"] for r in rows].count("track") == 2 and [r["time"] for r in rows[:3]] == [0.0, 1.0, 1.0]
    assert faceauth("video", two_people, "-o", output, "--model", model_path)[0] == 2
    code, out, _ = faceauth("video", two_people, "--model", model_path, terminal=True)
    assert code == 0 and out.startswith("face 1, 0.0 to 2.0 s: ") and len(out.splitlines()) == 2


def test_detect_says_in_one_line_what_to_do_with_a_video(two_people, model_path):
    code, out, _ = faceauth("detect", two_people, "--model", model_path)
    assert code == 3
    assert "a video" in json.loads(out)["error"] and "faceauth video" in out and "ffmpeg -i" in out


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
    with pytest.raises(ImageError, match="too large|no frame"):
        list(Clip.open(two_people).frames(1.0))
