"""What a video file itself says, of its length, its shape and how it is shown; and files that are not whole."""

from fractions import Fraction

import numpy as np
import pytest

from clips import grey, write_clip
from command_line import faceauth, read_rows
from faceauth import video
from faceauth.errors import ImageError
from faceauth.images import formats
from faceauth.video import Clip
from scenes import head

av = pytest.importorskip("av")
KINDS = [
    ("c.mp4", "mpeg4"), ("c.mp4", "libx264"), ("c.mov", "libx264"), ("c.mkv", "libx264"), ("c.webm", "libvpx-vp9"),
    ("c.avi", "mpeg4"), ("c.avi", "libx264"), ("c.flv", "flv1"), ("c.wmv", "wmv2"), ("c.mpg", "mpeg2video"),
    ("c.ts", "mpeg2video"), ("c.ts", "libx264"), ("c.m2ts", "libx264"),
]  # fmt: skip


def noise(count, size=(64, 64)):
    """Pictures that take some bytes."""
    rng = np.random.default_rng(0)
    return [
        av.VideoFrame.from_ndarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).to_image() for _ in range(count)
    ]


@pytest.mark.parametrize(("name", "codec"), KINDS)
def test_a_whole_clip_has_no_note(tmp_path, name, codec):
    rate = 25 if codec == "mpeg2video" else 10
    clip = Clip.open(write_clip(tmp_path / name, noise(60), rate, codec))
    assert list(clip.frames(2.0)) and clip.note is None


def test_a_recording_of_a_broadcast_begins_anywhere_without_a_note(tmp_path):
    with av.open(str(tmp_path / "c.ts"), "w") as container:
        stream = container.add_stream("libx264", rate=10, width=64, height=64, options={"g": "20"})
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, 10)
        for image in noise(60):
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    data = (tmp_path / "c.ts").read_bytes()
    (tmp_path / "c.ts").write_bytes(data[len(data) // 188 // 2 * 188 :])
    clip = Clip.open(tmp_path / "c.ts")
    assert 1 <= len(list(clip.frames(1.0))) <= 4 and clip.note is None


def write_with_sound(path, images, seconds, video_codec, sound_codec, **options):
    """A clip of ten pictures a second, and of silence."""
    with av.open(str(path), "w", **options) as container:
        pictures = container.add_stream(video_codec, rate=10, width=64, height=64)
        sound = container.add_stream(sound_codec, rate=48000)
        pictures.pix_fmt, pictures.time_base = "yuv420p", Fraction(1, 10)
        for image in images:
            container.mux(pictures.encode(av.VideoFrame.from_image(image)))
        container.mux(pictures.encode())
        for at in range(50 * seconds):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 960), np.int16), format="s16", layout="stereo")
            silence.sample_rate, silence.pts = 48000, 960 * at
            container.mux(sound.encode(silence))
        container.mux(sound.encode())
    return path


@pytest.mark.parametrize(("name", "codecs"), [
    ("c.mp4", ("mpeg4", "aac")), ("c.mkv", ("mpeg4", "aac")), ("c.avi", ("mpeg4", "mp2")), ("c.flv", ("flv1", "mp3")),
])  # fmt: skip
def test_sound_that_goes_on_is_no_missing_picture(tmp_path, name, codecs):
    clip = Clip.open(write_with_sound(tmp_path / name, noise(10), 10, *codecs))
    assert len(list(clip.frames(1.0))) in {1, 2} and clip.note is None


