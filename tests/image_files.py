"""Image files made in code, of every kind that was reported: what `cases_images` and the fuzz test start from."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from conftest import encoded, picture


def base(size=(160, 128), seed=1):
    """Soft colours with some detail: what a photograph is to a codec."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(40, 216, (size[1] // 16, size[0] // 16, 3), np.uint8))
    fine = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
    return Image.blend(small.resize(size, Image.Resampling.BICUBIC), fine, 0.06)


def far(a, b):
    """The mean distance of two pictures' pixels, 0 to 255."""
    a, b = np.asarray(a, np.int16), np.asarray(b, np.int16)
    assert a.shape == b.shape
    return float(np.abs(a - b).mean())


BASE = base()
JPEG = encoded(BASE, "JPEG", quality=92)
PROGRESSIVE = encoded(BASE, "JPEG", quality=92, progressive=True)
PHOTO = encoded(base((640, 512)), "JPEG", quality=92)
PHOTO_PROGRESSIVE = encoded(base((640, 512)), "JPEG", quality=92, progressive=True)


def png_with(image, *chunks):
    """A PNG with chunks (name, body) put after its header."""
    data = encoded(image)
    made = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return data[:33] + made + data[33:]


def linear_profile():
    """A minimal RGB matrix profile with sRGB primaries and gamma 1."""

    def s15(x):
        return struct.pack(">i", round(x * 65536))

    def xyz(*v):
        return b"XYZ \0\0\0\0" + b"".join(map(s15, v))

    text = b"desc\0\0\0\0" + struct.pack(">I", 7) + b"linear\0" + b"\0" * 79
    blocks = {
        b"desc": text, b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": xyz(0.9642, 1, 0.8249),
        b"rXYZ": xyz(0.4361, 0.2225, 0.0139), b"gXYZ": xyz(0.3851, 0.7169, 0.0971), b"bXYZ": xyz(0.1431, 0.0606, 0.7141),
        b"rTRC": b"curv" + bytes(8), b"gTRC": b"curv" + bytes(8), b"bTRC": b"curv" + bytes(8),
    }  # fmt: skip
    offset, table, body = 132 + 12 * len(blocks), b"", b""
    for tag, data in blocks.items():
        data += b"\0" * (-len(data) % 4)
        table += tag + struct.pack(">II", offset + len(body), len(data))
        body += data
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"\0" * 4, 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    header += s15(0.9642) + s15(1) + s15(0.8249)
    return header.ljust(128, b"\0") + struct.pack(">I", len(blocks)) + table + body


def with_preview(data):
    """A JPEG with another one in its first segment, as cameras write it."""
    small = b"Exif\0\0" + encoded(BASE.resize((40, 32)), "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(small) + 2) + small + data[2:]


def multi_picture():
    file = io.BytesIO()
    BASE.save(file, "MPO", save_all=True, append_images=[picture((0, 0, 255), BASE.size)], quality=92)
    return file.getvalue()


def heic(*images, **options):
    pytest.importorskip("pillow_heif").register_heif_opener()
    file = io.BytesIO()
    images[0].save(file, "HEIF", save_all=True, append_images=images[1:], quality=90, **options)
    return file.getvalue()


def animated_webp():
    file = io.BytesIO()
    BASE.save(file, "WEBP", save_all=True, append_images=[picture((0, 0, 255), BASE.size)], quality=92)
    return file.getvalue()


def tiff_directory(entries, following=0):
    body = struct.pack("<H", len(entries))
    for tag, kind, count, value in sorted(entries):
        body += struct.pack("<HHI", tag, kind, count) + value.to_bytes(4, "little")
    return body + struct.pack("<I", following)


def preview_first(sub=True, flagged=True, photometric=2, orientation=None):
    """A TIFF with a 48 px preview first and the picture in a SubIFD, or as the second image."""
    full, small = BASE.tobytes(), BASE.resize((48, 38)).tobytes()
    data = struct.pack("<2sHI", b"II", 42, 0)

    def put(block):
        nonlocal data
        data += b"\0" * (len(data) % 2)
        at = len(data)
        data += block
        return at

    def image(at, size, pixels, *more):
        bits = put(struct.pack("<3H", 8, 8, 8))
        return [
            (256, 4, 1, size[0]), (257, 4, 1, size[1]), (258, 3, 3, bits), (259, 3, 1, 1), (273, 4, 1, at), (277, 3, 1, 3),
            (278, 4, 1, size[1]), (279, 4, 1, len(pixels)), *more,
        ]  # fmt: skip

    second = put(tiff_directory(image(put(full), BASE.size, full, (262, 3, 1, photometric), (254, 4, 1, 0))))
    more = [(262, 3, 1, 2), (254, 4, 1, int(flagged))]
    more += [(330, 4, 1, second)] if sub else []
    more += [(274, 3, 1, orientation)] if orientation else []
    first = put(tiff_directory(image(put(small), (48, 38), small, *more), 0 if sub else second))
    return data[:4] + struct.pack("<I", first) + data[8:]


def planar_tiff():
    """Three planes, one after another (PlanarConfiguration 2)."""
    width, height = BASE.size
    planes = [band.tobytes() for band in BASE.split()]
    places = [8 + i * len(planes[0]) for i in range(3)]
    at = 8 + 3 * len(planes[0])
    table = struct.pack("<3H", 8, 8, 8) + b"\0\0" + struct.pack("<3I", *places) + struct.pack("<3I", *map(len, planes))
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, at), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 3, at + 8),
        (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 3, at + 20), (284, 3, 1, 2),
    ]  # fmt: skip
    return struct.pack("<2sHI", b"II", 42, at + len(table)) + b"".join(planes) + table + tiff_directory(entries)


