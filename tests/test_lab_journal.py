import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pydantic")
from faceauth.errors import UsageError
from faceauth.lab.data.choice import Outcome
from faceauth.lab.data.journal import Journal, finish_state, read_plan, read_state, write_plan, write_state
from test_lab_manifest import rows

OUTCOME = st.builds(
    Outcome, sha256=st.text("0123456789abcdef", min_size=4, max_size=4), dhash=st.integers(0, 2**64 - 1), width=st.integers(0, 9),
    face=st.none() | st.tuples(*[st.floats(0, 99)] * 4), error=st.text(max_size=8),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(outcomes=st.lists(OUTCOME, min_size=1, max_size=6), cut=st.integers(0, 500), garbage=st.binary(max_size=6))
def test_a_journal_loses_at_most_what_was_cut_off(tmp_path_factory, outcomes, cut, garbage):
    path = tmp_path_factory.mktemp("j") / "journal.jsonl"
    with Journal(path) as journal:
        for k, outcome in enumerate(outcomes):
            journal.add("a", f"{k}\n{k}", outcome)
    data = path.read_bytes()
    cut = min(cut, len(data))
    path.write_bytes(data[:cut] + garbage.replace(b"\n", b""))
    whole = data[:cut].count(b"\n")
    with Journal(path) as journal:
        assert list(journal.outcomes.values()) == outcomes[:whole]
        journal.add("b", "x", outcomes[0])
    with Journal(path) as journal:
        assert list(journal.outcomes.values()) == [*outcomes[:whole], outcomes[0]]


def test_a_plan_is_read_as_it_was_written(tmp_path):
    planned = [(row, tmp_path / f"{k}.png") for k, row in enumerate(rows(5))]
    write_plan(tmp_path / "moves.jsonl", planned)
    assert read_plan(tmp_path / "moves.jsonl") == planned


def test_a_state_belongs_to_one_configuration(tmp_path):
    assert read_state(tmp_path, {"seed": 1}) == {}
    write_state(tmp_path, {"config": {"seed": 1}, "finished": False})
    (tmp_path / "journal.jsonl").write_text("")
    assert read_state(tmp_path, {"seed": 1})["finished"] is False
    with pytest.raises(UsageError, match="another seed"):
        read_state(tmp_path, {"seed": 2})
    finish_state(tmp_path)
    assert read_state(tmp_path, {"seed": 1})["finished"] is True
    assert [p.name for p in tmp_path.iterdir()] == ["prepare.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_a_broken_state_is_one_line(tmp_path, text):
    (tmp_path / "prepare.json").write_text(text)
    with pytest.raises(UsageError, match=r"prepare\.json cannot be read"):
        read_state(tmp_path, {})
