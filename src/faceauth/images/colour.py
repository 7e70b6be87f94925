"""From the colours that a file means to sRGB: ICC profiles, PNG's gAMA, cHRM and cICP, the nclx of HEIC and AVIF.

What a file says is obeyed in the order of the PNG specification (third edition, 4.3): cICP, an ICC profile, sRGB, gAMA
with cHRM; without any of them the numbers are sRGB. High dynamic range (PQ, HLG) is brought to a screen's range with
diffuse white at 203 cd/m2 (ITU-R BT.2408) and what is brighter rolled off.
"""

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

Convert = Callable[[Image.Image], Image.Image]
Floats = npt.NDArray[np.float32]

SAME_GAMMA = 0.05  # as libpng: a gamma within 5 % of 1/2.2 is sRGB's
SAME_PRIMARY = 0.01  # in x and y
FAR_FROM_SRGB = 16  # of 255: a profile called sRGB that moves grey further than this is none (sRGB linear: 60)
WHITE = 203.0  # cd/m2
_SRGB = ImageCms.createProfile("sRGB")
_D65 = (0.3127, 0.3290)
_BT709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
# ITU-T H.273, tables 2 and 3: colour primaries whose white is D65, and transfer characteristics
PRIMARIES = {
    1: _BT709, 5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)), 6: ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07)),
    7: ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07)), 9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}  # fmt: skip
_LIKE_SRGB = frozenset({1, 2, 6, 13, 14, 15})  # video and sRGB curves: every viewer shows both alike
_GAMMA_22, _GAMMA_28, _LINEAR, _PQ, _HLG = 4, 5, 8, 16, 18


def conversion(image: Image.Image, cicp: tuple[int, int] | None = None) -> Convert | None:
    """What brings opaque pixels of this file to sRGB; None where they are sRGB already.

    Args:
        image: as opened; only its `info` is read.
        cicp: colour primaries and transfer characteristics (ITU-T H.273) that the file gives, if it does.
    """
    info = image.info
    profile = info.get("icc_profile")
    if cicp and (cicp[1] in {_PQ, _HLG} or not profile or image.format == "PNG"):
        return _from_cicp(*cicp)
    if profile:
        return _from_profile(profile, image.mode)
    gamma = info.get("gamma")
    if image.format != "PNG" or "srgb" in info or not isinstance(gamma, float) or not 0.01 <= gamma <= 10:
        return None
    return _from_gamma(gamma, info.get("chromaticity"))


def nclx(data: bytes) -> tuple[int, int] | None:
    """Primaries and transfer of the first nclx colour box of a HEIC or AVIF file."""
    at = data.find(b"colrnclx")
    return struct.unpack_from(">HH", data, at + 8) if 0 <= at <= len(data) - 12 else None


def _from_profile(profile: bytes, mode: str) -> Convert | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        grey = source.profile.xcolor_space.strip() == "GRAY"
        if "sRGB" in ImageCms.getProfileDescription(source) and not _is_far_from_srgb(source, "L" if grey else "RGB"):
            return None
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None  # an unusable profile: browsers show such files as sRGB
    if mode == "1" or (grey and mode not in {"L", "LA", "La", "F"} and not mode.startswith("I")):
        return None  # black and white stay so; a profile of grey says nothing of colours

    made: dict[str, Any] = {}

    def convert(image: Image.Image) -> Image.Image:
        if grey:
            image = image.convert("L")
        elif image.mode not in {"RGB", "CMYK", "L"}:
            image = image.convert("RGB")
        try:
            if image.mode not in made:
                made[image.mode] = ImageCms.buildTransform(source, _SRGB, image.mode, "RGB")
            converted = ImageCms.applyTransform(image, made[image.mode])
        except (ImageCms.PyCMSError, OSError, ValueError):
            return image
        return image if converted is None else converted

    return convert


def _is_far_from_srgb(profile: ImageCms.ImageCmsProfile, mode: str) -> bool:
    """Whether the profile moves mid grey so far that its numbers cannot be sRGB's, whatever it calls itself."""
    ramp = Image.fromarray(np.arange(32, 256, 32, dtype=np.uint8)[None])
    shown = ImageCms.profileToProfile(ramp.convert(mode), profile, _SRGB, outputMode="RGB")
    moved = np.asarray(shown, np.int16) - np.asarray(ramp.convert("RGB"), np.int16)
    return bool(np.abs(moved).max() > FAR_FROM_SRGB)


def _from_gamma(gamma: float, chromaticity: Any) -> Convert | None:
    """From PNG's gAMA (the exponent that encoded the file) and cHRM (white, red, green, blue, each x and y)."""
    same_gamma = abs(gamma * 2.2 - 1) <= SAME_GAMMA
    matrix = None
    if isinstance(chromaticity, tuple) and len(chromaticity) == 8:
        white, *primaries = zip(chromaticity[::2], chromaticity[1::2], strict=True)
        given, usual = np.array([white, *primaries], float), np.array([_D65, *_BT709])
        if np.abs(given - usual).max() > SAME_PRIMARY and (given[:, 1] > 0.001).all() and given.max() <= 1:
            matrix = _to_bt709(tuple(primaries), tuple(white))
    if same_gamma and matrix is None:
        return None
    return _through_light(np.linspace(0, 1, 256) ** (1 / gamma), matrix)


