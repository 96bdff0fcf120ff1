"""What TensorBoard shows of a training, read back as TensorBoard itself reads it."""

import json
import random
import shutil
import warnings
from pathlib import Path
from urllib.parse import urlencode

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.colors import to_rgba
from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace
from werkzeug.test import Client

from tflens.errors import ParameterError
from tflens.galaxies import watching
from tflens.galaxies.decoder import Decoder
from tflens.galaxies.encoder import Encoder
from tflens.galaxies.training import train
from tflens.galaxies.vae import GalaxyVAE, posterior_draws
from tflens.galaxies.watching import TrainingWatcher, is_due

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "html5lib's sanitizer is deprecated", DeprecationWarning)  # TensorBoard's own
    from tensorboard.backend import application
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin
    from tensorboard.plugins.image.images_plugin import ImagesPlugin
    from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
    from tensorboard.plugins.scalar.scalars_plugin import ScalarsPlugin

# Keras 3 turns its variables into arrays, when it saves them, in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

NY, NX = 12, 18


class TensorBoard:
    """TensorBoard's own server over a directory, asked without a network."""

    def __init__(self, directory):
        multiplexer = EventMultiplexer(tensor_size_guidance={"images": 0, "scalars": 0})
        multiplexer.AddRunsFromDirectory(str(directory))
        multiplexer.Reload()
        provider = MultiplexerDataProvider(multiplexer, str(directory))
        context = TBContext(logdir=str(directory), data_provider=provider, multiplexer=multiplexer)
        plugins = (ScalarsPlugin, ImagesPlugin, ProjectorPlugin, HParamsPlugin)
        self._client = Client(application.TensorBoardWSGI([plugin(context) for plugin in plugins]))

    def raw(self, route, **query):
        return self._answer(self._client.get(f"/data/plugin/{route}?{urlencode(query)}"))

    def get(self, route, **query):
        return json.loads(self.raw(route, **query))

    def post(self, route, body):
        return json.loads(self._answer(self._client.post(f"/data/plugin/{route}", json=body)))

    def tags(self):
        return {run: set(tags) for run, tags in self.get("scalars/tags").items() if tags}

    def scalars(self, tag, run="."):
        return {step: value for _, step, value in self.get("scalars/scalars", run=run, tag=tag)}

    def pictures(self, tag, run="."):
        """Step to picture `[rows, columns, 3]`."""
        found = self.get("images/images", run=run, tag=tag, sample=0)
        return {
            picture["step"]: tf.io.decode_png(
                self._answer(self._client.get(f"/data/plugin/images/individualImage?{picture['query']}"))
            ).numpy()
            for picture in found
        }

    @staticmethod
    def _answer(response):
        assert response.status_code == 200, response.data
        return response.get_data()


class Draws:
    """A prior that draws one and the same image."""

    def __init__(self, image):
        self.image = image
        self.asked = []

    def sample_prior(self, n, seed):
        self.asked.append((n, seed))
        return tf.repeat(tf.constant(self.image)[None], n, 0)


@pytest.fixture
def figures(monkeypatch):
    """Figures by name as they are written, for what pixels do not tell."""
    written = {}
    monkeypatch.setattr(watching, "_write_figure", lambda name, figure: written.update({name: figure}))
    return written


def galaxies(count=7, seed=1):
    """Bright pixels on a smooth background."""
    rng = np.random.default_rng(seed)
    images = np.full((count, NY, NX), 0.01, np.float32)
    y, x = rng.integers([NY, NX], size=(count, 2)).T
    images[np.arange(count), y, x] = 1.0
    return images


def batch(count=7, sigma=0.1):
    return {"image": tf.constant(galaxies(count)), "sigma": tf.fill([count], sigma)}


def share_of(picture, color):
    """Share of the pixels of a picture that have one colour, up to its rounding."""
    return np.all(np.abs(picture - 255 * np.array(to_rgba(color)[:3])) < 1, axis=-1).mean()


