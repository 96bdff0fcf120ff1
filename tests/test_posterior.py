"""From chains to a table: order, quantiles, amplitudes, files."""

import functools

import arviz as az
import numpy as np
import pytest
import tensorflow as tf
import tiny_lens

from tflens.errors import ParameterError
from tflens.inference.hmc import Chains
from tflens.inference.posterior import Posterior, assemble

N_CHAINS, DRAWS = 2, 40


@functools.cache
def chains() -> Chains:
    """Independent draws around the truth, as a sampler would leave them."""
    u = tiny_lens.near_truth(N_CHAINS * DRAWS, 0.05).reshape(N_CHAINS, DRAWS, -1)
    shape = (N_CHAINS, DRAWS)
    diverging = np.zeros(shape, bool)
    diverging[1, [3, 7]] = True
    acceptance = np.random.default_rng(0).uniform(0.6, 1.0, shape)
    return Chains(u, np.full(shape, -7.0), acceptance, diverging, 0.3, 12.0, 1000)


@functools.cache
def posterior() -> Posterior:
    return assemble(tiny_lens.target(), chains(), seed=4)


def test_names_are_in_the_order_of_the_model():
    model = tiny_lens.model()
    assert posterior().names == (*model.names, "light.amp", "source.amp", "sky.amp")
    assert [row.name for row in posterior().table()] == list(posterior().names)
    units = {row.name: row.unit for row in posterior().table()}
    assert units["lens.theta_E"] == "arcsec"
    assert units["source.amp"] == "counts/s/arcsec^2"
    assert units["sky.amp"] == "counts/s/pixel"


def test_draws_are_the_physical_parameters_of_the_chains():
    physical = tiny_lens.model().physical(tf.constant(chains().u.reshape(N_CHAINS * DRAWS, -1)))
    for name, values in physical.items():
        np.testing.assert_array_equal(posterior().draws(name), values)
    np.testing.assert_array_equal(posterior().data.posterior["u"], chains().u)


def test_table_holds_quantiles():
    for row in posterior().table():
        expected = np.quantile(posterior().draws(row.name), [0.025, 0.16, 0.5, 0.84, 0.975])
        np.testing.assert_allclose([row.low95, row.low, row.median, row.high, row.high95], expected, rtol=1e-14)
        by_chain = posterior().data.posterior[row.name].to_numpy()
        assert row.r_hat == pytest.approx(float(az.rhat(by_chain)), rel=1e-12)
        assert row.ess == pytest.approx(float(az.ess(by_chain)), rel=1e-12)


def test_diagnostics_sum_up_the_chains():
    found = posterior().diagnostics
    assert set(found) == {"max_r_hat", "min_ess", "acceptance", "divergences", "chains", "draws"}
    assert (found["chains"], found["draws"], found["divergences"]) == (N_CHAINS, DRAWS, 2)
    assert found["acceptance"] == pytest.approx(chains().acceptance.mean(), rel=1e-12)
    u = chains().u
    assert found["max_r_hat"] == pytest.approx(max(float(az.rhat(u[..., i])) for i in range(u.shape[-1])), rel=1e-12)
    assert found["min_ess"] == pytest.approx(min(float(az.ess(u[..., i])) for i in range(u.shape[-1])), rel=1e-12)


def test_amplitudes_are_draws_of_their_conditional_posterior():
    target = tiny_lens.target()
    solution = target.linear(tf.constant(chains().u.reshape(N_CHAINS * DRAWS, -1)))
    sigma = np.sqrt(np.einsum("dcc->dc", solution.covariance))
    amplitudes = np.stack([posterior().draws(name) for name in target.model.amplitude_names], -1)
    # All far above zero here, so plain normals.
    assert (solution.mean.numpy()[:, :2] > 6 * sigma[:, :2]).all()
    z = (amplitudes - solution.mean.numpy()) / sigma
    n = len(z)
    np.testing.assert_allclose(z.mean(0), 0, atol=4 / np.sqrt(n))
    np.testing.assert_allclose(z.var(0), 1, atol=4 * np.sqrt(2 / n))


def test_amplitudes_of_light_are_positive_even_where_the_data_would_not_have_it():
    target, u = tiny_lens.target(), 0.5 * np.random.default_rng(1).normal(size=(2, 5, tiny_lens.model().dim))
    mean = target.linear(tf.constant(u.reshape(10, -1))).mean.numpy()
    assert (mean[:, :2] < 0).any()
    odd = assemble(target, chains()._replace(u=u, **_first(5)), seed=0)
    for name in ("light.amp", "source.amp"):
        assert (odd.draws(name) >= 0).all()


def test_images_are_those_of_the_draws():
    predictions, observed = posterior().data.predictions, posterior().data.observed_data
    target = tiny_lens.target()
    np.testing.assert_array_equal(observed["image"], target.image)
    np.testing.assert_array_equal(observed["mask"], target.mask)
    mean, std = predictions["model_mean"].to_numpy()[0, 0], predictions["model_std"].to_numpy()[0, 0]
    assert mean.shape == tiny_lens.SHAPE
    assert (std > 0).all()
    best = target.evaluate(tiny_lens.truth())
    # 64 draws around the truth: their mean is the truth's image within their spread.
    assert (np.abs(mean - best.image) < 1.0 * std + 0.1 * tiny_lens.NOISE).mean() > 0.95
    lensed = predictions["lensed_source_mean"].to_numpy()[0, 0]
    assert np.corrcoef(lensed.ravel(), best.lensed_source.ravel())[0, 1] > 0.99
    x, y = target.grid.coordinates()
    np.testing.assert_array_equal(predictions["model_mean"].coords["x"], x[0])
    np.testing.assert_array_equal(predictions["model_mean"].coords["y"], y[:, 0])


def test_source_plane_holds_the_flux_of_the_source_around_its_centre():
    source = posterior().data.predictions["source_mean"][0, 0]
    image, x, y = source.to_numpy(), source.coords["x_source"].to_numpy(), source.coords["y_source"].to_numpy()
    centroid = (image * x).sum() / image.sum(), (image * y[:, None]).sum() / image.sum()
    # In float64 the grid is exact; the draws' own centres scatter by 0.05 of their prior's 0.1 arcsec.
    np.testing.assert_allclose(centroid, [0.1, 0.03], atol=4 * 0.05 * 0.1 / np.sqrt(64) + 0.002)


def test_same_seed_same_amplitudes():
    again = assemble(tiny_lens.target(), chains(), seed=4)
    np.testing.assert_array_equal(again.draws("source.amp"), posterior().draws("source.amp"))


def test_round_trip_through_a_file(tmp_path):
    path = tmp_path / "posterior.nc"
    posterior().save(path)
    assert list(tmp_path.iterdir()) == [path]
    back = Posterior.load(path)
    assert back.names == posterior().names
    assert back.table() == posterior().table()
    assert back.diagnostics == posterior().diagnostics
    for group in ("posterior", "sample_stats", "observed_data", "predictions"):
        for name, values in posterior().data[group].items():
            np.testing.assert_array_equal(back.data[group][name], values)
    assert back.data.sample_stats.attrs["step_size"] == 0.3


def test_missing_file_and_missing_parameter_are_told(tmp_path):
    with pytest.raises(ParameterError, match=r"nothing.nc: the posterior does not exist"):
        Posterior.load(tmp_path / "nothing.nc")
    with pytest.raises(KeyError, match=r"lens\.theta"):
        posterior().draws("lens.theta")


def _first(n: int) -> dict:
    return {name: getattr(chains(), name)[:, :n] for name in ("log_prob", "acceptance", "diverging")}
