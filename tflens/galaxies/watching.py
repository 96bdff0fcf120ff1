"""A training in TensorBoard: losses, pictures, latent space, embedding projector, hyper-parameters, profiler.

Everything is drawn from what the training hands over and from seeds of its own, so that a watched training and an
unwatched one end with the same weights, bit for bit.
"""

import io
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import tensorflow as tf
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import AsinhNorm, Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray
from scipy.stats import wasserstein_distance
from tensorboard.plugins import projector
from tensorboard.plugins.hparams import api as hparams
from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS
from tensorboard.plugins.hparams.summary import session_end_pb

from tflens.errors import ParameterError
from tflens.files import write_atomically
from tflens.galaxies.metrics import active_units

Batch = Mapping[str, tf.Tensor]


class DrawsPrior(Protocol):
    """What has a prior to draw galaxies from, such as `GalaxyModel`."""

    def sample_prior(self, n: int, seed: int) -> tf.Tensor:
        """`n` galaxies `[n, ny, nx]`; the same for the same seed."""


class TrainingWatcher:
    """Writes a training as TensorBoard events; to be used as a context.

    Three runs appear in TensorBoard: that of `directory`; `validation` under it, whose curves share the charts of the
    training's; and `embedding`, for the projector.

    Cost: scalars take about a millisecond, a picture about a second. Write scalars every epoch, and pictures when
    `is_due` says so: a dozen times in 50 epochs. The embedding is meant for the end.

    Args:
        directory: of the events, made if it is missing. Not that of the training's own checkpoints, which the
            projector would take for embeddings.
        seed: of the draws from the prior.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, TrainingWatcher(folder) as watcher:
        ...     watcher.scalars(1, {"epoch": 1, "loss": 3.5, "validation_loss": 3.6})
        ...     sorted(path.name.partition(".")[0] for path in Path(folder).iterdir())
        ['events', 'validation']
    """

    def __init__(self, directory: str | Path, seed: int = 0) -> None:
        self.directory = Path(directory)
        self.seed = seed
        self._began = time.time()
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self._profile: tuple[int, int] | None = None
        self._profiling = False

    def scalars(self, step: int, record: Mapping[str, float]) -> None:
        """Write each value of a record, such as `train` returns for an epoch.

        Terms of the loss, what the optimiser does, the latent space and the speed have a group each, such as
        `loss/chi2`; other names stay as they are. Names with the prefix `validation_` go to the run `validation`, under
        the name without it. `epoch` is not written: it is the step.
        """
        for name, value in record.items():
            if name == "epoch":
                continue
            run, name = ("validation", name.removeprefix(_VALIDATION)) if name.startswith(_VALIDATION) else ("", name)
            with self._writing(step, run):
                tf.summary.scalar(_tag(name), value)

    def reconstructions(self, step: int, vae: Callable[[Batch], tf.Tensor], batch: Batch, count: int = 6) -> None:
        """Picture of data, reconstruction and residual for the first galaxies of a batch.

        Args:
            step: of the training.
            vae: batch to the reconstruction `[batch, ny, nx]` after the PSF, without noise and without chance.
            batch: `image` `[batch, ny, nx]`, and `sigma`, its noise per pixel, `[batch]` or `[batch, ny, nx]`.
            count: how many galaxies, at most.
        """
        shown = {name: value[:count] for name, value in batch.items()}
        fitted = np.asarray(tf.cast(vae(shown), tf.float32))
        with self._writing(step):
            _write_figure("reconstructions", _reconstruction_figure(shown["image"], fitted, shown["sigma"]))

    def prior_samples(self, step: int, model: DrawsPrior, galaxies: ArrayLike, count: int = 24) -> None:
        """Picture of as many draws from the prior as galaxies `[N, ny, nx]` (up to `count`) beside them."""
        galaxies = np.asarray(galaxies)[:count]
        samples = np.asarray(tf.cast(model.sample_prior(len(galaxies), self.seed), tf.float32))
        with self._writing(step):
            _write_figure("prior beside galaxies", _prior_figure(samples, galaxies))

    def latent_pairs(self, step: int, posterior_draws: ArrayLike, prior_draws: ArrayLike, dimensions: int = 5) -> None:
        """Pair plot of the aggregate posterior against the prior, in the dimensions whose marginals differ most.

        Also the scalar `latent/marginal_distance`: the mean over all dimensions of the Wasserstein distance between
        the marginals, which vanishes, up to the noise of the draws, if they agree. Draws that are not finite are left
        out; with too few others there is no picture.

        Args:
            step: of the training.
            posterior_draws: one draw of q(z | x) for each of many galaxies, `[N, D]`.
            prior_draws: `[M, D]`.
            dimensions: how many, at most.

        Raises:
            ParameterError: the two differ in D.
        """
        posterior, prior = (_finite(np.asarray(draws, np.float64)) for draws in (posterior_draws, prior_draws))
        if posterior.shape[1] != prior.shape[1]:
            raise ParameterError(
                "TrainingWatcher.latent_pairs: posterior_draws and prior_draws must have one latent dimension, got "
                f"{posterior.shape[1]} and {prior.shape[1]}"
            )
        if min(len(posterior), len(prior)) <= max(_FEWEST_DRAWS, dimensions):
            return
        distance = np.array([wasserstein_distance(a, b) for a, b in zip(posterior.T, prior.T, strict=True)])
        worst = np.argsort(-distance, kind="stable")[:dimensions]
        with self._writing(step):
            tf.summary.scalar("latent/marginal_distance", distance.mean())
            _write_figure("latent pairs", _pair_figure(posterior[:, worst], prior[:, worst], worst, distance[worst]))

    def latent_units(self, step: int, means: ArrayLike, kl: ArrayLike, free_bits: float = 0.0) -> None:
        """Which latent dimensions are in use: scalars, and a picture of the KL divergence of each.

        Scalars under `latent/`: `active_units` (variance of the posterior mean above 0.01, Burda et al. 2016,
        arXiv:1509.00519), `at_free_bits` (dimensions whose KL is at most the floor) and `free_bits_excess` (nats that
        the floor adds to the loss).

        Args:
            step: of the training.
            means: posterior means `[N, D]`.
            kl: KL divergence of each dimension, nats, `[N, D]` or averaged over the galaxies `[D]`.
            free_bits: nats a dimension that cost nothing.
        """
        mean_kl = np.asarray(kl, np.float64)
        mean_kl = mean_kl.mean(axis=0) if mean_kl.ndim == 2 else mean_kl
        active = active_units(np.asarray(means))
        with self._writing(step):
            tf.summary.scalar("latent/active_units", active)
            tf.summary.scalar("latent/at_free_bits", np.sum(mean_kl <= free_bits))
            tf.summary.scalar("latent/free_bits_excess", np.sum(np.maximum(free_bits - mean_kl, 0)))
            _write_figure("latent units", _units_figure(mean_kl, free_bits, active))

    def embedding(
        self, step: int, latents: ArrayLike, thumbnails: ArrayLike, metadata: Mapping[str, ArrayLike] | None = None
    ) -> None:
        """Write latents with their pictures for the embedding projector, in place of an earlier embedding.

        Files in `embedding/` under the directory: a checkpoint of the latents, `sprite.png`, `metadata.tsv` and
        `projector_config.pbtxt`. They hold no absolute path, so the directory can be moved.

        Args:
            step: of the training.
            latents: `[N, D]`.
            thumbnails: `[N, ny, nx]`, each shown on a scale of its own.
            metadata: columns by name, each `[N]`: to colour and to search by.

        Raises:
            ParameterError: the lengths differ, or the thumbnails are more than a sprite of 8192 pixels can hold.
        """
        latents, thumbnails = np.asarray(latents, np.float32), np.asarray(thumbnails)
        columns = {name: np.asarray(column) for name, column in (metadata or {}).items()}
        _check_embedding(latents, thumbnails, columns)
        folder = self.directory / "embedding"
        with self._writing(step, "embedding"):  # TensorBoard finds a run by its events
            tf.summary.text("embedding", f"{len(latents)} galaxies in {latents.shape[1]} dimensions, step {step}")

        # In a strategy's scope, which is that of a thread, a variable would be made with all machines; one is here.
        with ThreadPoolExecutor(1) as apart:
            apart.submit(_save_latents, latents, folder, step).result()
        sprite = tf.io.encode_png(_sprite(thumbnails)).numpy()
        write_atomically(folder / "sprite.png", lambda path: path.write_bytes(sprite))

        config = projector.ProjectorConfig()
        embedding = config.embeddings.add()
        embedding.tensor_name = "latents/.ATTRIBUTES/VARIABLE_VALUE"
        embedding.sprite.image_path = "sprite.png"
        embedding.sprite.single_image_dim.extend([thumbnails.shape[2], thumbnails.shape[1]])
        if columns:
            write_atomically(folder / "metadata.tsv", lambda path: path.write_text(_table(columns)))
            embedding.metadata_path = "metadata.tsv"
        projector.visualize_embeddings(str(folder), config)

    def hyperparameters(self, config: Mapping[str, Any], metrics: Mapping[str, float] | None = None) -> None:
        """Write the configuration, so that runs can be compared; with `metrics` at the end, without before.

        TensorBoard joins runs of one configuration into one row of its table.

        Args:
            config: nested tables become names with dots; what is no number, text or truth value is written as text.
            metrics: final figures, written as scalars under `metrics/` and shown in the table of the runs.
        """
        with self._writing(0):
            hparams.hparams(_flat(config), start_time_secs=self._began)
            for name, value in (metrics or {}).items():
                tf.summary.scalar(f"metrics/{name}", value)
            if metrics:
                tf.summary.experimental.write_raw_pb(session_end_pb(STATUS_SUCCESS).SerializeToString())

    def profile(self, first_step: int, last_step: int) -> None:
        """Ask for a trace by TensorFlow's profiler, once, of these steps, both included; see `step`.

        Some ten steps do: a trace holds every operation, and slows the steps down. It is written to
        `plugins/profile/` under the directory; TensorBoard shows it with the plugin `tensorboard-plugin-profile`.

        Raises:
            ParameterError: `last_step` is less than `first_step`.
        """
        if last_step < first_step:
            raise ParameterError(
                "TrainingWatcher.profile: last_step must not be less than first_step, got "
                f"first_step={first_step!r} and last_step={last_step!r}"
            )
        self._profile = (first_step, last_step)

    @contextmanager
    def step(self, step: int) -> Iterator[None]:
        """To be wrapped about each call of the training, of one step or of several, for the profiler.

        The first call to be traced is the first that starts at or after the first step asked for; the last, the first
        that starts at or after the last step asked for. Without a profile to take, this costs some microseconds.

        Args:
            step: the first of the call.
        """
        if self._profile is None or step < self._profile[0]:
            yield
            return
        if not self._profiling:
            tf.profiler.experimental.start(str(self.directory))
            self._profiling = True
        with tf.profiler.experimental.Trace("train", step_num=step, _r=1):
            yield
        if step >= self._profile[1]:
            self._stop_profiler()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop_profiler()
        for writer in self._writers.values():
            writer.close()

    @contextmanager
    def _writing(self, step: int, run: str = "") -> Iterator[None]:
        if run not in self._writers:
            self._writers[run] = tf.summary.create_file_writer(str(self.directory / run))
        # What is written is seen: a person is waiting for it.
        with self._writers[run].as_default(step=step):
            yield
        self._writers[run].flush()

    def _stop_profiler(self) -> None:
        if self._profiling:
            tf.profiler.experimental.stop()
            self._profile, self._profiling = None, False


