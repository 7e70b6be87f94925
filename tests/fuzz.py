"""Coverage-guided fuzzing of all that strangers can hand over: `python tests/fuzz.py [TARGET ...] --seconds 600`.

Targets: `verdict` (bytes of a picture, to rows), `metadata` (to claims and a report), `manifest` (C2PA boxes), `model`
(metadata of a model file), `learned` (a learned file), `paths` (a list of them). Each runs in a process of its own with atheris
(`pip install '.[fuzz]'`), from seeds made here. An exception that is none of ours, an input that takes more than 20 s
and a process of more than 2 GB are findings: the input is kept in --findings, and the exit code is 1. Make it a test.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LONGEST, MEMORY, LARGEST = 20, 2000, 200_000  # seconds an input, MB a process, bytes an input
TARGETS = ("verdict", "metadata", "manifest", "model", "learned", "paths")


def verdict(scratch):
    """Whatever the bytes, there are rows that JSON holds, with a finite score or an error of one line."""
    from conftest import make_card, write_model
    from faceauth.detector import Detector
    from faceauth.images import Limits
    from test_fuzz_images import SEEDS

    detector = Detector(
        write_model(scratch / "m.onnx", make_card()), whole_image=True, learned=False, limits=Limits(2_000_000)
    )

    def judge(data):
        found = detector.judge(data)
        rows = [json.loads(json.dumps(row, allow_nan=False)) for row in found.rows()]
        assert rows and all(row["error"] is None or row["error"].isprintable() for row in rows)
        assert (found.label is None) == (found.error is not None)

    return judge, list(SEEDS.values())


def metadata(scratch):
    """Claims and a report of bounded, printable lines."""
    from faceauth.provenance import LONGEST, MOST, claims
    from faceauth.provenance.report import examine
    from test_fuzz_metadata import seeds

    def read(data):
        found = claims(data)
        assert len(found) <= MOST
        assert all(len(e.says) <= LONGEST and e.says.isprintable() and e.where.isprintable() for e in found)
        assert all(line.text.isprintable() for line in examine(data).findings)

    return read, seeds()


def manifest(scratch):
    """The JUMBF boxes of a signed JPEG replaced: the library's answer or none, never an exception."""
    from conftest import picture
    from faceauth.provenance import c2pa, claims
    from test_provenance_c2pa import signed

    whole = signed(source=picture())
    start = whole.index(c2pa.MARK)

    def read(data):
        assert all(e.says.isprintable() for e in claims(whole[:start] + data + whole[start + len(data) :]))

    return read, [whole[start : start + 4000]]


def model(scratch):
    """Metadata of a model file: a card or prototypes, or a ModelError."""
    from faceauth.attribution import Prototypes
    from faceauth.errors import ModelError
    from faceauth.model_file import ModelCard
    from test_fuzz_files import CARD, PROTOTYPES

    def read(data):
        text = data.decode("utf-8", "replace")
        for kind in (ModelCard, Prototypes):
            try:
                kind.from_json(text)
            except ModelError as error:
                assert len(str(error)) < 500

    return read, [CARD.encode(), PROTOTYPES.encode()]


def learned(scratch):
    """A learned file: entries, or a UsageError that names it."""
    from faceauth import learned
    from faceauth.errors import UsageError
    from test_fuzz_files import LEARNED

    file = scratch / "fuzzed.json"

    def read(data):
        file.write_bytes(data)
        try:
            assert all(t.kind.name.isprintable() for t in learned.read(file))
        except UsageError as error:
            assert "fuzzed.json" in error.message

    return read, [LEARNED.encode()]


def paths(scratch):
    """A list of paths: strings, or a UsageError of one line. The files themselves are not looked at."""
    from faceauth import lists
    from faceauth.errors import UsageError

    def read(data):
        if not lists.is_list(data):
            return
        try:
            assert all(isinstance(path, str) and path for path in lists.paths(data, "a list"))
        except UsageError as error:
            assert "\n" not in error.message

    return read, [
        b'a.png\r\n"b c.png"\r\n# no\n',
        "Zoë.png\n".encode("utf-16"),
        b"a\0b\0",
        b"\xef\xbb\xbf~/x\nfile:///y",
    ]


def fuzz(target, seconds, findings):
    """One target in this process; ends it, so that temporary files are left to who started it."""
    import atheris

    with atheris.instrument_imports(include=["faceauth", "PIL"]):
        import faceauth.detector
        import faceauth.provenance.report  # noqa: F401
    place = Path(tempfile.mkdtemp())
    work, seeds = globals()[target](place)
    corpus = place / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    options = [
        f"-max_total_time={seconds}", f"-timeout={LONGEST}", f"-rss_limit_mb={MEMORY}", f"-max_len={LARGEST}",
        f"-artifact_prefix={findings}/{target}-", "-print_final_stats=1", "-verbosity=0",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], work)
    atheris.Fuzz()


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    words.add_argument("--seconds", type=int, default=60, help="for each target")
    words.add_argument("--findings", type=Path, default=Path("findings"))
    words.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = words.parse_args()
    if wrong := set(asked.targets) - set(TARGETS):
        words.error(f"no target {', '.join(wrong)}: there are {', '.join(TARGETS)}")
    findings = asked.findings.resolve()
    findings.mkdir(parents=True, exist_ok=True)
    if asked.one:
        fuzz(asked.targets[0], asked.seconds, findings)
        return 0
    bad = 0
    print("| target | inputs | seconds | largest memory, MB | found |\n|---|---|---|---|---|")
    for target in asked.targets or TARGETS:
        start = time.monotonic()
        command = [sys.executable, __file__, target, "--one", f"--seconds={asked.seconds}", f"--findings={findings}"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
        with tempfile.TemporaryDirectory() as place:
            done = subprocess.run(command, **pipes, env=os.environ | {"TMPDIR": place})
        stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stdout))
        cells = (stats.get("number_of_executed_units", "?"), stats.get("peak_rss_mb", "?"))
        print(
            f"| {target} | {cells[0]} | {time.monotonic() - start:.0f} | {cells[1]} | {'yes, below' if done.returncode else 'nothing'} |",
            flush=True,
        )
        if done.returncode:
            bad += 1
            print(done.stdout[-3000:], file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
