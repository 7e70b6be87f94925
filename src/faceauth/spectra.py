"""What a picture's noise looks like by frequency: residuals, power spectra, radial profiles.

Generators leave regular traces in the noise of their images, in peaks and in how fast the power falls towards high
frequencies (Marra et al., MIPR 2019; Durall et al., CVPR 2020; Frank et al., ICML 2020; Corvi et al., CVPRW 2023).
This module is arrays in and arrays out. It knows nothing of files, sources or figures.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
FLOOR = 1e-4  # grey levels squared; far below the 1/12 that rounding to 8 bits leaves


def residual(pixels: npt.NDArray[Any]) -> Floats:
    """A picture less its 3 x 3 median, edges repeated: the noise, with little of the edges.

    The estimate of Marra et al. (MIPR 2019) and Corvi et al. (CVPRW 2023), with a median in place of their denoisers.

    Args:
        pixels: (h, w) or (h, w, channels), in grey levels 0 to 255, any number type.

    Returns:
        The same shape, float32, in grey levels, about zero.
    """
    values = np.asarray(pixels, np.float32)
    padded = np.pad(values, [(1, 1), (1, 1)] + [(0, 0)] * (values.ndim - 2), mode="edge")
    h, w = values.shape[:2]
    around = np.stack([padded[y : y + h, x : x + w] for y in range(3) for x in range(3)])
    return np.asarray(values - np.partition(around, 4, axis=0)[4])


def power(values: npt.NDArray[Any]) -> Floats:
    """Power spectrum, the mean over channels, zero frequency in the middle (at h // 2, w // 2).

    Its mean is the mean square of `values` (Parseval), so white noise of variance v has power v at every frequency.

    Args:
        values: (h, w) or (h, w, channels).

    Returns:
        (h, w) float64, in the unit of `values` squared.
    """
    planes = np.atleast_3d(np.asarray(values, np.float64))
    spectrum = np.abs(np.fft.fft2(planes, axes=(0, 1))) ** 2 / (planes.shape[0] * planes.shape[1])
    return np.asarray(np.fft.fftshift(spectrum.mean(axis=2)))


def decibels(power: npt.NDArray[Any]) -> Floats:
    """10 log10 of a power, any shape, with `FLOOR` added so that nothing is minus infinity."""
    return np.asarray(10 * np.log10(np.asarray(power, np.float64) + FLOOR))


def log_power(pixels: npt.NDArray[Any]) -> Floats:
    """(h, w) log-power spectrum of a picture's residual, in decibels over one grey level squared."""
    return decibels(power(residual(pixels)))


def radial_profile(power: npt.NDArray[Any]) -> Floats:
    """Mean power on rings about the middle. Durall et al., CVPR 2020.

    Args:
        power: (side, side), zero frequency at side // 2; the corners beyond the Nyquist frequency are left out.

    Returns:
        (side // 2 + 1,), ring k at k / side cycles a pixel (`frequencies`), all frequencies that round to k.
    """
    side = power.shape[0]
    if power.shape != (side, side):
        raise ValueError(f"a square spectrum is needed, not {power.shape}")
    steps = np.arange(side) - side // 2
    ring = np.rint(np.hypot(steps[:, None], steps[None, :])).astype(int).ravel()
    sums, counts = np.bincount(ring, power.ravel()), np.bincount(ring)
    return np.asarray((sums / counts)[: side // 2 + 1])


def frequencies(side: int) -> Floats:
    """(side // 2 + 1,) the frequency of each ring of `radial_profile`, in cycles a pixel, 0 to 0.5."""
    return np.arange(side // 2 + 1) / side
