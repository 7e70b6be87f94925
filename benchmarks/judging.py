"""What quality.py and attribution.py are both asked, and the ledger of their looks at the sealed images."""

import argparse
import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from faceauth.lab.training.folder import commit
from faceauth.model_file import ModelCard, embedded_path

HERE = Path(__file__).resolve().parent
LEDGER = HERE / "dev_ledger.jsonl"


def parser(described: str | None) -> argparse.ArgumentParser:
    """The options that say which model is judged, on what."""
    parser = argparse.ArgumentParser(description=described, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=embedded_path(), help="model file to judge")
    parser.add_argument("--fold", type=Path, action="append", help="a fold's model file; benchmarks/folds/*.onnx")
    parser.add_argument("--corpus", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--open-dev", dest="part", action="store_const", const="dev", default="test",
        help="judge on the sealed dev images instead of test; the opening is written to benchmarks/dev_ledger.jsonl",
    )  # fmt: skip
    return parser


def folds_of(args: argparse.Namespace) -> list[Path]:
    """The models trained with sources held out."""
    return args.fold or sorted((HERE / "folds").glob("*.onnx"))


def log_opening(benchmark: str, model: Path, card: ModelCard) -> None:
    """Write down that the sealed images are looked at."""
    row = {
        "opened": datetime.now(UTC).isoformat(timespec="seconds"),
        "benchmark": benchmark,
        "model": f"{card.name} {card.version}",
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "corpus_sha256": card.data_sha256,
        "commit": commit(),
    }
    with open(LEDGER, "a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(row) + "\n")
