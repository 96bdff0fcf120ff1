"""Image positions: every image is found, counted against the caustics, and moves as the implicit function says."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.path import Path

from tflens.critical import caustics, critical_curves, cut
from tflens.errors import ParameterError
from tflens.images import image_positions
from tflens.mass import EPL, NFW, NIE, SIE, Shear
from tflens.mass.total import total

WINDOW = (-4.1, 3.9, -3.7, 3.8)
CENTER = {"center_x": 0.0, "center_y": 0.0}
SHEAR = {"gamma1": -0.06, "gamma2": -0.04}
SIE_VALUES = {"theta_E": 1.0, "e1": 0.25, "e2": 0.0, **CENTER}
NIE_VALUES = {"theta_E": 1.0, "e1": 0.15, "e2": -0.1, "s_scale": 0.05, **CENTER}


def epl(gamma):
    # Few terms, for the compiler's sake; what is left out at |e| <= 0.2 is below 1e-8.
    profile = EPL(max_ellipticity=0.2, tolerance=1e-8)
    return total([profile, Shear()], [{"theta_E": 1.0, "gamma": gamma, "e1": 0.1, "e2": 0.05, **CENTER}, SHEAR])


LENSES = {
    "SIE": total([SIE(max_ellipticity=0.3, tolerance=1e-12)], [SIE_VALUES]),
    "EPL + shear, steep": epl(2.2),
    "EPL + shear, shallow": epl(1.6),
    "NFW + shear": total([NFW(), Shear()], [{"Rs": 3.0, "alpha_Rs": 1.6, **CENTER}, SHEAR]),
    "NIE": total([NIE()], [NIE_VALUES]),
}


@functools.cache
def finder(name):
    spec = tf.TensorSpec([None], tf.float64)
    deflection = LENSES[name].deflection
    return tf.function(lambda x, y: image_positions(deflection, x, y, WINDOW), [spec, spec], autograph=False)


def solve(name, source):
    """Images of sources `[2, n]` as NumPy arrays."""
    images = finder(name)(*np.asarray(source, np.float64))
    return type(images)(*(tensor.numpy() for tensor in images))


def residual(deflection, images, source):
    """Distance in the source plane from the source, `[n, max_images]`."""
    positions = tf.constant(images.x[:, None]), tf.constant(images.y[:, None])
    alpha_x, alpha_y = (a.numpy()[:, 0] for a in deflection(*positions))
    return np.hypot(images.x - alpha_x - source[0][:, None], images.y - alpha_y - source[1][:, None])


def inside(curves, source):
    return sum(Path(curve).contains_points(source.T).astype(int) for curve in curves)


def distance(curves, source):
    """Distance of sources `[2, n]` from the nearest of closed polygons."""
    nearest = np.full(source.shape[1], np.inf)
    for curve in curves:
        start, along = curve[:-1, None], np.diff(curve, axis=0)[:, None]
        t = np.sum((source.T - start) * along, -1) / np.maximum(np.sum(along**2, -1), 1e-300)
        gap = source.T - start - np.clip(t, 0, 1)[..., None] * along
        nearest = np.minimum(nearest, np.hypot(*np.moveaxis(gap, -1, 0)).min(0))
    return nearest


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("SIE", {1, 2, 4}),
        ("EPL + shear, steep", {2, 4}),
        pytest.param("EPL + shear, shallow", {1, 3, 5}, marks=pytest.mark.slow),
        pytest.param("NFW + shear", {1, 3, 5}, marks=pytest.mark.slow),
        pytest.param("NIE", {1, 3, 5}, marks=pytest.mark.slow),
    ],
)
def test_images_are_as_many_as_the_caustics_say(name, numbers):
    deflection = LENSES[name].deflection
    tangential, radial = caustics(deflection, critical_curves(deflection, WINDOW, step=0.03))
    cuts = [cut(deflection, (0.0, 0.0))] if name == "SIE" else []
    rng = np.random.default_rng(1)
    # Half of the sources over everything, half of them about the astroid, where the many images are.
    source = np.concatenate([rng.uniform(-1.1, 1.1, (2, 150)), rng.uniform(-0.4, 0.4, (2, 150))], 1)
    # A polygon is no caustic nearer to it than this. At a shallow cusp of density the central image of a source near
    # the middle is too faint to be asked for.
    clear = (distance([*tangential, *radial, *cuts], source) > 1e-3) & (np.hypot(*source) > 0.05)
    source = source[:, clear]
    assert source.shape[1] > 270

    images = solve(name, source)
    # A singular centre steeper than isothermal repels: it has the image of the innermost saddle at every source.
    base = 2 if "steep" in name else 1
    expected = base + 2 * inside(tangential, source) + 2 * inside(radial, source) + inside(cuts, source)
    assert images.complete.all()
    np.testing.assert_array_equal(images.found.sum(-1), expected)
    assert set(expected) == numbers
    assert residual(deflection, images, source)[images.found].max() < 1e-12
    # Minima and maxima less saddles: one, and one fewer where a singular centre stands in for the maximum.
    parity = np.sign(images.magnification).sum(-1)
    missing_maximum = 1 if "steep" in name else inside(cuts, source)
    np.testing.assert_array_equal(parity, 1 - missing_maximum)
    brightness = np.abs(images.magnification)
    assert (np.diff(brightness, axis=-1) <= 0).all()
    assert (images.x[~images.found] == 0).all()
    assert (brightness[~images.found] == 0).all()


def test_sie_in_closed_form():
    """On its axes (Keeton 2001, astro-ph/0102341, eq. 34): constant deflection, magnification 1 / (1 - theta_E / R)."""
    q = (1 - SIE_VALUES["e1"]) / (1 + SIE_VALUES["e1"])
    f = np.sqrt(1 - q**2)
    on_major, on_minor = np.sqrt(q) / f * np.arctan(f / q), np.sqrt(q) / f * np.arctanh(f)
    images = solve("SIE", np.array([[0.0], [0.0]]))
    np.testing.assert_array_equal(images.found[0], [True] * 4 + [False] * 4)
    for x, y in [(on_major, 0.0), (-on_major, 0.0), (0.0, on_minor), (0.0, -on_minor)]:
        i = np.hypot(images.x[0] - x, images.y[0] - y).argmin()
        np.testing.assert_allclose([images.x[0, i], images.y[0, i]], [x, y], atol=1e-12)
        radius = np.sqrt(q * x**2 + y**2 / q)
        np.testing.assert_allclose(images.magnification[0, i], 1 / (1 - 1 / radius), rtol=1e-10)


def isothermal(theta_E, gamma1, q=0.7, core=0.05):
    """NIE along the axes (Keeton 2001, eq. 33) with shear along x: few operations, for the tests that compile."""

    def deflection(x, y):
        f = (1 - q * q) ** 0.5
        psi = tf.sqrt(q * q * (core * core + x * x) + y * y + 1e-30)
        scale = theta_E * q**0.5 / f
        alpha_x = scale * tf.atan(f * x / (psi + core))
        alpha_y = scale * tf.atanh(f * y / (psi + q * q * core))
        return alpha_x + gamma1 * x, alpha_y - gamma1 * y

    return deflection


@tf.function(autograph=False)
def isothermal_images(theta_E, gamma1, beta_x, beta_y):
    return image_positions(isothermal(theta_E, gamma1), beta_x, beta_y, WINDOW, step=0.2)


def float64(*values):
    return [tf.constant(value, tf.float64) for value in values]


@tf.function(autograph=False)
def singular_images(beta_x, beta_y):
    return image_positions(isothermal(1.0, 0.0, core=0.0), beta_x, beta_y, WINDOW)


# The cusp and the fold of a singular ellipsoid: the images on its axes merge at R = theta_E = 1.
Q = 0.7
CUSP = Q**-0.5 - (Q / (1 - Q**2)) ** 0.5 * np.arctan((1 - Q**2) ** 0.5 / Q)


@pytest.mark.parametrize("inward", [1e-2, 1e-4, 1e-6, 1e-8])
def test_three_images_merging_at_a_cusp_are_all_found(inward):
    source = np.array([[CUSP - inward, CUSP + inward], [0.0, 0.0]])
    images = singular_images(*float64(*source))
    np.testing.assert_array_equal(tf.reduce_sum(tf.cast(images.found, tf.int32), -1), [4, 2])
    assert (
        residual(isothermal(1.0, 0.0, core=0.0), SimpleNamespace(x=images.x.numpy(), y=images.y.numpy()), source)[
            images.found.numpy()
        ].max()
        < 1e-12
    )
    # Three of them within sqrt(inward): maximum density of images there, and none counted twice.
    near = images.found[0].numpy() & (np.hypot(images.x[0] - Q**-0.5, images.y[0]) < 5 * inward**0.5)
    assert near.sum() == 3
    assert images.complete.numpy().all()


def test_pairs_at_a_fold_are_found_down_to_rounding():
    """Along a ray through a fold, from 1e-2 to 1e-12 arcsec inside the caustic: the separation falls as the root."""
    ray = np.array([np.cos(0.6), np.sin(0.6)])
    low, high = 0.0, 0.5
    while high - low > 4e-16:
        radii = np.linspace(low, high, 32)
        found = singular_images(*float64(*(radii * ray[:, None]))).found.numpy().sum(-1)
        last = np.flatnonzero(found == 4)[-1]
        if last == 31 or (radii[last], radii[last + 1]) == (low, high):
            break
        low, high = radii[last], radii[last + 1]
    inward = np.array([1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12])
    images = singular_images(*float64(*((low - inward) * ray[:, None])))
    np.testing.assert_array_equal(images.found.numpy().sum(-1), 4)
    pair = np.hypot(images.x[:, 0] - images.x[:, 1], images.y[:, 0] - images.y[:, 1])
    np.testing.assert_allclose(pair[1:-1] / pair[2], inward[1:-1] ** 0.5 / inward[2] ** 0.5, rtol=0.03)
    assert 1e-7 < pair[-1] < 1e-5
    np.testing.assert_array_equal(np.sign(images.magnification[:, :2]).sum(-1), 0)


def test_gradients_are_those_of_the_implicit_function_theorem():
    point = float64(1.1, 0.05, 0.06, 0.04)

    def outputs(*values):
        images = isothermal_images(*values)
        return tf.stack([images.x, images.y, images.magnification])[:, :5]

    with tf.GradientTape(persistent=True) as tape:
        tape.watch(point)
        value = outputs(*point)
    gradients = tape.jacobian(value, point, experimental_use_pfor=False)
    assert isothermal_images(*point).found.numpy().sum() == 5
    for i, gradient in enumerate(gradients):
        moved = [outputs(*(p + k * 2e-5 * (i == j) for j, p in enumerate(point))) for k in (-2, -1, 1, 2)]
        numerical = (moved[0] - 8 * moved[1] + 8 * moved[2] - moved[3]) / (12 * 2e-5)
        np.testing.assert_allclose(gradient, numerical, rtol=1e-8, atol=1e-8)


def test_empty_places_have_zero_gradient():
    point = float64(1.1, 0.05, 1.5, 0.2)
    with tf.GradientTape() as tape:
        tape.watch(point)
        images = isothermal_images(*point)
        empty = tf.reduce_sum(images.x[1:] + images.y[1:] + images.magnification[1:])
    assert images.found.numpy().tolist() == [True] + [False] * 7
    assert [float(g) for g in tape.gradient(empty, point)] == [0.0] * 4


def test_forward_mode_gives_the_same_derivative():
    point = float64(1.1, 0.05, 0.06, 0.04)
    with tf.GradientTape() as tape:
        tape.watch(point[0])
        images = isothermal_images(*point)
        value = images.x[0] + 2 * images.y[0] + images.magnification[0]
    with tf.autodiff.ForwardAccumulator(point[0], tf.ones_like(point[0])) as accumulator:
        images = image_positions(isothermal(*point[:2]), *point[2:], WINDOW, step=0.2)
        forward = images.x[0] + 2 * images.y[0] + images.magnification[0]
    np.testing.assert_allclose(accumulator.jvp(forward), tape.gradient(value, point[0]), rtol=1e-10)


def test_xla_and_a_batch_of_lenses_agree_with_one_lens_at_a_time():
    theta_E, gamma1, beta_x, beta_y = values = float64(
        [0.8, 1.1, 1.2], [0.0, 0.05, -0.1], [0.1, 0.06, 0.5], [0.2, 0.04, -0.3]
    )

    @tf.function(jit_compile=True, autograph=False)
    def batched(theta_E, gamma1, beta_x, beta_y):
        deflection = isothermal(theta_E[:, None, None], gamma1[:, None, None])
        return image_positions(deflection, beta_x, beta_y, WINDOW, step=0.2)

    with tf.GradientTape() as tape:
        tape.watch(theta_E)
        images = batched(*values)
        x = images.x
    gradient = tape.gradient(x, theta_E)
    assert images.x.shape == (3, 8)
    assert images.complete.shape == (3,)
    for i in range(3):
        with tf.GradientTape() as tape:
            tape.watch(theta_E)
            one = isothermal_images(theta_E[i], gamma1[i], beta_x[i], beta_y[i])
        np.testing.assert_array_equal(images.found[i], one.found)
        for many, single in zip(images[:2], one[:2], strict=True):
            np.testing.assert_allclose(many[i], single, atol=1e-13)
        np.testing.assert_allclose(images.magnification[i], one.magnification, rtol=1e-11)
        np.testing.assert_allclose(gradient[i], tf.convert_to_tensor(tape.gradient(one.x, theta_E))[i], rtol=1e-10)


def test_two_planes_whose_jacobian_is_not_symmetric():
    near, far = isothermal(0.8, 0.05), isothermal(0.4, 0.0, q=0.8)

    def deflection(x, y):
        near_x, near_y = near(x, y)
        far_x, far_y = far(x - 0.4 * near_x - 0.1, y - 0.4 * near_y - 0.2)
        return near_x + far_x, near_y + far_y

    source = np.random.default_rng(3).uniform(-0.3, 0.3, (2, 50))
    find = tf.function(lambda x, y: image_positions(deflection, x, y, WINDOW), autograph=False)
    images = find(*float64(*source))
    images = type(images)(*(tensor.numpy() for tensor in images))
    assert images.complete.all()
    assert residual(deflection, images, source)[images.found].max() < 1e-12
    # Whatever the lens, as long as it is smooth: minima and maxima are one more than the saddles.
    np.testing.assert_array_equal(np.sign(images.magnification).sum(-1), 1)


def test_float32_reaches_its_own_rounding():
    source = tf.constant([0.06, 0.4]), tf.constant([0.04, 0.3])
    images = image_positions(isothermal(1.0, 0.05), *source, WINDOW, step=0.2)
    exact = isothermal_images(*float64(1.0, 0.05), *(tf.cast(s, tf.float64) for s in source))
    assert images.x.dtype == tf.float32
    np.testing.assert_array_equal(images.found, exact.found)
    np.testing.assert_allclose(images.x, exact.x, atol=1e-5)


def test_what_is_left_out_is_left_out():
    deflection = isothermal(1.0, 0.05)
    source = float64(0.06, 0.04)
    everything = image_positions(deflection, *source, WINDOW, step=0.2)
    assert everything.found.numpy().sum() == 5
    faintest = abs(everything.magnification[4])
    bright = image_positions(deflection, *source, WINDOW, step=0.2, min_magnification=2 * float(faintest))
    assert bright.found.numpy().sum() == 4
    half = image_positions(deflection, *source, (0.0, 3.0, -3.0, 3.0), step=0.2)
    assert half.found.numpy().sum() == (everything.x.numpy()[:5] > 0).sum()
    few = image_positions(deflection, *source, WINDOW, step=0.2, max_images=3)
    assert few.x.shape == (3,)
    assert not few.complete
    np.testing.assert_allclose(few.x, everything.x[:3], atol=1e-13)


def test_a_ring_is_reported_as_incomplete():
    def sis(x, y):
        r = tf.sqrt(x**2 + y**2 + 1e-30)
        return x / r, y / r

    assert not image_positions(sis, *float64(0.0, 0.0), WINDOW).complete


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extent": (1.0, -1.0, -1.0, 1.0)}, "extent must be .left, right, bottom, top."),
        ({"step": 0.0}, "step must be positive"),
        ({"step": 4.0}, "half the window's shorter side"),
        ({"max_images": 0}, "1 <= max_images <= max_cells"),
        ({"max_images": 200}, "1 <= max_images <= max_cells"),
        ({"min_magnification": -1.0}, "min_magnification must not be negative"),
    ],
)
def test_errors_say_what_is_wrong(options, message):
    with pytest.raises(ParameterError, match=message):
        image_positions(isothermal(1.0, 0.0), *float64(0.0, 0.0), **{"extent": WINDOW, **options})


def test_integer_sources_are_refused():
    with pytest.raises(ParameterError, match="floating-point"):
        image_positions(isothermal(1.0, 0.0), 0, 1, WINDOW)
