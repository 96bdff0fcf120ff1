"""LensLayer: against an independent image, its laws, and its manners as a Keras layer."""

import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.signal import convolve2d
from scipy.special import gammaincinv

from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.lens_layer import LensLayer
from tflens.light import Pixelated, Sersic
from tflens.mass import EPL, SIE, Shear

GRID = PixelGrid((15, 22), 0.2, center=(0.1, -0.05))
KERNEL = np.random.default_rng(0).uniform(0.1, 1, size=(3, 5)) ** 2
REFINE = np.ones((15, 22), int)
REFINE[6:9, 9:13] = 3
REFINE[7, 10:12] = 8
SIE_VALUES = {"theta_E": 1.1, "e1": 0.15, "e2": -0.1, "center_x": 0.05, "center_y": 0.02}
SHEAR_VALUES = {"gamma1": 0.05, "gamma2": -0.03}
SOURCE_VALUES = {"R_sersic": 0.4, "n_sersic": 1.5, "e1": -0.1, "e2": 0.2, "center_x": 0.1, "center_y": -0.08}
LIGHT_VALUES = {"R_sersic": 0.8, "n_sersic": 3.0, "e1": 0.1, "e2": 0.0, "center_x": 0.05, "center_y": 0.02}


class Disk(Sersic):
    """A profile of one's own."""

    def __init__(self, color: str = "blue") -> None:
        self.color = color

    def get_config(self):
        return {"color": self.color}


def lens(**changes) -> LensLayer:
    settings = {"mass": [SIE(tolerance=1e-13), Shear()], "lens_light": [Sersic()], "source": [Sersic()]}
    return LensLayer(GRID, **(settings | {"psf": KERNEL, "supersampling": 2, "dtype": "float64"} | changes))


def inputs(light_amp=2.0, source_amp=5.0, **mass_changes) -> dict:
    return {
        "mass": [SIE_VALUES | mass_changes, SHEAR_VALUES],
        "lens_light": [LIGHT_VALUES | {"amp": light_amp}],
        "source": [SOURCE_VALUES | {"amp": source_amp}],
    }


def numpy_sersic(x, y, amp, R_sersic, n_sersic, e1, e2, center_x, center_y):
    e, phi = np.hypot(e1, e2), np.arctan2(e2, e1) / 2
    q = (1 - e) / (1 + e)
    w = (x - center_x + 1j * (y - center_y)) * np.exp(-1j * phi)
    radius = np.sqrt(q * w.real**2 + w.imag**2 / q + 1e-8)
    return amp * np.exp(-gammaincinv(2 * n_sersic, 0.5) * ((radius / R_sersic) ** (1 / n_sersic) - 1))


