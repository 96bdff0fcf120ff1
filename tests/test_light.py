"""One harness that every light profile passes, and the laws of each of them."""

import numpy as np
import pytest
import tensorflow as tf
from light_cases import CASES, IMAGE, Case, parity
from scipy.interpolate import BSpline
from scipy.ndimage import map_coordinates
from scipy.special import gammaincinv

from tflens import light
from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.lens_layer import LensLayer
from tflens.light import (
    CoreSersic,
    Gaussian,
    LightProfile,
    MultiGaussian,
    Pixelated,
    Sersic,
    Shapelets,
    interpolate_bicubic,
    interpolate_bilinear,
    interpolate_quadratic,
)
from tflens.light.shapelets import hermite_functions
from tflens.model import LensModel
from tflens.parameters import from_base, to_base
from tflens.sersic import b_n

ROUND = {"e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}

# What a prior can reach and arithmetic can trip over, changed one at a time from the prior's median.
NASTY = {
    "median": {},
    "flattest": {"e1": 0.7 * (1 - 1e-6)},
    "flattest, tilted": {"e1": -0.42, "e2": 0.55999},
    "lowest index": {"n_sersic": 0.5},
    "highest index": {"n_sersic": 8.0},
    "tiny": {"R_sersic": 1e-3},
    "tiny, lowest index": {"R_sersic": 1e-3, "n_sersic": 0.5},
    "tiny, highest index": {"R_sersic": 1e-3, "n_sersic": 8.0},
    "large, highest index": {"R_sersic": 300.0, "n_sersic": 8.0, "e2": -0.7 * (1 - 1e-6)},
    "tiny core": {"Rb": 3e-4},
    "large core, steepest cusp": {"Rb": 30.0, "gamma": 1.5},
    "no cusp": {"gamma": 0.0},
    "steep core in a tiny profile": {"R_sersic": 1e-3, "n_sersic": 0.5, "gamma": 1.5},
    "narrow": {"sigma": 1e-3},
    "wide": {"sigma": 300.0, "e2": 0.7 * (1 - 1e-6)},
    "fine": {"beta": 3e-3},
    "coarse": {"beta": 10.0},
    "no light": {"amp_0": 0.0},
    "small pixels": {"scale": 0.1},
    "large pixels": {"scale": 10.0},
}
# The centre itself, closer than any pixel, on the axes, far away.
NASTY_X = np.array([[0.0, 0.0, 1e-9, 1e-7, 2e-6, 1.0, 1.0, 0.0, 1e4]])
NASTY_Y = np.array([[0.0, 1e-9, 0.0, -1e-7, 1e-6, 0.0, 1.0, -1.0, -3e3]])

every_profile = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def draws(case: Case, shape: tuple[int, ...], dtype: str = "float64") -> dict[str, tf.Tensor]:
    return case.inputs(np.random.default_rng(5).normal(size=(*shape, case.dim)), dtype)


def sky(dtype: str = "float64") -> tuple[tf.Tensor, tf.Tensor]:
    """A non-square frame, [1, nx] and [ny, 1], no pixel at a centre."""
    x, y = PixelGrid((4, 7), 0.21, center=(0.13, -0.07)).coordinates()
    return tf.constant(x, dtype), tf.constant(y, dtype)


def nasty(case: Case, dtype: str) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
    median = case.inputs(np.zeros(case.dim), dtype)
    # And everything at once, out to 8 sigma.
    anything = case.inputs(np.random.default_rng(2).uniform(-8, 8, [50, case.dim]), dtype)
    lanes = [
        median | {name: tf.constant(value, dtype) for name, value in changes.items()}
        for changes in NASTY.values()
        if set(changes) <= set(median)
    ]
    lanes += [{k: v if k == "image" else v[i] for k, v in anything.items()} for i in range(50)]
    inputs = {name: tf.stack([lane[name] for lane in lanes]) for name in median}
    x, y = (
        v + inputs.get(center, tf.zeros([len(lanes)], dtype))[:, None, None]
        for center, v in (
            ("center_x", tf.constant(NASTY_X[None], dtype)),
            ("center_y", tf.constant(NASTY_Y[None], dtype)),
        )
    )
    return x, y, inputs


def derivatives(case: Case, x: tf.Tensor, y: tf.Tensor, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Brightness, its derivative along (1, 1, ...) forwards, and the gradient of its sum backwards."""
    along = [x, y, *inputs.values()]
    with tf.autodiff.ForwardAccumulator(along, [tf.ones_like(v) for v in along]) as accumulator:
        value = case.brightness(x, y, inputs)
    with tf.GradientTape() as tape:
        tape.watch(along)
        total = tf.reduce_sum(case.brightness(x, y, inputs))
    gradient = tape.gradient(total, along, unconnected_gradients="zero")
    forward = accumulator.jvp(value, unconnected_gradients="zero")
    return {"value": value, "forward": forward} | dict(zip(["x", "y", *inputs], gradient, strict=True))


class TestEveryProfile:
    def test_every_public_profile_has_a_case(self):
        public = {kind for name in light.__all__ if isinstance(kind := getattr(light, name), type)} - {LightProfile}
        assert all(issubclass(kind, LightProfile) for kind in public)
        assert public == {type(case.profile) for case in CASES.values()}

    @every_profile
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_xla_equals_eager_and_all_is_finite_at_nasty_points(self, case, dtype):
        arguments = nasty(case, dtype)
        eager = derivatives(case, *arguments)
        compiled = tf.function(lambda *a: derivatives(case, *a), jit_compile=True, autograph=False)(*arguments)
        for name, expected in eager.items():
            assert expected.dtype == compiled[name].dtype == dtype
            assert np.isfinite(expected).all(), name
            assert np.isfinite(compiled[name]).all(), name
            if dtype == "float64":
                atol = 1e-13 * np.abs(expected).max(initial=0)
                np.testing.assert_allclose(compiled[name], expected, rtol=1e-10, atol=atol, err_msg=name)

    @every_profile
    def test_gradients_equal_finite_differences_backwards_and_forwards(self, case):
        inputs = draws(case, ())
        x, y = sky()
        everything = {"x": x, "y": y, **inputs}
        found = derivatives(case, x, y, inputs)

        def total(name: str, shift: float) -> float:
            moved = everything | {name: everything[name] + shift}
            at = [moved.pop("x"), moved.pop("y")]
            return float(tf.reduce_sum(case.brightness(*at, moved)))

        scale = np.sum(np.abs(found["value"]))
        forward = 0.0
        for name in everything:
            h = 1e-4
            expected = (8 * (total(name, h) - total(name, -h)) - (total(name, 2 * h) - total(name, -2 * h))) / (12 * h)
            np.testing.assert_allclose(np.sum(found[name]), expected, rtol=1e-7, atol=1e-9 * scale, err_msg=name)
            forward += expected
        np.testing.assert_allclose(np.sum(found["forward"]), forward, rtol=1e-7, atol=1e-8 * scale)

    @every_profile
    def test_batch_equals_loop_and_one_row_and_column_equal_a_mesh(self, case):
        inputs = draws(case, (2, 3))
        x, y = sky()
        batch = case.brightness(x, y, inputs)
        if case.dim:
            assert batch.shape == (2, 3, 4, 7)
        batch = np.broadcast_to(batch, (2, 3, 4, 7))
        mesh = case.brightness(*(tf.broadcast_to(v, [2, 3, 4, 7]) for v in (x, y)), inputs)
        np.testing.assert_allclose(mesh, batch, rtol=1e-12, atol=1e-14 * np.abs(batch).max())
        for i, j in np.ndindex(2, 3):
            one = {name: value if name == "image" else value[i, j] for name, value in inputs.items()}
            found = case.brightness(x, y, one)
            np.testing.assert_allclose(found, batch[i, j], rtol=1e-12, atol=1e-14 * np.abs(batch).max())

    @every_profile
    def test_float32_equals_float64(self, case):
        single, double = (
            np.asarray(case.brightness(*sky(dtype), draws(case, (20,), dtype))) for dtype in ("float32", "float64")
        )
        assert single.dtype == "float32"
        peak = np.abs(double).max(axis=(-2, -1), keepdims=True)
        # Both are zero where an image of few pixels is out of sight.
        assert (np.abs(single - double) <= 3e-5 * np.abs(double) + 3e-6 * peak).all()

    @every_profile
    def test_config_rebuilds_the_profile(self, case):
        rebuilt = type(case.profile).from_config(case.profile.get_config())
        assert repr(rebuilt) == repr(case.profile)
        assert rebuilt.parameter_names == case.profile.parameter_names
        inputs = draws(case, ())
        np.testing.assert_array_equal(rebuilt.brightness(*sky(), **inputs), case.brightness(*sky(), inputs))

    @every_profile
    def test_flux_is_the_integral_over_the_plane(self, case):
        if case.flux is None:
            with pytest.raises(ParameterError, match=f"{type(case.profile).__name__} has no total flux in closed form"):
                case.profile.flux(**draws(case, ()))
            return
        inputs = draws(case, (4,))
        if "R_sersic" in inputs:
            # So large that the softened centre holds no light.
            inputs["R_sersic"] *= 1e4
        flux = np.broadcast_to(case.flux(**inputs), [4])
        x, y, area = whole_plane(inputs)
        found = np.sum(case.brightness(tf.constant(x), tf.constant(y), inputs) * area, axis=(-2, -1))
        np.testing.assert_allclose(found, flux, rtol=1e-8)

    @every_profile
    def test_default_priors_reach_finite_values_and_return(self, case):
        assert len(set(case.profile.parameter_names)) == case.dim
        for parameter in case.profile.parameters:
            assert parameter.unit in ("arcsec", "")
            assert parameter.description
            for dtype in (tf.float32, tf.float64):
                prior = parameter.prior(dtype)
                assert prior.dtype == dtype
                assert prior.event_shape in ([], [len(parameter.names)])
                u = tf.constant([-8.0, -2.0, 0.0, 1.5, 8.0], dtype)
                u = tf.stack([u] * len(parameter.names), axis=-1) if prior.event_shape.rank else u
                value = from_base(prior, u)
                assert np.isfinite(value).all()
                if dtype == tf.float64:
                    np.testing.assert_allclose(to_base(prior, value)[1:4], u[1:4], rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.reference])
    def test_equals_lenstronomy(self, name):
        assert parity(CASES[name], draws=50, seed=7) < 1e-10


def whole_plane(inputs: dict[str, tf.Tensor]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of the plane around each centre and their areas, `[batch, ny, nx]`.

    Rings equally spaced in log radius and angle, on which smooth light converges exponentially; for pixels a grid with
    a whole number of points in each of them, on which the kernels of all interpolations sum to exactly 1.
    """
    center_x, center_y = (np.asarray(inputs[f"center_{axis}"])[:, None, None] for axis in "xy")
    if "image" in inputs:
        side = 0.2 / 4 * np.asarray(inputs["scale"])[:, None, None]
        x, y = (v[None] for v in PixelGrid((4 * 11, 4 * 14), 1.0).coordinates())
        return center_x + side * x, center_y + side * y, side**2
    size = next((np.asarray(inputs[k])[:, None, None] for k in ("R_sersic", "sigma", "beta") if k in inputs), 1.0)
    step = 0.05
    radius = size * np.exp(np.arange(-23, 14, step))[:, None]
    angle = np.arange(200) * (2 * np.pi / 200)
    area = radius**2 * step * (2 * np.pi / 200)
    return center_x + radius * np.cos(angle), center_y + radius * np.sin(angle), area


def sersic(x, y, dtype: str = "float64", **parameters) -> np.ndarray:
    parameters = {k: tf.constant(v, dtype) for k, v in (ROUND | parameters).items()}
    return Sersic().brightness(tf.constant(x, dtype), tf.constant(y, dtype), **parameters).numpy()


class TestSersic:
    @pytest.mark.parametrize("n", [0.5, 1.0, 2.7, 4.0, 8.0])
    def test_half_of_the_light_lies_inside_the_effective_ellipse(self, n):
        e1, e2, effective = -0.2, 0.35, 1e4  # so large that the softened centre holds no light
        e, phi = np.hypot(e1, e2), np.arctan2(e2, e1) / 2
        q = (1 - e) / (1 + e)
        # Rings R = effective s^n around the ellipse, where the profile is a plain exponential of s: dA = R dR dt.
        nodes, weights = np.polynomial.legendre.leggauss(200)
        t = np.linspace(0, 2 * np.pi, 8, endpoint=False)[:, None]

        def flux(low: float, high: float) -> float:
            s = low + (high - low) * (nodes + 1) / 2
            radius = effective * s**n
            at = radius * (np.cos(t) / np.sqrt(q) + 1j * np.sin(t) * np.sqrt(q)) * np.exp(1j * phi)
            light = sersic(at.real, at.imag, R_sersic=effective, n_sersic=n, e1=e1, e2=e2).mean(0)
            return np.sum(weights * light * radius**2 * n / s) * (high - low) / 2

        inside, outside = flux(0, 1), flux(1, 1 + 60 / gammaincinv(2 * n, 0.5))
        np.testing.assert_allclose(inside / (inside + outside), 0.5, rtol=1e-6)

    def test_b_n_has_the_stated_error(self):
        n = np.geomspace(0.36, 12, 500)
        error = np.abs(b_n(tf.constant(n)).numpy() / gammaincinv(2 * n, 0.5) - 1)
        assert error.max() < 2e-8
        single = b_n(tf.constant(n, tf.float32)).numpy()
        np.testing.assert_allclose(single, gammaincinv(2 * n, 0.5), rtol=5e-7)

    @pytest.mark.parametrize("n", [0.5, 1.0, 4.0, 8.0])
    @pytest.mark.parametrize("effective", [0.05, 0.3, 5.0])
    def test_softening_has_the_stated_error(self, n, effective):
        radius = np.geomspace(0.01, 5 * effective, 50)[None]
        expected = np.exp(-gammaincinv(2 * n, 0.5) * ((radius / effective) ** (1 / n) - 1))
        found = sersic(radius, np.zeros([1, 1]), R_sersic=effective, n_sersic=n)
        visible = expected > 1e-8 * expected.max()
        error = np.abs(found / expected - 1)[visible].max()
        assert error < 1e-4


class TestCoreSersic:
    SHAPE = ROUND | {"R_sersic": 2.0, "n_sersic": 3.0}

    @staticmethod
    def brightness(radius: np.ndarray, **parameters) -> np.ndarray:
        parameters = {k: tf.constant(v, tf.float64) for k, v in (TestCoreSersic.SHAPE | parameters).items()}
        return CoreSersic().brightness(tf.constant(radius[None]), tf.zeros([1, 1], tf.float64), **parameters)[0].numpy()

    def test_is_the_sersic_profile_far_outside_the_break(self):
        radius = np.geomspace(1, 10, 9)
        expected = sersic(radius[None], np.zeros([1, 1]), R_sersic=2.0, n_sersic=3.0)[0]
        np.testing.assert_allclose(self.brightness(radius, Rb=1e-3, gamma=1.0), expected, rtol=1e-8)

    @pytest.mark.parametrize("gamma", [0.0, 0.4, 1.5])
    def test_is_a_power_law_inside_the_break(self, gamma):
        radius = np.geomspace(0.05, 0.1, 5)
        slope = np.gradient(np.log(self.brightness(radius, Rb=10.0, gamma=gamma)), np.log(radius))
        np.testing.assert_allclose(slope, -gamma, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
    def test_unusable_alpha_is_refused(self, value):
        with pytest.raises(ParameterError, match=r"CoreSersic\.alpha must be positive and finite"):
            CoreSersic(value)


class TestSets:
    @pytest.mark.parametrize("name", ["MultiGaussian", "Shapelets"])
    def test_brightness_is_the_sum_of_the_basis(self, name):
        case = CASES[name]
        inputs = draws(case, (2,))
        amplitudes = [inputs[k] for k in case.profile.amplitude_names]
        shape = {k: v for k, v in inputs.items() if k not in case.profile.amplitude_names}
        basis = case.profile.basis(*sky(), **shape)
        expected = sum(a[:, None, None] * b for a, b in zip(amplitudes, basis, strict=True))
        np.testing.assert_allclose(case.brightness(*sky(), inputs), expected, rtol=1e-12, atol=1e-14)

    def test_components_of_a_multi_gaussian_are_gaussians(self):
        shape = {"e1": 0.2, "e2": -0.3, "center_x": 0.1, "center_y": 0.0}
        for sigma, component in zip([0.2, 0.7], MultiGaussian([0.2, 0.7]).basis(*sky(), **shape), strict=True):
            expected = Gaussian().brightness(*sky(), sigma=sigma, **shape)
            np.testing.assert_allclose(component, expected, rtol=1e-14)

    def test_hermite_functions_are_orthonormal_up_to_the_highest_order(self):
        t = np.arange(-20, 20, 0.05)  # smooth and vanishing at the ends: equal steps integrate exactly
        functions = np.stack(hermite_functions(tf.constant(t), 50))
        np.testing.assert_allclose(functions @ functions.T * 0.05, np.eye(51), rtol=0, atol=1e-12)
        single = np.stack(hermite_functions(tf.constant(t, tf.float32), 50))
        np.testing.assert_allclose(single, functions, rtol=0, atol=2e-5)

    def test_a_model_takes_the_amplitudes_as_one_joint_parameter(self):
        model = LensModel(lens=[], lens_light=[MultiGaussian([0.2, 0.6])], source=Shapelets(2), sky=False)
        assert model.names[4:6] == ("light.amp_0", "light.amp_1")
        assert model.names[-6:] == tuple(f"source.amp_{i}" for i in range(6))
        values = model.physical(tf.zeros([3, model.dim]))
        np.testing.assert_allclose(values["light.amp_1"], np.full(3, 0.5), rtol=1e-6)
        np.testing.assert_array_equal([values[f"source.amp_{i}"][0] for i in range(6)], [1, 0, 0, 0, 0, 0])
        layer = LensLayer(PixelGrid((5, 8), 0.3), lens_light=model.lens_light, source=model.sources)
        rebuilt = LensLayer.from_config(layer.get_config())
        images = rebuilt.images(model.layer_inputs(values))
        assert [image.shape for image in images] == [(3, 5, 8)] * 2

    @pytest.mark.parametrize("sigmas", [[], [0.1], [0.1, 0.0], [0.1, float("nan")], [0.1, float("inf")]])
    def test_unusable_widths_are_refused(self, sigmas):
        with pytest.raises(ParameterError, match=r"MultiGaussian\.sigmas must be two or more positive and finite"):
            MultiGaussian(sigmas)

    @pytest.mark.parametrize("n_max", [0, -1, 51, 2.0])
    def test_unusable_order_is_refused(self, n_max):
        with pytest.raises(ParameterError, match=r"Shapelets\.n_max must be an integer from 1 to 50"):
            Shapelets(n_max)

    def test_missing_and_unknown_amplitudes_are_named(self):
        shape = {"beta": 0.5, "center_x": 0.0, "center_y": 0.0}
        with pytest.raises(ParameterError, match=r"Shapelets\(n_max=1\).*missing: \['amp_2'\], unknown: \['amp_3'\]"):
            Shapelets(1).brightness(*sky(), **shape, amp_0=1.0, amp_1=0.0, amp_3=0.0)


RNG = np.random.default_rng(3)
PLACED = {"center_x": 0.0, "center_y": 0.0, "scale": 1.0}
INTERPOLATE = {"bilinear": interpolate_bilinear, "quadratic": interpolate_quadratic, "bicubic": interpolate_bicubic}
REACH = {"bilinear": 1, "quadratic": 2.5, "bicubic": 2}  # pixels beyond the outermost centres; nothing is left there

every = pytest.mark.parametrize("kind", list(INTERPOLATE))
smooth = pytest.mark.parametrize("kind", ["quadratic", "bicubic"])


def interpolated(kind: str, image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return INTERPOLATE[kind](*(tf.constant(v[None]) for v in (image, x, y))).numpy()[0]


def position_gradient(kind: str, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    at = [tf.constant(x[None]), tf.constant(y[None])]
    with tf.GradientTape() as tape:
        tape.watch(at)
        value = INTERPOLATE[kind](tf.constant(IMAGE[None]), *at)
    return [v.numpy()[0] for v in tape.gradient(value, at)]


def by_definition(kind: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The sum over all pixels of pixel times kernel; scipy for the bilinear one, and for B-splines."""
    if kind == "bilinear":
        # "grid-constant" is linear to zero within one pixel of the outermost centres, as ours.
        return map_coordinates(IMAGE, [y, x], order=1, mode="grid-constant", cval=0.0)

    spline = BSpline.basis_element([-1.5, -0.5, 0.5, 1.5], extrapolate=False)

    def kernel(distance: np.ndarray) -> np.ndarray:
        if kind == "quadratic":
            return sum(w * np.nan_to_num(spline(distance - k)) for k, w in ((-1, -1 / 24), (0, 13 / 12), (1, -1 / 24)))
        s = np.abs(distance)
        return np.where(s < 1, 1.5 * s**3 - 2.5 * s**2 + 1, np.where(s < 2, -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2, 0))

    along_x, along_y = kernel(x[..., None] - np.arange(8)), kernel(y[..., None] - np.arange(5))
    return np.einsum("...i,...j,ij->...", along_y, along_x, IMAGE)


class TestInterpolation:
    @every
    def test_equals_the_definition_inside_at_the_edge_and_outside(self, kind):
        x, y = RNG.uniform(-4, 11, size=(2, 40, 30)) * np.array([1, 0.7])[:, None, None]
        inside = (x > 0) & (x < 7) & (y > 0) & (y < 4)
        assert inside.any()
        assert not inside.all()
        np.testing.assert_allclose(interpolated(kind, IMAGE, x, y), by_definition(kind, x, y), rtol=0, atol=1e-13)

    def test_bicubic_equals_the_keys_kernel_of_tensorflow(self):
        image = RNG.normal(size=(9, 12)).astype("float32")
        # Its positions are those of sub-pixels; near the edge it renormalises its weights instead of falling to zero.
        expected = tf.image.resize(image[..., None], (36, 48), method="bicubic", antialias=True)[..., 0]
        y, x = (np.mgrid[:36, :48].astype("float32") - 1.5) / 4
        found = interpolated("bicubic", image, x, y)
        np.testing.assert_allclose(found[8:-8, 8:-8], expected[8:-8, 8:-8], rtol=0, atol=2e-6)

    def test_bicubic_reproduces_a_polynomial_of_degree_two(self):
        def polynomial(x, y):
            return 1 - 0.3 * x + 0.2 * y + 0.5 * x**2 - 0.7 * x * y + 0.1 * y**2 + 0.05 * x**2 * y**2

        y, x = np.mgrid[:6, :9].astype(float)
        at_x, at_y = RNG.uniform(1, 7, size=(4, 6)), RNG.uniform(1, 4, size=(4, 6))
        found = interpolated("bicubic", polynomial(x, y), at_x, at_y)
        np.testing.assert_allclose(found, polynomial(at_x, at_y), rtol=1e-12)

    def test_bicubic_has_the_stated_overshoot(self):
        step = np.zeros((8, 12))
        step[:, 6:] = 1.0
        x, y = np.meshgrid(np.linspace(2, 9, 1001), [4.0])
        values = interpolated("bicubic", step, x, y)
        assert 0.07 < -values.min() < 0.075
        np.testing.assert_allclose(values.max() - 1, -values.min(), rtol=1e-3)

    def test_quadratic_blurs_as_much_as_bilinear(self):
        lone, x = np.zeros((9, 9)), np.linspace(-4, 4, 8001)
        lone[4, 4] = 1.0
        for kind in ("bilinear", "quadratic"):
            values = interpolated(kind, lone, x[None] + 4, np.full((1, x.size), 4.0))[0]
            np.testing.assert_allclose(np.sum(x**2 * values) / np.sum(values), 1 / 6, rtol=1e-5)
        assert -0.0175 < values.min() < -0.0165

    def test_quadratic_reproduces_a_plane(self):
        y, x = np.mgrid[:6, :9].astype(float)
        at_x, at_y = RNG.uniform(2, 6, size=(4, 6)), RNG.uniform(2, 3, size=(4, 6))
        found = interpolated("quadratic", 1 - 0.3 * x + 0.2 * y, at_x, at_y)
        np.testing.assert_allclose(found, 1 - 0.3 * at_x + 0.2 * at_y, rtol=1e-12)

    @pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
    def test_is_the_pixel_itself_at_a_pixel_centre(self, kind):
        y, x = np.mgrid[:5, :8].astype(float)
        np.testing.assert_array_equal(interpolated(kind, IMAGE, x, y), IMAGE)

    @every
    def test_is_zero_from_its_reach_beyond_the_outermost_centres(self, kind):
        r = REACH[kind]
        x = np.array([[-1.0 * r, 7.0 + r, 3.0, 3.0, 1e9, -1e9, 3.0, np.inf]])
        y = np.array([[2.0, 2.0, -1.0 * r, 4.0 + r, 2.0, 2.0, 1e30, 2.0]])
        np.testing.assert_array_equal(interpolated(kind, IMAGE, x, y), np.zeros_like(x))

    @every
    def test_is_continuous_across_every_edge(self, kind):
        edges = np.arange(-4.0, 12.0, 0.5)
        x, y = np.meshgrid(edges, edges)
        here = interpolated(kind, IMAGE, x, y)
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            moved = interpolated(kind, IMAGE, x + 1e-9 * dx, y + 1e-9 * dy)
            np.testing.assert_allclose(moved, here, rtol=0, atol=2e-8)

    @smooth
    def test_gradient_is_continuous_across_every_edge(self, kind):
        edges = np.arange(-4.0, 12.0, 0.5)
        x, y = np.meshgrid(edges, edges)
        for dx, dy in ((1e-9, 0), (0, 1e-9)):
            before, after = (position_gradient(kind, x + s * dx, y + s * dy) for s in (-1, 1))
            np.testing.assert_allclose(before, after, rtol=0, atol=1e-7)

    @every
    def test_gradient_in_position_is_that_of_finite_differences(self, kind):
        # Off the pixel lines, where the bilinear one has a kink.
        x, y = RNG.integers(-2, 9, size=(2, 4, 6)) + RNG.uniform(0.1, 0.9, size=(2, 4, 6))
        gradient = position_gradient(kind, x, y)
        for k, (dx, dy) in enumerate(((1e-5, 0), (0, 1e-5))):
            up, down = (interpolated(kind, IMAGE, x + s * dx, y + s * dy) for s in (1, -1))
            np.testing.assert_allclose(gradient[k], (up - down) / 2e-5, rtol=0, atol=1e-8)

    @every
    def test_gradient_in_the_image_is_the_transpose(self, kind):
        x, y = RNG.uniform(-3, 10, size=(2, 6, 5))
        units = np.eye(IMAGE.size).reshape(-1, *IMAGE.shape)
        matrix = np.stack([interpolated(kind, unit, x, y).ravel() for unit in units], axis=-1)
        weight = RNG.normal(size=x.shape)
        image = tf.constant(IMAGE[None])
        with tf.GradientTape() as tape:
            tape.watch(image)
            value = tf.reduce_sum(weight * INTERPOLATE[kind](image, tf.constant(x[None]), tf.constant(y[None])))
        transposed = (matrix.T @ weight.ravel()).reshape(IMAGE.shape)
        np.testing.assert_allclose(tape.gradient(value, image)[0], transposed, rtol=0, atol=1e-13)

    @every
    @pytest.mark.parametrize("xla", [False, True], ids=["eager", "xla"])
    def test_a_position_that_is_not_a_number_spoils_its_own_lane_alone(self, kind, xla):
        run = tf.function(INTERPOLATE[kind], jit_compile=True) if xla else INTERPOLATE[kind]
        x = tf.constant([[[2.5, 3.0]], [[np.nan, 3.0]]])
        values = run(tf.ones([2, 5, 8]), x, 2 * tf.ones_like(x)).numpy()
        np.testing.assert_allclose(values, [[[1, 1]], [[np.nan, 1]]], rtol=1e-6)


class TestPixelated:
    def test_flux_is_conserved_on_a_fine_grid(self):
        light = Pixelated(pixel_scale=0.2)
        fine = PixelGrid((9 * 4, 12 * 4), 0.05)
        x, y = (tf.constant(v) for v in fine.coordinates())
        value = light.brightness(x, y, image=tf.constant(IMAGE), **PLACED)
        np.testing.assert_allclose(np.sum(value) * fine.pixel_area, IMAGE.sum(), rtol=1e-12)

    @pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 2.5])
    def test_scale_changes_the_size_and_keeps_the_flux(self, scale):
        light = Pixelated(pixel_scale=0.2)
        image = np.zeros((5, 8))
        image[2, 1], image[2, 6] = 1.0, 3.0
        fine = PixelGrid((140, 200), 0.025)
        x, y = (tf.constant(v) for v in fine.coordinates())
        value = light.brightness(x, y, image=tf.constant(image), **(PLACED | {"scale": scale})).numpy()
        np.testing.assert_allclose(value.sum() * fine.pixel_area, 4.0, rtol=1e-12)
        centroid = (value * x.numpy()).sum() / value.sum()
        np.testing.assert_allclose(centroid, 1.25 * 0.2 * scale, rtol=1e-12)

    def test_pixel_centres_lie_where_the_grid_says(self):
        grid = PixelGrid(IMAGE.shape, 0.3, center=(0.7, -0.4))
        x, y = (tf.constant(v) for v in grid.coordinates())
        value = Pixelated(0.3).brightness(x, y, image=IMAGE, center_x=0.7, center_y=-0.4, scale=1.0)
        np.testing.assert_allclose(value * grid.pixel_area, IMAGE, rtol=0, atol=1e-12)

    def test_batch_equals_loop(self):
        x, y = (tf.constant(v) for v in PixelGrid((6, 9), 0.15, center=(0.02, 0.01)).coordinates())
        light = Pixelated(0.2)
        images = RNG.normal(size=(3, 5, 8))
        scale, center = np.array([[0.8], [1.3]]), np.array([0.0, 0.1, -0.2])
        batch = light.brightness(
            x, y, image=tf.constant(images), center_x=tf.constant(center), center_y=0.05, scale=tf.constant(scale)
        )
        assert batch.shape == (2, 3, 6, 9)
        for i, j in np.ndindex(2, 3):
            one = light.brightness(
                x, y, image=tf.constant(images[j]), center_x=center[j], center_y=0.05, scale=scale[i, 0]
            )
            np.testing.assert_allclose(batch[i, j], one, rtol=1e-13, atol=1e-14)

    def test_one_image_for_many_positions_and_many_images_at_one(self):
        x, y = (tf.constant(v) for v in PixelGrid((6, 9), 0.15).coordinates())
        light = Pixelated(0.2)
        moved = light.brightness(x, y, image=IMAGE, **(PLACED | {"center_x": tf.constant([0.0, 0.1], tf.float64)}))
        many = light.brightness(x, y, image=tf.constant(np.stack([IMAGE, 2 * IMAGE])), **PLACED)
        assert moved.shape == many.shape == (2, 6, 9)
        np.testing.assert_allclose(many[1], 2 * moved[0], rtol=1e-13)

    @pytest.mark.parametrize("value", [0.0, -0.1, float("nan"), float("inf")])
    def test_unusable_pixel_scale_is_refused(self, value):
        with pytest.raises(ParameterError, match=r"Pixelated\.pixel_scale must be positive and finite"):
            Pixelated(value)

    @smooth
    def test_finer_pixels_are_nearly_the_same_light_for_bilinear_codes(self, kind):
        light, placed = Pixelated(0.2, kind), {"center_x": 0.0, "center_y": 0.0, "scale": 1.0}
        x, y = RNG.uniform(-0.8, 0.8, size=(2, 20, 20))
        ours = light.brightness(x, y, image=IMAGE, **placed).numpy()

        def error(parts: int) -> float:
            finer, side = light.as_bilinear(IMAGE, 0.2, parts)
            np.testing.assert_allclose(finer.sum(), IMAGE.sum(), rtol=1e-12)
            theirs = Pixelated(side).brightness(x, y, image=finer, **placed).numpy()
            return np.sqrt(np.mean((theirs - ours) ** 2)) / np.sqrt(np.mean(ours**2))

        assert error(4) < 0.06  # white noise, as an image
        assert error(8) < 0.3 * error(4)

    def test_unknown_interpolation_is_refused(self):
        with pytest.raises(
            ParameterError, match=r"Pixelated\.interpolation must be one of \['bilinear', 'quadratic', 'bicubic'\]"
        ):
            Pixelated(0.1, interpolation="nearest")
