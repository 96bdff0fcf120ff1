"""Several lens planes: limits, laws, parity with lenstronomy, and derivatives of every kind."""

import itertools
import json
import warnings

import numpy as np
import pytest
import tensorflow as tf
from astropy.cosmology import FlatLambdaCDM, LambdaCDM
from plummer import Plummer

from tflens.cosmology import cosmology, describe, lensing_efficiency, transverse_distance
from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.lens_layer import LensLayer
from tflens.light import Sersic
from tflens.mass import EPL, NFW, SIE, EllipticalMass, MassProfile, MultiPlane, Plane, Shear, Subhalos

UNIVERSE = FlatLambdaCDM(H0=70.0, Om0=0.3)
SIE_NAMES = ("theta_E", "e1", "e2", "center_x", "center_y")
MAIN = {"theta_E": 1.1, "e1": 0.12, "e2": -0.07, "center_x": 0.05, "center_y": -0.03}
SHEAR = {"gamma1": 0.04, "gamma2": -0.03}
SIE_EXACT = SIE(tolerance=1e-15)


def named(prefix: str, values: dict) -> dict:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def sky(dtype: str = "float64") -> tuple[tf.Tensor, tf.Tensor]:
    x, y = PixelGrid((5, 8), 0.41, center=(0.13, -0.07)).coordinates()
    return tf.constant(x, dtype), tf.constant(y, dtype)


def perturbers(n: int, seed: int = 3, batch: tuple[int, ...] = (), dtype: str = "float64") -> dict[str, tf.Tensor]:
    """Parameters of n small SIEs, `[...batch, n]`."""
    rng = np.random.default_rng(seed)
    shape = (*batch, n)
    values = {
        "theta_E": rng.uniform(0.02, 0.2, shape),
        "e1": rng.uniform(-0.1, 0.1, shape),
        "e2": rng.uniform(-0.1, 0.1, shape),
        "center_x": rng.normal(0, 1.0, shape),
        "center_y": rng.normal(0, 1.0, shape),
    }
    return {name: tf.constant(value, dtype) for name, value in values.items()}


def columns(values: dict[str, tf.Tensor]) -> list[dict[str, tf.Tensor]]:
    """`[...batch, n]` -> n dictionaries of `[...batch]`."""
    n = next(iter(values.values())).shape[-1]
    return [{name: value[..., k] for name, value in values.items()} for k in range(n)]