class TestScalars:
    def test_training_and_validation_share_a_chart(self, tmp_path):
        with TrainingWatcher(tmp_path) as watcher:
            for epoch in (1, 2, 5):
                watcher.scalars(
                    epoch,
                    {
                        "epoch": epoch,
                        "loss": 3.0 / epoch,
                        "chi2": 1.5,
                        "gradient_norm": 7.0,
                        "learning_rate": 1e-3,
                        "seconds": 2.0,
                        "own": 4.0,
                        "validation_loss": np.float32(4.0) / epoch,
                    },
                )
        board = TensorBoard(tmp_path)
        assert board.tags() == {
            ".": {
                "loss/loss",
                "loss/chi2",
                "optimizer/gradient_norm",
                "optimizer/learning_rate",
                "speed/seconds",
                "own",
            },
            "validation": {"loss/loss"},
        }
        assert board.scalars("loss/loss") == {1: 3.0, 2: 1.5, 5: pytest.approx(0.6)}
        assert board.scalars("loss/loss", "validation") == {1: 4.0, 2: 2.0, 5: pytest.approx(0.8)}
        assert board.scalars("optimizer/learning_rate")[5] == pytest.approx(1e-3)

    def test_written_at_once_not_at_the_end(self, tmp_path):
        with TrainingWatcher(tmp_path) as watcher:
            watcher.scalars(1, {"loss": 3.0})
            assert TensorBoard(tmp_path).scalars("loss/loss") == {1: 3.0}

    def test_a_training_that_is_taken_up_again_continues_its_curves(self, tmp_path):
        for epochs in ((1, 2), (3,)):
            with TrainingWatcher(tmp_path) as watcher:
                for epoch in epochs:
                    watcher.scalars(epoch, {"loss": float(epoch)})
        assert TensorBoard(tmp_path).scalars("loss/loss") == {1: 1.0, 2: 2.0, 3: 3.0}

    def test_pictures_are_due_often_first_and_seldom_later(self):
        due = [step for step in range(200) if is_due(step)]
        assert due[:8] == [1, 2, 3, 4, 6, 8, 12, 16]
        ratios = np.divide(due[3:], due[2:-1])
        assert ratios.min() > 1.3
        assert ratios.max() <= 1.5


class TestReconstructions:
    def test_data_above_the_model_is_red_and_below_is_blue(self, tmp_path):
        with TrainingWatcher(tmp_path) as watcher:
            for step, offset in enumerate((0.5, 0.0, -0.5)):  # five sigma, beyond the ends of the colour bar
                watcher.reconstructions(step, lambda batch, offset=offset: batch["image"] - offset, batch())
        pictures = TensorBoard(tmp_path).pictures("reconstructions")
        red, blue, white = (watching._RESIDUAL(value) for value in (1.0, 0.0, 0.5))
        # The six residual panels fill a good part of the picture; the colour bar and arrows hardly any.
        shares = {step: [share_of(picture, color) for color in (red, blue)] for step, picture in pictures.items()}
        assert shares[0][0] > 0.1 > 0.01 > shares[0][1]
        assert max(shares[1]) < 0.01
        assert share_of(pictures[1], white) > 0.1
        assert shares[2][1] > 0.1 > 0.01 > shares[2][0]

    def test_titles_labels_and_colour_bars(self, tmp_path, figures):
        with TrainingWatcher(tmp_path) as watcher:
            watcher.reconstructions(1, lambda batch: batch["image"] - 0.2, batch(), count=3)
        panels, bars = figures["reconstructions"].axes[:9], figures["reconstructions"].axes[9:]
        assert [panel.get_ylabel() for panel in panels[::3]] == ["data", "reconstruction", "residual"]
        signal = galaxies(3) - 0.2
        for panel, image in zip(panels[:3], signal, strict=True):
            assert panel.get_title() == f"S/N {np.sqrt(np.sum((image / 0.1) ** 2)):.0f}\n$\\chi^2$ per pixel 4.00"
        assert [bar.get_ylabel() for bar in bars] == ["brightness / noise", "residual / noise"]
        shown = [np.asarray(panel.images[0].get_array()) for panel in panels]
        np.testing.assert_allclose(shown[:3], galaxies(3) / 0.1, rtol=1e-5)
        np.testing.assert_allclose(shown[3:6], signal / 0.1, rtol=1e-5)
        np.testing.assert_allclose(shown[6:], 2.0, rtol=1e-5)
        assert {panel.images[0].norm.vmax for panel in panels[:6]} == {panels[0].images[0].norm.vmax}
        assert panels[0].images[0].origin == "lower"

    def test_a_noise_map_for_each_galaxy(self, tmp_path, figures):
        maps = {"image": tf.constant(galaxies(2)), "sigma": tf.constant(galaxies(2, seed=2) + 1)}
        with TrainingWatcher(tmp_path) as watcher:
            watcher.reconstructions(1, lambda batch: tf.zeros_like(batch["image"]), maps)
        shown = figures["reconstructions"].axes[0].images[0].get_array()
        np.testing.assert_allclose(np.asarray(shown), (maps["image"] / maps["sigma"])[0], rtol=1e-6)

    def test_half_precision(self, tmp_path):
        with TrainingWatcher(tmp_path) as watcher:
            watcher.reconstructions(1, lambda batch: tf.cast(batch["image"], tf.bfloat16), batch(1))
        assert list(TensorBoard(tmp_path).pictures("reconstructions")) == [1]

    def test_a_model_that_has_diverged_is_still_shown(self, tmp_path, figures):
        with TrainingWatcher(tmp_path) as watcher:
            watcher.reconstructions(1, lambda batch: batch["image"] * np.nan, batch(2))
            watcher.prior_samples(1, Draws(np.full((NY, NX), np.nan, np.float32)), galaxies())
        assert figures["reconstructions"].axes[0].get_title() == "not finite"
        for name in ("reconstructions", "prior beside galaxies"):
            figures[name].draw_without_rendering()


