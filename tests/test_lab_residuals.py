"""NPR and SAFE: their residuals by hand, the body they share, and a run of each as a model file."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from faceauth.lab.training.export import export
from faceauth.lab.training.loop import train
from faceauth.lab.training.optim import layer_groups
from faceauth.lab.training.residuals import RESIDUALS, NprNet, SafeNet
from lab_networks import small, write_prepared

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")]
# dec_hi of PyWavelets' bior1.3; Cohen, Daubechies and Feauveau, 1992.
BIOR13_HIGH = np.array([0, 0, -1, 1, 0, 0]) / np.sqrt(2)


def test_npr_is_how_each_pixel_differs_from_the_first_of_its_block():
    pixels = torch.randn(2, 3, 32, 32)
    found = NprNet(2).residual(pixels)
    first = pixels[:, :, ::2, ::2]
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert torch.allclose(found[:, :, y::2, x::2], (pixels[:, :, y::2, x::2] - first) * 2 / 3, atol=1e-6)
    assert not NprNet(2).residual(torch.nn.functional.interpolate(first, scale_factor=2.0)).any()


def test_safe_sees_the_diagonal_band_of_the_wavelet():
    pixels = torch.randn(1, 1, 32, 32).expand(1, 3, 32, 32)
    found = SafeNet(2).residual(pixels)
    plane = pixels[0, 0].double().numpy()
    along = np.array([np.convolve(row, BIOR13_HIGH, "valid")[::2] for row in plane])
    band = np.array(
        [np.convolve(column, BIOR13_HIGH, "valid")[::2] for column in along.T]
    ).T  # blocks 1 to 14 of 0 to 15
    wanted = torch.nn.functional.interpolate(torch.from_numpy(band)[None, None], scale_factor=2.0, mode="bilinear")
    assert torch.allclose(found[0, 0, 4:-4, 4:-4], wanted[0, 0, 2:-2, 2:-2].float(), atol=1e-5)


def test_safe_does_not_see_what_changes_in_one_direction_only():
    ramp = torch.randn(1, 3, 1, 32).expand(1, 3, 32, 32)
    for pixels in (ramp, ramp.transpose(2, 3)):
        assert SafeNet(2).residual(pixels).abs().max() < 1e-6


@pytest.mark.parametrize("network", RESIDUALS)
def test_the_body_is_the_first_half_of_a_resnet_50(network):
    net = RESIDUALS[network](5).eval()
    assert sum(p.numel() for p in net.parameters()) - sum(p.numel() for p in net.source_head.parameters()) == 1_437_761
    with torch.no_grad():
        for size in (33, 128):
            assert net(torch.randn(1, 3, size, size)).embedding.shape == (1, 512)
        assert net.body(net.stem(torch.zeros(1, 3, 128, 128))).shape == (1, 512, 16, 16)


def test_a_residual_survives_bf16():
    pixels = torch.full((1, 3, 32, 32), 1.9)
    pixels[..., 1::2, 1::2] += 0.004  # a quarter of a grey level; bf16 near 2 knows steps of 0.008
    for network in RESIDUALS.values():
        with torch.autocast("cpu", torch.bfloat16):
            assert network(2).residual(pixels).abs().max() > 0.001


def test_the_rate_falls_from_the_heads_to_the_stem():
    net = NprNet(2)
    groups = layer_groups(net, 0.5)
    assert [round(np.log2(g["share"])) for g in groups] == list(range(-8, 1))
    assert {id(p) for p in net.stem.parameters()} == {id(p) for p in groups[0]["params"]}
    assert {id(p) for h in (net.head, net.source_head) for p in h.parameters()} == {id(p) for p in groups[-1]["params"]}


@pytest.mark.parametrize("network", RESIDUALS)
def test_a_run_becomes_a_model_file(network, tmp_path):
    manifest = write_prepared(tmp_path / "prepared", 10)
    run = train(small(manifest, network=network, architecture={}, images=64, bf16=True), tmp_path / "runs")
    assert export(run, run / "detector.onnx") < 1e-4
