"""Several processes train as one."""

import json
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
from faceauth.lab.training.export import load_run
from faceauth.lab.training.loop import train
from lab_networks import small, write_prepared

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")]


def test_two_processes_give_what_one_gives(tmp_path):
    manifest = write_prepared(tmp_path / "prepared")
    (tmp_path / "small.toml").write_text(
        'name = "small"\nrecipe = "study"\nnetwork = "deit"\nsize = 32\nbatch = 15\naccumulate = 2\nlr = 0.05\n'
        f'bf16 = false\nlog_every = 4\n[study]\nepochs = 4\n[data]\nmanifest = "{manifest}"\n'
        "[architecture]\nhidden_size = 16\nnum_hidden_layers = 2\nnum_attention_heads = 2\nintermediate_size = 32\n"
        "patch_size = 8\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "faceauth"]
    command += ["lab", "train", str(tmp_path / "small.toml"), "--runs", str(tmp_path / "two"), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "two" / "small")]
    train(small(manifest, recipe="study", lr=0.05, batch=15, study={"epochs": 4}), tmp_path / "one")
    logs = [
        [json.loads(line) for line in (tmp_path / n / "small" / "log.jsonl").read_text().splitlines()]
        for n in ("one", "two")
    ]
    assert sum("test_loss" in row for row in logs[0]) == 4
    for one, two in zip(*logs, strict=True):
        assert one.keys() == two.keys()
        for key in ("step", "loss", "test_loss"):
            assert one.get(key, 0) == pytest.approx(two.get(key, 0), abs=1e-5)
    one, two = (load_run(tmp_path / n / "small")[0].state_dict() for n in ("one", "two"))
    for name, value in one.items():
        assert torch.allclose(two[name], value, atol=1e-5), name


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_no_thread_of_the_group_outlives_it(tmp_path):
    (tmp_path / "part.py").write_text(
        "from pathlib import Path\nimport torch\nfrom faceauth.lab.training.devices import place\n"
        "def threads(): return [t.read_text() for t in Path('/proc/self/task').glob('*/comm')].count('pt_gloo_runloop\\n')\n"
        "with place('cpu', 1) as here:\n"
        "    here.spread(torch.nn.Linear(2, 1))(torch.ones(3, 2)).sum().backward()\n"
        "    assert threads() > 0\n"
        "assert threads() == 0, threads()\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*command, str(tmp_path / "part.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
