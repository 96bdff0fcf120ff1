"""The samplers by name, on one posterior: what each hands over, and that all tell the same."""

import functools

import arviz as az
import numpy as np
import pytest
import tensorflow as tf
import tiny_lens
from small_fit import SETTINGS, observation

from tflens.errors import ParameterError
from tflens.inference import hmc
from tflens.inference.hmc import Chains
from tflens.inference.map import Optimum, polish
from tflens.inference.pipeline import fit
from tflens.inference.posterior import Posterior, assemble
from tflens.inference.progress import STAGES
from tflens.inference.samplers import SAMPLERS, Sampler
from tflens.inference.settings import FitSettings
from tflens.light import Sersic
from tflens.mass import EPL, Shear
from tflens.model import LensModel, LensTarget
from tflens.observation import Observation

FREE = ("lens.theta_E", "source.center_x", "source.center_y")
FIGURES = {
    "smc": {"log_evidence", "log_evidence_error", "lowest_acceptance"},
    "vi-gaussian": {"elbo", "elbo_error", "pareto_k"},
    "vi-iaf": {"elbo", "elbo_error", "pareto_k"},
}


def settings(name: str, **others: int) -> FitSettings:
    return FitSettings(**{"chains": 4, "warmup": 60, "draws": 60, "rounds": 1, "sampler": name, **others})


@functools.cache
def target() -> LensTarget:
    """A lens of which three parameters are free."""
    values = tiny_lens.TRUTH | tiny_lens.SERSIC_SOURCE
    fixed = {}
    for entry in tiny_lens.model().entries:
        if not set(entry.names) & set(FREE):
            fixed[f"{entry.label}.{','.join(entry.parameter.names)}"] = [values[name] for name in entry.names]
    return LensTarget(tiny_lens.model(priors=fixed), tiny_lens.observation())


@functools.cache
def optimum() -> Optimum:
    start = target().model.base({name: (tiny_lens.TRUTH | tiny_lens.SERSIC_SOURCE)[name] for name in FREE})
    return polish(target(), Optimum(start[None], np.zeros(1), 0), 16)


@functools.cache
def sampler(name: str) -> Sampler:
    return SAMPLERS[name](target())


@functools.cache
def chains(name: str) -> Chains:
    return sampler(name).draw(optimum(), settings(name), lambda *told: None)


class TestSettings:
    def test_default_is_hamiltonian_monte_carlo(self):
        assert FitSettings().sampler == "hmc"
        assert tuple(SAMPLERS) == ("hmc", "nuts", "smc", "vi-gaussian", "vi-iaf")

    @pytest.mark.parametrize("name", ["HMC", "", None, 3, ["hmc"]])
    def test_another_is_refused(self, name):
        with pytest.raises(ParameterError, match=r"FitSettings.sampler must be one of hmc, nuts, smc, .*, got"):
            FitSettings(sampler=name)


@pytest.mark.parametrize("name", list(SAMPLERS))
class TestEach:
    def test_draws_are_of_the_posterior(self, name):
        found = chains(name)
        assert found.u.shape == (4, 60, 3)
        assert found.log_prob.shape == found.acceptance.shape == found.diverging.shape == (4, 60)
        # Up to the same constant for all of them.
        log_prob = target().log_prob(tf.constant(found.u.reshape(-1, 3))).numpy().reshape(4, 60)
        np.testing.assert_allclose(found.log_prob, log_prob, rtol=1e-9)
        assert found.figures["sampler"] == name
        assert found.gradients > 240

    def test_seed_decides(self, name):
        again = sampler(name).draw(optimum(), settings(name), lambda *told: None)
        np.testing.assert_array_equal(again.u, chains(name).u)
        other = sampler(name).draw(optimum(), settings(name, seed=1), lambda *told: None)
        assert (other.u != again.u).all()

    def test_same_posterior_as_by_the_others(self, name):
        # Three well-known parameters: nearly a Gaussian, of which no sampler misses anything.
        exact = np.concatenate([chains(each).u.reshape(-1, 3) for each in SAMPLERS])
        u = chains(name).u
        ess = np.array([float(az.ess(u[..., i])) for i in range(3)])
        assert (ess > 60).all()
        assert (np.abs(u.mean((0, 1)) - exact.mean(0)) < 4.5 * exact.std(0) / np.sqrt(ess)).all()
        assert (np.abs(u.std((0, 1)) / exact.std(0) - 1) < 4.5 / np.sqrt(2 * ess)).all()

    def test_posterior_keeps_what_it_has_to_tell(self, name, tmp_path):
        posterior = assemble(target(), chains(name), seed=0)
        posterior.save(tmp_path / "posterior.nc")
        back = Posterior.load(tmp_path / "posterior.nc")
        attributes = back.data.sample_stats.attrs
        assert attributes["sampler"] == name
        assert attributes["gradients"] == chains(name).gradients
        figures = back.diagnostics
        assert figures == pytest.approx(posterior.diagnostics, rel=1e-12)
        assert set(figures) & set.union(*FIGURES.values()) == FIGURES.get(name, set())
        assert all(np.isfinite(figures[each]) for each in FIGURES.get(name, ()))
        assert figures["max_r_hat"] < 1.1
        assert all(np.isfinite(row.r_hat) and row.ess > 40 for row in back.table())