class TestLimits:
    @pytest.mark.parametrize("looped", [False, True], ids=["unrolled", "loop"])
    def test_one_plane_is_a_single_plane_to_the_last_bit(self, looped):
        plane = Plane([0.5] if looped else 0.5, [SIE_EXACT, Shear()])
        lens = MultiPlane([plane], 2.0, UNIVERSE)
        x, y = sky()
        alpha = lens.deflection(x, y, **named("plane1.SIE", MAIN), **named("plane1.Shear", SHEAR))
        single = zip(SIE_EXACT.deflection(x, y, **MAIN), Shear().deflection(x, y, **SHEAR), strict=True)
        for got, (sie, shear) in zip(alpha, single, strict=True):
            np.testing.assert_array_equal(got, sie + shear)

    def test_planes_at_the_same_redshift_are_a_sum(self):
        lens = MultiPlane([Plane(0.5, [SIE_EXACT]), Plane(0.5, [Shear()])], 2.0, UNIVERSE)
        x, y = sky()
        alpha = lens.deflection(x, y, **named("plane1.SIE", MAIN), **named("plane2.Shear", SHEAR))
        single = zip(SIE_EXACT.deflection(x, y, **MAIN), Shear().deflection(x, y, **SHEAR), strict=True)
        for got, (sie, shear) in zip(alpha, single, strict=True):
            np.testing.assert_allclose(got, sie + shear, rtol=1e-14, atol=1e-15)

    def test_planes_that_approach_each_other_approach_the_sum(self):
        x, y = sky()
        total = SIE_EXACT.deflection(x, y, **MAIN)[0] + Shear().deflection(x, y, **SHEAR)[0]
        errors = []
        for gap in (1e-2, 1e-4):
            lens = MultiPlane([Plane(0.5, [SIE_EXACT]), Plane(0.5 + gap, [Shear()])], 2.0, UNIVERSE)
            alpha, _ = lens.deflection(x, y, **named("plane1.SIE", MAIN), **named("plane2.Shear", SHEAR))
            errors.append(np.abs(alpha - total).max())
        # To first order in the gap, and not at all the same as the sum at a finite one.
        assert errors[0] > 1e-5
        assert errors[1] == pytest.approx(errors[0] / 100, rel=0.05)

    def test_a_plane_without_mass_changes_nothing(self):
        x, y = sky()
        values = named("plane1.SIE", MAIN)
        alone = MultiPlane([Plane(0.5, [SIE()])], 2.0, UNIVERSE).deflection(x, y, **values)
        other = MultiPlane([Plane(0.5, [SIE()]), Plane(0.2), Plane([0.7, 0.9])], 2.0, UNIVERSE)
        for got, expected in zip(other.deflection(x, y, **values), alone, strict=True):
            np.testing.assert_array_equal(got, expected)

    def test_the_order_in_which_planes_are_given_does_not_matter(self):
        planes = [Plane(0.3, [SIE_EXACT]), Plane([0.2, 0.5, 0.8], [SIE_EXACT]), Plane(0.6, [Shear()])]
        values = [
            lambda i: named(f"plane{i}.SIE", MAIN),
            lambda i: named(f"plane{i}.SIE", perturbers(3)),
            lambda i: named(f"plane{i}.Shear", SHEAR),
        ]
        x, y = sky()
        results = []
        for order in itertools.permutations(range(3)):
            lens = MultiPlane([planes[k] for k in order], 2.0, UNIVERSE)
            parameters = {n: v for i, k in enumerate(order, 1) for n, v in values[k](i).items()}
            results.append(np.stack(lens.deflection(x, y, **parameters)))
        for result in results[1:]:
            np.testing.assert_allclose(result, results[0], rtol=1e-14, atol=1e-15)

    def test_a_loop_over_planes_is_the_same_as_planes_one_by_one(self):
        redshifts = [0.2, 0.4, 0.6, 0.9]
        values = perturbers(4, batch=(3,))
        x, y = sky()
        loop = MultiPlane([Plane(0.5, [SIE_EXACT]), Plane(redshifts, [SIE_EXACT])], 2.0, UNIVERSE)
        single = MultiPlane([Plane(0.5, [SIE_EXACT]), *(Plane(z, [SIE_EXACT]) for z in redshifts)], 2.0, UNIVERSE)
        main = named("plane1.SIE", MAIN)
        each = {n: v for k, one in enumerate(columns(values), 2) for n, v in named(f"plane{k}.SIE", one).items()}
        got = loop.deflection(x, y, **main, **named("plane2.SIE", values))
        for a, b in zip(got, single.deflection(x, y, **main, **each), strict=True):
            assert a.shape == (3, 5, 8)
            np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-15)

    def test_batch_is_a_loop_over_lenses(self):
        lens = MultiPlane([Plane(0.5, [SIE_EXACT]), Plane([0.3, 0.8], [SIE_EXACT])], 2.0, UNIVERSE)
        values = named("plane1.SIE", MAIN) | named("plane2.SIE", perturbers(2, batch=(3,)))
        x, y = sky()
        together = np.stack(lens.deflection(x, y, **values))
        for k in range(3):
            one = {name: value[k] if name.startswith("plane2") else value for name, value in values.items()}
            np.testing.assert_allclose(together[:, k], np.stack(lens.deflection(x, y, **one)), rtol=1e-14, atol=1e-15)

    def test_subhalos_in_many_planes_are_single_halos_in_each(self):
        values = {name: tf.reshape(v, [2, 3]) for name, v in perturbers(6).items()}
        lens = MultiPlane([Plane([0.3, 0.8], [Subhalos(SIE_EXACT, capacity=3)])], 2.0, UNIVERSE)
        single = MultiPlane([Plane(0.3, [SIE_EXACT] * 3), Plane(0.8, [SIE_EXACT] * 3)], 2.0, UNIVERSE)
        x, y = sky()
        got = lens.deflection(x, y, **named("plane1.Subhalos", values | {"present": 1.0}))
        each = {
            f"plane{i + 1}.SIE{j + 1}.{name}": value[i, j]
            for i, j in itertools.product(range(2), range(3))
            for name, value in values.items()
        }
        for a, b in zip(got, single.deflection(x, y, **each), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)


