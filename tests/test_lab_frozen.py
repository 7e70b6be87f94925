"""Frozen backbones: what learns and what stays, and the configs that name them."""

import pytest

torch = pytest.importorskip("torch")
from pydantic import ValidationError
from safetensors.torch import load_file

from conftest import ROOT
from faceauth.errors import ConfigError
from faceauth.lab.cli.training import is_frozen
from faceauth.lab.training.config import read_config
from faceauth.lab.training.export import export
from faceauth.lab.training.loop import train
from faceauth.lab.training.networks import import_timm, timm_facts, transformer_classes
from faceauth.lab.training.zoo import build, initial
from lab_networks import DENSE, TRANSFORMER, small, write_prepared

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")]
VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8, "drop_rate": 0.3}
NETWORKS = ("deit", "densenet", "timm/vit_tiny_patch16_224")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny backbone of each kind, as its library saves it."""
    place = tmp_path_factory.mktemp("saved")
    model, settings = transformer_classes("deit", distilled=False)
    model(settings(**TRANSFORMER, image_size=32, num_labels=10)).save_pretrained(place / "deit")
    timm = import_timm()
    for name, made, size in (("densenet121", DENSE, {}), ("vit_tiny_patch16_224", VIT, {"img_size": 32})):
        network = timm.create_model(name, num_classes=10, **made, **size)
        timm.models.save_for_hf(network, place / name, model_args=made, safe_serialization=True)
    return {"deit": place / "deit", "densenet": place / "densenet121", NETWORKS[2]: place / "vit_tiny_patch16_224"}


def frozen(manifest, network, saved, **changes):
    values = {"init": str(saved[network]), "architecture": {}, "freeze": True, "images": 96, "weight_decay": 0.5}
    return small(manifest, network=network, **values | changes)


@pytest.mark.parametrize("network", NETWORKS)
def test_only_the_heads_learn(network, saved, tmp_path):
    config = frozen(write_prepared(tmp_path / "prepared", 10), network, saved, layer_decay=1)
    torch.manual_seed(config.seed)
    before = initial(config, 4)[0].state_dict()
    run = train(config, tmp_path / "runs")
    after = load_file(run / "model.safetensors")
    head = {"deit": "model.classifier", "densenet": "model.classifier"}.get(network, "model.head")
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {f"{part}.{kind}" for part in (head, "source_head") for kind in ("weight", "bias")}
    assert export(run, run / "detector.onnx") < 1e-4


def test_a_frozen_backbone_neither_drops_nor_counts(saved):
    net, _ = initial(frozen("m.parquet", NETWORKS[2], saved), 4)
    net.train()
    pixels = torch.randn(4, 3, 32, 32)
    first, second = net(pixels), net(pixels)
    assert torch.equal(first.embedding, second.embedding)
    assert not first.embedding.requires_grad
    assert first.logit.requires_grad and first.source_logits.requires_grad
    assert net.training


@pytest.mark.parametrize("network", ["pyramid", "npr", "deit"])
def test_what_has_learned_nothing_is_not_frozen(network):
    with pytest.raises(ConfigError, match="freeze needs a backbone") as caught:
        initial(small("m.parquet", network=network, freeze=True, architecture={}), 4)
    assert "init = 'pretrained'" in caught.value.hint


def test_there_are_no_layers_to_slow_down_in_a_frozen_backbone():
    with pytest.raises(ValidationError, match="layer_decay has nothing to slow down"):
        small("m.parquet", init="pretrained", freeze=True, layer_decay=0.5)


def test_positions_of_a_timm_transformer_fit_another_size(saved):
    given = load_file(saved[NETWORKS[2]] / "model.safetensors")["pos_embed"]
    net, _ = initial(frozen("m.parquet", NETWORKS[2], saved, size=64), 4)
    own = net.model.pos_embed.detach()
    assert own.shape == (1, 1 + 64, 16)
    assert torch.equal(own[:, :1], given[:, :1])
    assert torch.allclose(own[0, 1:].mean(0), given[0, 1:].mean(0), atol=5e-3)


CONFIGS = [p for p in sorted((ROOT / "configs" / "frozen").glob("*.toml")) if not is_frozen(p)]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_the_configs_name_what_timm_knows(path):
    config = read_config(path)
    assert (config.name, config.init, config.freeze) == (path.stem, "pretrained", True)
    known = timm_facts(config.network.removeprefix("timm/"))
    assert known.hf_hub_id == config.network
    with torch.device("meta"):
        net = build(config, 16)
        out = net.eval()(torch.zeros(1, 3, config.size, config.size))
    assert out.embedding.shape == (1, 768)
    assert net.model.global_pool == "token"
    learning = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert learning == 769 * 17
    if path.stem == "clip":
        assert type(net.model.blocks[0].mlp.act).__name__ == "QuickGELU"
