"""What TensorBoard is told of a fit."""

import numpy as np
import pytest
import tensorflow as tf
from small_fit import small_fit
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tflens.inference.progress import STAGES
from tflens.monitoring import TensorBoardMonitor


@pytest.fixture(scope="module")
def events():
    accumulator = EventAccumulator(str(small_fit().folder / "tensorboard"), size_guidance={"tensors": 0})
    accumulator.Reload()
    return accumulator


def values(events, tag):
    return np.array([float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)])


def heard():
    return [status for status in small_fit().heard if status.target is not None]


def test_tags(events):
    assert set(events.Tags()["tensors"]) == {
        "loss",
        "chi2",
        "theta_E/best",
        "theta_E/spread",
        "residual",
        "source",
        "fit",
        "corner",
    }


def test_a_scalar_for_every_report(events):
    for tag in ("loss", "chi2", "theta_E/best", "theta_E/spread"):
        assert [event.step for event in events.Tensors(tag)] == list(range(len(heard())))


def test_scalars_are_those_of_the_best_point(events):
    radius = [status.parameters["lens.theta_E"] for status in heard()]
    np.testing.assert_array_equal(values(events, "theta_E/best"), [points[0] for points in radius])
    spread = [np.diff(np.quantile(points, [0.16, 0.84]))[0] / 2 for points in radius]
    np.testing.assert_allclose(values(events, "theta_E/spread"), spread, rtol=1e-6)
    np.testing.assert_array_equal(values(events, "loss"), np.float32([-status.log_prob for status in heard()]))


def test_status_agrees_with_the_target():
    status = heard()[-1]
    assert status.chi2 == pytest.approx(status.best.chi2, rel=1e-4)
    expected = status.target.log_prob(tf.constant(status.points))[0].numpy()
    assert status.log_prob == pytest.approx(expected, rel=1e-5)


def test_the_fit_gets_better(events):
    chi2 = values(events, "chi2")
    assert chi2[-1] < 0.5 * chi2[0]
    assert chi2[-1] == pytest.approx(1.0, abs=0.2)


def test_images_are_pictures_taken_in_every_stage(events):
    for tag in ("residual", "source"):
        pictures = events.Tensors(tag)
        assert len(STAGES) - 1 <= len(pictures) <= 8 * (len(STAGES) - 1)
        stages = {heard()[event.step].stage for event in pictures}
        assert stages == set(STAGES) - {"look"}
        width, height, png = tf.make_ndarray(pictures[-1].tensor_proto)
        pixels = tf.io.decode_png(png).numpy()
        assert pixels.shape == (int(height), int(width), 3)
        assert pixels.std() > 0


def test_stages_come_in_order():
    stages = [status.stage for status in small_fit().heard]
    assert [stage for i, stage in enumerate(stages) if i == 0 or stages[i - 1] != stage] == list(STAGES)
    assert all(0 <= status.fraction <= 1 for status in small_fit().heard)
    assert {status.stage for status in small_fit().heard if status.fraction == 1} == set(STAGES)


def test_the_first_look_has_nothing_to_write(tmp_path):
    look = small_fit().heard[0]
    assert (look.stage, look.target, look.parameters, look.best) == ("look", None, {}, None)
    assert np.isnan([look.chi2, look.log_prob]).all()
    with TensorBoardMonitor(tmp_path) as monitor:
        monitor(look)
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert accumulator.Tags()["tensors"] == []