class TestPrior:
    def test_galaxies_on_the_left_draws_on_the_right(self, tmp_path):
        prior = Draws(np.ones((NY, NX), np.float32))  # every pixel is the peak: as bright as can be
        with TrainingWatcher(tmp_path, seed=11) as watcher:
            watcher.prior_samples(3, prior, galaxies(20), count=12)
        assert prior.asked == [(12, 11)]
        picture = TensorBoard(tmp_path).pictures("prior beside galaxies")[3]
        left, right = np.array_split(picture, 2, axis=1)
        bright = watching._LIGHT(1.0)
        assert share_of(left, bright) < 0.02
        assert share_of(right, bright) > 0.3

    def test_each_on_its_own_scale(self, tmp_path, figures):
        scales = np.array([1.0, 10.0, 0.1, 5.0], np.float32)[:, None, None]
        with TrainingWatcher(tmp_path) as watcher:
            watcher.prior_samples(1, Draws(galaxies(1)[0]), galaxies(4) * scales)
        shown = [np.asarray(panel.images[0].get_array()) for panel in figures["prior beside galaxies"].axes]
        np.testing.assert_allclose(shown[:4], galaxies(4), rtol=1e-6)
        np.testing.assert_allclose(shown[4:], np.repeat(galaxies(1), 4, 0), rtol=1e-6)


