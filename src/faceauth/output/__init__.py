"""Verdicts to rows, and rows to a terminal table, a stream or a file.

Every format has the same columns, `FIELDS`, one row a face; an image that could not be read has one row, with `error`.
"""

from faceauth.output.file_output import FileOutput, check
from faceauth.output.parts import PartsOutput, check_folder, is_folder
from faceauth.output.previous import Previous, check_apart
from faceauth.output.resume import Settings, count, picture_hash
from faceauth.output.rows import FIELDS, Row, counted, flat, made_by, path_id, printable, rows, sentence
from faceauth.output.stream import LinesOutput
from faceauth.output.terminal import TableOutput
from faceauth.output.writers import SUFFIXES

__all__ = [
    "FIELDS",
    "SUFFIXES",
    "FileOutput",
    "LinesOutput",
    "PartsOutput",
    "Previous",
    "Row",
    "Settings",
    "TableOutput",
    "check",
    "check_apart",
    "check_folder",
    "count",
    "counted",
    "flat",
    "is_folder",
    "made_by",
    "path_id",
    "picture_hash",
    "printable",
    "rows",
    "sentence",
]
