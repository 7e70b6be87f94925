import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceauth import spectra

SIDE = 64


def wave(across, down, amplitude=10.0, side=SIDE):
    y, x = np.mgrid[:side, :side]
    return amplitude * np.cos(2 * np.pi * (across * x + down * y) / side)


def test_a_wave_is_two_peaks_at_its_frequency():
    power = spectra.power(wave(12, 5))
    middle = SIDE // 2
    peaks = {tuple(map(int, p)) for p in np.argwhere(power > 1)}
    assert peaks == {(middle + 5, middle + 12), (middle - 5, middle - 12)}
    # A wave of amplitude a has mean square a^2 / 2, all of it in two of side^2 bins.
    assert power[middle + 5, middle + 12] == pytest.approx(100 / 4 * SIDE**2)


@pytest.mark.parametrize("cycles", [4, 16, 30])
def test_the_profile_of_a_wave_peaks_at_its_frequency(cycles):
    profile = spectra.radial_profile(spectra.power(wave(cycles, 0)))
    assert spectra.frequencies(SIDE)[profile.argmax()] == pytest.approx(cycles / SIDE)
    assert len(profile) == len(spectra.frequencies(SIDE)) == SIDE // 2 + 1


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 20), st.integers(4, 20), st.integers(0, 2**32 - 1), st.sampled_from([(), (3,)]))
def test_parseval(height, width, seed, channels):
    values = np.random.default_rng(seed).normal(3, 20, (height, width, *channels))
    assert spectra.power(values).mean() == pytest.approx((values**2).mean())


def test_white_noise_is_flat_at_its_variance():
    rng = np.random.default_rng(0)
    profiles = [spectra.radial_profile(spectra.power(rng.normal(0, 5, (SIDE, SIDE)))) for _ in range(60)]
    assert np.mean(profiles, axis=0)[2:] == pytest.approx(25, rel=0.15)


def test_the_residual_keeps_noise_and_drops_edges():
    step = np.zeros((32, 32, 3), np.uint8)
    step[:, 16:] = 200
    assert np.abs(spectra.residual(step)).max() == 0
    spot = step.copy()
    spot[5, 5] = 90
    found = spectra.residual(spot)
    assert found[5, 5].tolist() == [90, 90, 90]
    assert np.count_nonzero(found) == 3
    assert found.shape == spot.shape


def test_a_brighter_picture_has_the_same_spectrum():
    noisy = np.random.default_rng(1).integers(50, 90, (32, 32, 3))
    assert spectra.log_power(noisy) == pytest.approx(spectra.log_power(noisy + 100))


def test_decibels_are_finite_and_ten_times_is_ten():
    assert spectra.decibels(np.array([100.0]))[0] == pytest.approx(20, abs=1e-4)
    assert spectra.decibels(np.zeros(1))[0] == pytest.approx(10 * np.log10(spectra.FLOOR))


def test_a_profile_needs_a_square():
    with pytest.raises(ValueError, match="square"):
        spectra.radial_profile(np.zeros((4, 6)))