def is_due(step: int) -> bool:
    """Whether pictures are due at an epoch, counted from 1: 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48 and so on.

    They are many while much changes, and few in all; a training that is taken up again makes the same ones.

    Example:
        >>> [epoch for epoch in range(1, 100) if is_due(epoch)]
        [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96]
    """
    return step > 0 and any(step == leading << (step.bit_length() - leading.bit_length()) for leading in (1, 3))


_VALIDATION = "validation_"
_GROUPS = {
    "loss": ("loss", "chi2", "kl", "kl_weight", "free_bits"),
    "optimizer": ("learning_rate", "gradient_norm"),
    "latent": ("active_units",),
    "speed": ("seconds", "data_wait"),
}
_FEWEST_DRAWS = 20  # below, the contours of a pair plot mean nothing
_MAX_SPRITE = 8192  # pixels on a side, the projector's own limit
_RESIDUAL_LIMIT = 4.0  # sigma, the ends of the residual's colour bar
_NOISE_LINEAR = 3.0  # sigma, up to which the colours of data are linear
_LIGHT, _RESIDUAL = colormaps["inferno"], colormaps["RdBu_r"]
_BY_PEAK = AsinhNorm(0.05, 0.0, 1.0)
_POSTERIOR_COLOR, _PRIOR_COLOR = "#0072b2", "#d55e00"


