import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pydantic")
from faceauth.errors import UsageError
from faceauth.lab.data.journal import Journal, finish, read_plan, read_state, write_plan, write_state
from faceauth.lab.data.sampling import Outcome
from test_lab_dataset import rows

OUTCOME = st.builds(
    Outcome, sha256=st.text("0123456789abcdef", min_size=4, max_size=4), dhash=st.integers(0, 2**64 - 1), width=st.integers(0, 9),
    face=st.none() | st.tuples(*[st.floats(0, 99)] * 4), error=st.text(max_size=8),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(outcomes=st.lists(OUTCOME, min_size=1, max_size=6))
def test_a_journal_keeps_what_it_was_told(tmp_path_factory, outcomes):
    folder = tmp_path_factory.mktemp("j")
    with Journal(folder) as journal:
        for k, outcome in enumerate(outcomes):
            journal.add("a", f"{k}\n{k}", outcome)
    with Journal(folder) as journal:
        assert list(journal.outcomes.values()) == outcomes
        journal.add("a", "0\n0", outcomes[-1])
        journal.add("b", "x", outcomes[0])
    with Journal(folder) as journal:
        assert len(journal.outcomes) == len(outcomes) + 1
        assert journal.outcomes["a", "0\n0"] == outcomes[-1]


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 12_288), garbage=st.binary(max_size=6))
def test_a_journal_that_was_cut_off_never_says_what_it_was_not_told(tmp_path_factory, cut, garbage):
    path = tmp_path_factory.mktemp("j") / "journal.sqlite"
    told = {("a", str(k)): Outcome(sha256=f"{k:064x}", dhash=k) for k in range(12)}
    with Journal(path.parent) as journal:
        for (source, name), outcome in told.items():
            journal.add(source, name, outcome)
    data = path.read_bytes()
    path.write_bytes(data[:cut] + garbage)
    with Journal(path.parent) as journal:
        assert set(journal.outcomes.items()) <= set(told.items())
        journal.add("b", "x", Outcome(error="broken"))
    with Journal(path.parent) as journal:
        assert journal.outcomes["b", "x"] == Outcome(error="broken")


def test_a_killed_process_leaves_what_it_wrote_down(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from faceauth.lab.data.journal import Journal, Outcome\n"
        "j = Journal(Path(sys.argv[1])); j.add('a', 'b', Outcome(sha256='1')); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    with Journal(tmp_path) as journal:
        assert journal.outcomes == {("a", "b"): Outcome(sha256="1")}


def test_a_plan_is_read_as_it_was_written(tmp_path):
    planned = [(row, tmp_path / f"{k}.png") for k, row in enumerate(rows(5))]
    assert read_plan(tmp_path) is None
    write_plan(tmp_path, planned)
    assert read_plan(tmp_path) == planned
    assert [p.name for p in tmp_path.iterdir()] == ["moves.jsonl"]


def test_a_state_belongs_to_one_configuration(tmp_path):
    assert read_state(tmp_path, {"seed": 1}) == {}
    write_state(tmp_path, {"config": {"seed": 1}, "finished": False})
    (tmp_path / "journal.sqlite").write_text("")
    assert read_state(tmp_path, {"seed": 1})["finished"] is False
    with pytest.raises(UsageError, match="another seed"):
        read_state(tmp_path, {"seed": 2})
    finish(tmp_path)
    assert read_state(tmp_path, {"seed": 1})["finished"] is True
    assert [p.name for p in tmp_path.iterdir()] == ["prepare.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_a_broken_state_is_one_line(tmp_path, text):
    (tmp_path / "prepare.json").write_text(text)
    with pytest.raises(UsageError, match=r"prepare\.json cannot be read"):
        read_state(tmp_path, {})
