"""`explain`, `verify` and `report-case`: files, exit codes, what a changed report gives away, hostile reports."""

import json
import zipfile
from dataclasses import replace

import pytest

from attributed import RED, write_colour_model, write_pictures
from block_models import write_block_model, write_reference
from command_line import faceauth
from conftest import PORTRAIT, encoded, noise
from faceauth.detector import Detector
from faceauth.explain import checking, explain
from faceauth.explain.explaining import told
from faceauth.images import Limits
from faceauth.model_file import ModelFile

PARAMETERS = (
    '{{"format": 1, "verdict": 1, "faces": 1, "custody": {{"parameters": {{"threshold": {}, "max_pixels": 1, '
    '"max_bytes": 1, "recheck": true, "whole_image": true}}}}}}'
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = write_block_model(tmp_path_factory.mktemp("cli") / "blocks.onnx")
    write_reference(path, ModelFile(path).sha256)
    return path


@pytest.fixture(scope="module")
def report(model):
    path = model.parent / "report.json"
    code, _, err = faceauth("explain", PORTRAIT, "-o", path, "--model", model, "--threshold", "0.7")
    assert code == 0, err
    return path


def fields(value, at=()):
    """The place of every plain value in a report."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from fields(inner, (*at, key))
    else:
        yield at


def changed(value, place):
    """A copy of the report with another value at one place."""
    values = json.loads(json.dumps(value))
    *way, last = place
    inner = values
    for key in way:
        inner = inner[key]
    old = inner[last]
    inner[last] = (not old) if isinstance(old, bool) else old + 1 if isinstance(old, int | float) else f"{old}x"
    return values


def test_a_summary_goes_to_standard_output(model):
    code, out, _ = faceauth("explain", PORTRAIT, "--model", model)
    assert code == 0
    assert "Face 1 is called" in out and "of 9 edits change the label" in out and "evidence, not proof" in out


def test_a_report_holds_and_every_changed_field_is_found(report):
    said = json.loads(report.read_text())
    assert list(checking.differences(said, said)) == []
    missed = set()
    for place in fields(said):
        name = ".".join(str(k) for k in place if isinstance(k, str))
        found = list(checking.differences(changed(said, place), said))
        if not found:
            missed.add(name)
        else:
            assert len(found) == 1
    assert missed == {
        "ms", "verdict.ms", "verdict.path", "provenance.path",
        "custody.libraries.numpy", "custody.libraries.pillow", "custody.libraries.onnxruntime",
    }  # fmt: skip


def test_fields_and_entries_added_or_taken_away_are_found(report):
    said = json.loads(report.read_text())
    more, less, longer = (json.loads(json.dumps(said)) for _ in range(3))
    more["verdict"]["innocent"] = True
    del less["faces"][0]["stability"]
    longer["caveats"].append("None of this is true.")
    assert [str(next(checking.differences(d, said))).split(":")[0] for d in (more, less, longer)] == [
        "verdict.innocent", "faces[0].stability", "caveats",
    ]  # fmt: skip


def test_verify_repeats_the_judgement(report, model):
    code, out, err = faceauth("verify", report, "--image", PORTRAIT, "--model", model)
    assert (code, out) == (0, "") and "the report holds" in err


def test_verify_prints_what_does_not_hold(report, model, tmp_path):
    said = json.loads(report.read_text())
    said["verdict"]["faces"][0]["score"] += 0.01
    said["faces"][0]["stability"]["edits"][3]["label"] = "real"
    other = tmp_path / "changed.json"
    other.write_text(json.dumps(said))
    code, out, err = faceauth("verify", other, "--image", PORTRAIT, "--model", model)
    assert code == 1 and "2 fields differ" in err
    assert [line.split(":")[0] for line in out.splitlines()] == [
        "verdict.faces[0].score",
        "faces[0].stability.edits[3].label",
    ]


def test_another_picture_does_not_pass(report, model, tmp_path):
    (tmp_path / "other.png").write_bytes(encoded(noise((64, 64))))
    code, out, _ = faceauth("verify", report, "--image", tmp_path / "other.png", "--model", model)
    assert code == 1 and "verdict.image_sha256" in out


def test_one_difference_is_one_field(report, model, tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(json.loads(report.read_text()) | {"sentence": "Real."}))
    code, out, err = faceauth("verify", tmp_path / "r.json", "--image", PORTRAIT, "--model", model)
    assert code == 1 and "1 field differs" in err and len(out.splitlines()) == 1


@pytest.mark.parametrize(
    "words", [["verify", "r.json", "--image", "-"], ["report-case", "-", "--truth", "real", "-o", "c.zip"]]
)
def test_two_pictures_on_standard_input_are_too_many(report, model, tmp_path, words):
    (tmp_path / "r.json").write_bytes(report.read_bytes())
    code, _, err = faceauth(*words, "--model", model, cwd=tmp_path, stdin=b"a.jpg\nb.jpg\n")
    assert code == 2 and "2 pictures on standard input" in err and "give one at a time" in err and "explain" not in err


def test_another_model_is_said_plainly(report, tmp_path):
    other = write_block_model(tmp_path / "other.onnx", of_mean=(5.0, 0.0, 0.0))
    code, out, err = faceauth("verify", report, "--image", PORTRAIT, "--model", other)
    assert code == 1 and 'made with model "blocks" "1"' in err and "--model" in err and "custody.model_sha256" in out


def test_the_same_picture_gives_the_same_bytes_but_the_time(report, model, tmp_path):
    code, *_ = faceauth("explain", PORTRAIT, "-o", tmp_path / "b.json", "--model", model, "--threshold", "0.7")
    assert code == 0
    lines = [
        [
            line
            for line in path.read_text().splitlines()
            if not any(f'"{k}"' in line for k in ("ms", "judged_at", "created_at"))
        ]
        for path in (report, tmp_path / "b.json")
    ]
    assert lines[0] == lines[1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no JSON"), ("[" * 200_000, "no JSON"), ("[]", "no report"), ("{}", "no report"),
        ('{"format": 9, "verdict": 1, "faces": 1, "custody": 1}', "format 9"),
        ('{"format": 1, "verdict": 1, "faces": 1, "custody": 1}', "parameters"),
        ('{"format": 1, "verdict": 1, "faces": 1, "custody": {"parameters": {"threshold": "1"}}}', "cannot be"),
        (PARAMETERS.format("1e999"), "cannot be"), (PARAMETERS.format("1" * 400), "cannot be"),
        (PARAMETERS.format("NaN"), "holds NaN, which is no JSON"),
        ('{"format": 1, "sentence": "Real.", "sentence": "Fake."}', 'holds "sentence" twice in one place'),
        ('{"format": 1, "faces": [{"a": 1, "a": 1}]}', 'holds "a" twice'),
    ],
)  # fmt: skip
def test_a_report_that_is_none_is_refused(tmp_path, model, text, told):
    (tmp_path / "r.json").write_text(text)
    code, _, err = faceauth("verify", tmp_path / "r.json", "--image", PORTRAIT, "--model", model)
    assert code == 2 and told in err and "Traceback" not in err and "1" * 100 not in err


def test_a_report_cannot_raise_the_limits(report, model):
    said = json.loads(report.read_text())
    said["custody"]["parameters"]["max_pixels"] = 10**12
    assert checking.detector_of(said, model).limits.max_pixels == 100_000_000
    assert checking.detector_of(said, model, limits=Limits(10**9)).limits.max_pixels == 10**9


def test_a_report_of_raised_limits_holds_where_they_are_given(model, tmp_path):
    report, raised = tmp_path / "r.json", ["--max-pixels", "200000000", "--max-bytes", "300000000"]
    assert faceauth("explain", PORTRAIT, "-o", report, "--model", model, *raised)[0] == 0
    code, out, err = faceauth("verify", report, "--image", PORTRAIT, "--model", model)
    assert code == 1 and len(out.splitlines()) == 2 and "2 fields differ" in err
    assert "give --max-pixels 200000000" in err and "give --max-bytes 300000000" in err
    code, out, err = faceauth("verify", report, "--image", PORTRAIT, "--model", model, *raised)
    assert (code, out) == (0, "") and "the report holds" in err


def test_what_is_not_compared_has_its_form_all_the_same(report):
    said = json.loads(report.read_text())
    said["ms"] = 1
    said["verdict"] |= {"judged_at": "2020-01-31T12:00:00Z", "path": None}
    said["custody"]["libraries"]["numpy"] = "9.0.0rc1"
    now = json.loads(report.read_text())
    assert list(checking.differences(said, now)) == []
    said["ms"], said["provenance"]["path"] = "real, says an expert", 7
    said["custody.libraries: expert opinion"] = said["custody"]["libraries_note"] = "real"
    said["custody"] |= {
        "created_at": "2020-01-31, by an expert",
        "libraries": {**now["custody"]["libraries"], "x": "1"},
    }
    said["custody"]["libraries"]["numpy"] = "real, says an expert"
    del said["verdict"]["ms"]
    assert {found.field for found in checking.differences(said, now)} == {
        "ms", "verdict.ms", "provenance.path", "custody.created_at", "custody.libraries_note", "custody.libraries.x",
        "custody.libraries.numpy", '["custody.libraries: expert opinion"]',
    }  # fmt: skip


def test_sentences_follow_the_scores_of_the_report_where_these_are_the_same(model):
    detector = Detector(model)
    found = explain(detector, PORTRAIT)

    def with_score(score):
        [face] = found.verdict.faces
        one = replace(found, verdict=replace(found.verdict, faces=(replace(face, score=score),)))
        return told(detector, one, one.verdict.faces)

    now, then = with_score(0.8951), with_score(0.8949)
    said = json.loads(json.dumps(then.to_dict()))
    assert "0.90 (" in now.faces[0].sentence and "0.89 (" in then.faces[0].sentence
    assert list(checking.differences(said, checking.retold(now, said, detector).to_dict())) == []
    said["faces"][0]["sentence"] = now.faces[0].sentence  # of another score than the report's
    assert [f.field for f in checking.differences(said, checking.retold(now, said, detector).to_dict())] == [
        "faces[0].sentence"
    ]
    said["verdict"]["faces"][0]["score"] = 0.5
    assert checking.retold(now, said, detector) == now
    for broken in ({}, {"verdict": 1}, {"verdict": {"faces": []}}, {"verdict": {"faces": [1]}}):
        assert checking.retold(now, broken, detector) == now


def test_what_a_hostile_report_holds_is_bounded_and_printed_safely(report, model, tmp_path):
    said = json.loads(report.read_text())
    said["verdict"]["faces"][0]["score"] = 10**400
    said["custody"]["libraries"] = "x" * 100_000
    said["custody"]["model"] = said["sentence"] = "\x1b[31mred"
    said["verdict"] |= {f"\x1b[2J{i}" + "y" * 1000: i for i in range(5000)}
    said["custody"]["parameters"]["max_pixels"] = 10**400
    said["caveats"] = json.loads("[" * 800 + "]" * 800)
    (tmp_path / "r.json").write_text(json.dumps(said))
    code, out, err = faceauth("verify", tmp_path / "r.json", "--image", PORTRAIT, "--model", model)
    assert code == 1 and "more than 100 fields differ" in err and "Traceback" not in err
    assert "\x1b" not in out + err and len(out) < 40_000 and len(err) < 2000
    assert len(out.splitlines()) == 100


def test_a_report_too_large_is_refused_unread(tmp_path, model):
    with open(tmp_path / "r.json", "wb") as file:
        file.truncate(checking.LARGEST + 1)
    code, _, err = faceauth("verify", tmp_path / "r.json", "--image", PORTRAIT, "--model", model)
    assert code == 2 and "more than" in err


@pytest.mark.parametrize(
    ("arguments", "code"), [(["-o", "r.exe"], 2), (["-o", "there.json"], 2), (["--threshold", "3"], 2)]
)
def test_what_makes_no_sense_is_refused(tmp_path, model, arguments, code):
    (tmp_path / "there.json").write_text("mine")
    found, _, err = faceauth("explain", PORTRAIT, "--model", model, *arguments, cwd=tmp_path)
    assert found == code and "Traceback" not in err
    assert (tmp_path / "there.json").read_text() == "mine"


def test_a_picture_that_cannot_be_read_is_code_3(tmp_path, model):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    code, _, err = faceauth("explain", tmp_path / "a.jpg", "--model", model)
    assert code == 3 and "error:" in err and "Traceback" not in err


@pytest.mark.parametrize("photo", ["nothere.jpg", "."])
def test_what_is_no_picture_is_named_with_a_next_step(tmp_path, model, report, photo):
    commands = (
        ["explain", photo], ["verify", report, "--image", photo], ["report-case", photo, "--truth", "real", "-o", "c.zip"]
    )  # fmt: skip
    for words in commands:
        code, _, err = faceauth(*words, "--model", model, cwd=tmp_path)
        assert code == 3 and f"cannot read '{photo}'" in err and "hint: give the path of one picture" in err


@pytest.mark.parametrize("words", [
    ["explain", PORTRAIT, "-o", "no/r.json"], ["provenance", PORTRAIT, "-o", "no/p.json"],
    ["report-case", PORTRAIT, "--truth", "real", "-o", "no/c.zip"],
])  # fmt: skip
def test_a_folder_that_is_not_there_has_to_be_made_first(tmp_path, words):
    code, _, err = faceauth(*words, cwd=tmp_path)
    assert code == 2 and "no folder 'no'" in err and "make it first" in err


def test_a_picture_on_standard_input(tmp_path, model):
    code, *_ = faceauth("explain", "-", "-o", tmp_path / "r.json", "--model", model, stdin=PORTRAIT.read_bytes())
    assert code == 0
    code, *_ = faceauth("verify", tmp_path / "r.json", "--image", PORTRAIT, "--model", model)
    assert code == 0


@pytest.mark.parametrize("with_picture", [False, True])
def test_a_case_holds_the_report_and_the_picture_only_if_asked(tmp_path, model, with_picture):
    case = tmp_path / "case.zip"
    more = ["--with-picture"] if with_picture else []
    code, _, err = faceauth("report-case", PORTRAIT, "--truth", "real", "-o", case, "--model", model, *more)
    assert code == 0 and "Nothing was sent" in err
    with zipfile.ZipFile(case) as opened:
        names = opened.namelist()
        assert names == ["case.json", "report.json", "picture"][: 3 if with_picture else 2]
        said = json.loads(opened.read("report.json"))
        assert json.loads(opened.read("case.json"))["truth"] == "real"
        assert not with_picture or opened.read("picture") == PORTRAIT.read_bytes()
    assert said["verdict"]["path"] is None and PORTRAIT.name not in json.dumps(said)
    assert said["custody"]["image_sha256"] and (with_picture or case.stat().st_size < 20_000)


@pytest.fixture
def taught(tmp_path):
    """A model, a file of what was learned for it, and a picture of it."""
    model, red = write_colour_model(tmp_path / "colour.onnx"), write_pictures(tmp_path / "red", RED, 20)
    learned = tmp_path / "learned.json"
    code, _, err = faceauth("learn", "secretmix", red, "--model", model, "--learned", learned, "--whole-image")
    assert code == 0, err
    return model, learned, red / "000.png"


def test_a_case_holds_names_that_were_taught_and_says_so(taught, tmp_path):
    model, learned, photo = taught
    case = ["report-case", photo, "--truth", "real", "--model", model, "--whole-image"]
    for number, more in enumerate((["--learned", learned], ["--no-learned"])):
        code, _, err = faceauth(*case, "-o", tmp_path / f"{number}.zip", *more)
        assert code == 0 and ("names that you taught" in err) is (number == 0)
        with zipfile.ZipFile(tmp_path / f"{number}.zip") as opened:
            assert ("secretmix" in opened.read("report.json").decode()) is (number == 0)


def test_a_case_is_judged_with_the_options_of_explain(model, tmp_path):
    more = ["--threshold", "0.7", "--no-recheck", "--max-pixels", "200000000", "--max-bytes", "300000000"]
    code, _, err = faceauth(
        "report-case", PORTRAIT, "--truth", "real", "-o", tmp_path / "c.zip", "--model", model, *more
    )
    assert code == 0, err
    with zipfile.ZipFile(tmp_path / "c.zip") as opened:
        found = json.loads(opened.read("report.json"))["custody"]["parameters"]
    assert (found["threshold"], found["recheck"]) == (0.7, False)
    assert (found["max_pixels"], found["max_bytes"]) == (200_000_000, 300_000_000)


def test_other_learned_classes_are_said_plainly(taught, tmp_path):
    model, learned, photo = taught
    report, verify = tmp_path / "r.json", ["verify", tmp_path / "r.json", "--image", photo, "--model", model]
    explained = faceauth("explain", photo, "-o", report, "--model", model, "--whole-image", "--learned", learned)
    assert explained[0] == 0
    code, out, err = faceauth(*verify, "--learned", learned)
    assert (code, out) == (0, ""), out
    assert faceauth("forget", "secretmix", "--learned", learned)[0] == 0
    code, out, err = faceauth(*verify, "--learned", learned)
    assert code == 1 and "custody.learned_sha256" in out
    assert "made with learned classes of SHA-256" in err and "here without: give their file with --learned" in err


def test_another_trust_list_is_said_plainly(report, model, tmp_path):
    said = json.loads(report.read_text())
    said["custody"]["parameters"]["trust_sha256"] = "0" * 64
    (tmp_path / "r.json").write_text(json.dumps(said))
    code, _, err = faceauth("verify", tmp_path / "r.json", "--image", PORTRAIT, "--model", model)
    assert code == 1 and "made with a trust list of SHA-256" in err and "give it with --trust-anchors" in err


def test_a_case_is_no_other_file(tmp_path, model):
    (tmp_path / "case.zip").write_text("mine")
    for name in ("case.txt", "case.zip"):
        code, *_ = faceauth("report-case", PORTRAIT, "--truth", "fake", "-o", tmp_path / name, "--model", model)
        assert code == 2
    assert (tmp_path / "case.zip").read_text() == "mine"
