"""Frozen encoders as ONNX files: what a convolutional network of timm gives, and what is refused."""

import numpy as np
import onnxruntime as ort
import pytest

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")]
torch = pytest.importorskip("torch")
from safetensors.torch import save_file

from faceauth import spectra
from faceauth.errors import ConfigError, DataError
from faceauth.lab.training.encoders import FLOOR, columns_of, count_parameters, export_encoder, load_encoder
from faceauth.lab.training.networks import import_timm

NAME = "mobilenetv2_035"


def test_a_network_of_timm_gives_mean_and_log_variance_of_every_block(tmp_path):
    torch.manual_seed(3)
    network = import_timm().create_model(NAME).eval()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    count = export_encoder(f"timm/{NAME}", tmp_path / "encoder.onnx", tmp_path / "weights.safetensors")
    pixels = torch.rand(2, 3, 224, 224)
    maps = []
    parts = [block for stage in network.blocks for block in stage]
    for part in (*parts, network.bn2):
        part.register_forward_hook(lambda _module, _given, made: maps.append(made))
    with torch.no_grad():
        network(pixels)
    expected = np.concatenate([v for m in maps for v in (m.mean((2, 3)), (m.var((2, 3)) + FLOOR).log())], axis=1)
    [found] = ort.InferenceSession(tmp_path / "encoder.onnx").run(["features"], {"pixels": pixels.numpy()})
    assert found.shape == expected.shape == (2, count)
    assert np.corrcoef(found[:, :300].ravel(), expected[:, :300].ravel())[0, 1] > 0.9999  # of the first blocks
    assert np.abs(found - expected).mean() < 0.05 * expected.std()  # 8-bit weights; the error grows from block to block
    assert (tmp_path / "encoder.onnx").stat().st_size < (tmp_path / "weights.safetensors").stat().st_size / 2


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """CLIP's image encoder with four blocks of random weights, as ONNX, and what it gives for two pictures."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(4)
    folder = tmp_path_factory.mktemp("clip")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    network = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, image_size=32, patch_size=8, projection_dim=8))
    network.save_pretrained(folder / "checkpoint")
    assert export_encoder(str(folder / "checkpoint"), folder / "encoder.onnx") == 4 * 3 * 16
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        states = network(pixels, output_hidden_states=True).hidden_states[1:]
    expected = torch.cat([v for s in states for v in (s[:, 0], s[:, 1:].mean(1), s[:, 1:].std(1))], dim=1)
    return folder / "encoder.onnx", pixels.numpy(), expected.numpy()


def features(model, pixels):
    return ort.InferenceSession(model).run(["features"], {"pixels": pixels})[0]


def test_clip_gives_token_mean_and_deviation_of_every_block(clip):
    path, pixels, expected = clip
    np.testing.assert_allclose(features(path, pixels), expected, atol=1e-4)


def test_an_encoder_of_some_blocks_gives_their_features_and_ends_with_the_last(clip):
    path, pixels, expected = clip
    whole, part = load_encoder(path), load_encoder(path, (2, 3))
    columns = columns_of(path, (2, 3), expected.shape[1])
    assert (columns.start, columns.stop) == (48, 144)
    np.testing.assert_allclose(features(part.SerializeToString(), pixels), expected[:, columns], atol=1e-4)
    assert count_parameters(part) < count_parameters(load_encoder(path, (2, 4))) <= count_parameters(whole)
    assert len(part.graph.node) < 0.85 * len(whole.graph.node)


@pytest.mark.parametrize("blocks", [(0, 2), (2, 5), (3, 2)])
def test_blocks_that_are_not_there_are_refused(clip, blocks):
    with pytest.raises(ConfigError, match="has no blocks"):
        load_encoder(clip[0], blocks)


def test_the_spectrum_is_the_mean_power_on_rings(tmp_path):
    pixels = np.random.default_rng(1).random((2, 3, 64, 64)).astype(np.float32)
    assert export_encoder("spectrum/64", tmp_path / "encoder.onnx") == 33
    [found] = ort.InferenceSession(tmp_path / "encoder.onnx").run(["features"], {"pixels": pixels})
    rings = [spectra.radial_profile(spectra.power(one.mean(axis=0))) for one in pixels]
    np.testing.assert_allclose(found, np.log(np.array(rings) + FLOOR), atol=1e-3)


def test_what_is_no_encoder_is_refused_and_leaves_no_file(tmp_path):
    output = tmp_path / "encoder.onnx"
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="cannot load the weights"):
        export_encoder(f"timm/{NAME}", output, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="timm has no network"):
        export_encoder("timm/none", output)
    with pytest.raises(ConfigError, match="network of timm alone"):
        export_encoder("clip", output, tmp_path / "other.safetensors")
    network = import_timm().create_model("resnet18")
    save_file(network.state_dict(), tmp_path / "resnet.safetensors")
    with pytest.raises(ConfigError, match="no conv_stem"):
        export_encoder("timm/resnet18", output, tmp_path / "resnet.safetensors")
    with pytest.raises(ConfigError, match="names no size"):
        export_encoder("spectrum/large", output)
    assert not output.exists()
