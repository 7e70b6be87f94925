"""Faults of the data that the tests must find: each is planted in a copy of the code, and its test must fail.

`python tests/faults.py [WORD]` plants those whose description has the word, one after the other, and exits with 1 if
one survives. `test_faults.py` keeps the table true to the code: each text is there once, each test exists.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Fault:
    """What goes wrong, the file below src/faceauth/lab, what is replaced by what, and the test that must fail."""

    what: str
    file: str
    old: str
    new: str
    test: str


SPLITS, NEAR, DATA = "data/splits.py", "../images/near.py", "test_lab_splits.py::"
FAULTS = (
    Fault("one image of a group on the other side", SPLITS, "            if value:\n", "            if value and (name != 'group' or i % 5):\n",
          DATA + "test_a_group_a_file_and_a_near_duplicate_tie"),
    Fault("rows without a group are one group", SPLITS, "            if value:\n", "            if value or name == 'group':\n",
          DATA + "test_a_group_a_file_and_a_near_duplicate_tie"),
    Fault("a component is cut between the splits", SPLITS, "return [SPLITS[side[component]] for component in components]",
          "return [SPLITS[(side[c] + (n % 7 == 0)) % 3] for n, c in enumerate(components)]", DATA + "test_no_tie_is_cut_and_no_order_matters"),
    Fault("near-duplicates are split: only equal hashes tie", NEAR, "<= bits\n", "<= 0\n", DATA + "test_three_bits_are_near_and_four_are_not"),
    Fault("near-duplicates are split: one band is not searched", NEAR, "for band in range(_BANDS):", "for band in range(1, _BANDS):",
          DATA + "test_three_bits_are_near_and_four_are_not"),
    Fault("near-duplicates are split: a later block is not compared", NEAR, "for later in range(start, len(bucket), _BLOCK):",
          "for later in range(start, start + 1, _BLOCK):", DATA + "test_a_large_bucket_is_compared_in_blocks"),
    Fault("files of the same bytes are split", SPLITS, '(("sha256", row.sha256), ("group", row.group))', '(("group", row.group),)',
          DATA + "test_a_group_a_file_and_a_near_duplicate_tie"),
    Fault("strangers are near-duplicates: four bits tie", NEAR, "<= bits\n", "<= bits + 1\n", DATA + "test_three_bits_are_near_and_four_are_not"),
    Fault("a fold is dealt by source, not by kind", SPLITS, "return [fold[joined[name]] for name in names]",
          "return [(fold[joined[n]] + (r.label != 'real')) % folds for n, r in zip(names, rows)]", DATA + "test_kinds_are_dealt_whole_and_evenly"),
    Fault("a fold's validation kind is in its training set", SPLITS, "if k == fold}", "if k == fold + 1}",
          DATA + "test_kinds_that_share_many_images_are_one_and_a_chance_pair_is_kept_apart"),
    Fault("a near-duplicate of a held-out image is in the training set", SPLITS, "return [component not in held for component in components]",
          "return [k != fold for k in folds]", DATA + "test_kinds_that_share_many_images_are_one_and_a_chance_pair_is_kept_apart"),
    Fault("a source is cut between the folds of the deal by source", SPLITS, "else row.source for row in rows]",
          "else row.source + str(n % 2) for n, row in enumerate(rows)]", DATA + "test_sources_are_dealt_whole_and_apart_from_their_kind"),
    Fault("a swap and the photographs that it is made of in two folds", SPLITS, "if row.family in ALTERED}", "if False}",
          DATA + "test_swaps_stay_with_their_photographs_and_take_no_place_of_generated_sources"),
    Fault("a fold of the deal by source without generated images", SPLITS, 'altered = by == "source" and', "altered = False and",
          DATA + "test_swaps_stay_with_their_photographs_and_take_no_place_of_generated_sources"),
    Fault("a stale score reused after the model changed", "evaluation/score_models.py", "answers where model = ?", "answers where ? != ''",
          "test_lab_frozen_detector.py::test_another_file_under_a_models_name_is_scored_anew"),
    Fault("kinds that share many images are dealt apart", SPLITS, "sets.join(kinds.index(a), kinds.index(b))", "pass",
          DATA + "test_kinds_that_share_many_images_are_one_and_a_chance_pair_is_kept_apart"),
    Fault("folds of very different size", SPLITS, "min(turn, key=lambda k: (held[k], blocks[k] > 0))", "turn[int(_hash(block), 16) % folds]",
          DATA + "test_kinds_are_dealt_whole_and_evenly"),
    Fault("the seed does not deal", SPLITS, '_most_even(of_class, f"{seed}:{label}", folds)', "_most_even(of_class, label, folds)",
          DATA + "test_a_deal_depends_on_the_seed_and_not_on_the_order"),
    Fault("a source for training alone is tested on", SPLITS, "0 if any(s in train_only for s in of) else ", "",
          DATA + "test_a_source_for_training_alone_is_so_with_all_that_is_tied_to_it"),
    Fault("a crop cache that ignores the size of a crop", "data/examples.py", ":{LARGEST}:", "::",
          "test_lab_data.py::test_what_shapes_a_crop_is_part_of_its_key"),
    Fault("a crop cache that ignores the context of a crop", "data/examples.py", ":{CONTEXT}:", "::",
          "test_lab_data.py::test_what_shapes_a_crop_is_part_of_its_key"),
    Fault("a crop cache that ignores the data set", "data/examples.py", "crops-{order}-", "crops-",
          "test_lab_data.py::test_what_shapes_a_crop_is_part_of_its_key"),
    Fault("a torn crop cache is read", "data/examples.py", "return crops if whole and ", "return crops if ",
          "test_lab_data.py::test_a_torn_cache_is_cut_again"),
    Fault("class weights dropped from sampling", "training/batches.py",
          "np.where(fake, counts / counts[fake].sum(), counts / counts[~fake].sum()) / 2", "counts / counts.sum()",
          "test_lab_batches.py::test_classes_are_drawn_equally_whatever_their_size"),
    Fault("source weights dropped from sampling", "training/batches.py", " ** config.data.sampling_power\n        fake", "\n        fake",
          "test_lab_batches.py::test_classes_are_drawn_equally_whatever_their_size"),
    Fault("a held-out source is trained on", "training/batches.py", " if s not in held_out}", "}",
          "test_lab_batches.py::test_what_is_held_out_is_never_drawn"),
    Fault("a test image is trained on", "training/batches.py", "if record.split == split and record.source", "if record.source",
          "test_lab_batches.py::test_what_is_held_out_is_never_drawn"),
    Fault("more images of one class than of the other", "data/sampling.py",
          "each = min(count // 2, *(sum(sizes[s] for s in sources) for sources in classes.values()))",
          "each = max(sum(sizes[s] for s in sources) for sources in classes.values())",
          "test_lab_sampling.py::test_a_small_source_gives_all_and_the_others_are_equal"),
    Fault("the study's classes exchanged", "data/dataset.py", 'return int(self.label == "real")', 'return int(self.label != "real")',
          "test_lab_dataset.py::test_the_first_sheet_is_the_study_s"),
    Fault("a fetched file is not checked", "data/corpus.py", "if _sha256(response.data) != entry.sha256:", "if False:",
          "test_lab_corpus.py::test_what_is_gone_is_listed_with_the_reason"),
    Fault("half a corpus passes for a data set", "data/corpus.py", "if again := [g for g in fetched.gone if g.again]:", "if again := list[Gone]():",
          "test_lab_corpus.py::test_a_server_that_stays_busy_ends_the_run_and_the_next_goes_on"),
)  # fmt: skip


def survives(fault: Fault, place: Path) -> bool:
    """Whether the test passes in spite of the fault."""
    copy = place / "src"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
    file = copy / "faceauth" / "lab" / fault.file
    text = file.read_text(encoding="utf-8")
    assert text.count(fault.old) == 1, f"{fault.old!r} is in {fault.file} {text.count(fault.old)} times"
    file.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    if not (place / "tests").exists():
        shutil.copytree(ROOT / "tests", place / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "configs"):
            (place / name).symlink_to(ROOT / name)
    run = [
        sys.executable,
        "-c",
        "import sys; sys.path.insert(0, 'src'); import pytest; sys.exit(pytest.main(sys.argv[1:]))",
    ]
    done = subprocess.run([*run, f"tests/{fault.test}", "-x", "-q"], cwd=place, capture_output=True, text=True)
    if done.returncode not in {0, 1}:
        raise SystemExit(f"{fault.test} did not run:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def main() -> None:
    """Plant them."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    left = 0
    with tempfile.TemporaryDirectory() as name:
        for fault in FAULTS:
            if word in fault.what:
                alive = survives(fault, Path(name))
                left += alive
                print(f"{'SURVIVES' if alive else 'found':9} {fault.what}", flush=True)
    sys.exit(int(left > 0))


if __name__ == "__main__":
    main()
