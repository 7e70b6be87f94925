"""Tables of scores for the tests: made-up images and logits, no network, no file."""

import itertools

import numpy as np

METADATA = {
    "dataset_sha256": "d" * 64, "commit": "c" * 40, "command": "faceauth lab score", "code_version": "0.0",
    "created": "2026-11-01T00:00:00+00:00",
}  # fmt: skip
SHA = {"net": "a" * 64, "file-facts": "b" * 64}
FAMILIES = {"gan": "gan", "sd": "diffusion", "swapper": "swap", "upscaler": "restored"}


def image_row(number, kind, split="test"):
    """The columns of one image; what `kind` starts with says its label and family."""
    name = kind.rstrip("0123456789")
    label = "real" if name.startswith("camera") else "edited" if name == "brush" else "fake"
    family = FAMILIES.get(name, label)
    return {
        "image": f"images/{kind}/{number:03}.png",
        "image_sha256": f"{kind}-{number}".ljust(64, "0"),
        "source": kind,
        "kind": kind,
        "label": label,
        "family": family,
        "generator": kind,
        "split": split,
    }


def row(image, logit, variant="clean", model="net", seed=-1, fold=-1, held_out=False, **more):
    """A row of one image's columns and one score."""
    given = {"face": logit is not None, "logit": logit, "swap_logit": None, "view_logits": None, "error": None}
    return {
        **image,
        "variant": variant,
        "model": model,
        "model_sha256": more.pop("sha", f"{model}{seed}{fold}".ljust(64, "0")),
        "deal": more.pop("deal", "kind"),
        "seed": seed,
        "fold": fold,
        "held_out": held_out,
        **given,
        **more,
    }


def fold_rows(
    kinds=("camera0", "camera1", "camera2", "gan0", "gan1", "sd2"),
    per_kind=20,
    seeds=(0, 1),
    variants=("clean",),
    model="net",
    gap=2.0,
    seen_gap=4.0,
    splits=("train", "test"),
    noise=1.0,
    start=0,
):
    """Every kind held out once in each seed, by the fold that its last digit says; other folds' models see its test images.

    Logits are normal, `gap` higher for fakes (`seen_gap` where the kind was trained on).
    """
    rng = np.random.default_rng(start)
    folds = sorted({int(kind[-1]) for kind in kinds})
    rows = []
    for kind, number in itertools.product(kinds, range(per_kind)):
        image = image_row(number, kind, splits[number % len(splits)])
        base = rng.normal(0, noise)
        for seed, variant, fold in itertools.product(seeds, variants, folds):
            held_out = int(kind[-1]) == fold
            if not held_out and image["split"] == "train":
                continue
            distance = gap if held_out else seen_gap
            logit = base + distance * (image["label"] != "real") - distance / 2 + rng.normal(0, 0.01)
            rows.append(row(image, float(logit), variant, model, seed, fold, held_out))
    return rows