@pytest.mark.parametrize(("name", "options"), [("c.mp4", {"movflags": "faststart"}), ("c.mkv", {})])
def test_pictures_that_lack_their_end_say_so_beside_sound_too(tmp_path, name, options):
    path = write_with_sound(tmp_path / name, noise(60), 6, "mpeg4", "aac", options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clip = Clip.open(path)
    assert list(clip.frames(1.0)) and "the file announces 6.0 s" in clip.note


def test_a_last_picture_that_stays_is_no_missing_picture(tmp_path):
    with av.open(str(tmp_path / "c.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10, width=64, height=64)
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 10)
        for pts in (0, 100, 200):
            frame = av.VideoFrame.from_image(grey(9))
            frame.pts, frame.time_base = pts, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    data = (tmp_path / "c.mkv").read_bytes()
    assert data.count(b"00:00:20.100000000") == 1
    (tmp_path / "c.mkv").write_bytes(data.replace(b"00:00:20.100000000", b"00:00:28.000000000"))
    clip = Clip.open(tmp_path / "c.mkv")
    assert len(list(clip.frames(1.0))) == 3 and clip.note is None


@pytest.mark.parametrize(
    ("name", "codec"), [("c.mkv", "libx264"), ("c.mkv", "mpeg4"), ("c.avi", "mpeg4"), ("c.flv", "flv1")]
)
def test_a_clip_that_lacks_its_end_says_so(tmp_path, name, codec):
    path = write_clip(tmp_path / name, noise(60), 10, codec)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clip = Clip.open(path)
    assert 2 <= len(list(clip.frames(1.0))) <= 4
    assert "its pictures end at " in clip.note and "the file announces 6.0 s" in clip.note


def test_an_mp4_that_lacks_its_end_says_so(tmp_path):
    """Its index is at the front, as the web has it."""
    path = write_clip(tmp_path / "c.mp4", noise(60), options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clip = Clip.open(path)
    assert list(clip.frames(1.0)) and "the file announces 6.0 s" in clip.note


def test_little_that_is_missing_goes_without_a_word(tmp_path):
    path = write_clip(tmp_path / "c.mkv", noise(60))
    data = path.read_bytes()
    for share, told in ((0.75, False), (0.5, True)):
        path.write_bytes(data[: int(share * len(data))])
        clip = Clip.open(path)
        assert list(clip.frames(1.0)) and ("announces" in (clip.note or "")) == told


@pytest.mark.parametrize(("name", "codec"), [("c.mp4", "mpeg4"), ("c.avi", "mpeg4"), ("c.mpg", "mpeg2video")])
def test_a_clip_with_damage_says_so(tmp_path, name, codec):
    path = write_clip(tmp_path / name, noise(60), 25 if codec == "mpeg2video" else 10, codec)
    data = bytearray(path.read_bytes())
    for at in np.random.default_rng(1).integers(len(data) // 3, len(data) // 2, 20):
        data[at] ^= 255
    path.write_bytes(data)
    clip = Clip.open(path)
    assert list(clip.frames(1.0)) and clip.note == "parts of it are damaged"


def test_the_rows_say_what_the_notice_says(tmp_path, model_path, monkeypatch):
    monkeypatch.setattr("faceauth.cpus.usable_cpus", lambda: 1)
    images = noise(12, (320, 640))
    for image in images:
        image.paste(head("vae-04", 120)[0], (10, 40))
    path = write_clip(tmp_path / "c.mkv", images, rate=2)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, _, err = faceauth("video", path, "-o", tmp_path / "o.jsonl", "--model", model_path)
    rows = read_rows(tmp_path / "o.jsonl")
    (note,) = {row["note"] for row in rows[-2:]}
    assert code == 0 and [row["row"] for row in rows[-2:]] == ["frame", "track"]
    assert err.startswith(f"{note}\n") and "announces 6.0 s" in note
    assert {row["note"] for row in rows[:-2]} == {None}
    assert [row["frame"] for row in rows[:-1]] == list(range(len(rows) - 1))


def marked(size=(64, 32)):
    """Grey, with the upper left corner white and the upper right one black."""
    image = grey(120, size)
    image.paste((255, 255, 255), (0, 0, size[0] // 4, size[1] // 4))
    image.paste((0, 0, 0), (size[0] * 3 // 4, 0, size[0], size[1] // 4))
    return image


def write_shown(path, image, aspect=None, matrix=None, codec="mpeg4"):
    """A clip of one picture, three times, that is shown with this aspect of a pixel or by this matrix."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, width=image.width, height=image.height)
        stream.pix_fmt, stream.bit_rate, stream.time_base = "yuv420p", 4_000_000, Fraction(1, 10)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if matrix:
            a, b, c, d = (round(65536 * v) for v in matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    return path


def shown(path):
    (found,) = Clip.open(path).frames(1.0)
    return found[1]


def corners(image):
    """The corners that are white and black: 0 upper left, then clockwise."""
    pixels = np.asarray(image.convert("L"), float)
    values = [pixels[y, x] for y, x in ((3, 3), (3, -4), (-4, -4), (-4, 3))]
    return int(np.argmax(values)), int(np.argmin(values))


@pytest.mark.parametrize(("matrix", "expected"), [
    (None, (0, 1)), ((1, 0, 0, 1), (0, 1)), ((0, 1, -1, 0), (1, 2)), ((-1, 0, 0, -1), (2, 3)), ((0, -1, 1, 0), (3, 0)),
    ((-1, 0, 0, 1), (1, 0)), ((1, 0, 0, -1), (3, 2)), ((0, 1, 1, 0), (0, 3)), ((0, -1, -1, 0), (2, 1)),
    ((0, 0, 0, 0), (0, 1)), ((1, 1, 1, 1), (0, 1)), ((0, 1, 0, 0), (0, 1)), ((0.1, 0.9, -0.9, 0.1), (1, 2)),
])  # fmt: skip
def test_a_clip_is_judged_as_its_matrix_shows_it(tmp_path, matrix, expected):
    image = shown(write_shown(tmp_path / "c.mp4", marked(), matrix=matrix))
    assert corners(image) == expected
    assert image.size == ((64, 32) if sum(expected) % 4 == 1 else (32, 64)) or expected in {(2, 3)}


def test_a_clip_is_turned_as_the_file_says_where_its_matrix_cannot_be_read():
    class Frame:
        rotation = -90

        @property
        def side_data(self):
            raise ValueError("28 is not a valid Type")

    assert corners(video._upright(marked(), *video._matrix(Frame()))) == (1, 2)


@pytest.mark.parametrize(("aspect", "size"), [
    ((2, 1), (128, 32)), ((1, 2), (64, 64)), ((16, 15), (68, 32)), ((1, 1), (64, 32)), ((100, 99), (64, 32)),
    ((9, 1), (64, 32)), ((1, 9), (64, 32)), ((8, 1), (512, 32)),
])  # fmt: skip
@pytest.mark.parametrize("name", ["c.mp4", "c.mkv"])
def test_pixels_are_made_square(tmp_path, name, aspect, size):
    image = shown(write_shown(tmp_path / name, marked(), aspect=Fraction(*aspect)))
    assert image.size == size and corners(image) == (0, 1)


def test_pixels_are_made_square_before_the_picture_is_turned(tmp_path):
    path = write_shown(tmp_path / "c.mkv", marked((32, 32)), Fraction(2), (0, 1, -1, 0))
    assert shown(path).size == (32, 64)


def test_frames_above_the_limit_are_named_with_it(tmp_path, monkeypatch, model_path):
    path = write_shown(tmp_path / "c.mp4", marked())
    wide = write_shown(tmp_path / "w.mp4", marked(), Fraction(2))
    monkeypatch.setattr("faceauth.cpus.usable_cpus", lambda: 1)
    monkeypatch.setattr(video, "LARGEST", 64 * 32)
    assert shown(path).size == (64, 32)
    with pytest.raises(ImageError, match="a frame of 128 x 32 pixels is too large, the limit is 2,048") as found:
        shown(wide)
    assert "scale=" in found.value.hint
    monkeypatch.setattr(video, "LARGEST", 64 * 32 - 1)
    monkeypatch.setattr(video, "ROUNDED", 0)
    code, out, err = faceauth("video", path, "--model", model_path)
    assert (code, out) == (3, "") and "a frame of 64 x 32 pixels is too large, the limit is 2,047" in err
    assert [line.split(":")[0] for line in err.splitlines()] == ["error", "hint"] and "whole" not in err


def test_a_gif_is_no_transport_stream_whatever_is_in_it():
    assert formats.foreign(b"GIF89a".ljust(188) + b"G".ljust(188) + b"G".ljust(136)) is None
    assert formats.foreign(b"G".ljust(188) + b"G".ljust(188) + b"G".ljust(136)) is formats.VIDEO
