"""Laws that hold for whatever shape, mask, type or parameter; hypothesis draws examples, the same at each call."""

import inspect
import tempfile
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tflens import light, mass
from tflens.light import LightProfile, Sersic
from tflens.mass import MassProfile
from tflens.model import LensModel
from tflens.model_file import model_of, tables_of, write_model
from tflens.observation import Observation
from tflens.parameters import PRIORS, from_base, to_base
from tflens.psf import METHODS, PSF
from tflens.whitening import whiten, whitening_taps

# The same examples everywhere, and no folder that remembers those of another day.
settings.register_profile("tests", derandomize=True, database=None, deadline=None, max_examples=20)
settings.load_profile("tests")

SIDES = st.integers(2, 9)
ODD = st.sampled_from([1, 3, 5])
SEEDS = st.integers(0, 2**32 - 1)


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_subnormal=False)


@st.composite
def observations(draw) -> Observation:
    """Of any shape, type and mask, for which the masked pixels hold what they like."""
    ny, nx = shape = draw(SIDES), draw(SIDES)
    kind = draw(st.sampled_from([">f4", "<f4", ">f8", "<f8", ">i2", "<i4", "u1"]))
    rng = np.random.default_rng(draw(SEEDS))
    image = (100 * rng.normal(size=shape)).astype(np.float64)
    image = (np.abs(image) if kind == "u1" else image).astype(kind)
    noise = rng.uniform(0.1, 9.0, shape).astype(draw(st.sampled_from([">f4", "<f8"])))
    mask = draw(hnp.arrays(bool, shape))
    used = image[mask]
    assume(used.size > 1 and used.min() < used.max())
    if image.dtype.kind == "f":
        image[~mask] = draw(st.sampled_from([np.nan, np.inf, -1e30 if image.dtype.itemsize == 8 else -1e20, 0.0]))
    noise[~mask] = draw(st.sampled_from([np.nan, 0.0, -1.0, 1.0]))
    psf = rng.uniform(0.1, 1.0, (min(draw(ODD), ny - 1 + ny % 2), min(draw(ODD), nx - 1 + nx % 2)))
    scale = draw(numbers(1e-3, 10.0))
    name = draw(st.text("abcXYZ019 +-_.", min_size=1, max_size=20)).strip() or "x"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd PSFs and masks
        return Observation(image, noise, psf / psf.sum(), scale, mask, name=name, metadata={"FILTER": "F814W"})


@given(observations())
def test_an_observation_comes_back_from_fits(observation):
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd PSFs and masks
        path = Path(folder) / "x.fits"
        observation.to_fits(path)
        read = Observation.from_fits(path)
    for name in ("image", "noise", "psf", "mask"):
        found, written = getattr(read, name), getattr(observation, name)
        assert found.dtype == written.dtype
        np.testing.assert_array_equal(found, written)
    assert read.pixel_scale == observation.pixel_scale
    assert read.name == observation.name
    assert read.metadata["FILTER"] == "F814W"


def of_no_settings(package, kind, *without: str) -> list[type]:
    """Profiles that a model can have by their name alone."""
    found = [getattr(package, name) for name in package.__all__ if name not in without]
    found = [each for each in found if inspect.isclass(each) and issubclass(each, kind) and each is not kind]
    return [
        each
        for each in found
        if all(p.default is not p.empty for p in inspect.signature(each).parameters.values())
        or each.__init__ is object.__init__
    ]


MASSES = of_no_settings(mass, MassProfile, "CircularMass")
LIGHTS = of_no_settings(light, LightProfile, "Pixelated", "CenteredPixels", "RegularizedPixels")

PRIOR = st.one_of(
    st.builds(PRIORS["normal"], numbers(-5, 5), numbers(0.01, 5)),
    st.builds(PRIORS["log_normal"], numbers(0.01, 9), numbers(0.01, 2)),
    st.builds(lambda low, width: PRIORS["uniform"](low, low + width), numbers(-5, 5), numbers(0.01, 5)),
    st.builds(
        lambda low, below, above, scale: PRIORS["bounded_normal"](low, low + below + above, low + below, scale),
        numbers(-5, 5),
        numbers(0.1, 3),
        numbers(0.1, 3),
        numbers(0.05, 1),
    ),
)