class TestNormalisation:
    def test_theta_E_is_that_of_the_plane_alone_for_the_last_source(self):
        circle = {"theta_E": 0.9, "e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
        for z in (0.1, 0.5, 1.9):
            lens = MultiPlane([Plane(z, [SIE()]), Plane(0.3, [SIE()])], 2.0, UNIVERSE)
            values = named("plane1.SIE", circle) | named("plane2.SIE", circle | {"theta_E": 0.0})
            beta = lens.positions(tf.constant([[0.9]]), tf.constant([[0.0]]), [2.0], **values)[0]
            assert float(beta[0][0, 0]) == pytest.approx(0.0, abs=1e-7)

    def test_a_nearer_source_sees_less_by_the_ratio_of_distances(self):
        z_lens, z_near, z_far = 0.5, 1.0, 2.0
        lens = MultiPlane([Plane(z_lens, [SIE_EXACT])], z_far, UNIVERSE)
        x, y = sky()
        near, far = lens.positions(x, y, [z_near, z_far], **named("plane1.SIE", MAIN))
        d = {z: UNIVERSE.comoving_distance(z).value for z in (z_lens, z_near, z_far)}
        ratio = (1 - d[z_lens] / d[z_near]) / (1 - d[z_lens] / d[z_far])
        np.testing.assert_allclose(x - near[0], ratio * (x - far[0]), rtol=1e-12, atol=1e-14)

    def test_another_reference_redshift_scales_a_plane(self):
        x, y = sky()
        values = named("plane1.SIE", MAIN)
        referred = MultiPlane([Plane(0.5, [SIE_EXACT])], 1.0, UNIVERSE, z_reference=2.0)
        full = MultiPlane([Plane(0.5, [SIE_EXACT])], 2.0, UNIVERSE)
        near = full.positions(x, y, [1.0], **values)[0]
        np.testing.assert_allclose(referred.deflection(x, y, **values)[0], x - near[0], rtol=1e-13, atol=1e-14)

    @pytest.mark.parametrize("universe", [UNIVERSE, LambdaCDM(70, 0.3, 0.5), LambdaCDM(70, 0.4, 0.9)])
    def test_efficiency_is_the_ratio_of_distances_in_every_universe(self, universe):
        z = [0.2, 0.7, 1.4]
        h = lensing_efficiency(universe, z, 2.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # astropy 8 renamed the function
            between = universe.angular_diameter_distance_z1z2
            for i, j in itertools.combinations(range(3), 2):
                d_ij, d_is = between(z[i], z[j]).value, between(z[i], 2.0).value
                d_j, d_s = (universe.angular_diameter_distance(v).value for v in (z[j], 2.0))
                assert 1 - h[j] / h[i] == pytest.approx(d_ij * d_s / (d_j * d_is), rel=1e-9)

    def test_efficiency_vanishes_at_the_source_and_changes_sign_behind(self):
        before, at, behind = lensing_efficiency(UNIVERSE, [1.0, 2.0, 3.0], 2.0)
        assert before > 0
        assert at == 0
        assert behind < 0


FOUR = [
    (0.2, SIE_EXACT, MAIN | {"theta_E": 0.15, "center_x": 0.6}),
    (0.5, SIE_EXACT, MAIN),
    (0.9, EPL(tolerance=1e-15), MAIN | {"theta_E": 0.3, "gamma": 1.9, "center_y": -0.4, "e1": -0.2}),
    (1.4, Shear(), SHEAR),
]
TWO = [(0.8, Shear(), SHEAR), FOUR[1]]
KINDS = {"SIE": "EPL", "EPL": "EPL", "Shear": "SHEAR"}


@pytest.mark.parametrize("planes", [TWO, FOUR], ids=["two", "four"])
class TestParity:
    def ours(self, planes, **settings):
        lens = MultiPlane([Plane(z, [profile]) for z, profile, _ in planes], 2.0, UNIVERSE, **settings)
        values = {}
        for i, (_, profile, v) in enumerate(planes, 1):
            values |= named(f"plane{i}.{type(profile).__name__}", v)
        return lens, values

    def theirs(self, planes, **settings):
        from lenstronomy.LensModel.lens_model import LensModel

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lens = LensModel(
                [KINDS[type(profile).__name__] for _, profile, _ in planes],
                multi_plane=True,
                z_source=2.0,
                lens_redshift_list=[z for z, _, _ in planes],
                cosmo=UNIVERSE,
                **settings,
            )
        # Their SIE is a NIE with a small core; their power law of slope 2 is exact.
        return lens, [v | ({"gamma": 2.0} if type(p) is SIE else {}) for _, p, v in planes]

    @pytest.fixture
    def points(self):
        rng = np.random.default_rng(2)
        return rng.uniform(-2.5, 2.5, (2, 60))

    def test_ray_shooting(self, planes, points):
        (ours, values), (theirs, kwargs) = self.ours(planes), self.theirs(planes)
        x, y = points
        (beta,) = ours.positions(tf.constant(x[None]), tf.constant(y[None]), [2.0], **values)
        for got, expected in zip(beta, theirs.ray_shooting(x, y, kwargs), strict=True):
            np.testing.assert_allclose(got[0], expected, rtol=0, atol=1e-10 * np.abs(expected).max())

    def test_normalisation_to_another_redshift(self, planes, points):
        ours, values = self.ours(planes, z_reference=5.0)
        theirs, kwargs = self.theirs(planes, z_source_convention=5.0)
        x, y = points
        alpha = ours.deflection(tf.constant(x[None]), tf.constant(y[None]), **values)
        for got, expected in zip(alpha, theirs.alpha(x, y, kwargs), strict=True):
            np.testing.assert_allclose(got[0], expected, rtol=0, atol=1e-10 * np.abs(expected).max())

    def test_sources_at_other_redshifts(self, planes, points):
        (ours, values), (theirs, kwargs) = self.ours(planes), self.theirs(planes, z_source_convention=2.0)
        x, y = points
        redshifts = [1.7, 0.35, 0.6]
        positions = ours.positions(tf.constant(x[None]), tf.constant(y[None]), redshifts, **values)
        for z, beta in zip(redshifts, positions, strict=True):
            theirs.lens_model.update_source_redshift(z)
            if z < min(p[0] for p in planes):
                np.testing.assert_array_equal(beta[0][0], x)
                continue
            for got, expected in zip(beta, theirs.ray_shooting(x, y, kwargs), strict=True):
                np.testing.assert_allclose(got[0], expected, rtol=0, atol=1e-10 * np.abs(expected).max())

    def test_arrival_time(self, planes, points):
        (ours, values), (theirs, kwargs) = self.ours(planes), self.theirs(planes)
        x, y = points
        expected = theirs.arrival_time(x, y, kwargs)
        got = ours.arrival_time(tf.constant(x[None]), tf.constant(y[None]), **values)[0]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
        assert np.ptp(expected) > 1  # days


class TestArrivalTime:
    def test_one_plane_is_the_fermat_potential_times_the_time_delay_distance(self):
        from tflens.time_delay import DAYS_PER_MPC_ARCSEC2

        lens = MultiPlane([Plane(0.5, [SIE_EXACT])], 2.0, UNIVERSE)
        x, y = sky()
        values = named("plane1.SIE", MAIN)
        alpha_x, alpha_y = SIE_EXACT.deflection(x, y, **MAIN)
        fermat = (alpha_x**2 + alpha_y**2) / 2 - SIE_EXACT.potential(x, y, **MAIN)
        t_lens, t_source = (transverse_distance(UNIVERSE, z) for z in (0.5, 2.0))
        distance = t_lens * t_source / (t_source - t_lens)
        expected = DAYS_PER_MPC_ARCSEC2 * distance * fermat
        np.testing.assert_allclose(lens.arrival_time(x, y, **values), expected, rtol=1e-12)

    def test_loop_is_planes_one_by_one_and_the_same_redshift_costs_no_way(self):
        redshifts = [0.3, 0.5, 0.8]
        values = perturbers(3)
        loop = MultiPlane([Plane(redshifts, [SIE_EXACT]), Plane(0.5, [Shear()])], 2.0, UNIVERSE)
        single = MultiPlane([*(Plane(z, [SIE_EXACT]) for z in redshifts), Plane(0.5, [Shear()])], 2.0, UNIVERSE)
        each = {n: v for k, one in enumerate(columns(values), 1) for n, v in named(f"plane{k}.SIE", one).items()}
        x, y = sky()
        got = loop.arrival_time(x, y, **named("plane1.SIE", values), **named("plane2.Shear", SHEAR))
        expected = single.arrival_time(x, y, **each, **named("plane4.Shear", SHEAR))
        np.testing.assert_allclose(got, expected, rtol=1e-13)

    def test_rays_that_end_at_one_point_are_stationary(self):
        # Fermat's principle: the gradient of the time at fixed source is (1 / c) D (theta - beta(theta) - ...) = 0, so
        # along the map theta -> beta the time changes only through the source, by the momentum of the ray there.
        lens = MultiPlane([Plane(0.3, [SIE_EXACT]), Plane(0.8, [Shear()])], 2.0, UNIVERSE)
        values = named("plane1.SIE", MAIN) | named("plane2.Shear", SHEAR)
        x, y = (tf.reshape(tf.broadcast_to(v, [5, 8]), [1, 40]) for v in sky())
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([x, y])
            time = lens.arrival_time(x, y, **values)
            source, last = lens.positions(x, y, [2.0, 0.8], **values)
        h = float(lensing_efficiency(UNIVERSE, [0.8], 2.0)[0])
        from tflens.time_delay import DAYS_PER_MPC_ARCSEC2

        days = DAYS_PER_MPC_ARCSEC2 * transverse_distance(UNIVERSE, 2.0) / h
        for coordinate in (x, y):
            through_source = sum(
                days * (s - at) * tape.gradient(s, coordinate) for s, at in zip(source, last, strict=True)
            )
            gradient = tape.gradient(time, coordinate)
            np.testing.assert_allclose(gradient, through_source, rtol=0, atol=1e-11 * np.abs(gradient).max())


def looped(dtype: str = "float64", halo: MassProfile | None = None):
    """A lens with a single plane, a loop over planes and a loop over halos in it, and its parameters."""
    halo = halo or Plummer()
    planes = [Plane(0.5, [halo, Shear()]), Plane([0.2, 0.3, 0.8], [Subhalos(halo, 3, chunk=2)])]
    names = halo.parameter_names
    halos = {name: tf.reshape(v, [3, 3]) for name, v in perturbers(9).items() if name in names}
    present = tf.constant([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    values = (
        named(f"plane1.{type(halo).__name__}", {name: MAIN[name] for name in names})
        | named("plane1.Shear", SHEAR)
        | named("plane2.Subhalos", halos | {"present": present})
    )
    lens = MultiPlane(planes, 2.0, UNIVERSE)
    return lens, {name: tf.cast(tf.convert_to_tensor(v, dtype_hint=dtype), dtype) for name, v in values.items()}


class TestDerivatives:
    def test_reverse_forward_and_xla_agree_with_finite_differences(self):
        lens, values = looped()
        names = list(values)
        x, y = (tf.broadcast_to(v, [5, 8]) for v in sky())
        primals = [*values.values(), x, y]
        rng = np.random.default_rng(1)
        direction = [tf.constant(rng.normal(size=v.shape)) for v in primals]
        # Present or absent is no matter of degree.
        at = names.index("plane2.Subhalos.present")
        direction[at] = tf.where(primals[at] == 0, tf.zeros_like(primals[at]), direction[at])
        weights = tf.constant(rng.normal(size=(2, 5, 8)))

        def deflection(*inputs):
            return tf.stack(lens.deflection(*inputs[-2:], **dict(zip(names, inputs[:-2], strict=True))))

        def reverse(*inputs):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                alpha = deflection(*inputs)
            gradients = tape.gradient(alpha, inputs, weights)
            return tf.add_n([tf.reduce_sum(g * d) for g, d in zip(gradients, direction, strict=True)])

        def forward(*inputs):
            with tf.autodiff.ForwardAccumulator(list(inputs), direction) as accumulator:
                alpha = deflection(*inputs)
            return tf.reduce_sum(accumulator.jvp(alpha) * weights)

        def along(step):
            moved = deflection(*(p + step * d for p, d in zip(primals, direction, strict=True)))
            return float(tf.reduce_sum(moved * weights))

        step = 1e-6
        difference = (along(step) - along(-step)) / (2 * step)
        expected = float(reverse(*primals))
        assert expected == pytest.approx(difference, rel=1e-7)
        assert float(forward(*primals)) == pytest.approx(expected, rel=1e-12)
        for derivative in (reverse, forward):
            compiled = tf.function(derivative, jit_compile=True, autograph=False)
            assert float(compiled(*primals)) == pytest.approx(expected, rel=1e-11)

    def test_xla_is_eager_and_float32_is_float64(self):
        lens, values = looped()
        x, y = sky()
        exact = np.stack(lens.deflection(x, y, **values))
        compiled = tf.function(lambda x, y, v: lens.deflection(x, y, **v), jit_compile=True, autograph=False)
        np.testing.assert_allclose(np.stack(compiled(x, y, values)), exact, rtol=1e-12, atol=1e-14)
        _, single = looped("float32")
        np.testing.assert_allclose(np.stack(lens.deflection(*sky("float32"), **single)), exact, rtol=0, atol=2e-6)

    def test_convergence_and_magnification_follow_from_the_rays(self):
        lens, values = looped()
        x, y = sky()
        step = 1e-5
        with_step = [
            [np.stack(lens.deflection(x + s * dx, y + s * dy, **values)) for s in (step, -step)]
            for dx, dy in ((1, 0), (0, 1))
        ]
        (xx, yx), (xy, yy) = ((plus - minus) / (2 * step) for plus, minus in with_step)
        quantities = tf.function(
            lambda v: (lens.convergence(x, y, **v), lens.magnification(x, y, **v)), autograph=False
        )
        convergence, magnification = quantities(values)
        np.testing.assert_allclose(convergence, (xx + yy) / 2, rtol=0, atol=1e-7)
        determinant = (1 - xx) * (1 - yy) - xy * yx
        np.testing.assert_allclose(1 / magnification, determinant, rtol=0, atol=1e-6)
        # There is a curl, or a single Jacobian entry would have done.
        assert np.abs(xy - yx).max() > 1e-3

    def test_size_of_the_program_does_not_depend_on_the_number_of_planes(self):
        counts = set()
        for n in (2, 10, 50):
            lens = MultiPlane([Plane(np.linspace(0.1, 1.5, n), [Plummer()])], 2.0, UNIVERSE)
            values = {name: perturbers(n)[name.removeprefix("plane1.Plummer.")] for name in lens.parameter_names}

            def gradient(values, lens=lens):
                with tf.GradientTape() as tape:
                    tape.watch(values)
                    alpha = lens.deflection(*sky(), **values)
                return tape.gradient(alpha, values)

            graph = tf.function(gradient, autograph=False).get_concrete_function(values).graph.as_graph_def()
            counts.add(str(graph).count(" op: "))  # of the graph and of the functions it calls
        assert len(counts) == 1


class TestUse:
    def test_lens_layer_draws_it_and_rebuilds_it(self):
        lens, values = looped("float32", SIE())
        layer = LensLayer(PixelGrid((12, 15), 0.2), mass=[lens], source=[Sersic()])
        source = {"amp": 1.0, "R_sersic": 0.3, "n_sersic": 1.0, "e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.1}
        inputs = {"mass": [values], "source": [source]}
        again = LensLayer.from_config(layer.get_config())
        image = layer(inputs)
        assert image.shape == (12, 15)
        np.testing.assert_array_equal(again(inputs), image)

    def test_profiles_within_profiles_are_rebuilt_through_json(self):
        lens = MultiPlane([Plane(0.5, [Subhalos(EllipticalMass(NFW(), nodes=8), 3)]), Plane([0.2, 0.8])], 2.0, UNIVERSE)
        rebuilt = MultiPlane.from_config(json.loads(json.dumps(lens.get_config())))
        assert rebuilt.get_config() == lens.get_config()
        assert rebuilt.parameter_names == lens.parameter_names
        assert rebuilt.planes[0].profiles[0].halo.nodes == 8

    def test_declared_parameters_become_inputs(self):
        lens = MultiPlane(
            [Plane(0.5, [SIE(), SIE()]), Plane([0.2, 0.8], [Shear(), Subhalos(SIE(), capacity=3)])], 2.0, UNIVERSE
        )
        names = [name for parameter in lens.parameters for name in parameter.names]
        assert len(names) == len(set(names)) == 5 * 2 + 2 * 2 + 2 * 3 * 5
        inputs = lens.inputs({name: tf.fill([4], float(k)) for k, name in enumerate(names)})
        assert set(inputs) == set(lens.parameter_names)
        assert inputs["plane1.SIE2.theta_E"].shape == (4,)
        assert inputs["plane2.Shear.gamma1"].shape == (4, 2)
        assert inputs["plane2.Subhalos.theta_E"].shape == (4, 2, 3)
        at = names.index("plane2.Subhalos.theta_E_3_2")
        assert float(inputs["plane2.Subhalos.theta_E"][0, 1, 2]) == at
        assert lens.deflection(*sky("float32"), **inputs)[0].shape == (4, 5, 8)

    @pytest.mark.parametrize("universe", [UNIVERSE, LambdaCDM(70, 0.3, 0.5), cosmology("WMAP9")])
    def test_cosmology_survives_its_description(self, universe):
        assert cosmology(describe(universe)) == universe

    def test_errors_name_the_rule(self):
        with pytest.raises(ParameterError, match="positive and finite, got -1"):
            Plane(-1.0)
        with pytest.raises(ParameterError, match="must ascend"):
            Plane([0.5, 0.3])
        with pytest.raises(ParameterError, match=r"Plane\.profiles must be a MassProfile or .*, got 'SIE'"):
            Plane(0.5, ["SIE"])
        with pytest.raises(ParameterError, match="planes is empty"):
            MultiPlane([], 2.0)
        with pytest.raises(ParameterError, match=r"z_source must be behind all planes, the last at 0\.7; got 0\.5"):
            MultiPlane([Plane([0.2, 0.7])], 0.5)
        with pytest.raises(ParameterError, match="z_reference must be behind"):
            MultiPlane([Plane(0.7)], 2.0, z_reference=0.6)
        with pytest.raises(ParameterError, match="no cosmology 'Flat'"):
            MultiPlane([Plane(0.7)], 2.0, cosmology="Flat")
        lens = MultiPlane([Plane([0.2, 0.7], [Shear()])], 2.0, UNIVERSE)
        x, y = sky()
        with pytest.raises(ParameterError, match=r"missing: \['plane1.Shear.gamma2'\]"):
            lens.deflection(x, y, **{"plane1.Shear.gamma1": 0.0})
        with pytest.raises(ParameterError, match=r"'gamma1' of a Plane of 2 redshifts .* got shape \(3,\)"):
            lens.deflection(x, y, **named("plane1.Shear", {"gamma1": tf.zeros(3), "gamma2": 0.0}))
        with pytest.raises(ParameterError, match="no potential"):
            lens.potential(x, y)
        with pytest.raises(ParameterError, match="not symmetric"):
            lens.shear(x, y)
        with pytest.raises(ParameterError, match="redshifts must be positive"):
            lens.positions(x, y, [0.0], **named("plane1.Shear", SHEAR))