class TestLatentSpace:
    def test_distance_of_shifted_marginals_is_the_shift(self, tmp_path):
        prior = np.random.default_rng(1).normal(size=(300, 4))
        with TrainingWatcher(tmp_path) as watcher:
            watcher.latent_pairs(1, prior + np.array([0.0, 0.5, 0.0, -1.5]), prior)
            watcher.latent_pairs(2, prior, prior)
        board = TensorBoard(tmp_path)
        assert board.scalars("latent/marginal_distance") == {1: pytest.approx(0.5), 2: 0.0}
        assert list(board.pictures("latent pairs")) == [1, 2]

    def test_the_worst_dimensions_are_shown_both_posterior_and_prior(self, tmp_path, figures):
        prior = np.random.default_rng(1).normal(size=(300, 4))
        with TrainingWatcher(tmp_path) as watcher:
            watcher.latent_pairs(1, prior + np.array([0.0, 0.5, 0.1, -1.5]), prior, dimensions=3)
        panels = np.reshape(figures["latent pairs"].axes, (3, 3))
        assert [panel.get_xlabel() for panel in panels[-1]] == ["$z_{3}$", "$z_{1}$", "$z_{2}$"]
        assert [panel.get_title() for panel in np.diag(panels)] == [f"$W_1$ = {d:.2f}" for d in (1.5, 0.5, 0.1)]
        colors = {to_rgba(color) for color in (watching._POSTERIOR_COLOR, watching._PRIOR_COLOR)}
        for panel in np.diag(panels):
            assert {patch.get_edgecolor() for patch in panel.patches} == colors
            assert panel.get_ylim()[1] > max(patch.get_xy()[:, 1].max() for patch in panel.patches)
        legend = [text.get_text() for text in figures["latent pairs"].legends[0].get_texts()]
        assert legend == ["aggregate posterior, 300 draws", "prior, 300 draws"]

    def test_few_draws_far_away_are_in_the_frame_and_their_contours_about_them(self, tmp_path, figures):
        rng = np.random.default_rng(1)
        with TrainingWatcher(tmp_path) as watcher:
            watcher.latent_pairs(1, 5 + 0.5 * rng.normal(size=(100, 2)), rng.normal(size=(20_000, 2)))
        panel = np.reshape(figures["latent pairs"].axes, (2, 2))[1, 0]
        for low, high in (panel.get_xlim(), panel.get_ylim()):
            assert low < -2.5
            assert 5.9 < high < 7.5
        blue = to_rgba(watching._POSTERIOR_COLOR)
        (contours,) = (lines for lines in panel.collections if tuple(lines.get_edgecolor()[0]) == blue)
        corners = np.concatenate([path.vertices for path in contours.get_paths()])
        radius = np.hypot(*(corners - 5).T)
        assert np.quantile(radius, 0.05) > 0.5  # 68 % of a round Gaussian are within 1.51 of its sigma, 95 % in 2.45
        assert radius.max() < 2.0

    def test_draws_that_are_not_finite_are_left_out(self, tmp_path):
        prior = np.random.default_rng(1).normal(size=(100, 2))
        broken = np.concatenate([prior + 0.25, [[np.nan, 0.0], [np.inf, 1.0]]])
        with TrainingWatcher(tmp_path) as watcher:
            watcher.latent_pairs(1, broken, prior)
            watcher.latent_pairs(2, broken * np.nan, prior)
        board = TensorBoard(tmp_path)
        assert board.scalars("latent/marginal_distance") == {1: pytest.approx(0.25)}
        assert list(board.pictures("latent pairs")) == [1]

    def test_one_latent_dimension(self, tmp_path, figures):
        prior = np.random.default_rng(1).normal(size=(100, 1))
        with TrainingWatcher(tmp_path) as watcher:
            watcher.latent_pairs(1, prior, prior)
        assert len(figures["latent pairs"].axes) == 1

    def test_dimensions_must_agree(self, tmp_path):
        with TrainingWatcher(tmp_path) as watcher, pytest.raises(ParameterError, match="got 3 and 2"):
            watcher.latent_pairs(1, np.zeros((50, 3)), np.zeros((50, 2)))

    @pytest.mark.parametrize("averaged", [False, True])
    def test_units(self, tmp_path, figures, averaged):
        means = np.random.default_rng(1).normal(size=(500, 4)) * [1.0, 0.5, 0.01, 0.0]
        kl = np.tile([2.0, 0.5, 0.04, 0.01], (500, 1))
        with TrainingWatcher(tmp_path) as watcher:
            watcher.latent_units(4, means, kl.mean(axis=0) if averaged else kl, free_bits=0.05)
        board = TensorBoard(tmp_path)
        assert board.scalars("latent/active_units") == {4: 2.0}
        assert board.scalars("latent/at_free_bits") == {4: 2.0}
        assert board.scalars("latent/free_bits_excess") == {4: pytest.approx(0.01 + 0.04)}
        axes = figures["latent units"].axes[0]
        assert [bar.get_height() for bar in axes.patches] == pytest.approx([2.0, 0.5, 0.04, 0.01])
        assert axes.get_title() == "2 of 4 units active, KL 2.5 nat in all"


