"""A prepared data set and finished runs made in code: small faces, and model files whose scores are known beforehand."""

import hashlib
import json

import numpy as np
import pandas as pd

from conftest import make_card, write_model
from faceauth.lab.data.dataset import COLUMNS, DETAILS, read_dataset
from lab_corpus import face

SOURCES = {"cam-a": 1, "cam-b": 1, "gan-a": 0, "gan-b": 0}
COUNTS = {"train": 8, "test": 6, "dev": 5}


def write_set(root, sources=SOURCES, counts=COUNTS, names=None, originals=True):
    """Prepared PNGs with their originals beside them, and manifest.parquet; returns its path."""
    rng = np.random.default_rng(0)
    rows = []
    for source, target in sources.items():
        for split, count in counts.items():
            for i in range(count):
                name = (names or {}).get((source, split, i), f"{split}-{i}.png")
                original, prepared = root / "originals" / source / name, root / "set" / source / name
                for file in (original, prepared):
                    file.parent.mkdir(parents=True, exist_ok=True)
                image = face(rng, not target)
                image.save(original, "PNG")
                image.resize((64, 64)).save(prepared, "PNG")
                digest = hashlib.sha256(original.read_bytes()).hexdigest()
                family = "real" if target else "gan"
                where = str(original) if originals else f"{root}/gone.zip!/{name}"
                rows.append((where, f"{source}/{name}", source, split, "real" if target else "fake", target,
                             digest, 96, 96, "", family, 8.0, 8.0, 56.0, 56.0))  # fmt: skip
    table = pd.DataFrame(rows, columns=[*COLUMNS, *DETAILS])
    table.to_parquet(root / "set" / "manifest.parquet", index=False)
    return root / "set" / "manifest.parquet"


def write_run(root, manifest, name="bright", sources=("cam-a", "cam-b", "gan-a", "gan-b"), **changes):
    """A finished run's folder: run.json, log.jsonl, the weights' file and an exported model, brightness for a network."""
    run = root / name
    run.mkdir(parents=True)
    data = read_dataset(manifest).sha256
    card = make_card(
        name=name, sources=sources, labels=tuple("real" if s.startswith("cam") else "fake" for s in sources),
        data_sha256=data, **changes,
    )  # fmt: skip
    write_model(run / "detector.onnx", card)
    facts = {"config": {"name": name, "data": {"manifest": str(manifest)}}, "commit": "c0ffee", "command": "faceauth"}
    (run / "run.json").write_text(json.dumps(facts | {"environment": {"python": "3"}, "data_sha256": data}))
    (run / "log.jsonl").write_text("".join(json.dumps({"step": s, "loss": 1 / s}) + "\n" for s in (1, 2, 3)))
    (run / "model.safetensors").write_bytes(b"weights")
    return run
