"""Populations of subhalos: the sum itself, absence, derivatives of every kind, and a program whose size is constant."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf
from plummer import Plummer

from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.lens_layer import LensLayer
from tflens.light import Sersic
from tflens.mass import SIE, TNFW, MassProfile, Subhalos

SIE_EXACT = SIE(tolerance=1e-15)
METHODS = ("deflection", "potential", "convergence")


def population(
    n: int, batch: tuple[int, ...] = (), halo: MassProfile = SIE_EXACT, dtype: str = "float64"
) -> dict[str, tf.Tensor]:
    """n halos, two thirds of them present, one of those with a weight other than 1."""
    rng = np.random.default_rng(n)
    shape = (*batch, n)
    values = {name: rng.uniform(0.5, 1.5, shape) for name in halo.parameter_names}
    values |= {"center_x": rng.normal(0, 1, shape), "center_y": rng.normal(0, 1, shape)}
    if isinstance(halo, SIE):
        values |= {"theta_E": rng.uniform(0.01, 0.1, shape)}
        values |= {"e1": rng.uniform(-0.1, 0.1, shape), "e2": rng.uniform(-0.1, 0.1, shape)}
    present = np.ones(shape)
    present[..., 1::3] = 0
    present[..., 0] = 0.7
    return {name: tf.constant(value, dtype) for name, value in (values | {"present": present}).items()}


def sky(dtype: str = "float64") -> tuple[tf.Tensor, tf.Tensor]:
    x, y = PixelGrid((5, 8), 0.41, center=(0.13, -0.07)).coordinates()
    return tf.constant(x, dtype), tf.constant(y, dtype)


def stacked(value) -> np.ndarray:
    return np.stack(value) if isinstance(value, tuple) else np.asarray(value)


def one_by_one(halo: MassProfile, method: str, x, y, parameters) -> np.ndarray:
    total = 0.0
    for k in range(parameters["present"].shape[-1]):
        one = {name: value[..., k] for name, value in parameters.items()}
        weight = np.asarray(one.pop("present"))[..., None, None]
        total = total + weight * stacked(getattr(halo, method)(x, y, **one))
    return total


class TestSum:
    @pytest.mark.parametrize("halo", [SIE_EXACT, TNFW()], ids=["SIE", "TNFW"])
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("chunk", [1, 3, 7, 100])
    def test_is_a_loop_over_single_profiles(self, halo, method, chunk):
        parameters = population(7, (2,), halo)
        x, y = sky()
        got = stacked(getattr(Subhalos(halo, 7, chunk), method)(x, y, **parameters))
        assert got.shape[-3:] == (2, 5, 8)
        np.testing.assert_allclose(got, one_by_one(halo, method, x, y, parameters), rtol=1e-12, atol=1e-14)

    def test_batch_is_a_loop_over_lenses_and_coordinates_may_have_it_too(self):
        halos, parameters = Subhalos(SIE_EXACT, 5, 2), population(5, (2, 3))
        x, y = sky()
        x, y = x + tf.reshape(tf.range(3, dtype=x.dtype), [3, 1, 1]), tf.broadcast_to(y, [5, 8])
        together = np.stack(halos.deflection(x, y, **parameters))
        assert together.shape == (2, 2, 3, 5, 8)
        for i, j in np.ndindex(2, 3):
            one = np.stack(halos.deflection(x[j], y, **{name: value[i, j] for name, value in parameters.items()}))
            np.testing.assert_allclose(together[:, i, j], one, rtol=1e-13, atol=1e-15)

    def test_halos_may_share_parameters(self):
        halos, parameters = Subhalos(SIE_EXACT, 5), population(5, (2,))
        x, y = sky()
        shared = parameters | {"e1": 0.1, "e2": tf.constant([[0.2], [0.1]], tf.float64), "present": 1.0}
        spread = {n: tf.broadcast_to(tf.convert_to_tensor(v, tf.float64), [2, 5]) for n, v in shared.items()}
        got, expected = halos.deflection(x, y, **shared), halos.deflection(x, y, **spread)
        np.testing.assert_array_equal(np.stack(got), np.stack(expected))

    def test_mass_far_away_is_that_of_all(self):
        # The deflection of halos of finite mass, seen from afar, is that of a point of their total mass.
        n, far = 6, 1e4
        values = population(n, halo=TNFW()) | {"present": tf.ones([n], tf.float64)}
        alpha, _ = Subhalos(TNFW(), n).deflection(
            tf.constant([[far]], tf.float64), tf.constant([[0.0]], tf.float64), **values
        )
        mass = TNFW().total_mass(**{k: values[k] for k in ("Rs", "alpha_Rs", "r_trunc")})
        assert float(alpha[0, 0]) == pytest.approx(float(tf.reduce_sum(mass)) / (np.pi * far), rel=1e-3)

    def test_xla_is_eager_and_float32_is_float64(self):
        halos, parameters = Subhalos(SIE_EXACT, 7, 3), population(7, (2,))
        exact = np.stack(halos.deflection(*sky(), **parameters))
        compiled = tf.function(lambda p: halos.deflection(*sky(), **p), jit_compile=True, autograph=False)
        np.testing.assert_allclose(np.stack(compiled(parameters)), exact, rtol=1e-12, atol=1e-14)
        single = {name: tf.cast(value, tf.float32) for name, value in parameters.items()}
        np.testing.assert_allclose(np.stack(halos.deflection(*sky("float32"), **single)), exact, rtol=0, atol=2e-6)


class TestAbsence:
    @pytest.mark.parametrize("garbage", [np.nan, np.inf, -1e30, 0.0])
    @pytest.mark.parametrize("halo", [SIE_EXACT, TNFW()], ids=["SIE", "TNFW"])
    def test_absent_halos_contribute_nothing_and_have_no_gradient(self, halo, garbage):
        halos, parameters = Subhalos(halo, 7, 3), population(7, halo=halo)
        present = parameters.pop("present")
        absent = np.asarray(present) == 0
        values = [tf.where(absent, tf.constant(garbage, v.dtype), v) for v in parameters.values()]
        left = {name: tf.boolean_mask(v, ~absent) for name, v in parameters.items()}
        x, y = sky()
        with tf.GradientTape() as tape:
            tape.watch([*values, present])
            alpha = halos.deflection(x, y, **dict(zip(parameters, values, strict=True)), present=present)
        only = Subhalos(halo, int((~absent).sum())).deflection(x, y, **left, present=tf.boolean_mask(present, ~absent))
        np.testing.assert_allclose(np.stack(alpha), np.stack(only), rtol=1e-14, atol=1e-16)
        for gradient in tape.gradient(alpha, [*values, present]):
            np.testing.assert_array_equal(gradient.numpy()[absent], 0)
            assert np.isfinite(gradient).all()
            assert (gradient.numpy()[~absent] != 0).all()

    def test_garbage_has_no_forward_derivative_either(self):
        halos, parameters = Subhalos(SIE_EXACT, 2), population(2)
        values = tf.constant([0.1, np.nan], tf.float64)
        with tf.autodiff.ForwardAccumulator(values, tf.constant([0.0, 1.0], tf.float64)) as accumulator:
            alpha, _ = halos.deflection(*sky(), **parameters | {"theta_E": values})
        np.testing.assert_array_equal(accumulator.jvp(alpha), 0)

    def test_nobody_there_is_no_lens(self):
        parameters = population(4) | {"present": 0.0}
        for method in METHODS:
            value = stacked(getattr(Subhalos(SIE_EXACT, 4), method)(*sky(), **parameters))
            assert value.shape[-2:] == (5, 8)
            np.testing.assert_array_equal(value, 0)


def directional(halos, parameters, direction, weights, mode):
    """The derivative of a weighted sum of the deflection along a direction, by the way asked for."""
    names = list(parameters)

    def weighted(*values):
        return tf.reduce_sum(
            weights * tf.stack(halos.deflection(*values[-2:], **dict(zip(names, values, strict=False))))
        )

    def reverse(*values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = weighted(*values)
        return tf.add_n([tf.reduce_sum(g * d) for g, d in zip(tape.gradient(result, values), direction, strict=True)])

    def forward(*values):
        with tf.autodiff.ForwardAccumulator(list(values), direction) as accumulator:
            result = weighted(*values)
        return accumulator.jvp(result)

    def difference(*values, step=1e-6):
        moved = [weighted(*(v + s * d for v, d in zip(values, direction, strict=True))) for s in (step, -step)]
        return (moved[0] - moved[1]) / (2 * step)

    return {"reverse": reverse, "forward": forward, "difference": difference}[mode]


class TestDerivatives:
    @pytest.fixture
    def case(self):
        parameters = population(5, (2,), Plummer())
        x, y = sky()
        primals = [*parameters.values(), x, y]
        rng = np.random.default_rng(4)
        direction = [tf.constant(rng.normal(size=v.shape)) for v in primals]
        at = list(parameters).index("present")  # present or absent is no matter of degree
        direction[at] = tf.where(primals[at] == 0, tf.zeros_like(primals[at]), direction[at])
        weights = tf.constant(rng.normal(size=(2, 2, 5, 8)))
        return primals, lambda mode: directional(Subhalos(Plummer(), 5, 2), parameters, direction, weights, mode)

    @pytest.mark.parametrize("mode", ["reverse", "forward"])
    def test_derivatives_are_finite_differences_in_every_mode(self, case, mode):
        primals, derivative = case
        exact = float(derivative(mode)(*primals))
        assert exact == pytest.approx(float(derivative("difference")(*primals)), rel=1e-7)
        for xla in (False, True):
            compiled = tf.function(derivative(mode), jit_compile=xla, autograph=False)
            assert float(compiled(*primals)) == pytest.approx(exact, rel=1e-11)

    def test_second_derivatives(self):
        halos, parameters = Subhalos(Plummer(), 5, 2), population(5, halo=Plummer())
        x, y = sky()
        scale = tf.constant(1.0, tf.float64)

        def slope(scale):
            with tf.GradientTape() as tape:
                tape.watch(scale)
                bent = halos.deflection(x, y, **parameters | {"center_x": scale * parameters["center_x"]})
                value = tf.reduce_sum(bent[0] ** 2 + bent[1] ** 2)
            return tape.gradient(value, scale)

        with tf.GradientTape() as tape:
            tape.watch(scale)
            first = slope(scale)
        step = 1e-5
        difference = float(slope(scale + step) - slope(scale - step)) / (2 * step)
        assert float(tape.gradient(first, scale)) == pytest.approx(difference, rel=1e-7)

    def test_reverse_through_a_function_from_outside(self):
        halos, parameters = Subhalos(Plummer(), 5, 2), population(5, halo=Plummer())
        compiled = tf.function(lambda p: halos.deflection(*sky(), **p), jit_compile=True, autograph=False)
        gradients = []
        for function in (compiled, lambda p: halos.deflection(*sky(), **p)):
            with tf.GradientTape() as tape:
                tape.watch(parameters)
                alpha = function(parameters)
            gradients.append(tape.gradient(alpha, parameters))
        for name in parameters:
            np.testing.assert_allclose(gradients[0][name], gradients[1][name], rtol=1e-10, atol=1e-14)


class TestCost:
    @pytest.mark.parametrize("what", ["value", "gradient", "tangent"])
    def test_size_of_the_program_does_not_depend_on_the_number_of_halos(self, what):
        one, few, hundred, thousand = (_hlo(n, what, "hlo").count(" = ") for n in (1, 8, 100, 1000))
        assert thousand == few
        # One halo needs no broadcasts over the chunk; a hundred are not a multiple of it, and are filled up.
        assert max(one, hundred) <= few

    def test_no_array_of_the_gradient_holds_all_halos_and_all_pixels(self):
        arrays = re.findall(r"\b[a-z]\w+\[([\d,]+)\]", _hlo(1000, "gradient", "optimized_hlo"))
        largest = max(np.prod([int(n) for n in shape.split(",")]) for shape in arrays)
        # The parameters themselves; a chunk of 8 halos on 40 pixels is smaller here.
        assert largest == 1000


def _hlo(n: int, what: str, stage: str) -> str:
    """XLA's program for n halos: what it is given ("hlo"), or what it makes of it ("optimized_hlo")."""
    halos = Subhalos(Plummer(), n)
    x, y = sky("float32")

    def value(parameters):
        return halos.deflection(x, y, **parameters)

    def gradient(parameters):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            alpha = value(parameters)
        return tape.gradient(alpha, parameters)

    def tangent(parameters):
        values = list(parameters.values())
        with tf.autodiff.ForwardAccumulator(values, [tf.ones_like(v) for v in values]) as accumulator:
            alpha = value(parameters)
        return accumulator.jvp(alpha)

    chosen = {"value": value, "gradient": gradient, "tangent": tangent}[what]
    compiled = tf.function(chosen, jit_compile=True, autograph=False)
    return compiled.experimental_get_compiler_ir(population(n, halo=Plummer(), dtype="float32"))(stage=stage)