class TestProjector:
    def write(self, directory, step=3, count=7, metadata=None):
        latents = np.random.default_rng(step).normal(size=(count, 3)).astype(np.float32)
        with TrainingWatcher(directory) as watcher:
            watcher.scalars(step, {"loss": 1.0, "validation_loss": 1.0})
            watcher.embedding(step, latents, galaxies(count), metadata)
        return latents

    def read(self, directory):
        board = TensorBoard(directory)
        assert board.get("projector/runs") == ["embedding"]
        (info,) = board.get("projector/info", run="embedding")["embeddings"]
        asked = {"run": "embedding", "name": info["tensorName"]}
        latents = np.frombuffer(board.raw("projector/tensor", **asked), np.float32).reshape(info["tensorShape"])
        return board, info, asked, latents

    def test_the_projector_reads_latents_metadata_and_thumbnails(self, tmp_path):
        labels = ["spiral", "disk\twith a\nbreak", "π", "a", "b", "c", "d"]
        written = self.write(tmp_path, metadata={"label": labels, "S/N": np.linspace(15, 50, 7), "index": np.arange(7)})
        board, info, asked, latents = self.read(tmp_path)
        np.testing.assert_array_equal(latents, written)
        rows = board.raw("projector/metadata", **asked).decode().splitlines()
        assert rows[:4] == ["label\tS/N\tindex", "spiral\t15\t0", "disk with a break\t20.8333\t1", "π\t26.6667\t2"]
        assert len(rows) == 8
        assert info["sprite"]["singleImageDim"] == [NX, NY]
        sprite = tf.io.decode_png(board.raw("projector/sprite_image", **asked)).numpy()
        assert sprite.shape == (3 * NY, 3 * NX, 3)
        for place, image in enumerate(galaxies()):
            row, column = divmod(place, 3)
            thumbnail = sprite[row * NY : (row + 1) * NY, column * NX : (column + 1) * NX].sum(axis=-1)
            y, x = np.unravel_index(image.argmax(), image.shape)
            assert np.unravel_index(thumbnail.argmax(), thumbnail.shape) == (NY - 1 - y, x)  # row 0 is the lowest

    def test_one_column_has_no_header(self, tmp_path):
        self.write(tmp_path, metadata={"index": np.arange(7)})
        board, _, asked, _ = self.read(tmp_path)
        assert board.raw("projector/metadata", **asked).decode().split() == [str(i) for i in range(7)]

    def test_without_metadata(self, tmp_path):
        self.write(tmp_path)
        assert "metadataPath" not in self.read(tmp_path)[1]

    def test_a_later_embedding_takes_the_place_of_an_earlier_one(self, tmp_path):
        self.write(tmp_path, step=3, metadata={"a": np.arange(7), "b": np.arange(7)})
        later = self.write(tmp_path, step=9, count=5)
        np.testing.assert_array_equal(self.read(tmp_path)[3], later)
        assert len(list((tmp_path / "embedding").glob("*.index"))) == 1

    def test_the_directory_can_be_moved(self, tmp_path):
        written = self.write(tmp_path / "here", metadata={"a": np.arange(7), "b": np.arange(7)})
        shutil.move(tmp_path / "here", tmp_path / "there")
        board, _, asked, latents = self.read(tmp_path / "there")
        np.testing.assert_array_equal(latents, written)
        assert board.raw("projector/metadata", **asked).startswith(b"a\tb\n")
        for path in (tmp_path / "there").rglob("*"):
            assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes()

    @pytest.mark.parametrize(
        ("latents", "thumbnails", "metadata", "message"),
        [
            ((7, 3), (6, NY, NX), {}, "thumbnails must be as many as latents, got 6 and 7"),
            ((7, 3), (7, NY, NX), {"label": np.arange(5)}, "metadata 'label' must be as many as latents, got 5 and 7"),
            ((7,), (7, NY, NX), {}, r"latents must be \[N, D\]"),
            ((0, 3), (0, NY, NX), {}, "with N > 0"),
            ((5, 3), (5, 4, 3000), {}, "at most 8192 pixels on a side, got 9000"),
        ],
    )
    def test_errors(self, tmp_path, latents, thumbnails, metadata, message):
        with TrainingWatcher(tmp_path) as watcher, pytest.raises(ParameterError, match=message):
            watcher.embedding(1, np.zeros(latents), np.zeros(thumbnails), metadata)
        assert not (tmp_path / "embedding").exists()


