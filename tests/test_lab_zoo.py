"""The networks, and the weights that they start from."""

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from conftest import ROOT
from faceauth.errors import ConfigError, DataError
from faceauth.lab.training.export import export, load_run
from faceauth.lab.training.loop import train
from faceauth.lab.training.networks import import_timm, transformer_classes
from faceauth.lab.training.zoo import build, initial
from faceauth.model_file import ModelFile
from lab_networks import DENSE, TRANSFORMER, small, write_prepared

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")]
WIDTH = {
    "deit": 16,
    "vit": 16,
    "densenet": 16,
    "timm/vit_tiny_patch16_224": 16,
    "pyramid": 56,
    "npr": 512,
    "safe": 512,
}
SMALL = {
    "deit": TRANSFORMER, "vit": TRANSFORMER, "densenet": DENSE, "pyramid": {}, "npr": {}, "safe": {},
    "timm/vit_tiny_patch16_224": {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8},
}  # fmt: skip


def config(network, **changes):
    return small("m.parquet", **{"network": network, "architecture": SMALL[network], "width": 4, **changes})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of each architecture as its library saves one: a thousand labels, statistics of its own."""
    place = tmp_path_factory.mktemp("saved")
    for kind in ("deit", "vit"):
        model, settings = transformer_classes(kind, distilled=True)
        made = model(settings(**TRANSFORMER, image_size=32, num_labels=1000))
        made.save_pretrained(place / kind)
        torch.save(made.state_dict(), place / f"{kind}.pt")
        statistics = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
        (place / kind / "preprocessor_config.json").write_text(json.dumps(statistics))
    timm = import_timm()
    dense = timm.create_model("densenet121", num_classes=10, **DENSE)
    timm.models.save_for_hf(dense, place / "densenet", model_args=DENSE, safe_serialization=True)
    torch.save(dense.state_dict(), place / "densenet.pt")
    return place


@pytest.mark.parametrize("network", SMALL)
def test_every_network_keeps_the_contract(network):
    net, resolved = initial(config(network), 3)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        out = net.eval()(pixels)
        alone = net(pixels[:1])
    assert [tuple(t.shape) for t in out] == [(2,), (2, 3), (2, WIDTH[network])]
    assert torch.allclose(out.logit[:1], alone.logit, atol=1e-5)
    assert torch.allclose(
        out.source_logits, net.source_head(out.embedding[:, : net.source_head.in_features]), atol=1e-6
    )
    again = build(resolved, 3)
    again.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(pixels).logit, out.logit)


def test_the_study_has_these_networks():
    with torch.device("meta"):
        deit = build(config("deit", architecture={}, size=384), 7)
        dense = build(config("densenet", architecture={}, size=224), 7)
        assert dense.eval()(torch.zeros(2, 3, 224, 224)).embedding.shape == (2, 1024)
    assert sum(p.numel() for p in deit.model.parameters()) == 86_092_801
    assert deit.source_head.in_features == 768


def test_the_embedding_is_the_class_token_before_the_head():
    net = build(config("vit"), 3).eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        out, own = net(pixels), net.model(pixels).logits[:, 0]
        assert torch.allclose(net.model.classifier(out.embedding)[:, 0], own, atol=1e-6)
    assert torch.allclose(out.logit, own, atol=1e-6)


@pytest.mark.parametrize("network", ["deit", "vit", "densenet"])
def test_saved_weights_are_loaded_and_the_head_is_fresh(saved, network):
    net, resolved = initial(config(network, init=str(saved / network), architecture={}), 3)
    given, own = torch.load(saved / f"{network}.pt"), net.model.state_dict()
    heads = [key for key in own if "classifier" in key]
    assert own[next(k for k in heads if k.endswith("weight"))].shape[0] == 1
    assert len(heads) == 2
    same = {key: own[key] for key in given if key in own and key not in heads}
    assert len(same) == len(own) - len(heads)
    for key, value in same.items():
        assert torch.equal(value, given[key]), key
    if network != "densenet":
        assert resolved.preprocess.mean == (0.1, 0.2, 0.3)
        assert resolved.architecture["hidden_size"] == 16
    else:
        assert DENSE.items() <= resolved.architecture.items()
        assert resolved.preprocess.mean == (0.485, 0.456, 0.406)


def test_another_size_interpolates_the_positions(saved):
    given = torch.load(saved / "deit.pt")["deit.embeddings.position_embeddings"]
    net, _ = initial(config("deit", init=str(saved / "deit"), architecture={}, size=64), 3)
    own = net.model.deit.embeddings.position_embeddings.detach()
    assert own.shape == (1, 2 + 64, 16)
    assert torch.equal(own[:, :2], given[:, :2])
    grid = own[0, 2:].reshape(8, 8, 16).mean((0, 1))
    assert torch.allclose(grid, given[0, 2:].mean(0), atol=5e-3)
    with torch.no_grad():
        assert net.eval()(torch.zeros(1, 3, 64, 64)).logit.shape == (1,)
    with pytest.raises(ConfigError, match="multiple"):
        initial(config("deit", init=str(saved / "deit"), architecture={}, size=60), 3)


@pytest.mark.parametrize(("network", "init", "says"), [
    ("vit", "deit", "holds deit, not vit"), ("deit", "densenet", "no checkpoint of transformers"),
    ("densenet", "vit", "of transformers, not timm's"), ("timm/densenet161", "densenet", "holds 'densenet121', not"),
    ("deit", "nowhere", "no checkpoint at"),
])  # fmt: skip
def test_a_checkpoint_of_something_else_is_one_line(saved, network, init, says):
    with pytest.raises(ConfigError, match=says):
        initial(small("m", network=network, architecture={}, init=str(saved / init)), 3)


@pytest.mark.parametrize("network", ["deit", "densenet"])
def test_a_pickled_checkpoint_is_not_opened(saved, tmp_path, network):
    class Trap:
        def __reduce__(self):
            return (tmp_path / "sprung").touch, ()

    shutil.copy(saved / network / "config.json", tmp_path)
    torch.save({"a": Trap()}, tmp_path / "pytorch_model.bin")
    given = tmp_path / "pytorch_model.bin" if network == "densenet" else tmp_path
    with pytest.raises((ConfigError, DataError), match="safetensors"):
        initial(small("m", network=network, architecture={}, init=str(given)), 3)
    assert not (tmp_path / "sprung").exists()


def test_weights_of_another_architecture_are_no_silent_start(saved):
    deeper = {"num_hidden_layers": 3}
    with pytest.raises(ConfigError, match="another architecture"):
        initial(config("deit", init=str(saved / "deit"), architecture=deeper), 3)
    wider = {"intermediate_size": 64}
    with pytest.raises(ConfigError, match="another architecture"):
        initial(config("deit", init=str(saved / "deit"), architecture=wider), 3)
    with pytest.raises(ConfigError, match="another architecture"):
        initial(config("densenet", init=str(saved / "densenet"), architecture={"growth_rate": 8}), 3)


@pytest.mark.parametrize("network", ["deit", "densenet"])
def test_a_damaged_checkpoint_is_one_line(saved, tmp_path, network):
    shutil.copytree(saved / network, tmp_path / "cut")
    file = tmp_path / "cut" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot read the checkpoint"):
        initial(config(network, init=str(tmp_path / "cut"), architecture={}), 3)
    file.unlink()
    with pytest.raises(DataError, match="cannot read the checkpoint"):
        initial(config(network, init=str(tmp_path / "cut"), architecture={}), 3)
    (tmp_path / "cut" / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"config\.json"):
        initial(config(network, init=str(tmp_path / "cut"), architecture={}), 3)


@pytest.mark.parametrize(("network", "hub"), [
    ("deit", "facebook/deit-base-distilled-patch16-384"), ("vit", "google/vit-base-patch16-224"), ("densenet", "timm/densenet121"),
])  # fmt: skip
def test_without_a_hub_nothing_falls_back_to_random(network, hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=f"cannot get {hub}") as caught:
        initial(config(network, init="pretrained", architecture={}), 3)
    assert "--init FOLDER" in caught.value.hint


def test_what_the_hub_once_gave_is_used(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    kept = tmp_path / "models--some--deit"
    shutil.copytree(saved / "deit", kept / "snapshots" / "abc")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    net, _ = initial(config("deit", init="pretrained", checkpoint="some/deit", architecture={}), 3)
    given = torch.load(saved / "deit.pt")
    assert torch.equal(net.model.state_dict()["deit.layernorm.weight"], given["deit.layernorm.weight"])
    assert torch.equal(net.model.deit.embeddings.position_embeddings, given["deit.embeddings.position_embeddings"])
    (kept / "snapshots" / "abc" / "model.safetensors").unlink()
    with pytest.raises(DataError, match="without its weights"):
        initial(config("deit", init="pretrained", checkpoint="some/deit", architecture={}), 3)


def test_weights_without_a_head_and_a_bare_file(saved, tmp_path):
    import transformers

    bare = transformers.ViTModel(transformers.ViTConfig(**TRANSFORMER, image_size=32))
    bare.save_pretrained(tmp_path / "bare")
    net, _ = initial(config("vit", init=str(tmp_path / "bare"), architecture={}), 3)
    own, given = net.model.vit.state_dict(), bare.state_dict()
    assert all(torch.equal(value, given[key]) for key, value in own.items())
    net, _ = initial(config("densenet", init=str(saved / "densenet" / "model.safetensors")), 3)
    own, given = net.model.state_dict(), torch.load(saved / "densenet.pt")
    assert all(torch.equal(own[key], given[key]) for key in own if "classifier" not in key)


def test_init_on_the_command_line(saved, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from faceauth.lab.cli import app
    from faceauth.lab.training import loop

    seen = []
    monkeypatch.setattr(loop, "train", lambda config, *_, **options: seen.append((config.init, options)) or tmp_path)
    path = str(ROOT / "configs" / "report" / "deit.toml")
    for given in ([], ["--init", "random", "--device", "cpu"], ["--init", "a folder"]):
        assert CliRunner().invoke(app, ["train", path, *given]).exit_code == 0
    assert [init for init, _ in seen] == ["pretrained", "random", "a folder"]
    assert [options["device"] for _, options in seen] == ["auto", "cpu", "auto"]


@pytest.mark.parametrize(("changes", "says"), [
    ({"network": "diet"}, "did you mean 'deit'"), ({"network": "timm/resnet999"}, "timm has no network"),
    ({"architecture": {"hidden_sise": 8}}, "did you mean 'hidden_size'"), ({"size": 36}, "no multiple of the patch"),
    ({"architecture": {"hidden_size": 18, "num_attention_heads": 4}}, "no multiple of num_attention_heads"),
    ({"architecture": {"hidden_size": "wide"}}, "architecture"), ({"network": "pyramid"}, "pyramid has no checkpoint"),
    ({"network": "densenet", "init": "random", "architecture": {"grow": 4}}, "unexpected keyword"),
])  # fmt: skip
def test_what_cannot_be_built_is_one_line(changes, says):
    with pytest.raises(ConfigError, match=says):
        initial(small("m", **{"init": "random" if "network" not in changes else "pretrained"} | changes), 3)


def test_a_probe_does_not_move_the_network():
    for network in SMALL:
        net = build(config(network, source_weight=0), 3)
        net(torch.randn(4, 3, 32, 32)).source_logits.square().sum().backward()
        moved = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert moved == {"source_head.weight", "source_head.bias"}, network


@pytest.mark.parametrize("network", ["deit", "vit", "densenet"])
def test_from_a_checkpoint_to_a_model_file(saved, tmp_path, network):
    start = shutil.copytree(saved / network, tmp_path / "start")
    manifest = write_prepared(tmp_path / "prepared", 10)
    settings = small(manifest, network=network, init=str(start), architecture={}, images=64, name=f"{network}_x")
    run = train(settings, tmp_path / "runs")
    shutil.rmtree(start)
    assert f"summary_{network}_x.txt" in {p.name for p in run.iterdir()}
    assert "Conv2d" in (run / f"summary_{network}_x.txt").read_text()
    assert export(run, run / "detector.onnx") < 1e-4
    model, (net, known, _) = ModelFile(run / "detector.onnx"), load_run(run)
    assert model.card.preprocess == known.preprocess
    pixels = np.random.default_rng(0).normal(size=(5, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        assert np.allclose(model.run(pixels).embedding, net(torch.from_numpy(pixels)).embedding, atol=1e-4)
    assert len(model.run(pixels[:1]).logit) == 1