def deep_tiff():
    """16 bits a channel."""
    width, height = BASE.size
    pixels = (np.asarray(BASE, np.uint16) * 257).astype("<u2").tobytes()
    at = 8 + len(pixels)
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, at), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8),
        (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, len(pixels)),
    ]  # fmt: skip
    return struct.pack("<2sHI", b"II", 42, at + 6) + pixels + struct.pack("<3H", 16, 16, 16) + tiff_directory(entries)


def in_linear_light(mode=None, name=b"linear\0", format="PNG"):
    """BASE with its numbers proportional to light, and a profile that says so."""
    values = np.asarray(BASE, float) / 255
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    profile = linear_profile()
    at = profile.index(b"linear\0")
    profile = profile[:at] + name.ljust(7, b"\0")[:7] + profile[at + 7 :]
    image = Image.fromarray(np.rint(light * 255).astype(np.uint8))
    image = image if mode is None else image.quantize(256)
    return encoded(image, format, icc_profile=profile)


def pq_png(cicp=bytes((1, 16, 0, 1))):
    """BASE as a PQ signal with white at 203 cd/m2 (SMPTE ST 2084, ITU-R BT.2408)."""
    values = np.asarray(BASE, float) / 255
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4) * 203 / 10_000
    p = light ** (2610 / 16384)
    signal = ((3424 / 4096 + 2413 / 128 * p) / (1 + 2392 / 128 * p)) ** (2523 / 32)
    return png_with(Image.fromarray(np.rint(signal * 255).astype(np.uint8)), (b"cICP", cicp))


def hlg_png():
    """BASE as an HLG signal, such that white is at 75 % (ARIB STD-B67, ITU-R BT.2408); the system gamma on each channel."""
    values = np.asarray(BASE, float) / 255
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4) * 203 / 1000
    luminance = np.maximum(light @ [0.2627, 0.6780, 0.0593], 1e-9)[..., None]
    scene = light * luminance ** ((1 - 1.2) / 1.2)
    signal = np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    )
    image = Image.fromarray(np.rint(np.clip(signal, 0, 1) * 255).astype(np.uint8))
    return png_with(image, (b"cICP", bytes((1, 18, 0, 1))))


def gamma_png(gamma, *more):
    """BASE written with another gamma, and told so."""
    values = (np.asarray(BASE, float) / 255) ** (2.2 * gamma)
    return png_with(
        Image.fromarray(np.rint(values * 255).astype(np.uint8)), (b"gAMA", struct.pack(">I", round(gamma * 1e5))), *more
    )


def wide_png(*chunks):
    """BASE in Display P3's primaries: its numbers are nearer to grey."""
    p3 = np.array([[0.8225, 0.1774, 0], [0.0332, 0.9669, 0], [0.0171, 0.0724, 0.9108]])  # from linear sRGB
    values = np.asarray(BASE, float) / 255
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4) @ p3.T
    values = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return png_with(Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)), *chunks)


def chrm(*values):
    return b"cHRM", struct.pack(">8I", *(round(v * 1e5) for v in values))


P3 = chrm(0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
SRGB = chrm(0.3127, 0.329, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
GAMMA = (b"gAMA", struct.pack(">I", 45455))