@pytest.mark.parametrize("name", ["smc", "vi-iaf"])
@pytest.mark.slow
def test_source_that_is_a_network(name):
    target = tiny_lens.latent_target()
    values = {each: value for each, value in tiny_lens.TRUTH.items() if each in target.model.names}
    best = polish(target, Optimum(target.model.base(values)[None], np.zeros(1), 0), 8)
    found = SAMPLERS[name](target).draw(best, settings(name, chains=2, warmup=40, draws=20), lambda *told: None)
    assert found.u.shape == (2, 20, target.model.dim)
    log_prob = target.log_prob(tf.constant(found.u.reshape(40, -1))).numpy().reshape(2, 20)
    np.testing.assert_allclose(found.log_prob, log_prob, rtol=1e-9)
    # Draws of a posterior of D parameters lie about D / 2 nats below its height.
    assert (log_prob > best.log_prob[0] - 2 * target.model.dim).all()


def test_bounds_are_below_the_evidence():
    evidence, error = (chains("smc").figures[each] for each in ("log_evidence", "log_evidence_error"))
    for name in ("vi-gaussian", "vi-iaf"):
        assert chains(name).figures["elbo"] < evidence + 7.2 * error  # 99.5 % of Student's t of four islands
        assert chains(name).figures["elbo"] > evidence - 7.2 * error - 0.1
        assert chains(name).figures["pareto_k"] < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smc", "vi-iaf"])
def test_a_whole_fit(name):
    heard = []
    result = fit(
        observation(),
        LensModel([EPL(), Shear()], [Sersic()], Sersic()),
        FitSettings(**{**SETTINGS, "sampler": name}),
        heard.append,
    )
    assert tuple(dict.fromkeys(status.stage for status in heard)) == STAGES
    assert result.posterior.data.posterior["u"].shape == (2, 30, result.model.dim)
    assert result.diagnostics().keys() >= FIGURES.get(name, set())
    assert all(finding.words for finding in result.check())


@functools.cache
def settled():
    """Whether no further round follows draws `[chains, draws, dim]`, at the optimum's own coordinates."""
    asked = []

    def sample_each(*_, enough, **__):
        asked.append(enough)
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hmc, "sample_each", sample_each)
        SAMPLERS["hmc"](target()).draw_each([optimum()], settings("hmc"), lambda *told: None)
    return lambda v: asked[0]([v])


@pytest.mark.parametrize(
    ("apart", "still", "expected"),
    [(0.0, 1, True), (0.0, 20, False), (0.0, 200, False), (0.7, 1, False), (4.0, 1, True)],
    ids=["agree", "hardly move", "never move", "disagree", "will not meet"],
)
def test_a_further_round_if_it_is_of_use(apart, still, expected):
    """Chains whose means are that far apart, in their widths, and that stand still for so many draws of 200."""
    rng = np.random.default_rng(0)
    draws = np.repeat(rng.normal(size=(8, 200 // still, optimum().u.shape[-1])), still, axis=1)
    assert settled()(0.1 * (draws + apart * rng.normal(size=(8, 1, 1)))) is expected


class TestAgreement:
    """Thirteen parameters of a lens of 40 x 44 pixels with a Sersic source, each sampler at full length."""

    DRAWS = 400

    @staticmethod
    @functools.cache
    def target() -> LensTarget:
        shape = (40, 44)
        values = tiny_lens.TRUTH | tiny_lens.SERSIC_SOURCE
        # What the data hardly tell is fixed: its posterior would be that of the prior, and no Gaussian.
        fixed = {"light.n_sersic": 2.5, "source.n_sersic": 1.2, "light.e1,e2": (0.05, 0.1), "lens.gamma": 1.9}
        fixed |= {"light.center_x": 0.06, "light.center_y": -0.03}
        model = tiny_lens.model(priors=fixed, dtype="float32")
        blank = tiny_lens.blank(shape=shape, scale=0.09)
        target = LensTarget(model, blank)
        truth = model.base({name: values[name] for name in model.names})[None].astype(np.float32)
        image = target.component_images(tf.constant(truth), tf.constant([tiny_lens.AMPLITUDES], tf.float32))
        target.observe(Observation(image.numpy()[0].sum(0) + blank.image, blank.noise, blank.psf, 0.09))
        return target

    @staticmethod
    @functools.cache
    def run(name: str) -> Chains:
        target = TestAgreement.target()
        values = tiny_lens.TRUTH | tiny_lens.SERSIC_SOURCE
        start = target.model.base({each: values[each] for each in target.model.names})[None].astype(np.float32)
        best = polish(target, Optimum(start, np.zeros(1, np.float32), 0), 24)
        return SAMPLERS[name](target).draw(best, FitSettings(draws=TestAgreement.DRAWS), lambda *told: None)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["nuts", "smc", "vi-gaussian", "vi-iaf"])
    def test_means_within_monte_carlo_error_and_widths_within_a_tenth(self, name):
        reference, found = self.run("hmc"), self.run(name)
        ess = [[float(az.ess(each.u[..., i])) for i in range(each.u.shape[-1])] for each in (reference, found)]
        sigma = reference.u.std((0, 1))
        error = sigma * np.sqrt(np.sum(1 / np.array(ess), 0))
        # A variational fit is no sampler: it is near, and its Pareto k says how near.
        bias = 0.1 * sigma if name.startswith("vi") else 0.0
        assert (np.abs(found.u.mean((0, 1)) - reference.u.mean((0, 1))) < 4 * error + bias).all()
        np.testing.assert_allclose(found.u.std((0, 1)), sigma, rtol=0.1)
        if name.startswith("vi"):
            assert found.figures["pareto_k"] < 0.7
