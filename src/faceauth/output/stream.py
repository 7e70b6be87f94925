"""JSON Lines on a stream, as standard output is one."""

import errno
from typing import TextIO

from faceauth.errors import FaceAuthError
from faceauth.output.rows import rows
from faceauth.output.writers import line
from faceauth.verdict import Verdict


class LinesOutput:
    """JSON Lines on a stream, flushed after each image; use as a context."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, verdict: Verdict) -> None:
        """Write an image's rows.

        Raises:
            BrokenPipeError: the reader has left.
            FaceAuthError: the stream cannot be written for another reason.
        """
        text = "".join(f"{line(row)}\n" for row in rows(verdict))
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            what = f"cannot write standard output: {error.strerror or error}"
            raise FaceAuthError(what, "is the disk full?") from error

    def __enter__(self) -> "LinesOutput":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to do: all is flushed, and the stream is its owner's."""