class TestHyperparameters:
    def test_runs_can_be_compared(self, tmp_path):
        for name, learning_rate, chi2 in (("a", 1e-3, 1.5), ("b", np.float32(0.25), 1.25)):
            config = {
                "seed": 1,
                "vae": {"learning_rate": learning_rate, "filters": (8, 4), "psf": None},
                "full": True,
                "kind": "iaf",
            }
            with TrainingWatcher(tmp_path / name) as watcher:
                watcher.hyperparameters(config)
                watcher.scalars(1, {"loss": 3.0, "validation_loss": 4.0})
                watcher.hyperparameters(config, {"G1": chi2})
        board = TensorBoard(tmp_path)
        experiment = board.post("hparams/experiment", {})
        assert {"tag": "metrics/G1", "group": ""} in [metric["name"] for metric in experiment["metricInfos"]]
        assert {"tag": "loss/loss", "group": "validation"} in [metric["name"] for metric in experiment["metricInfos"]]
        rows = self.rows(board)
        assert [row["metrics/G1"] for row in rows] == [1.25, 1.5]
        assert [row["vae.learning_rate"] for row in rows] == [0.25, 1e-3]
        for row in rows:
            assert (row["seed"], row["full"], row["kind"]) == (1, True, "iaf")
            assert (row["vae.filters"], row["vae.psf"]) == ("[8, 4]", "null")
            assert row["status"] == "STATUS_SUCCESS"

    def test_a_running_training_is_listed_too(self, tmp_path):
        with TrainingWatcher(tmp_path / "a") as watcher:
            watcher.hyperparameters({"seed": 3})
            (row,) = self.rows(TensorBoard(tmp_path))
        assert (row["seed"], row["status"]) == (3, "STATUS_UNKNOWN")

    def rows(self, board):
        """The table of the runs, by the metric."""
        body = {
            "startIndex": 0,
            "sliceSize": 10,
            "allowedStatuses": [f"STATUS_{status}" for status in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")],
            "colParams": [{"metric": {"tag": "metrics/G1", "group": ""}, "order": "ORDER_ASC"}],
        }
        groups = board.post("hparams/session_groups", body)["sessionGroups"]
        return [
            {
                **group["hparams"],
                **{m["name"]["tag"]: m["value"] for m in group.get("metricValues", ()) if not m["name"]["group"]},
                "status": group["sessions"][0]["status"],
            }
            for group in groups
        ]


class TestProfiler:
    def traced(self, directory, first, last, starts):
        """The steps that a trace of calls with these first steps holds."""
        work = tf.function(lambda x: tf.reduce_sum(tf.linalg.matmul(x, x)))
        with TrainingWatcher(directory) as watcher:
            if first is not None:
                watcher.profile(first, last)
            for start in starts:
                with watcher.step(start):
                    work(tf.ones((8, 8)))
        steps, operations = [], set()
        for path in directory.glob("plugins/profile/*/*.xplane.pb"):
            for plane in XSpace.FromString(path.read_bytes()).planes:
                names = {key: value.name for key, value in plane.stat_metadata.items()}
                for event in (event for line in plane.lines for event in line.events):
                    name = plane.event_metadata[event.metadata_id].name
                    operations.add(name)
                    if name == "train":
                        steps += [
                            s.int64_value or s.uint64_value for s in event.stats if names[s.metadata_id] == "step_num"
                        ]
        return sorted(steps), operations

    def test_the_trace_holds_the_steps_that_were_asked_for(self, tmp_path):
        steps, operations = self.traced(tmp_path, 2, 4, range(8))
        assert steps == [2, 3, 4]
        assert any("MatMul" in name for name in operations)

    def test_calls_of_several_steps(self, tmp_path):
        assert self.traced(tmp_path, 20, 24, range(0, 400, 100))[0] == [100]

    def test_a_training_that_ends_early_still_leaves_its_trace(self, tmp_path):
        assert self.traced(tmp_path, 1, 100, range(3))[0] == [1, 2]

    def test_nothing_is_traced_unasked(self, tmp_path):
        self.traced(tmp_path, None, None, range(3))
        assert not (tmp_path / "plugins").exists()

    def test_steps_in_order(self, tmp_path):
        with TrainingWatcher(tmp_path) as watcher, pytest.raises(ParameterError, match="first_step=4 and last_step=3"):
            watcher.profile(4, 3)


class TestWatchedTraining:
    """A real training of tiny networks, with everything switched on."""

    SIDE, DIM = 16, 3

    def train(self, directory, watcher):
        keras.utils.set_random_seed(1)
        images = np.random.default_rng(1).gamma(0.5, size=(24, self.SIDE, self.SIDE)).astype(np.float32)
        images /= images.sum(axis=(1, 2), keepdims=True)
        data = tf.data.Dataset.from_tensor_slices({"image": images, "sigma": np.full(24, 0.01, np.float32)})
        encoder = Encoder(self.DIM, self.SIDE, filters=(4, 8), hidden=8)
        vae = GalaxyVAE(encoder, Decoder(self.DIM, self.SIDE, filters=(8, 4)))
        vae.build()
        vae.compile(optimizer=keras.optimizers.Adam(1e-2))
        held_out = data.skip(16).batch(8)
        shown = next(iter(held_out))

        def report(record):
            epoch = record["epoch"]
            watcher.scalars(epoch, record)
            if is_due(epoch):
                draws = np.tile(posterior_draws(encoder.posterior, held_out, seed=5), (4, 1))
                watcher.reconstructions(epoch, vae, shown)
                watcher.prior_samples(epoch, Draws(images[0]), images)
                watcher.latent_pairs(epoch, draws, np.random.default_rng(6).normal(size=(50, self.DIM)))
                watcher.latent_units(epoch, encoder(shown["image"], shown["sigma"])[0], np.ones(self.DIM))
                watcher.embedding(epoch, draws[:8], images[16:])

        watched = {"report": report, "around_call": watcher.step} if watcher else {}
        if watcher:
            watcher.hyperparameters({"seed": 1})
            watcher.profile(0, 0)
        history = train(vae, lambda epoch: data.take(16).batch(8), held_out, directory, epochs=2, **watched)
        streams = (
            random.random(),
            np.random.random(),  # noqa: NPY002 - the global stream is what is tested
            float(tf.random.uniform([])),
            float(keras.random.uniform([])),
        )
        return history, [variable.numpy() for variable in vae.variables], streams

    def test_watching_changes_nothing(self, tmp_path):
        with TrainingWatcher(tmp_path / "watched" / "events") as watcher:
            history, weights, streams = self.train(tmp_path / "watched", watcher)
        expected_history, expected_weights, expected_streams = self.train(tmp_path / "unwatched", None)
        assert streams == expected_streams
        assert len(weights) == len(expected_weights) > 10
        for weight, expected in zip(weights, expected_weights, strict=True):
            np.testing.assert_array_equal(weight, expected)
        for record, expected in zip(history, expected_history, strict=True):
            timeless = expected.keys() - {"seconds", "data_wait"}
            assert {name: record[name] for name in timeless} == {name: expected[name] for name in timeless}
        self.check(tmp_path / "watched", history)

    def check(self, directory: Path, history):
        board = TensorBoard(directory)
        for name, tag, run in (
            ("loss", "loss/loss", "events"),
            ("chi2", "loss/chi2", "events"),
            ("kl", "loss/kl", "events"),
            ("learning_rate", "optimizer/learning_rate", "events"),
            ("gradient_norm", "optimizer/gradient_norm", "events"),
            ("validation_loss", "loss/loss", "events/validation"),
        ):
            assert board.scalars(tag, run) == {r["epoch"]: pytest.approx(r[name], rel=1e-6) for r in history}
        for tag in ("reconstructions", "prior beside galaxies", "latent pairs", "latent units"):
            assert list(board.pictures(tag, "events")) == [1, 2]
        # The training's own checkpoint, beside the events, is no embedding.
        assert board.get("projector/runs") == ["events/embedding"]
        assert list(directory.glob("events/plugins/profile/*/*.xplane.pb"))
