"""Splits and folds. `FAULTS` lists what was planted in the code by hand, and which test fails when it is."""

import csv
import random
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceauth.errors import DataError
from faceauth.images import near_pairs
from faceauth.lab.data.splits import SPLITS, check_folds, deal, given_or_assigned, may_fit, tie

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


@dataclass(frozen=True)
class Row:
    path: str
    source: str = "s"
    kind: str = "s"
    label: str = "real"
    group: str = ""
    sha256: str = ""
    family: str = ""
    split: str = ""


def rows_of(*ties):
    """Rows of (source, group), none near another."""
    return [
        Row(f"{i}", source, source, group=f"g{g}" if g else "", sha256=f"{i:064x}")
        for i, (source, g) in enumerate(ties)
    ]


def apart(count, seed=0):
    """dHashes of which no two are near."""
    draw = random.Random(seed)
    return [draw.getrandbits(64) for _ in range(count)]


def partition(leaders):
    sets = {}
    for i, leader in enumerate(leaders):
        sets.setdefault(leader, set()).add(i)
    return {frozenset(s) for s in sets.values()}


def flipped(value, positions):
    for p in positions:
        value ^= 1 << p
    return value


# --- ties ---


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(0, 63), max_size=5)), min_size=1, max_size=60))
@pytest.mark.slow
def test_near_duplicates_are_those_of_all_pairs(made):
    """Multi-index hashing against brute force: hashes with up to five bits flipped about ten random ones."""
    base = apart(10)
    hashes = [flipped(base[b], bits) for b, bits in made]
    near = {(i, j) for i, j in combinations(range(len(hashes)), 2) if (hashes[i] ^ hashes[j]).bit_count() <= 3}
    found = {tuple(sorted(p)) for p in near_pairs(hashes)}
    assert found <= near
    distinct = {
        (i, j)
        for i, j in near
        if hashes[i] != hashes[j] and hashes.index(hashes[i]) == i and hashes.index(hashes[j]) == j
    }
    assert distinct <= found
    brute = list(range(len(hashes)))
    for i, j in sorted(near):
        brute = [brute[i] if b == brute[j] else b for b in brute]
    rows = rows_of(*[("s", 0)] * len(hashes))
    assert partition(tie(rows, hashes)) == partition(brute)


def test_three_bits_are_near_and_four_are_not():
    only_one_band_agrees = [[0, 20, 40], [0, 20, 60], [0, 40, 60], [20, 40, 60]]
    for spread in ([0, 1, 2], [15, 16, 63], *only_one_band_agrees):
        assert list(near_pairs([0, flipped(0, spread)])), spread
    assert not list(near_pairs([0, 0b1111]))
    assert not list(near_pairs([0, flipped(0, [0, 16, 32, 48])]))


def test_a_large_bucket_is_compared_in_blocks(monkeypatch):
    monkeypatch.setattr("faceauth.images.near._BLOCK", 7)
    hashes = [h << 16 for h in apart(50)]  # all share the lowest band
    hashes = [h & (2**64 - 1) for h in hashes]
    hashes += [flipped(hashes[3], [20, 40, 60]), flipped(hashes[47], [31, 32, 63])]  # the large band alone agrees
    assert {tuple(sorted(p)) for p in near_pairs(hashes)} == {(3, 50), (47, 51)}


def test_a_group_a_file_and_a_near_duplicate_tie():
    rows = rows_of(("a", 1), ("b", 1), ("a", 0), ("a", 0), ("b", 0), ("b", 0))
    rows[3] = Row("3", sha256=rows[2].sha256)
    hashes = apart(6)
    hashes[4] = hashes[1] ^ 0b101
    assert partition(tie(rows, hashes)) == {frozenset({0, 1, 4}), frozenset({2, 3}), frozenset({5})}
    assert len(set(tie(rows_of(*[("a", 0)] * 9), apart(9)))) == 9, "rows without a group are not one group"


# --- train, test and dev ---


