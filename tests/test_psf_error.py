"""The PSF's free error: its moments are what it says, and a wrong PSF is found out."""

import numpy as np
import pytest
import tensorflow as tf
import tiny_lens

from tflens.inference.mocks import Survey
from tflens.light import Sersic
from tflens.model import LensTarget
from tflens.observation import Observation
from tflens.psf_error import PSFError

ERROR = {"width": 0.21, "e1": -0.08, "e2": 0.05}


def applied(image, **error):
    return PSFError().apply(tf.constant(image), **{k: tf.constant(v, image.dtype) for k, v in error.items()}).numpy()


def moments(image):
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    total = image.sum()
    x, y = x - (image * x).sum() / total, y - (image * y).sum() / total
    return [(image * a).sum() / total for a in (x * x, y * y, x * y)]


class TestPSFError:
    def test_second_moments_change_by_what_it_says_and_nothing_else(self):
        rng = np.random.default_rng(0)
        kernel = np.pad(rng.uniform(0, 1, (5, 7)), 4)
        found = applied(kernel, **ERROR)
        changes = np.subtract(moments(found), moments(kernel))
        np.testing.assert_allclose(changes, [0.21 - 0.08, 0.21 + 0.08, 0.05], rtol=1e-10)
        y, x = np.mgrid[: kernel.shape[0], : kernel.shape[1]]
        for weight in (np.ones_like(kernel), x, y):
            assert (found * weight).sum() == pytest.approx((kernel * weight).sum(), rel=1e-12)

    def test_a_flat_sky_stays_flat_up_to_the_border(self):
        np.testing.assert_allclose(applied(np.full((6, 9), 3.0), **ERROR), 3.0, rtol=1e-14)

    def test_batches_and_precisions(self):
        images = np.random.default_rng(1).normal(size=(3, 5, 8))
        width = np.array([0.1, 0.0, -0.1])
        found = applied(images, width=width, e1=width, e2=0 * width)
        for image, each, w in zip(images, found, width, strict=True):
            np.testing.assert_allclose(applied(image, width=w, e1=w, e2=0.0), each, rtol=1e-12)
        single = applied(
            images.astype(np.float32), width=width.astype("f"), e1=width.astype("f"), e2=0 * width.astype("f")
        )
        np.testing.assert_allclose(single, found, atol=2e-6)


class TestModel:
    def test_derivatives_in_both_modes(self):
        target = LensTarget(tiny_lens.model(tiny_lens.Blobs(), psf_error=PSFError()), tiny_lens.observation())
        model = target.model
        assert [name for name in model.names if name.startswith("psf.")] == ["psf.width", "psf.e1", "psf.e2"]
        u = 0.3 * np.random.default_rng(3).normal(size=model.dim)
        gradient = target.value_and_gradient(tf.constant(u[None]))[1].numpy()[0]
        tangents = target.linearize(tf.constant(u))[1].numpy()
        for i in [*(model.names.index(f"psf.{name}") for name in ERROR), model.dim - 1]:
            direction = np.eye(model.dim)[i]
            step = tf.constant(np.stack([u + 1e-5 * direction, u - 1e-5 * direction]))
            up, down = target.value_and_gradient(step)[0].numpy()
            np.testing.assert_allclose(gradient[i], (up - down) / 2e-5, rtol=1e-5, atol=1e-6 * np.abs(gradient).max())
            up, down = target.design(step).numpy()
            np.testing.assert_allclose(tangents[i], (up - down) / 2e-5, atol=1e-6 * np.abs(tangents).max())

    def test_a_wrong_psf_is_found_out(self):
        """The likelihood at the truth peaks where the PSF's error is what it was."""
        model = tiny_lens.model(Sersic(), psf_error=PSFError(), priors={"psf.e1": 0.0, "psf.e2": 0.0})
        truth = tiny_lens.TRUTH | tiny_lens.SERSIC_SOURCE
        widths = np.linspace(-0.3, 0.5, 9)
        points = tf.constant(np.stack([model.base(truth | {"psf.width": width}) for width in widths]))
        clean = LensTarget(model, tiny_lens.blank())
        amplitudes = tf.constant([tiny_lens.AMPLITUDES], tf.float64)
        image = clean.component_images(points[6:7], amplitudes).numpy()[0].sum(0)
        noise = np.full(image.shape, 0.3 * tiny_lens.NOISE)
        target = LensTarget(model, Observation(image, noise, tiny_lens.PSF, tiny_lens.PIXEL_SCALE))
        values = target.log_likelihood(points).numpy()
        assert widths[np.argmax(values)] == pytest.approx(0.3)
        assert values[6] - values[3] > 10  # 3 is the PSF as it was given

    def test_mocks_have_it(self):
        """A survey's PSF is then not quite the one that its observations come with."""
        survey = Survey(tiny_lens.grid(), tiny_lens.PSF)
        settings = {"priors": {"psf.width": 0.4, "psf.e1": 0.0, "psf.e2": 0.0}}
        wrong = survey.draw(tiny_lens.model(psf_error=PSFError(), **settings), seed=4)
        right = survey.draw(tiny_lens.model(), seed=4)
        assert wrong.parameters["psf.width"] == pytest.approx(0.4)
        # Noise and flux are normalised to the brightest pixel, so the shapes are compared.
        expected = applied(right.arcs / right.arcs.sum(), width=0.4, e1=0.0, e2=0.0)
        np.testing.assert_allclose(wrong.arcs / wrong.arcs.sum(), expected, atol=1e-3 * expected.max())