def independent_image(supersampling: int, padding: int, cell: int = 1) -> np.ndarray:
    """Ray shooting by lenstronomy; light, pixel integration and convolution by NumPy and SciPy.

    The kernel is one of cells, `cell` of which are the side of a pixel.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lenstronomy.LensModel.lens_model import LensModel

    s, (ny, nx) = supersampling, (n + 2 * padding for n in GRID.shape)
    x = (np.arange(nx * s) - (nx * s - 1) / 2) * 0.2 / s + 0.1
    y = (np.arange(ny * s) - (ny * s - 1) / 2) * 0.2 / s - 0.05
    x, y = np.meshgrid(x, y)
    # lenstronomy's SIE by its own closed form, another code path than any power law of ours.
    beta = LensModel(["SIE", "SHEAR"]).ray_shooting(x.ravel(), y.ravel(), [SIE_VALUES, SHEAR_VALUES])
    light = numpy_sersic(x, y, 2.0, **LIGHT_VALUES)
    light += numpy_sersic(*(b.reshape(x.shape) for b in beta), 5.0, **SOURCE_VALUES)
    image = light.reshape(ny * cell, s // cell, nx * cell, s // cell).mean((1, 3)) * 0.2**2
    image = convolve2d(image, KERNEL / KERNEL.sum(), mode="same")
    image = image.reshape(ny, cell, nx, cell).mean((1, 3))
    return image[padding : ny - padding, padding : nx - padding]


class TestImage:
    @pytest.mark.parametrize(("supersampling", "padding"), [(1, 0), (3, 0), (2, 4)])
    def test_equals_an_independent_image(self, supersampling, padding):
        found = lens(supersampling=supersampling, padding=padding)(inputs())
        expected = independent_image(supersampling, padding)
        # Limited by the 1e-10 core that lenstronomy gives its isothermal ellipsoid.
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)

    @pytest.mark.parametrize(("supersampling", "padding"), [(2, 0), (4, 3)])
    def test_a_supersampled_psf_convolves_before_the_pixels_are_summed(self, supersampling, padding):
        found = lens(supersampling=supersampling, padding=padding, psf_supersampling=2)(inputs())
        expected = independent_image(supersampling, padding, cell=2)
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)

    def test_every_operator_of_the_psf_draws_the_same(self):
        images = [lens(psf_method=m, psf_tolerance=0.0, padding=1)(inputs()) for m in ("direct", "fft", "low-rank")]
        np.testing.assert_allclose(images[1], images[0], rtol=0, atol=1e-14)
        np.testing.assert_allclose(images[2], images[0], rtol=0, atol=1e-14)

    def test_tolerance_of_the_psf_reaches_it(self):
        layer = lens(psf_method="low-rank", psf_tolerance=0.5)
        assert (layer.psf.rank, layer.psf.tolerance) == (1, 0.5)

    @pytest.mark.parametrize("cell", [1, 2])
    def test_refined_pixels_before_the_psf_are_those_of_finer_sampling(self, cell):
        point = np.ones((1, 1))
        settings = {"psf": point, "psf_supersampling": cell}
        found, plain = (lens(refine=r, **settings)(inputs()).numpy() for r in (REFINE, None))
        for parts in (3, 8):
            fine = lens(supersampling=2 * parts, **settings)(inputs()).numpy()
            np.testing.assert_allclose(found[parts == REFINE], fine[parts == REFINE], rtol=1e-12)
        np.testing.assert_array_equal(found[REFINE == 1], plain[REFINE == 1])

    def test_gauss_legendre_beats_midpoints_where_the_light_is_smooth(self):
        truth, midpoint, gauss = (
            lens(supersampling=n, quadrature=rule)(inputs(light_amp=0.0)).numpy()
            for n, rule in ((32, "midpoint"), (2, "midpoint"), (2, "gauss-legendre"))
        )
        assert np.median(np.abs(gauss - truth)) < np.median(np.abs(midpoint - truth)) / 5

    def test_float32_equals_float64(self):
        double = lens()(inputs())
        single = lens(dtype="float32")(inputs())
        assert single.dtype == tf.float32
        assert double.dtype == tf.float64
        np.testing.assert_allclose(single, double, rtol=0, atol=2e-5 * np.max(double))

    def test_plain_numbers_keep_all_their_digits_in_float64(self):
        numbers = inputs()
        tensors = tf.nest.map_structure(lambda v: tf.constant(v, tf.float64), numbers)
        np.testing.assert_array_equal(lens()(numbers), lens()(tensors))

    def test_is_linear_in_the_amplitudes(self):
        layer = lens()
        light, source, both = (layer(inputs(*amps)) for amps in ((1.0, 0.0), (0.0, 1.0), (2.0, -3.0)))
        np.testing.assert_allclose(both, 2 * light - 3 * source, rtol=0, atol=1e-14)

    def test_images_are_the_terms_of_unit_amplitude(self):
        layer = lens()
        without = {k: [{n: w for n, w in v.items() if n != "amp"} for v in vs] for k, vs in inputs().items()}
        light, source = layer.images(without)
        np.testing.assert_allclose(2 * light + 5 * source, layer(inputs()), rtol=1e-13)

    def test_supersampling_converges_quadratically(self):
        images = [lens(psf=None, supersampling=s)(inputs(light_amp=0.0)).numpy() for s in (2, 4, 8, 32)]
        errors = [np.abs(image - images[-1]).sum() for image in images[:-1]]
        assert errors[1] < errors[0] / 2.5
        assert errors[2] < errors[1] / 2.5

    def test_flux_does_not_depend_on_the_pixels(self):
        # Nothing is lost outside: a compact source in a frame much larger than it and its lens.
        values = inputs(light_amp=0.0)
        fluxes = []
        for shape, scale in (((60, 80), 0.2), ((120, 160), 0.1)):
            layer = LensLayer(
                PixelGrid(shape, scale), [SIE(), Shear()], [Sersic()], [Sersic()], supersampling=4, dtype="float64"
            )
            fluxes.append(np.sum(layer(values)))
        np.testing.assert_allclose(fluxes[0], fluxes[1], rtol=1e-3)

    def test_padding_lets_light_from_outside_in(self):
        outside = LIGHT_VALUES | {"center_x": 0.1 - 11 * 0.2 - 0.2, "R_sersic": 0.1, "n_sersic": 1.0, "amp": 1.0}
        values = inputs(0.0, 0.0) | {"lens_light": [outside]}
        closed, margin, wide = (lens(padding=p)(values).numpy() for p in (0, 2, 6))
        assert (margin[:, 0] > closed[:, 0] * (1 + 1e-6)).any()
        np.testing.assert_allclose(margin, wide, rtol=0, atol=1e-14)
        np.testing.assert_array_equal(lens(padding="psf")(values), margin)
        # Half the kernel is one pixel high and two wide: further inside nothing can change.
        np.testing.assert_allclose(margin[1:-1, 2:], closed[1:-1, 2:], rtol=0, atol=1e-16)

    def test_without_mass_the_source_is_seen_as_it_is(self):
        seen = LensLayer(GRID, source=[Sersic()], dtype="float64")({"source": [LIGHT_VALUES | {"amp": 2.0}]})
        held = LensLayer(GRID, lens_light=[Sersic()], dtype="float64")({"lens_light": [LIGHT_VALUES | {"amp": 2.0}]})
        np.testing.assert_array_equal(seen, held)

    def test_pixels_drawn_on_their_own_grid_come_back(self):
        image = np.random.default_rng(1).normal(size=GRID.shape)
        layer = LensLayer(GRID, lens_light=[Pixelated(0.2)], dtype="float64")
        values = {"image": image, "center_x": 0.1, "center_y": -0.05, "scale": 1.0, "amp": 3.0}
        np.testing.assert_allclose(layer({"lens_light": [values]}), 3 * image, rtol=0, atol=1e-11)

    def test_deflection_is_the_sum_over_the_mass(self):
        x, y = (tf.constant(v) for v in GRID.coordinates())
        layer = lens()
        total = layer.deflection([SIE_VALUES, SHEAR_VALUES], x, y)
        parts = layer.mass[0].deflection(x, y, **SIE_VALUES), layer.mass[1].deflection(x, y, **SHEAR_VALUES)
        np.testing.assert_allclose(total, np.add(*[np.stack(p) for p in parts]), rtol=1e-14)


class TestBatch:
    def test_batch_equals_loop_and_shapes_broadcast(self):
        layer = lens()
        theta_E, amp = np.array([[0.8], [1.1], [1.3]]), np.array([1.0, 4.0])
        batch = layer(inputs(theta_E=tf.constant(theta_E), source_amp=tf.constant(amp)))
        assert batch.shape == (3, 2, 15, 22)
        for i, j in np.ndindex(3, 2):
            one = layer(inputs(theta_E=theta_E[i, 0], source_amp=amp[j]))
            np.testing.assert_allclose(batch[i, j], one, rtol=1e-12)

    def test_batch_of_one_component_alone_reaches_the_sum(self):
        batch = lens()(inputs(light_amp=tf.constant([1.0, 2.0], tf.float64)))
        assert batch.shape == (2, 15, 22)

    @pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-13)])
    def test_xla_equals_eager(self, dtype, tolerance):
        layer = lens(dtype=dtype, refine=np.minimum(REFINE, 3), padding="psf")
        values = tf.nest.map_structure(lambda v: tf.constant([v, 1.01 * v], dtype), inputs())
        compiled = tf.function(layer, jit_compile=True)(values)
        np.testing.assert_allclose(compiled, layer(values), rtol=0, atol=tolerance)


class TestGradient:
    @pytest.mark.parametrize(
        "changes",
        [{"refine": REFINE}, {"psf_supersampling": 2, "quadrature": "gauss-legendre", "psf_method": "fft"}],
        ids=["refined", "supersampled PSF"],
    )
    def test_equals_finite_differences(self, changes):
        layer = lens(mass=[EPL(), Shear()], **changes)
        values = inputs(gamma=2.1)
        tensors = tf.nest.map_structure(lambda v: tf.constant(v, tf.float64), values)
        weight = np.random.default_rng(3).normal(size=GRID.shape)
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = tf.reduce_sum(weight * layer(tensors))
        gradient = np.array(tf.nest.flatten(tape.gradient(value, tensors)))
        flat = np.array(tf.nest.flatten(tensors))
        step = 1e-6
        expected = []
        for k in range(flat.size):
            up, down = (
                np.sum(weight * layer(tf.nest.pack_sequence_as(tensors, list(flat + s * np.eye(flat.size)[k]))))
                for s in (step, -step)
            )
            expected.append((up - down) / (2 * step))
        np.testing.assert_allclose(gradient, expected, rtol=2e-6, atol=1e-7)

    @pytest.mark.parametrize("method", ["direct", "fft", "low-rank"])
    def test_forward_mode_equals_reverse_mode(self, method):
        layer = lens(refine=REFINE, padding="psf", psf_method=method)
        theta_E, weight = tf.constant(1.1, tf.float64), np.random.default_rng(3).normal(size=GRID.shape)
        with tf.autodiff.ForwardAccumulator(theta_E, tf.ones_like(theta_E)) as accumulator:
            image = layer(inputs(theta_E=theta_E))
        with tf.GradientTape() as tape:
            tape.watch(theta_E)
            value = tf.reduce_sum(weight * layer(inputs(theta_E=theta_E)))
        np.testing.assert_allclose(np.sum(weight * accumulator.jvp(image)), tape.gradient(value, theta_E), rtol=1e-11)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_is_finite_with_a_round_lens_on_a_pixel_and_a_source_behind_it(self, dtype):
        layer = LensLayer(
            PixelGrid((5, 7), 0.2), mass=[EPL(), Shear()], lens_light=[Sersic()], source=[Sersic()], dtype=dtype
        )
        middle = {"e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
        galaxy = {"R_sersic": 0.1, "n_sersic": 4.0, "amp": 1.0, **middle}
        values = {
            "mass": [{"theta_E": 0.4, "gamma": 2.0, **middle}, {"gamma1": 0.0, "gamma2": 0.0}],
            "lens_light": [galaxy],
            "source": [galaxy],
        }
        tensors = tf.nest.map_structure(lambda v: tf.constant(v, dtype), values)
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = tf.reduce_sum(layer(tensors))
        assert np.isfinite(tf.nest.flatten(tape.gradient(value, tensors))).all()


class TestKeras:
    def test_config_rebuilds_the_layer(self):
        layer = lens(padding=1, lens_light=[Sersic(), Pixelated(0.1)], mass=[EPL(0.5, 1e-4), Shear()])
        rebuilt = LensLayer.from_config(layer.get_config())
        assert rebuilt.get_config() == layer.get_config()
        assert rebuilt.grid == GRID
        assert (rebuilt.mass[0].max_ellipticity, rebuilt.mass[0].tolerance) == (0.5, 1e-4)
        pixels = {"image": np.ones((4, 6)), "center_x": 0.0, "center_y": 0.0, "scale": 1.0, "amp": 1.0}
        values = inputs(gamma=1.9)
        values["lens_light"].append(pixels)
        np.testing.assert_array_equal(rebuilt(values), layer(values))

    def test_config_keeps_every_setting_of_the_sampling_and_of_the_psf_through_json(self):
        settings = {
            "supersampling": 2,
            "padding": "psf",
            "quadrature": "gauss-legendre",
            "refine": REFINE,
            "psf_supersampling": 2,
            "psf_method": "low-rank",
            "psf_tolerance": 1e-3,
        }
        layer = lens(**settings)
        config = json.loads(json.dumps(layer.get_config()))
        rebuilt = LensLayer.from_config(config)
        for name, value in settings.items():
            np.testing.assert_array_equal(rebuilt.get_config()[name], value)
        np.testing.assert_array_equal(rebuilt(inputs()), layer(inputs()))

    def test_profiles_of_ones_own_are_rebuilt_with_their_settings(self):
        rebuilt = LensLayer.from_config(lens(source=[Disk("red")]).get_config())
        assert isinstance(rebuilt.source[0], Disk)
        assert rebuilt.source[0].color == "red"

    def test_replace_changes_what_is_named_and_nothing_else(self):
        layer = lens(padding=1, psf_method="fft", refine=REFINE)
        changed = layer.replace(supersampling=3, psf=None)
        before, after = layer.get_config(), changed.get_config()
        assert {name for name in before if before[name] != after[name]} == {"name", "supersampling", "psf"}
        assert changed.source == layer.source

    def test_one_with_room_takes_another_map_and_keeps_both_through_json(self):
        layer = lens(refine=REFINE, room={2: 330, 3: 10, 8: 2}, psf_supersampling=2, supersampling=2)
        other = np.where(REFINE == 1, 2, 1)
        layer.refine_by(other)
        rebuilt = LensLayer.from_config(json.loads(json.dumps(layer.get_config())))
        still = layer.replace(room=None)
        assert rebuilt.get_config()["room"] == layer.get_config()["room"]
        for each in (layer, rebuilt):
            np.testing.assert_allclose(each(inputs()), still(inputs()), rtol=1e-5)
            assert each.samples > still.samples

    def test_config_without_psf_rebuilds_the_layer(self):
        layer = lens(psf=None)
        np.testing.assert_array_equal(LensLayer.from_config(layer.get_config())(inputs()), layer(inputs()))

    def test_has_no_weights(self):
        layer = lens()
        layer(inputs())
        assert layer.weights == []

    def functional_model(self) -> keras.Model:
        theta_E, amp = keras.Input((), name="theta_E"), keras.Input((), name="amp")
        image = lens(dtype="float32")(inputs(theta_E=theta_E, source_amp=amp))
        return keras.Model({"theta_E": theta_E, "amp": amp}, image)

    def test_works_in_a_functional_model_that_saves_and_loads(self, tmp_path):
        model = self.functional_model()
        assert model.output_shape == (None, 15, 22)
        values = {"theta_E": tf.constant([0.9, 1.1]), "amp": tf.constant([5.0, 3.0])}
        image = model(values)
        direct = lens(dtype="float32")(inputs(theta_E=values["theta_E"], source_amp=values["amp"]))
        np.testing.assert_allclose(image, direct, rtol=0, atol=1e-6)
        model.save(tmp_path / "lens.keras")
        loaded = keras.models.load_model(tmp_path / "lens.keras")
        np.testing.assert_array_equal(loaded(values), image)

    def test_trains_a_model_around_it(self):
        keras.utils.set_random_seed(3)
        layer = LensLayer(PixelGrid((7, 9), 0.4), mass=[SIE()], source=[Sersic()])
        rest = {k: 0.0 for k in ("e1", "e2", "center_x", "center_y")}

        def ring(theta_E):
            source = {"R_sersic": 0.3, "n_sersic": 1.0, "amp": 1.0, **rest}
            return layer({"mass": [{"theta_E": theta_E, **rest}], "source": [source]})

        class Fit(keras.Model):
            def __init__(self):
                super().__init__()
                self.log_theta_E = self.add_weight(name="log_theta_E", shape=(), initializer="zeros")

            def call(self, seed):
                return ring(tf.exp(self.log_theta_E) * tf.ones_like(seed[:, 0]))

        model = Fit()
        model.compile(optimizer=keras.optimizers.Adam(0.02), loss="mse")
        data = np.repeat(ring(tf.constant([1.2])).numpy(), 150, axis=0)
        model.fit(np.zeros((150, 1), "float32"), data, batch_size=1, verbose=0)
        np.testing.assert_allclose(np.exp(model.log_theta_E.numpy()), 1.2, rtol=1e-3)


class TestErrors:
    @pytest.mark.parametrize("setting", [{"supersampling": 0}, {"supersampling": 1.5}, {"padding": -1}])
    def test_unusable_sampling_is_refused(self, setting):
        with pytest.raises(ParameterError, match="supersampling must be an integer >= 1 and padding an integer >= 0"):
            lens(**setting)

    def test_unusable_dtype_is_refused(self):
        with pytest.raises(ParameterError, match=r'LensLayer\.dtype must be "float32" or "float64", got .float16.'):
            lens(dtype="float16")

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ({"padding": "half"}, r'LensLayer\.padding must be a number of pixels or "psf", got .half.'),
            ({"psf_supersampling": 3}, r"supersampling must be a multiple of psf_supersampling \(3\), got 2"),
            ({"psf_supersampling": 2, "psf": None}, r"psf_supersampling is 2, but there is no psf"),
            ({"quadrature": "simpson"}, "quadrature must be one of"),
            (
                {"refine": REFINE[1:]},
                r"refine must hold whole numbers >= 1 .* \(15, 22\); got int64 of shape \(14, 22\)",
            ),
            ({"psf_method": "svd"}, r"PSF\.method must be one of"),
        ],
    )
    def test_unusable_setting_is_refused(self, setting, message):
        with pytest.raises(ParameterError, match=message):
            lens(**setting)

    def test_even_psf_is_refused(self):
        with pytest.raises(ParameterError, match=r"odd sides, got shape \(4, 5\)"):
            lens(psf=np.ones((4, 5)))

    def test_wrong_number_of_profiles_is_refused(self):
        with pytest.raises(ParameterError, match=r'^LensLayer: "mass" has 2 profile\(s\) .* but 1 dictionaries'):
            lens()(inputs() | {"mass": [SIE_VALUES]})
        with pytest.raises(ParameterError, match=r'^LensLayer: "source" has 1 profile\(s\) .* but 0 dictionaries'):
            lens()({k: v for k, v in inputs().items() if k != "source"})

    def test_missing_and_unknown_parameters_are_named(self):
        without = {k: v for k, v in SIE_VALUES.items() if k != "theta_E"}
        with pytest.raises(ParameterError, match=r"^LensLayer: mass .* missing: \['theta_E'\], unknown: \['b'\]"):
            lens()(inputs() | {"mass": [without | {"b": 1.0}, SHEAR_VALUES]})

    def test_missing_amplitude_is_named(self):
        with pytest.raises(ParameterError, match=r"source profile Sersic\(\) .* missing: \['amp'\]"):
            lens()(inputs() | {"source": [SOURCE_VALUES]})

    def test_image_is_asked_of_pixels_and_of_nothing_else(self):
        with pytest.raises(ParameterError, match=r"source profile Sersic\(\) .* unknown: \['image'\]"):
            lens()(inputs() | {"source": [SOURCE_VALUES | {"amp": 1.0, "image": np.ones((3, 3))}]})
        pixels = LensLayer(GRID, source=[Pixelated(0.1)])
        with pytest.raises(ParameterError, match=r"missing: \['image'\]"):
            pixels({"source": [{"center_x": 0.0, "center_y": 0.0, "scale": 1.0, "amp": 1.0}]})

    def test_unknown_group_is_refused(self):
        with pytest.raises(ParameterError, match=r"keys \['mass', 'lens_light', 'source'\], got .*'sources'"):
            lens()(inputs() | {"sources": []})
        with pytest.raises(ParameterError, match="got list"):
            lens()([SIE_VALUES])

    def test_layer_without_light_says_so(self):
        with pytest.raises(ParameterError, match="has no light profile to draw"):
            LensLayer(GRID, mass=[SIE()])({"mass": [SIE_VALUES]})

    @pytest.mark.parametrize(
        "profile",
        [
            {"class_name": "NoSuch", "module": "tflens.light.sersic", "registered_name": "tflens.light>NoSuch"},
            {"class_name": "NoSuch", "module": None, "registered_name": "NoSuch"},
            # Known to Keras, but no profile.
            {"class_name": "Dense", "module": "keras.layers", "registered_name": None, "config": {"units": 3}},
        ],
        ids=["unknown", "not imported", "no profile"],
    )
    def test_unknown_profile_in_a_config_is_refused(self, profile):
        config = lens().get_config()
        config["source"] = [{"config": {}} | profile]
        with pytest.raises(ParameterError, match=f"unknown profile '{profile['class_name']}' .* must be imported"):
            LensLayer.from_config(config)

    def test_profile_in_the_wrong_place_of_a_config_is_refused(self):
        config = lens().get_config()
        config["source"], config["mass"] = config["mass"], []
        with pytest.raises(ParameterError, match=r"LensLayer\.source must be a LightProfile .*, got SIE"):
            LensLayer.from_config(config)

    def test_unknown_setting_of_a_profile_in_a_config_is_named(self):
        config = lens().get_config()
        config["mass"][0]["config"]["number_of_terms"] = 3
        with pytest.raises(TypeError, match="number_of_terms"):
            LensLayer.from_config(config)