def assigned(rows, hashes, *args, **kwargs):
    return given_or_assigned(rows, tie(rows, hashes), *args, **kwargs)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 80), min_size=1), st.integers(0, 9),
       st.sampled_from([(0.8, 0.1, 0.1), (0.7, 0.12, 0.18), (0.5, 0.5, 0.0), (1 / 3, 1 / 3, 1 / 3)]))  # fmt: skip
def test_without_ties_each_source_has_its_shares_to_the_image(sizes, seed, fractions):
    rows = rows_of(*[(s, 0) for s, n in sizes.items() for _ in range(n)])
    counts = Counter(
        (r.source, side)
        for r, side in zip(rows, given_or_assigned(rows, range(len(rows)), seed, fractions), strict=True)
    )
    for source, n in sizes.items():
        for side, share in zip(SPLITS, fractions, strict=True):
            assert abs(counts[source, side] - n * share) < 1


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), min_size=1, max_size=90),
    st.integers(0, 40),
    st.randoms(),
)
def test_no_tie_is_cut_and_no_order_matters(ties, count, shuffler):
    base = apart(count or len(ties))
    near = {1: 0b1, 2: 0b110, 3: 1 << 63}
    made = [(r, base[i % len(base)] ^ near.get(i % 5, 0)) for i, r in enumerate(rows_of(*ties))]
    sides = dict(zip((r.path for r, _ in made), assigned(*zip(*made, strict=True), 3), strict=True))
    for (a, x), (b, y) in combinations(made, 2):
        if (a.group and a.group == b.group) or (x ^ y).bit_count() <= 3:
            assert sides[a.path] == sides[b.path]
    shuffler.shuffle(made)
    assert dict(zip((r.path for r, _ in made), assigned(*zip(*made, strict=True), 3), strict=True)) == sides


def test_shares_come_out_with_people_tied_across_sources():
    """A photo and three fakes of each of 300 people, and 300 images of a source without people."""
    tied = [(s, person) for person in range(1, 301) for s in ("wiki", "text2img", "inpainting", "insight")]
    rows = rows_of(*tied, *[("gan", 0)] * 300)
    sides = assigned(rows, apart(len(rows)), 0, (0.8, 0.1, 0.1))
    counts = Counter(zip((r.source for r in rows), sides, strict=True))
    assert {counts[s, "train"] for s in ("wiki", "text2img", "inpainting", "insight", "gan")} == {240}
    assert {counts[s, "dev"] for s in ("wiki", "text2img", "inpainting", "insight", "gan")} == {30}