def _tag(name: str) -> str:
    group = next((group for group, names in _GROUPS.items() if name in names), None)
    return f"{group}/{name}" if group else name


def _finite(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    return draws[np.isfinite(draws).all(axis=1)]


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    flat: dict[str, bool | int | float | str] = {}
    for key, value in table.items():
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else _text(value)
    return flat


def _text(value: Any) -> str:
    return json.dumps(value, default=str)


def _save_latents(latents: np.ndarray, folder: Path, step: int) -> None:
    checkpoint = tf.train.Checkpoint(latents=tf.Variable(latents))
    tf.train.CheckpointManager(checkpoint, folder, 1, checkpoint_name="latents").save(checkpoint_number=step)


def _check_embedding(latents: NDArray, thumbnails: NDArray, columns: Mapping[str, NDArray]) -> None:
    if latents.ndim != 2 or thumbnails.ndim != 3 or not len(latents):
        raise ParameterError(
            "TrainingWatcher.embedding: latents must be [N, D] and thumbnails [N, ny, nx], with N > 0, got the shapes "
            f"{latents.shape} and {thumbnails.shape}"
        )
    lengths = {"thumbnails": len(thumbnails), **{f"metadata {name!r}": len(column) for name, column in columns.items()}}
    for name, length in lengths.items():
        if length != len(latents):
            raise ParameterError(
                f"TrainingWatcher.embedding: {name} must be as many as latents, got {length} and {len(latents)}"
            )
    size = _sprite_columns(len(thumbnails)) * max(thumbnails.shape[1:])
    if size > _MAX_SPRITE:
        raise ParameterError(
            f"TrainingWatcher.embedding: the sprite of all thumbnails must be at most {_MAX_SPRITE} pixels on a side, "
            f"got {size}; give fewer galaxies, or smaller thumbnails"
        )


def _sprite_columns(count: int) -> int:
    return math.isqrt(count - 1) + 1


def _sprite(thumbnails: NDArray) -> NDArray[np.uint8]:
    """All thumbnails in one square of places, row by row, `[rows, columns, 3]`, the first row at the top."""
    count, ny, nx = thumbnails.shape
    side = _sprite_columns(count)
    pictures = np.zeros((side**2, ny, nx, 3), np.uint8)
    for picture, thumbnail in zip(pictures, thumbnails, strict=False):
        picture[:] = _LIGHT(_BY_PEAK(_by_peak(thumbnail)), bytes=True)[::-1, :, :3]
    return pictures.reshape(side, side, ny, nx, 3).swapaxes(1, 2).reshape(side * ny, side * nx, 3)


def _table(columns: Mapping[str, NDArray]) -> str:
    """Tab-separated values as the projector reads them: one column has no header, several have one."""
    rows = [
        [f"{x:.6g}" if isinstance(x, float) else " ".join(str(x).split()) for x in column.tolist()]
        for column in columns.values()
    ]
    lines = ["\t".join(row) for row in zip(*rows, strict=True)]
    header = ["\t".join(" ".join(name.split()) for name in columns)] if len(columns) > 1 else []
    return "\n".join(header + lines) + "\n"


def _write_figure(name: str, figure: Figure) -> None:
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=100)
        tf.summary.image(name, tf.io.decode_png(file.getvalue(), channels=3)[None])


