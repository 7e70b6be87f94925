"""A prepared data set made in code, and a config for small networks that train on it in a second."""

import numpy as np
import pandas as pd

from faceauth.lab.data.dataset import COLUMNS, DETAILS
from faceauth.lab.training.config import TrainConfig
from lab_corpus import SOURCES, face

TRANSFORMER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "patch_size": 8,
}
DENSE = {"growth_rate": 4, "block_config": [2, 2]}


def write_prepared(root, count=30, seed=0):
    """Four sources of `count` faces each, of ten 6 train, 2 test, 2 dev; returns the manifest's path."""
    rng = np.random.default_rng(seed)
    rows = []
    for source, (label, family, _) in SOURCES.items():
        if label == "edited":
            continue
        (root / source).mkdir(parents=True)
        for i in range(count):
            path = f"{source}/{i:03}.png"
            face(rng, label == "fake").save(root / path)
            split = "train" if i % 10 < 6 else "test" if i % 10 < 8 else "dev"
            rows.append(
                (path, path, source, split, label, int(label == "real"), f"{seed}{source}{i}", 96, 96, "", family)
            )
    table = pd.DataFrame(rows, columns=[*COLUMNS, *DETAILS[:5]])
    for side in DETAILS[5:]:
        table[side] = None
    table.to_parquet(root / "manifest.parquet", index=False)
    return root / "manifest.parquet"


def small(manifest, **changes):
    """A config: DeiT of 32 px with random weights, by the modern recipe unless `changes` say otherwise."""
    values = {
        "name": "small", "network": "deit", "architecture": TRANSFORMER, "size": 32, "batch": 16, "lr": 3e-3, "bf16": False,
        "checkpoint_every": 4, "log_every": 4, "view": "flipped", "data": {"manifest": str(manifest)},
    }  # fmt: skip
    if changes.get("recipe") != "study":
        values |= {"images": 320, "warmup": 2, "test_every": 128}
    return TrainConfig.model_validate(values | changes)
