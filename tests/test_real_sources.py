"""Real galaxies that can be lensed: cut from the sky around them."""

import numpy as np
import pytest

from tflens.errors import ParameterError
from tflens.galaxies.real_sources import lensable
from tflens.galaxies.real_stamps import RealStamps, load_real_stamps

COSMOS = "galaxies/cosmos_f814w/stamps64_0p05_gauss0p15.npz"


def stamps(*images: np.ndarray, snr: float = 200.0) -> RealStamps:
    n = len(images)
    return RealStamps(np.stack(images), np.arange(n), np.full(n, 22.0), np.full(n, snr), 0.05, 0.15)


def galaxy(y: float = 20.0, x: float = 24.0, width: float = 2.0, shape: tuple[int, int] = (40, 48)) -> np.ndarray:
    rows, columns = np.indices(shape)
    return 50 * np.exp(-np.hypot(rows - y, columns - x) / width)


def noise(seed: int = 1, shape: tuple[int, int] = (40, 48)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_the_sky_is_gone_and_the_galaxy_stays():
    (found,) = lensable(stamps(galaxy() + 0.2 * noise()))
    assert found.sum() == pytest.approx(1)
    assert (found[0] == 0).all()
    assert (found[:, 0] == 0).all()
    assert np.mean(found == 0) > 0.4
    truth = galaxy() / galaxy().sum()
    assert np.abs(found - truth).max() < 0.1 * truth.max()
    assert np.sum(np.abs(found - truth)) < 0.2


def test_a_neighbour_is_gone():
    neighbour = 2 * galaxy(7.0, 40.0, 1.0)
    with_it, without = lensable(stamps(galaxy() + neighbour + noise(), galaxy() + noise()))
    assert with_it[7, 40] == 0
    assert np.abs(with_it - without).sum() < 0.05


def test_faint_and_cut_off_galaxies_are_left_out():
    good, cut = galaxy() + noise(), galaxy(x=42.0) + noise()
    assert len(lensable(stamps(good, cut))) == 1
    with pytest.raises(ParameterError, match="of 1 stamps none has a galaxy of S/N 100 or more"):
        lensable(stamps(good, snr=60.0))
    with pytest.raises(ParameterError, match="that lies wholly within it"):
        lensable(stamps(cut))


def test_of_real_stamps(shared_data):
    found = lensable(load_real_stamps(shared_data / COSMOS))
    assert 10 <= len(found) <= 20
    np.testing.assert_allclose(found.sum((1, 2)), 1, rtol=1e-9)
    frame = np.ones(found.shape[1:], bool)
    frame[1:-1, 1:-1] = False
    # Within its softened edge nothing of the light reaches the stamp's end.
    assert np.abs(found[:, frame]).max() < 0.01 * found.max()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("highres/probes_2.npz", r"lacks ident, mag, snr, pixel_scale, psf_fwhm \(it has images\)"),
        ("highres/cosmosweb_885.npz", "lacks images, ident, .*it has pixel_scale, F115W"),
        ("kids_r/G265911.npz", "lacks images, ident, .*it has image, sigma, psf, seg, pixel_scale"),
    ],
)
def test_files_of_another_kind_are_refused(shared_data, file, message):
    with pytest.raises(ParameterError, match=message):
        load_real_stamps(shared_data / "galaxies" / file)


def test_arrays_that_do_not_belong_together_are_refused(tmp_path):
    one = {"ident": np.arange(2), "mag": np.ones(2), "snr": np.ones(3), "pixel_scale": 0.05, "psf_fwhm": 0.15}
    np.savez(tmp_path / "stamps.npz", images=np.ones((2, 8, 8)), **one)
    with pytest.raises(ParameterError, match=r"images must be \[N, n, n\], and ident, mag and snr \[N\]"):
        load_real_stamps(tmp_path / "stamps.npz")