def _by_peak(image: NDArray) -> NDArray:
    """An image in units of its brightest pixel; what is not finite is masked."""
    image = np.ma.masked_invalid(image)
    peak = image.max()
    return image / peak if peak is not np.ma.masked and peak > 0 else image


def _reconstruction_figure(image: ArrayLike, fitted: NDArray, sigma: ArrayLike) -> Figure:
    """Rows: data, reconstruction, residual; a column for each galaxy. All in units of the noise."""
    image, sigma = np.asarray(image), np.asarray(sigma)
    sigma = sigma.reshape(*sigma.shape, *[1] * (image.ndim - sigma.ndim))
    data, model = (np.ma.masked_invalid(x / sigma) for x in (image, fitted))
    peak = model.max()
    light = AsinhNorm(_NOISE_LINEAR, -_NOISE_LINEAR, max(10.0, peak if peak is not np.ma.masked else 0.0))
    residual = Normalize(-_RESIDUAL_LIMIT, _RESIDUAL_LIMIT)
    figure = Figure(figsize=(1.75 * len(image) + 1.6, 6.0), layout="constrained")
    axes = figure.subplots(3, len(image), squeeze=False)
    for column, x, m in zip(axes.T, data, model, strict=True):
        _show(column[0], x, light, _LIGHT)
        _show(column[1], m, light, _LIGHT)
        _show(column[2], x - m, residual, _RESIDUAL)
        snr, chi2 = np.ma.sqrt(np.sum(m**2)), np.ma.mean((x - m) ** 2)
        column[0].set_title(
            f"S/N {snr:.0f}\n$\\chi^2$ per pixel {chi2:.2f}" if chi2 is not np.ma.masked else "not finite"
        )
    for row, label in zip(axes, ("data", "reconstruction", "residual"), strict=True):
        row[0].set_ylabel(label, fontsize=12)
    bar = figure.colorbar(ScalarMappable(light, _LIGHT), ax=list(axes[:2].flat), label="brightness / noise")
    ticks = [tick for tick in (-3, 0, 3, 10, 30, 100, 300, 1000) if tick <= light.vmax]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()
    figure.colorbar(ScalarMappable(residual, _RESIDUAL), ax=list(axes[2]), label="residual / noise", extend="both")
    return figure


