"""Video files, made in code."""

from fractions import Fraction

import pytest

from conftest import picture
from scenes import head


def write_clip(path, images, rate=10, codec="mpeg4", **options):
    """Frames as a file of the kind that its suffix names; `options` are those of `av.open`."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", **options) as container:
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
