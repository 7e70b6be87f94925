"""An earlier output as a cache: pictures that it holds, under whatever name, are not judged again."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from faceauth.errors import UsageError
from faceauth.output.resume import Kept, Settings
from faceauth.output.rows import verdict_of
from faceauth.verdict import Verdict


def check_apart(previous: Path, output: Path) -> None:
    """Raises UsageError where an output would overwrite the earlier one that verdicts are taken from."""
    with suppress(OSError):  # one of the two is not there
        if previous.samefile(output):
            raise UsageError(
                f"--previous and -o name the same file {str(output)!r}", "name another output, or drop --previous"
            )


class Previous:
    """The verdicts of a JSON Lines output, `path`, by the SHA-256 of the picture.

    They are none of copies: which file a picture was a copy of says nothing of the files of another run.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        """Read it through once; 40 bytes of memory an image.

        Raises:
            UsageError: it is not there, is no output of `faceauth detect` in JSON Lines, or of other settings.
        """
        self.path = path
        try:
            self._kept = Kept(path.absolute(), settings)
        except OSError as error:
            raise UsageError(f"cannot read {str(path)!r}: {error.strerror or error}", "name a .jsonl output") from error
        except UsageError as error:
            hint = "--previous takes a .jsonl output of faceauth detect with the settings of this run"
            raise UsageError(error.message, hint) from error

    def find(self, references: Sequence[str | bytes], largest: int) -> list[int | None]:
        """What `verdict` takes for each reference; None where it has to be judged.

        Args:
            references: paths, or the bytes of a picture on standard input.
            largest: files of more bytes than this are not read.
        """
        return list(self._kept.find_pictures(references, largest))

    def finder(self) -> Callable[[int], Verdict | None]:
        """A function from a picture's hash (`picture_hash`) to the verdict on it, None where it has to be judged."""
        find = self._kept.finder()

        def verdict(picture: int) -> Verdict | None:
            [entry] = find([picture])
            return None if entry is None else self._verdict(entry)

        return verdict

    def verdict(self, entry: int, reference: str | bytes) -> Verdict:
        """The verdict on a picture that was found, under the name that it has now."""
        return replace(self._verdict(entry), path="-" if isinstance(reference, bytes) else reference)

    def _verdict(self, entry: int) -> Verdict:
        return replace(verdict_of(self._kept.rows(entry)), duplicate_of=None)
