"""Commands that are ended by a signal at a random moment: what they write is whole or absent, and a second run gives
what an undisturbed one gives. `detect` has its own tests (test_faults.py)."""

import json
import random
import signal
import subprocess
import sys
import time
from functools import cache

import pytest

pytest.importorskip("torch")
import pandas as pd
import torch
from safetensors.torch import load_file

import lab_trees
from attributed import RED, write_colour_model, write_pictures
from command_line import start
from faceauth.lab.data.dataset import read_dataset
from lab_frozen_data import write_frozen
from lab_networks import write_prepared

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
TRAIN = """name = "small"
recipe = "study"
network = "deit"
size = 32
batch = 16
lr = 0.05
bf16 = false
log_every = 3
checkpoint_every = 5
[study]
epochs = 8
stop_after = 8
[data]
manifest = "{manifest}"
[architecture]
hidden_size = 16
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 32
patch_size = 8
"""


def prepare(place, name):
    data = ["--data", f"cam={place}/real:real", "--data", f"gan={place}/fake:fake"]
    return ["lab", "prepare", place / name, *data], []


def train(place, name):
    return ["lab", "train", place / "small.toml", "--runs", place / name], ["--resume"]


def learn(place, name):
    file = place / name / "learned.json"
    return ["learn", "rust", place / "red", "--model", place / "m.onnx", "--learned", file, "--whole-image"], []


def score(place, name):
    """With a cache that is kept when only the table is lost."""
    folder = place / name
    return ["lab", "score", place / "frozen/config.toml", place / "m.onnx", "-o", folder / "scores.parquet",
            "--cache", folder / "cache"], []  # fmt: skip


def prepared(place, name):
    return read_dataset(place / name / "manifest.xlsx").sha256


def weights(place, name):
    return load_file(place / name / "small" / "model.safetensors")


def taught(place, name):
    return json.loads((place / name / "learned.json").read_text())


def scored(place, name):
    return pd.read_parquet(place / name / "scores.parquet").to_csv()


COMMANDS = {  # name: its words and what resumes it, the file that is whole or absent, what is compared, the signals
    "prepare": (prepare, "manifest.xlsx", prepared, SIGNALS),
    "train": (train, "small/model.safetensors", weights, (signal.SIGTERM,)),  # others: test_lab_recipes.py
    "learn": (learn, "learned.json", taught, SIGNALS),
    "score": (score, "scores.parquet", scored, SIGNALS),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("faults")
    lab_trees.plain(place / "real", 24, 0)
    lab_trees.plain(place / "fake", 24, 1000, True)
    (place / "small.toml").write_text(TRAIN.format(manifest=write_prepared(place / "set")))
    write_pictures(place / "red", RED, 20)
    write_colour_model(place / "m.onnx")
    (place / "frozen").mkdir()
    write_frozen(place / "frozen", 4, ("clean", "web"))
    return place


def run(words, seconds=None, number=None):
    """Exit code, standard error and seconds of a command; with a signal after so many seconds, where it still runs."""
    begin = time.monotonic()
    with start(*words, stdout=subprocess.DEVNULL) as process:
        if number is not None:
            time.sleep(seconds)
            process.send_signal(number)
        err = process.communicate(timeout=300)[1]
    return process.returncode, err, time.monotonic() - begin


@pytest.fixture(scope="module")
def whole(place):
    """What each command gives that nothing happens to, and the seconds it takes."""

    @cache
    def undisturbed(command):
        words, _, content, _ = COMMANDS[command]
        code, err, seconds = run(words(place, f"{command}-whole")[0])
        assert code == 0, err
        return content(place, f"{command}-whole"), seconds

    return undisturbed


def done(place, command, name):
    """Whether nothing is left to do: what is trained or learned is not made over, the rest is."""
    return command in {"train", "learn"} and (place / name / COMMANDS[command][1]).exists()


def gone_on_with(place, command, name):
    """The content after a last run that nothing happens to."""
    words, _, content, _ = COMMANDS[command]
    first, resume = words(place, name)
    if not done(place, command, name):
        code, err, _ = run([*first, *(resume if (place / name / "small").exists() else [])])
        assert code == 0, err
    assert not list((place / name).rglob("*.part"))
    return content(place, name)


def same(command, found, expected):
    if command != "train":
        return found == expected
    return all(torch.allclose(found[name], value, atol=1e-5) for name, value in expected.items())


@pytest.mark.parametrize("command", COMMANDS)
def test_ended_at_random_moments_and_run_again_it_gives_the_same(place, whole, command):
    words, written, content, signals = COMMANDS[command]
    expected, seconds = whole(command)
    chance = random.Random(command)
    for number in signals:
        first, resume = words(place, command)
        more = resume if (place / command / "small").exists() else []
        code, err, _ = run([*first, *more], seconds * chance.uniform(0.4, 0.9), number)
        assert code in {0, 128 + number, -number}, err
        assert "Traceback" not in err
        if code == 128 + number:
            assert err.splitlines()[-1].startswith("interrupted")
        if (place / command / written).exists():
            content(place, command)  # it can be read
        if code == 0 or done(place, command, command):
            break
    assert same(command, gone_on_with(place, command, command), expected)


def full(size):
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_one_line_and_a_second_run_gives_the_same(place, whole, command):
    words, written, _, _ = COMMANDS[command]
    name = f"{command}-full"
    with start(*words(place, name)[0], stdout=subprocess.DEVNULL, preexec_fn=lambda: full(300)) as process:
        err = process.communicate(timeout=300)[1]
    assert process.returncode in {1, 2}
    assert "Traceback" not in err
    assert "error: " in err and "hint: " in err
    assert not (place / name / written).exists()
    if command != "train":  # which the other test goes on with
        assert same(command, gone_on_with(place, command, name), whole(command)[0])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_cannot_be_written_is_one_line(place, command):
    words = COMMANDS[command][0](place, "nowhere")[0]
    code, err, _ = run([str(w).replace(str(place / "nowhere"), "/proc/nowhere") for w in words])
    assert code in {1, 2}
    assert "Traceback" not in err
    assert "/proc/nowhere" in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