def test_what_is_tied_is_spread_like_the_rest():
    rows = rows_of(*[("a", 1 + i // 2) for i in range(400)], *[("a", 0)] * 400)
    sides = assigned(rows, apart(800), 0, (0.6, 0.2, 0.2))
    assert Counter(sides) == {"train": 480, "test": 160, "dev": 160}
    assert Counter(sides[:400])["test"] == pytest.approx(80, abs=4), "people do not all go into train"


def test_the_seed_draws():
    rows = rows_of(*[("a", 0)] * 200)
    assert given_or_assigned(rows, range(200), 0) != given_or_assigned(rows, range(200), 1)


def test_a_source_for_training_alone_is_so_with_all_that_is_tied_to_it():
    rows = rows_of(*[("flux" if i < 60 else "s", int(i in (3, 70))) for i in range(200)])
    sides = assigned(rows, apart(200), train_only=["flux"])
    assert set(sides[:60]) == {"train"} == {sides[70]}
    assert Counter(sides[60:]) == {"train": 98, "test": 17, "dev": 25}


# --- folds ---


def kinds(**sizes):
    """Rows of kinds: name=(real, fake, edited)."""
    rows = []
    for kind, counts in sizes.items():
        for label, count in zip(("real", "fake", "edited"), counts, strict=True):
            rows += [
                Row(f"{kind}{label}{i}", f"{kind}-{label}", kind, label, "", f"{kind}{label}{i}") for i in range(count)
            ]
    return rows


MANY = {f"real{i}": (10 + 7 * i, 5 * (i == 2), 3 * (i == 4)) for i in range(12)} | {
    f"fake{i}": (0, 8 + 9 * i, 0) for i in range(11)
}


def test_given_splits_are_kept_and_never_part_a_group_or_a_file():
    def splits(*rows):
        given = [Row("", sha256=sha256, group=group, split=split) for sha256, group, split in rows]
        return given_or_assigned(given, tie(given, range(0, 64 * len(rows), 64)))

    assert splits(("a", "", "dev"), ("b", "g", "test"), ("c", "g", "test")) == ["dev", "test", "test"]
    assert splits(("a", "", ""), ("b", "", "")) == ["train", "train"]
    with pytest.raises(DataError, match="1 of 2 rows have no split"):
        splits(("a", "", "dev"), ("b", "", ""))
    with pytest.raises(DataError, match="group 'g' lies in two splits, test and train"):
        splits(("a", "g", "test"), ("b", "g", "train"), ("c", "h", "dev"), ("d", "h", "test"))
    with pytest.raises(DataError, match="sha256 'a' lies in two splits"):
        splits(("a", "", "test"), ("a", "", "train"))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kinds_are_dealt_whole_and_evenly(seed):
    rows = kinds(**MANY)
    folds = deal(rows, range(len(rows)), seed)
    of = {}
    for row, fold in zip(rows, folds, strict=True):
        assert of.setdefault(row.kind, fold) == fold
    real = Counter(f for r, f in zip(rows, folds, strict=True) if r.label == "real")
    fake = Counter(f for r, f in zip(rows, folds, strict=True) if r.kind.startswith("fake"))
    for counts in (real, fake):
        sixth = counts.total() / 6
        assert all(0.75 * sixth < counts[k] < 1.25 * sixth for k in range(6))


def test_a_deal_depends_on_the_seed_and_not_on_the_order():
    rows = kinds(**MANY)
    before = dict(zip(rows, deal(rows, range(len(rows)), 3), strict=True))
    random.Random(0).shuffle(rows)
    assert dict(zip(rows, deal(rows, range(len(rows)), 3), strict=True)) == before
    together = [{(a.kind, b.kind) for a, b in combinations(rows[::5], 2) if f[a] == f[b]}
                for f in (dict(zip(rows, deal(rows, range(len(rows)), s), strict=True)) for s in (0, 1))]  # fmt: skip
    assert together[0] != together[1]


def test_kinds_that_share_many_images_are_one_and_a_chance_pair_is_kept_apart():
    rows = kinds(**MANY)
    index = {r.path: i for i, r in enumerate(rows)}
    components = list(range(len(rows)))
    for i in range(3):  # 3 of real0's 10 images
        components[index[f"real0real{i}"]] = index[f"real11real{i}"]
    components[index["real7real0"]] = index["real8real0"]  # one of 59
    apart_once = False
    for seed in range(8):
        folds = deal(rows, components, seed)
        fold = {r.kind: f for r, f in zip(rows, folds, strict=True)}
        assert fold["real0"] == fold["real11"]
        for k in range(6):
            fits = may_fit(components, folds, k)
            held = {c for c, f in zip(components, folds, strict=True) if f == k}
            assert not held & {c for c, fit in zip(components, fits, strict=True) if fit}
            lost = sum(f != k and not fit for f, fit in zip(folds, fits, strict=True))
            assert lost == (k in (fold["real7"], fold["real8"]) and fold["real7"] != fold["real8"])
        apart_once |= fold["real7"] != fold["real8"]
    assert apart_once


def test_sources_are_dealt_whole_and_apart_from_their_kind():
    rows = [
        Row(f"{source}{i}", source, source[:-1], "real" if source[0] == "r" else "fake", "", f"{source}{i}")
        for source in ("ra1", "ra2", "ra3", "rb1", "rb2", "fa1", "fa2", "fa3", "fb1", "fb2") for i in range(9)
    ]  # fmt: skip
    components = list(range(len(rows)))
    for i in range(4):  # rb1 and rb2 share 4 of 9 images
        components[27 + i] = 36 + i
    apart = 0
    for seed in range(4):
        fold = {}
        for row, of in zip(rows, deal(rows, components, seed, 2, "source"), strict=True):
            assert fold.setdefault(row.source, of) == of
        assert fold["rb1"] == fold["rb2"]
        apart += len({fold["fa1"], fold["fa2"], fold["fa3"]}) > 1
    assert apart


def test_swaps_stay_with_their_photographs_and_take_no_place_of_generated_sources():
    """A large source of swaps would fill a fold by itself, and leave it without generated images."""
    counts = {"camera-a": ("camera", "real", "", 30), "film-real": ("film", "real", "", 30), "film-fake": ("film", "fake", "swap", 60),
              "gan": ("gan", "fake", "gan", 20), "sd": ("sd", "fake", "diffusion", 20), "swapped": ("swapped", "fake", "swap", 90)}  # fmt: skip
    rows = [
        Row(f"{source}{i}", source, kind, label, family=family)
        for source, (kind, label, family, count) in counts.items() for i in range(count)
    ]  # fmt: skip
    apart = 0
    for seed in range(6):
        fold = {r.source: f for r, f in zip(rows, deal(rows, range(len(rows)), seed, 2, "source"), strict=True)}
        assert fold["film-real"] == fold["film-fake"]
        assert {fold["gan"], fold["sd"]} == {fold["camera-a"], fold["film-real"]} == {0, 1}
        apart += fold["swapped"]
    assert 0 < apart < 6


def test_too_few_kinds_are_refused():
    with pytest.raises(DataError, match="3 kinds of fake images cannot be dealt into 6 folds"):
        deal(
            rows := kinds(
                **{k: v for k, v in MANY.items() if k.startswith("real") or k in ("fake0", "fake1", "fake2")}
            ),
            range(len(rows)),
        )
    rows = kinds(a=(3, 0, 0), b=(3, 0, 0), c=(0, 9, 0), d=(0, 2, 0))
    folds = deal(rows, range(len(rows)), 0, 2)
    assert {f for r, f in zip(rows, folds, strict=True) if r.label == "fake"} == {0, 1}


@pytest.mark.parametrize("folds", [[["a"]], [["a", "b"], ["b"]], [["a"], ["b"], ["c"]]])
def test_folds_written_by_hand_hold_out_every_source_once(folds):
    with pytest.raises(DataError):
        check_folds(folds, ["a", "b"])
    check_folds([["a"], ["b"]], ["a", "b"])


# --- the table of kinds ---


def test_the_table_of_kinds_names_the_protocol_s():
    with open(CONFIGS / "kinds.csv", newline="", encoding="utf-8") as file:
        of = {row["source"]: row["kind"] for row in csv.DictReader(file)}
    assert len(of) == 63
    together = [
        "ffhq-1024 ffhq-256 ldm-superres inswapper",
        "celebahq-a celebahq-b celeba-178",
        "dfdc-real dfdc-fake",
        "ciplab-real photoshop",
        "stylegan2 stylegan2-avatars generated-photos-512 generated-photos-256 stylegan1-140k seeprettyface-sg2",
        "progan-128 stargan-256",
        "flux-schnell flux-pollinations infiniteyou-flux astria-flux sdxl sdxl-scenes photomaker-page storymaker-results "
        "proheadshots-demo",
        "sd1-men facechain-sd15 gandiffface-sd sd-class-person sd-reg-man",
        "nano-banana-pro gallery2025-mixed gpt-image-1 rin-nano-banana",
        "hroc-qwen-edit hroc-gpt-image-15",
        "council-nyc council-chicago council-toronto council-lametro",
    ]
    sets = {frozenset(s for s in of if of[s] == kind) for kind in of.values()}
    named = {frozenset(line.split()) for line in together}
    assert named <= sets
    assert all(len(s) == 1 for s in sets - named)
