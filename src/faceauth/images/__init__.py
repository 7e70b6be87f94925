"""From one image in any form to upright 8-bit sRGB pixels, safely.

A file's content decides its format, not its name. What a user's arguments mean - folders, globs, lists - is
`faceauth.inputs`; this package knows one image at a time, and nothing of faces, models or verdicts.
"""

from faceauth.images.decoding import FULL, Limits, decode, format_of
from faceauth.images.formats import FORMATS, HEIF_SUFFIXES, SUFFIXES
from faceauth.images.loading import EncodedImage, LoadedImage, Source, dhash, load, read, shown
from faceauth.images.near import NEAR, alike, near_pairs, small_copy
from faceauth.images.thumbnails import SIDE as THUMBNAIL_SIDE
from faceauth.images.thumbnails import thumbnail, thumbnail_of_file

__all__ = [
    "FORMATS",
    "FULL",
    "HEIF_SUFFIXES",
    "NEAR",
    "SUFFIXES",
    "THUMBNAIL_SIDE",
    "EncodedImage",
    "Limits",
    "LoadedImage",
    "Source",
    "alike",
    "decode",
    "dhash",
    "format_of",
    "load",
    "near_pairs",
    "read",
    "shown",
    "small_copy",
    "thumbnail",
    "thumbnail_of_file",
]
