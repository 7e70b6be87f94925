"""The reported cases of the kind input: lists, folders and names, by the command line as a user gives them."""

import json
import os

import pytest

from command_line import faceauth
from conftest import encoded, picture
from image_files import JPEG

TWO = ["a.png", "Zo\u00eb.png"]


@pytest.fixture
def two(tmp_path):
    for name in TWO:
        picture().save(tmp_path / name)
    return tmp_path


def judged(*arguments, **options):
    """Exit code, and the names of the pictures that got a row without an error."""
    code, out, err = faceauth("detect", *arguments, **options)
    rows = [json.loads(line) for line in out.splitlines()]
    assert "Traceback" not in err
    return code, sorted(os.path.basename(r["path"]) for r in rows if r["error"] is None)


LISTS = {
    "I01 UTF-8 with a byte-order mark": lambda names: "\n".join(names).encode("utf-8-sig"),
    "I02 UTF-16 with a byte-order mark": lambda names: "\r\n".join(names).encode("utf-16"),
    "I02 UTF-16 big-endian": lambda names: b"\xfe\xff" + "\n".join(names).encode("utf-16-be"),
    "I04 quoted paths": lambda names: "".join(f'"{n}"\n' for n in names).encode(),
    "I04 single quotes, blanks and a comment": lambda names: "".join(f"  '{n}'  # mine\n" for n in names).encode(),
    "I04 Windows line ends and an empty line": lambda names: "\r\n\r\n".join(names).encode(),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", LISTS)
@pytest.mark.parametrize("way", ["file", "stdin"])
def test_a_list_as_programs_write_it(two, model_path, case, way):
    data = LISTS[case](TWO)
    (two / "list.txt").write_bytes(data)
    given = ["@list.txt"] if way == "file" else ["-"]
    assert judged(*given, "--model", model_path, cwd=two, stdin=data) == (0, sorted(TWO))


def test_i07_a_folder_from_a_mac(two, model_path):
    (two / "__MACOSX").mkdir()
    for name in ("._a.png", "__MACOSX/._a.png", ".DS_Store"):
        (two / name).write_bytes(b"\0\5\x16\7" + bytes(60))
    assert judged(two, "--model", model_path) == (0, sorted(TWO))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a [1] # 100%.jpg", "[x].jpg", "what?.jpg", "*.jpg", "@a.jpg", "a;b&c.jpg", "#a.jpg"])
def test_i10_a_name_with_signs_of_a_glob(two, model_path, name):
    (two / name).write_bytes(JPEG)
    assert judged(name, "--model", model_path, cwd=two) == (0, [name])
    (two / "list.txt").write_text(name)
    assert judged("@list.txt", "--model", model_path, cwd=two) == (0, [name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.avif", "a.AVIF", "a", "a.jpg_large", "a.jfif"])
def test_d04_no_picture_of_a_folder_is_passed_over(two, model_path, name):
    (two / name).write_bytes(encoded(picture(), "AVIF" if "avif" in name.lower() else "JPEG"))
    assert judged(two, "--model", model_path) == (0, sorted([*TWO, name]))
