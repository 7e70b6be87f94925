"""The numbers of a whole face, and the lines that are fitted through them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from faceauth.lab.training.export import load_run
from faceauth.lab.training.loop import train
from faceauth.lab.training.pyramid import PyramidNet
from faceauth.lab.training.traces import LIMIT, REACH, SHRINK, SourceOdds, Traces, discriminant
from lab_networks import small, write_prepared

pytestmark = pytest.mark.torch


def octave(pixels):
    """Pictures, and what of them half their side does not hold."""
    halved = torch.nn.functional.avg_pool2d(pixels, 2)
    return pixels, pixels - torch.nn.functional.interpolate(halved, scale_factor=2.0, mode="bilinear")


def test_the_spectrum_is_that_of_the_fourier_transform():
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    traces = Traces(64)
    rings = traces.groups[0]
    light = (pixels * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1).double()
    window = torch.hann_window(64).double()
    power = torch.fft.fft2((light - light.mean((1, 2), keepdim=True)) * window * window[:, None]).abs().square() / 64**2
    f = torch.fft.fftfreq(64)
    radius = torch.hypot(f[:, None].expand(64, 64), f.expand(64, 64)) * 2 * rings
    found = traces.numbers(*octave(pixels))[:, :rings]
    for ring in (0, 3, rings - 1):
        on = (radius.floor() == ring) & (f <= 0.5) & ((f >= 0) | (f == -0.5))  # the half that a real transform has
        wanted = (power[:, on].mean(1) + 1e-5).log().float()
        assert torch.allclose(found[:, ring], wanted, atol=1e-3), ring


def test_joint_histograms_count_each_pixel_once_and_do_not_know_contrast():
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, 3, 128, 128, generator=generator)
    traces = Traces(128)
    spectrum, colour, texture = traces.numbers(*octave(pixels)).split(traces.groups, 1)
    assert torch.allclose(colour[:, :25].sum(1), torch.ones(2), atol=1e-4)
    assert torch.allclose(colour[:, 25:50].sum(1), torch.ones(2), atol=1e-4)
    brighter = traces.numbers(*octave(2 * pixels + 0.4)).split(traces.groups, 1)
    assert torch.allclose(colour, brighter[1], atol=2e-3)
    assert torch.allclose(texture, brighter[2], atol=2e-3)
    assert torch.allclose(spectrum + 2 * np.log(2), brighter[0], atol=0.01)
    grey = traces.numbers(*octave(pixels.mean(1, keepdim=True).expand(-1, 3, -1, -1))).split(traces.groups, 1)[1]
    assert float((grey - colour).abs().max()) > 0.2  # without colour every difference lies on the middle level


def test_flat_pictures_give_numbers():
    for size in (16, 66, 128):
        traces = Traces(size)
        numbers = traces.numbers(*octave(torch.zeros(1, 3, size, size)))
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
        numbers = [traces.numbers(*octave(torch.randn(1, 3, 32, 32) * (k + 1))).numpy() for k in range(4)]
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
            said.append(float(traces(traces.numbers(*octave(picture)))))
    assert said[0] == 0
    assert said[0] < said[1] < said[2] > said[3] > said[4] > 0
    assert said[4] < 1e-4


MEANS = {0: (0, 0), 1: (8, 0), 3: (4, 0), 4: (12, 0)}
FAKE = {0: False, 1: False, 3: True, 4: True}


def gaussians(rng, n):
    """Four sources of two classes that no line parts: the fakes lie between the reals, and beyond them."""
    return {source: rng.standard_normal((n, 2)) @ np.array([[1, 0.8], [0, 0.6]]) + m for source, m in MEANS.items()}


def test_the_odds_are_those_of_gaussians_with_one_covariance_softly_limited():
    rng = np.random.default_rng(0)
    odds = SourceOdds(5, 2)
    odds.fit(gaussians(rng, 20_000), FAKE)  # source 2 takes no part
    points = rng.uniform(-2, 14, (500, 2)) * (1, 0.1)
    density = {
        source: np.exp(
            -0.5 * np.einsum("nd,de,ne->n", points - mean, np.linalg.inv([[1, 0.8], [0.8, 1]]), points - mean)
        )
        for source, mean in MEANS.items()
    }
    exact = np.log((density[3] + density[4]) / (density[0] + density[1]))
    with torch.no_grad():
        said = odds(torch.from_numpy(points).float()).numpy()
    assert np.abs(said).max() <= LIMIT
    near = np.abs(exact) < 6
    assert near.sum() > 50
    # The shrunk covariance is not quite the true one.
    assert np.corrcoef(LIMIT * np.tanh(exact[near] / LIMIT), said[near])[0, 1] > 0.97


def test_the_odds_do_not_know_where_the_numbers_begin():
    parts = gaussians(np.random.default_rng(2), 300)
    said = []
    for start in (0, 10_000):
        odds = SourceOdds(5, 2)
        odds.fit({source: part + start for source, part in parts.items()}, FAKE)
        with torch.no_grad():
            said.append(odds(torch.from_numpy(np.concatenate(list(parts.values())) + start).float()))
    assert torch.allclose(*said, atol=0.05)
    assert float(said[0].abs().max()) > 3


def test_the_odds_tell_apart_what_no_line_does_and_say_nothing_before_they_are_fitted():
    rng = np.random.default_rng(1)
    odds = SourceOdds(5, 2)
    with torch.no_grad():
        assert not odds(torch.randn(3, 2)).any()
        odds.fit(gaussians(rng, 300), FAKE)
        new = gaussians(rng, 300)
        said = {source: odds(torch.from_numpy(part).float()).numpy() for source, part in new.items()}
    line, offset = discriminant(list(new.values()), list(FAKE.values()))
    by_line = np.mean([((part @ line + offset > 0) == FAKE[source]).mean() for source, part in new.items()])
    by_odds = np.mean([((said[source] > 0) == FAKE[source]).mean() for source in new])
    assert by_line < 0.8 < 0.95 < by_odds


def test_a_class_without_a_source_leaves_both_parts_silent():
    network = PyramidNet(2, 4, size=32)
    numbers = {0: np.random.default_rng(0).standard_normal((4, network.finer + network.odds.weight.shape[1]))}
    network.fit(numbers, numbers, {0: False})
    assert not network.odds.weight.any()
    assert not network.traces.weight.any()


def test_training_fits_both_parts_and_a_second_run_gives_the_same(tmp_path):
    manifest = write_prepared(tmp_path)
    runs = []
    for name in ("a", "b"):
        train(small(manifest, name=name, network="pyramid", architecture={}, width=4, images=16), tmp_path / "runs")
        runs.append(load_run(tmp_path / "runs" / name)[0])
    for part in ("traces.weight", "odds.weight"):
        weights = [network.state_dict()[part] for network in runs]
        assert float(weights[0].abs().max()) > 0
        assert torch.equal(*weights)
