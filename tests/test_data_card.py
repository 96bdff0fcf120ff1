"""What the data card rests on: the Sersic fit, and the tables."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import fftconvolve

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import data_card_tables
from sersic_residual import SersicFit

from tflens.datasets.galaxy_drawing import draw_galaxy
from tflens.datasets.galaxy_parameters import GalaxyParameters, Knots, Sersic
from tflens.datasets.pipeline import hst_psf


@pytest.fixture(scope="module")
def fit():
    return SersicFit(hst_psf(0.05, 15), 48, 0.05)


def observed(galaxy: GalaxyParameters, snr: float, seed: int) -> tuple[np.ndarray, float]:
    signal = fftconvolve(draw_galaxy(galaxy, 48, 0.05).astype(float), hst_psf(0.05, 15), mode="same")
    sigma = float(np.sqrt(np.sum(signal**2))) / snr
    return signal + sigma * np.random.default_rng(seed).standard_normal(signal.shape), sigma


class TestSersicFit:
    aperture = np.hypot(*(np.indices((48, 48)) - 23.5)) < 15

    @pytest.mark.parametrize("n_sersic", [0.6, 1.0, 4.0])
    def test_leaves_nothing_of_a_sersic_profile(self, fit, n_sersic):
        """GalSim draws the galaxy, the fit draws its own: chi^2 is that of the noise within three sigma."""
        galaxy = GalaxyParameters((Sersic(1.0, 0.25, n_sersic, 0.5, 2.0, x=0.03, y=-0.02),))
        found = fit(*observed(galaxy, 50, 1), self.aperture)
        assert abs(found.chi2 - found.degrees) < 3 * np.sqrt(2 * found.degrees)
        assert found.chance > 0.002

    def test_leaves_knots(self, fit):
        disk = Sersic(1.0, 0.3, 1.0, 0.7, 0.5)
        found = fit(*observed(GalaxyParameters((disk,), knots=Knots(0.6, 8, 0.08, seed=5)), 50, 1), self.aperture)
        assert found.chance < 1e-6


def test_tables_say_what_the_records_hold(tmp_path):
    source = {"command": "python scripts/data_card.py", "commit": "0123456789abcdef"}
    common = {"id": "morphology", "selection": "bright stamps", "statistic": "A", "n": 7, "n_simulated": 90}
    figures = {"null": 0.2, "null_95": 0.3, "chance": 0.5, "real": [1, 2, 3], "simulated": [4, 5, 6]}
    records = [
        {"id": "sample", "variant": "magnitude", "value": 22.5, "spread": [19.0, 20.0, 23.0, 24.0]},
        {"id": "structure", "variant": "merger", "value": 0.06, "n": 100},
        common | figures | {"variant": "as drawn", "value": 0.25, "failed": [0.1, 0.02]},
        common | figures | {"variant": "smooth", "value": 1.25, "failed": [0.1, 0.02]},
        {
            "id": "sersic",
            "variant": "as drawn",
            "value": 0.4,
            "spread": 0.03,
            "null": 0.01,
            "n": 9,
            "excess": [0, 1, 2],
        },
    ]
    document = tmp_path / "data.md"
    document.write_text("".join(f"<!-- {name} -->\nold\n<!-- end -->\nkept\n" for name in data_card_tables.TABLES))
    data_card_tables.write_into(document, [record | source for record in records])
    text = document.read_text()
    assert "| magnitude (AB, F814W) | 19.00 | 20.00 | 22.50 | 23.00 | 24.00 |" in text
    assert "| A | 1.00, 2.00, 3.00 | 4.00, 5.00, 6.00 | 0.25 | 0.20 (0.30) | 0.500 | 1.25 |" in text
    assert "| as drawn | 40.0% +- 3.0% | 1% | 0.0, 1.0, 2.0 |" in text
    assert "old" not in text
    assert text.count("kept") == len(data_card_tables.TABLES)
    document.write_text("no markers")
    with pytest.raises(SystemExit, match="markers of the table 'sample' are missing"):
        data_card_tables.write_into(document, [record | source for record in records])
