"""The numbers of a whole face, and the lines that are fitted through them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from faceauth.lab.training.export import load_run
from faceauth.lab.training.loop import train
from faceauth.lab.training.traces import REACH, SHRINK, Traces, discriminant
from lab_networks import small, write_prepared

pytestmark = pytest.mark.torch


def test_the_spectrum_is_that_of_the_fourier_transform():
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    traces = Traces(64)
    rings = traces.groups[0]
    light = (pixels * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1).double()
    window = torch.hann_window(64).double()
    power = torch.fft.fft2((light - light.mean((1, 2), keepdim=True)) * window * window[:, None]).abs().square() / 64**2
    f = torch.fft.fftfreq(64)
    radius = torch.hypot(f[:, None].expand(64, 64), f.expand(64, 64)) * 2 * rings
    found = traces(pixels)[1][:, :rings]
    for ring in (0, 3, rings - 1):
        on = (radius.floor() == ring) & (f <= 0.5) & ((f >= 0) | (f == -0.5))  # the half that a real transform has
        wanted = (power[:, on].mean(1) + 1e-5).log().float()
        assert torch.allclose(found[:, ring], wanted, atol=1e-3), ring


def test_joint_histograms_count_each_pixel_once_and_do_not_know_contrast():
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, 3, 128, 128, generator=generator)
    traces = Traces(128)
    spectrum, colour, texture = traces(pixels)[1].split(traces.groups, 1)
    assert torch.allclose(colour[:, :25].sum(1), torch.ones(2), atol=1e-4)
    assert torch.allclose(colour[:, 25:50].sum(1), torch.ones(2), atol=1e-4)
    brighter = traces(2 * pixels + 0.4)[1].split(traces.groups, 1)
    assert torch.allclose(colour, brighter[1], atol=2e-3)
    assert torch.allclose(texture, brighter[2], atol=2e-3)
    assert torch.allclose(spectrum + 2 * np.log(2), brighter[0], atol=0.01)
    grey = traces(pixels.mean(1, keepdim=True).expand(-1, 3, -1, -1))[1].split(traces.groups, 1)[1]
    assert float((grey - colour).abs().max()) > 0.2  # without colour every difference lies on the middle level


def test_flat_pictures_and_large_ones_give_numbers():
    for size in (16, 130, 160, 256):
        traces = Traces(size)
        numbers = traces(torch.zeros(1, 3, size, size))[1]
        assert numbers.shape == (1, sum(traces.groups)), size
        assert numbers.isfinite().all()


def test_the_discriminant_finds_what_tells_classes_apart_and_counts_sources_alike():
    rng = np.random.default_rng(0)

    def source(n, *mean):
        return rng.standard_normal((n, 3)) * (1, 2, 1) + mean

    real, fake = [source(2000, 0, 0, 0), source(50, 0, 5, 0)], [source(400, 2, 0, 0), source(400, 2, 5, 0)]
    line, offset = discriminant([*real, *fake], [False, False, True, True])
    said = [part @ line + offset for part in (*real, *fake)]
    assert abs(line[0]) > 10 * abs(line[1])  # sources differ in the second, the classes do not
    assert np.mean([part.std() for part in said]) == pytest.approx(1, abs=SHRINK)
    assert np.mean([s.mean() for s in said[:2]]) == pytest.approx(-np.mean([s.mean() for s in said[2:]]), abs=0.1)
    assert min(s.mean() for s in said[2:]) > 0.8 > -0.8 > max(s.mean() for s in said[:2])


def test_one_picture_of_a_source_is_enough_to_fit():
    traces = Traces(32)
    with torch.no_grad():
        numbers = [traces(torch.randn(1, 3, 32, 32) * (k + 1))[1].numpy() for k in range(4)]
    traces.fit(numbers, [False, False, True, True])
    assert traces.weight.isfinite().all()
    assert traces.bias.isfinite().all()
    assert float(traces.weight.abs().max()) > 0


def test_what_lies_far_off_has_no_say():
    traces, picture = Traces(32), torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    said = []
    with torch.no_grad():
        for bias in (0.0, 1.0, REACH, 2 * REACH, 6 * REACH):
            traces.bias.fill_(bias)
            said.append(float(traces(picture)[0]))
    assert said[0] == 0
    assert said[0] < said[1] < said[2] > said[3] > said[4] > 0
    assert said[4] < 1e-4


def test_training_fits_the_lines_and_a_second_run_gives_the_same(tmp_path):
    manifest = write_prepared(tmp_path)
    runs = []
    for name in ("a", "b"):
        train(small(manifest, name=name, network="pyramid", architecture={}, width=4, images=16), tmp_path / "runs")
        runs.append(load_run(tmp_path / "runs" / name)[0].traces.weight)
    assert float(runs[0].abs().max()) > 0
    assert torch.equal(*runs)
