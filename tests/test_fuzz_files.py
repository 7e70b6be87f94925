"""Damaged and hostile metadata of model files, and learned files: an error of ours that names the file, or a record.

Short here; longer by `FACEAUTH_FUZZ_EXAMPLES=20000 pytest tests/test_fuzz_files.py`.
"""

import json
import os
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attributed import make_prototypes
from conftest import make_card
from faceauth import learned
from faceauth.attribution import PROTOTYPES_KEY, Prototypes
from faceauth.errors import ModelError, UsageError
from faceauth.model_file import METADATA_KEY, ModelCard, ModelFile
from test_learning import entry

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("FACEAUTH_FUZZ_EXAMPLES", "150"))
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([10**400, -1, 0, 1, 2**63, "camera", "unknown", "real", "fake", "\x1b[31m", [], {}]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


def places(value, path=()):
    """Every path into nested lists and dicts."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


@st.composite
def damaged(draw, good):
    """The text of `good` with one to three values replaced or left out, or with characters changed."""
    data = json.loads(good)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(data))))
        if not path:
            data = draw(values) if draw(st.integers(0, 9)) == 0 else data
            continue
        holder = data
        for key in path[:-1]:
            holder = holder[key]
        if draw(st.booleans()):
            holder[path[-1]] = draw(values)
        else:
            del holder[path[-1]]
    text = json.dumps(data)
    if text and draw(st.integers(0, 3)) == 0:
        cut = draw(st.integers(0, len(text)))
        text = text[:cut] + draw(st.text(max_size=4)) + text[cut + draw(st.integers(0, 20)) :]
    return text


CARD = make_card(notes={"held out": "nothing"}).to_json()
PROTOTYPES = make_prototypes().to_json()
LEARNED = json.dumps({"format": 1, "learned": [learned._record(entry(n)) for n in ("a", "b")]})


@many
@given(damaged(CARD))
def test_damaged_cards(text):
    try:
        card = ModelCard.from_json(text)
    except ModelError as error:
        assert len(str(error)) < 500
    else:
        assert ModelCard.from_json(card.to_json()) == card
        assert 0 <= float(card.calibration([0.0])[0]) <= 1
        assert 0 <= card.thresholds.false_alarm_rate(0.5) <= 1


@many
@given(damaged(PROTOTYPES))
def test_damaged_prototypes(text):
    try:
        found = Prototypes.from_json(text)
    except ModelError as error:
        assert len(str(error)) < 500
    else:
        assert found.densities(found.means).shape == (len(found.kinds), len(found.kinds) + 1)


@many
@given(damaged(LEARNED))
def test_damaged_learned_files(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "fuzzed.json"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        taught = learned.read(file)
    except UsageError as error:
        assert "fuzzed.json" in error.message
        assert len(str(error)) < 500
    else:
        assert len({(t.kind.name, t.model_sha256) for t in taught}) == len(taught)
        assert all(t.kind.name.isprintable() and t.kind.name not in learned.RESERVED for t in taught)


@pytest.mark.parametrize(("text", "says"), [
    ('{"format": 1, "learned": [5]}', "no list of objects"), ('{"format": 1, "learned": {"a": 1}}', "no list of objects"),
    ('{"format": 1, "learned": ' + "[" * 100_000, "nested too deeply"), ('{"format": 1}', "'learned' is missing"),
])  # fmt: skip
def test_what_is_wrong_with_a_learned_file_is_said(tmp_path, text, says):
    (tmp_path / "l.json").write_text(text)
    with pytest.raises(UsageError, match=says):
        learned.read(tmp_path / "l.json")


def test_a_learned_file_that_is_a_device_is_not_read():
    with pytest.raises(UsageError, match="no regular file"):
        learned.read(Path("/dev/zero"))


@many
@given(st.binary(max_size=200))
def test_learned_files_of_any_bytes(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "bytes.json"
    file.write_bytes(data)
    with pytest.raises(UsageError, match=r"bytes\.json"):
        learned.read(file)


@settings(max_examples=max(20, EXAMPLES // 10), deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged(CARD), st.data())
def test_damaged_model_files(tmp_path_factory, model_path, text, data):
    """Metadata, a byte of the file, or its length changed: opened, or refused with its name."""
    file = tmp_path_factory.getbasetemp() / "fuzzed.onnx"
    proto = onnx.load(model_path)
    proto.metadata_props[0].key, proto.metadata_props[0].value = METADATA_KEY, text.encode("utf-8", "replace").decode()
    content = bytearray(proto.SerializeToString() if data.draw(st.booleans()) else model_path.read_bytes())
    if data.draw(st.booleans()):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        model = ModelFile(file)
    except ModelError as error:
        assert "fuzzed.onnx" in error.message
    else:
        assert PROTOTYPES_KEY not in model.metadata
        assert model.embedding_size > 0
