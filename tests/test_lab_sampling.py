import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceauth.errors import DataError
from faceauth.lab.data.sampling import Outcome, choose, order, quotas

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=6)


def sources(real, fake):
    sizes = {f"r{i}": n for i, n in enumerate(real)} | {f"f{i}": n for i, n in enumerate(fake)}
    return {s: "real" if s[0] == "r" else "fake" for s in sizes}, sizes


def test_the_study_s_numbers():
    labels, sizes = sources([30_000, 62_000], [10**6, 87_000, 30_000, 30_000, 30_000])
    wanted = quotas(labels, sizes, 120_000)
    assert {wanted[s] for s in wanted if s[0] == "r"} == {30_000}
    assert {wanted[s] for s in wanted if s[0] == "f"} == {12_000}


@given(SIZES, SIZES)
def test_without_a_count_all_sources_are_equal(real, fake):
    labels, sizes = sources(real, fake)
    wanted = quotas(labels, sizes, None)
    by_class = {k: [n for s, n in wanted.items() if labels[s] == k] for k in ("real", "fake")}
    assert sum(by_class["real"]) == sum(by_class["fake"])
    assert all(max(v) - min(v) <= 1 for v in by_class.values())
    limits = [len(v) * min(n for s, n in sizes.items() if labels[s] == k) for k, v in by_class.items()]
    assert sum(by_class["real"]) == min(limits), "more would have fitted"


@given(SIZES, SIZES, st.integers(2, 500))
def test_a_small_source_gives_all_and_the_others_are_equal(real, fake, count):
    labels, sizes = sources(real, fake)
    wanted = quotas(labels, sizes, count)
    each = min(count // 2, sum(real), sum(fake))
    for label in ("real", "fake"):
        of = [s for s in wanted if labels[s] == label]
        assert sum(wanted[s] for s in of) == each
        most = max(wanted[s] for s in of)
        assert all(wanted[s] <= sizes[s] for s in of)
        assert all(wanted[s] >= most - 1 or wanted[s] == sizes[s] for s in of)


def test_a_class_or_source_without_images_is_refused():
    with pytest.raises(DataError, match="no fake source"):
        quotas({"a": "real"}, {"a": 3}, None)
    with pytest.raises(DataError, match="no image of b"):
        quotas({"a": "real", "b": "fake"}, {"a": 3, "b": 0}, None)


@given(st.lists(st.text(min_size=1), unique=True, max_size=30), st.randoms())
def test_the_order_is_the_names_not_theirs(names, random):
    shuffled = list(names)
    random.shuffle(shuffled)
    assert order(names, "0:a") == order(shuffled, "0:a")
    assert sorted(order(names, "0:a")) == sorted(names)


def test_another_seed_is_another_order():
    names = [str(i) for i in range(50)]
    assert order(names, "0:a") != order(names, "1:a")


OUTCOMES = st.lists(
    st.none() | st.builds(Outcome, sha256=st.sampled_from("abcdefgh"), error=st.sampled_from(["", "", "broken"])),
    max_size=12,
)


@given(st.dictionaries(st.sampled_from("xyz"), OUTCOMES, min_size=1), st.integers(1, 5))
def test_a_choice_is_the_first_usable_images_each_once(known, each):
    read = {(s, str(k)): o for s, outcomes in known.items() for k, o in enumerate(outcomes) if o is not None}
    names = {s: [str(k) for k in range(len(outcomes))] for s, outcomes in known.items()}
    chosen = choose(dict.fromkeys(known, each), names, read)
    picks = {s: [int(k) for k in picked] for s, picked in chosen.picked.items()}
    taken = [known[s][k] for s, picked in picks.items() for k in picked]
    looked = [o for o in taken if o is not None]
    assert not any(o.error for o in looked)
    assert len({o.sha256 for o in looked}) == len(looked)
    assert all(known[s][int(k)] is None for s, k in chosen.unknown)
    for source, picked in picks.items():
        assert picked == sorted(picked)
        assert len(picked) == each or chosen.usable[source] == len(picked) < each
        for k in range(max(picked, default=0)):  # nothing that could be used was passed over
            outcome = known[source][k]
            assert k in picked or outcome.error or outcome.sha256 in {o.sha256 for o in looked}