@st.composite
def models(draw) -> LensModel:
    lens = [each() for each in draw(st.lists(st.sampled_from(MASSES), min_size=1, max_size=3))]
    lights = [each() for each in draw(st.lists(st.sampled_from(LIGHTS), max_size=2))]
    source = draw(st.sampled_from(LIGHTS))()
    model = LensModel(lens, lights, source)
    single = [entry for entry in model.entries if len(entry.names) == 1]
    chosen = draw(st.lists(st.sampled_from(single), max_size=3, unique_by=lambda entry: entry.names)) if single else []
    priors = {entry.names[0]: draw(st.one_of(PRIOR, numbers(0.1, 2))) for entry in chosen}
    sky, dtype = draw(st.booleans()), draw(st.sampled_from(["float32", "float64"]))
    return LensModel(lens, lights, source, priors=priors, sky=sky, dtype=dtype)


@given(models())
@settings(max_examples=10)
def test_a_model_comes_back_from_its_file(model):
    text = write_model(model)
    again = model_of(tomllib.loads(text))
    assert tables_of(again) == tables_of(model)
    assert write_model(again) == text
    assert (again.names, again.fixed, again.tied) == (model.names, model.fixed, model.tied)


@given(PRIOR, hnp.arrays(np.float64, 7, elements=numbers(-4, 4)))
@settings(max_examples=40)
def test_priors_lead_to_the_base_space_and_back(prior, u):
    distribution = prior(tf.float64)
    values = from_base(distribution, tf.constant(u))
    assert np.isfinite(values).all()
    order = np.argsort(u)
    assert (np.diff(values.numpy()[order]) >= -1e-14 * np.abs(values).max()).all()
    # Where a bounded prior is flat, its value hardly tells u: it is the value that must come back.
    np.testing.assert_allclose(from_base(distribution, to_base(distribution, values)), values, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(to_base(distribution, values), u, rtol=1e-4, atol=1e-4)


@given(numbers(0.05, 1.0), numbers(0.1, 1.0), hnp.arrays(np.float64, (5, 2), elements=numbers(-4, 4)))
def test_ellipticities_lead_to_the_base_space_and_back(scale, maximum, u):
    prior = PRIORS["ellipticity"](scale, maximum)(tf.float64)
    e = from_base(prior, tf.constant(u))
    assert (np.hypot(*e.numpy().T) < maximum).all()
    np.testing.assert_allclose(to_base(prior, e), u, rtol=1e-6, atol=1e-6)


@given(st.sampled_from(METHODS), SIDES, SIDES, ODD, ODD, st.integers(1, 2), st.integers(0, 2), SEEDS)
def test_convolution_is_linear(method, ny, nx, ky, kx, supersampling, padding, seed):
    rng = np.random.default_rng(seed)
    kernel = rng.uniform(0, 1, (ky, kx)) + 1e-3
    options = {"method": method, "supersampling": supersampling, "padding": padding, "dtype": "float64"}
    psf = PSF(kernel, (ny, nx), tolerance=0.0, **options)
    cells = (ny + 2 * padding) * supersampling, (nx + 2 * padding) * supersampling
    first, second = rng.normal(size=(2, *cells))
    a, b = rng.normal(size=2)
    together = psf.convolve(a * first + b * second).numpy()
    apart = a * psf.convolve(first).numpy() + b * psf.convolve(second).numpy()
    assert together.shape == (ny, nx)
    np.testing.assert_allclose(together, apart, atol=1e-11)


@given(st.sampled_from(METHODS), SIDES, SIDES, ODD, ODD, SEEDS)
def test_convolution_keeps_flux_and_constants(method, ny, nx, ky, kx, seed):
    """Flux of what lies farther from the border than half a kernel."""
    rng = np.random.default_rng(seed)
    kernel = rng.uniform(0, 1, (ky, kx)) + 1e-3
    half_y, half_x = ky // 2, kx // 2
    image = np.pad(rng.uniform(0, 1, (ny, nx)), [(half_y, half_y), (half_x, half_x)])
    psf = PSF(kernel, image.shape, method=method, tolerance=0.0, dtype="float64")
    np.testing.assert_allclose(psf.convolve(image).numpy().sum(), image.sum(), rtol=1e-11)
    constant = psf.convolve(np.ones(image.shape)).numpy()
    inside = constant[half_y : half_y + ny, half_x : half_x + nx]
    if ny > 2 * half_y and nx > 2 * half_x:
        middle = constant[2 * half_y : -2 * half_y or None, 2 * half_x : -2 * half_x or None]
        np.testing.assert_allclose(middle, 1.0, rtol=1e-11)
    assert (inside < 1 + 1e-11).all()


@given(SIDES, SIDES, ODD, ODD, SEEDS)
def test_ways_to_convolve_agree(ny, nx, ky, kx, seed):
    rng = np.random.default_rng(seed)
    kernel, image = rng.uniform(0, 1, (ky, kx)) + 1e-3, rng.normal(size=(ny, nx))
    found = [PSF(kernel, (ny, nx), method=each, tolerance=0.0, dtype="float64").convolve(image) for each in METHODS]
    for each in found[1:]:
        np.testing.assert_allclose(each, found[0], atol=1e-12)


@pytest.mark.parametrize("profile", MASSES, ids=lambda each: each.__name__)
def test_mass_is_finite_wherever_its_prior_leads(profile):
    """Deflection and its gradients, at the centre of the lens and of the frame too, in float32, the narrower type."""
    model = LensModel([profile()], [], Sersic(), dtype="float32")
    lanes, own = 6, [name for name in model.names if name.startswith("lens.") or name.startswith("shear.")]
    (label, this), *_ = model.labelled()

    # Traced once for all examples, which differ in u alone.
    @tf.function(autograph=False)
    def evaluate(u):
        with tf.GradientTape() as tape:
            tape.watch(u)
            values = {
                name.rpartition(".")[2]: v for name, v in model.physical(u).items() if name.startswith(f"{label}.")
            }
            zero = tf.zeros([lanes], u.dtype)
            center_x, center_y = (values.get(f"center_{axis}", zero) for axis in "xy")
            x = tf.stack([zero, center_x, center_x + 1e-6, zero + 0.3, zero - 2.0], -1)[:, None]
            y = tf.stack([zero, center_y, center_y, zero - 1.1, zero + 3.0], -1)[:, None]
            alpha = tf.stack(this.deflection(x, y, **this.inputs(values)))
        return alpha, tape.gradient(alpha, u)

    @given(hnp.arrays(np.float64, (lanes, model.dim), elements=numbers(-5, 5)))
    @settings(max_examples=8)
    def holds(u):
        alpha, gradient = evaluate(tf.constant(u, tf.float32))
        assert np.isfinite(alpha).all()
        assert np.isfinite(gradient).all()

    assert own
    holds()


@st.composite
def masked_noise(draw):
    shape = draw(SIDES), draw(SIDES)
    rng = np.random.default_rng(draw(SEEDS))
    return rng.uniform(0.1, 3.0, shape), draw(hnp.arrays(bool, shape)), draw(st.sampled_from([None, 0.1, 0.3])), rng


@given(masked_noise())
def test_whitening_forgets_masked_pixels_and_divides_by_the_noise(given):
    """What masked pixels hold never matters; n used pixels keep exactly n, the expectation of chi^2."""
    noise, mask, neighbour, rng = given
    kernel = None if neighbour is None else np.array([[neighbour, 1.0, neighbour]])
    taps = tf.constant(whitening_taps(noise, mask, kernel))
    image = rng.normal(size=noise.shape)
    white = whiten(tf.constant(image), taps).numpy()
    other = whiten(tf.constant(np.where(mask, image, 1e6)), taps).numpy()
    np.testing.assert_allclose(other, white, atol=1e-12)
    assert (white[~mask] == 0).all()
    if kernel is None:
        np.testing.assert_allclose(white[mask], (image / noise)[mask], rtol=1e-12)
    # E(chi^2) = tr(W C W^T), with the columns of W from unit images.
    n = noise.size
    matrix = whiten(tf.constant(np.eye(n).reshape(n, *noise.shape)), taps).numpy().reshape(n, n).T
    y, x = np.mgrid[: noise.shape[0], : noise.shape[1]].reshape(2, -1)
    near = (y[:, None] == y) & (np.abs(x[:, None] - x) == 1)
    covariance = (np.eye(n) + (neighbour or 0.0) * near) * np.outer(noise, noise)
    np.testing.assert_allclose(np.trace(matrix @ covariance @ matrix.T), mask.sum(), rtol=1e-9, atol=1e-12)