def _prior_figure(samples: NDArray, galaxies: NDArray) -> Figure:
    """Galaxies on the left, draws from the prior on the right, each on a scale of its own."""
    columns = min(6, len(galaxies))
    rows = -(-len(galaxies) // columns)
    figure = Figure(figsize=(2.1 * columns + 0.8, 1.05 * rows + 0.9), layout="constrained")
    groups = {"galaxies of the data": galaxies, "drawn from the prior": samples}
    for part, (title, images) in zip(figure.subfigures(1, 2, wspace=0.04), groups.items(), strict=True):
        part.suptitle(title, fontsize=12)
        axes = part.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.02, "hspace": 0.02})
        for panel in axes.flat[len(images) :]:
            panel.axis("off")
        for panel, image in zip(axes.flat, images, strict=False):
            _show(panel, _by_peak(image), _BY_PEAK, _LIGHT)
    figure.supxlabel("each divided by its peak; colours linear below 5 % of it, logarithmic above", fontsize=9)
    return figure


def _pair_figure(posterior: NDArray, prior: NDArray, dimensions: NDArray, distance: NDArray) -> Figure:
    import corner  # imports pyplot, which the other figures do without

    figure = Figure(figsize=(1.9 * len(dimensions) + 0.8,) * 2)
    ends = np.stack([np.quantile(draws, [0.001, 0.999], axis=0) for draws in (posterior, prior)])
    low, high = ends[:, 0].min(axis=0), ends[:, 1].max(axis=0)
    margin = 0.05 * (high - low) + 1e-6
    for draws, color in ((posterior, _POSTERIOR_COLOR), (prior, _PRIOR_COLOR)):
        corner.corner(
            draws,
            fig=figure,
            color=color,
            range=list(zip(low - margin, high + margin, strict=True)),
            bins=30,  # wider ones would push the contours of a narrow cloud outwards
            smooth=1.0,
            levels=(0.68, 0.95),
            labels=[f"$z_{{{dimension}}}$" for dimension in dimensions],
            label_kwargs={"fontsize": 12},
            max_n_ticks=3,
            plot_density=False,
            no_fill_contours=True,
            plot_datapoints=draws is posterior,
            data_kwargs={"alpha": 0.3, "ms": 3},
            hist_kwargs={"density": True, "linewidth": 1.5},
        )
    for axes, value in zip(figure.axes[:: len(dimensions) + 1], distance, strict=True):
        axes.set_title(f"$W_1$ = {value:.2f}", fontsize=11)
        axes.set_ylim(0, 1.05 * max(patch.get_xy()[:, 1].max() for patch in axes.patches))
    lines = [Line2D([], [], color=color, linewidth=2) for color in (_POSTERIOR_COLOR, _PRIOR_COLOR)]
    names = [f"aggregate posterior, {len(posterior)} draws", f"prior, {len(prior)} draws"]
    figure.legend(lines, names, loc="upper right", fontsize=11, title="68 % and 95 % contours")
    return figure


def _units_figure(mean_kl: NDArray, free_bits: float, active: int) -> Figure:
    order = np.argsort(-mean_kl, kind="stable")
    figure = Figure(figsize=(max(5.0, 0.25 * len(order) + 1.5), 3.6), layout="constrained")
    axes = figure.subplots()
    axes.bar(np.arange(len(order)), mean_kl[order], color=_POSTERIOR_COLOR)
    axes.axhline(free_bits, color=_PRIOR_COLOR, linestyle="--", label=f"free bits, {free_bits:g} nat")
    axes.set_xticks(np.arange(len(order)), [str(i) for i in order], fontsize=8)
    axes.set_xlabel("latent dimension, by its KL divergence")
    axes.set_ylabel("KL divergence [nat]")
    axes.set_title(f"{active} of {len(order)} units active, KL {mean_kl.sum():.1f} nat in all")
    axes.legend()
    return figure


def _show(axes: Axes, image: NDArray, norm: Normalize, cmap: Colormap) -> None:
    axes.imshow(np.ma.masked_invalid(image), origin="lower", norm=norm, cmap=cmap, interpolation="nearest")
    axes.set_facecolor("0.82")
    axes.set_xticks([])
    axes.set_yticks([])