class TestUse:
    def test_lens_layer_draws_it_and_rebuilds_it(self):
        layer = LensLayer(PixelGrid((12, 15), 0.2), mass=[SIE(), Subhalos(TNFW(), 4, 3)], source=[Sersic()])
        main = {"theta_E": 0.8, "e1": 0.1, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
        source = {"amp": 1.0, "R_sersic": 0.3, "n_sersic": 1.0, "e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.1}
        inputs = {"mass": [main, population(4, (2,), TNFW(), "float32")], "source": [source]}
        image = layer(inputs)
        assert image.shape == (2, 12, 15)
        np.testing.assert_array_equal(LensLayer.from_config(layer.get_config())(inputs), image)

    def test_halos_of_ones_own_are_rebuilt_through_json(self):
        halos, parameters = Subhalos(Plummer(), 5, 2), population(5, halo=Plummer())
        rebuilt = Subhalos.from_config(json.loads(json.dumps(halos.get_config())))
        assert isinstance(rebuilt.halo, Plummer)
        assert rebuilt.get_config() == halos.get_config()
        np.testing.assert_array_equal(rebuilt.deflection(*sky(), **parameters), halos.deflection(*sky(), **parameters))

    def test_declared_parameters_become_inputs(self):
        halos = Subhalos(SIE(), 3)
        names = [name for parameter in halos.parameters for name in parameter.names]
        assert len(names) == len(set(names)) == 15
        inputs = halos.inputs({name: tf.fill([4], float(k)) for k, name in enumerate(names)})
        assert set(inputs) == set(halos.parameter_names)
        np.testing.assert_array_equal(inputs["e2"][0], [names.index(f"e2_{i}") for i in (1, 2, 3)])
        assert halos.deflection(*sky("float32"), **inputs)[0].shape == (4, 5, 8)

    def test_errors_name_the_rule(self):
        with pytest.raises(ParameterError, match=r"Subhalos\.capacity must be a positive integer, got 0"):
            Subhalos(SIE(), 0)
        with pytest.raises(ParameterError, match=r"Subhalos\.chunk must be a positive integer, got 2\.5"):
            Subhalos(SIE(), 4, chunk=2.5)
        with pytest.raises(ParameterError, match=r"Subhalos\.halo must be a MassProfile or .*, got 'SIE'"):
            Subhalos("SIE", 4)
        halos, parameters = Subhalos(SIE(), 4), population(4)
        with pytest.raises(ParameterError, match=r"Subhalos\.theta_E: .* length 4 .* got shape \(3,\)"):
            halos.deflection(*sky(), **parameters | {"theta_E": tf.zeros([3])})
        del parameters["present"]
        with pytest.raises(ParameterError, match=r"takes the parameters .*present"):
            halos.deflection(*sky(), **parameters)