def _from_cicp(primaries: int, transfer: int) -> Convert | None:
    gamut = PRIMARIES.get(primaries, _BT709)
    same = max(abs(a - b) for x, y in zip(gamut, _BT709, strict=True) for a, b in zip(x, y, strict=True)) < SAME_PRIMARY
    if transfer in _LIKE_SRGB and (same or primaries in {5, 6, 7}):
        return None
    e = np.linspace(0, 1, 256)
    curves = {_GAMMA_22: e**2.2, _GAMMA_28: e**2.8, _LINEAR: e, _PQ: _pq(e), _HLG: _hlg(e)}
    light = curves.get(transfer, _srgb_to_light(e))
    matrix = None if same else _to_bt709(gamut, _D65)
    return _through_light(light, matrix, hlg=transfer == _HLG, bright=transfer in {_PQ, _HLG})


def _pq(e: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """SMPTE ST 2084's curve: from code values [0, 1] to light, 1 being diffuse white."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    p = e ** (1 / m2)
    return np.asarray((np.maximum(p - c1, 0) / (c2 - c3 * p)) ** (1 / m1) * 10_000 / WHITE)


def _hlg(e: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """ARIB STD-B67's inverse curve: from code values [0, 1] to the scene's light [0, 1]. ITU-R BT.2100, table 5."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(e <= 0.5, e**2 / 3, (np.exp((e - c) / a) + b) / 12)


def _srgb_to_light(e: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """IEC 61966-2-1."""
    return np.where(e <= 0.04045, e / 12.92, ((e + 0.055) / 1.055) ** 2.4)


def _light_to_srgb() -> npt.NDArray[np.uint8]:
    """(65536,) the sRGB value of each of as many steps of light from 0 to 1."""
    light = np.linspace(0, 1, 65_536)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(encoded * 255), np.uint8)


def _through_light(
    curve: npt.NDArray[np.float64], matrix: npt.NDArray[np.float64] | None, hlg: bool = False, bright: bool = False
) -> Convert:
    """Pixels through a curve to light, a matrix to sRGB's primaries, and back.

    Args:
        curve: (256,) the light of each value.
        matrix: (3, 3) applied to columns of light; None for none.
        hlg: the light is the scene's, and a display of 1,000 cd/m2 adds its system gamma of 1.2.
        bright: roll off what is brighter than white, else cut it.
    """
    to_light, to_srgb = curve.astype(np.float32), _light_to_srgb()
    luminance = np.array([0.2627, 0.6780, 0.0593], np.float32)  # ITU-R BT.2020

    def convert(image: Image.Image) -> Image.Image:
        light: Floats = to_light[np.asarray(image.convert("RGB"))]
        if hlg:
            light = light * np.maximum(light @ luminance, 1e-6)[..., None] ** np.float32(0.2) * np.float32(1000 / WHITE)
        if matrix is not None:
            light = light @ matrix.T.astype(np.float32)
        if bright:
            light = _rolled_off(light)
        return Image.fromarray(to_srgb[(np.clip(light, 0, 1) * 65_535 + 0.5).astype(np.uint16)])

    return convert


def _rolled_off(light: Floats, knee: float = 0.75) -> Floats:
    """Up to `knee` as it is, above it towards 1 without reaching it; all channels by one factor, so that hues stay."""
    top = np.maximum(light.max(axis=-1, keepdims=True), 1e-6)
    above = np.maximum(top - knee, 0)
    rolled = np.where(top > knee, knee + (1 - knee) * (1 - np.exp(-above / (1 - knee))), top)
    return np.asarray(light * (rolled / top), np.float32)


def _to_bt709(primaries: Any, white: Any) -> npt.NDArray[np.float64]:
    """(3, 3) from linear RGB of given primaries and white (x, y) to linear sRGB, whites matched (Bradford)."""
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    cones_from, cones_to = bradford @ _xyz(white), bradford @ _xyz(_D65)
    adapted = np.linalg.inv(bradford) @ np.diag(cones_to / cones_from) @ bradford
    return np.asarray(np.linalg.inv(_rgb_to_xyz(_BT709, _D65)) @ adapted @ _rgb_to_xyz(primaries, white))


def _rgb_to_xyz(primaries: Any, white: Any) -> npt.NDArray[np.float64]:
    columns = np.stack([_xyz(p) for p in primaries], axis=1)
    return np.asarray(columns * np.linalg.solve(columns, _xyz(white)))


def _xyz(xy: Any) -> npt.NDArray[np.float64]:
    x, y = xy
    return np.array([x / y, 1, (1 - x - y) / y])
