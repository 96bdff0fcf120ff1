"""From a configuration and a dataset to a trained galaxy model, in stages: autoencoder, flow, and both together."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tflens.datasets.mnist import distorted
from tflens.datasets.pipeline import hst_psf, noisy_galaxies, observed_galaxies
from tflens.datasets.records import Dataset
from tflens.errors import ParameterError
from tflens.files import write_atomically
from tflens.galaxies.condition import Condition
from tflens.galaxies.encoder import Encoder
from tflens.galaxies.flow import Flow
from tflens.galaxies.networks import make_network, network_class
from tflens.galaxies.posterior import gaussian_kl
from tflens.galaxies.source import GalaxyModel
from tflens.galaxies.training import Record, Report, Trainable, seconds_of_training, train
from tflens.galaxies.vae import GalaxyVAE, PosteriorOf, posterior_draws
from tflens.galaxies.watching import TrainingWatcher, is_due
from tflens.parsing import parse_toml

Config = dict[str, Any]
Splits = Mapping[str, Dataset]
Progress = Callable[[str, float, Record], None]
# For each table the keys that are allowed, given the table.
Tables = Mapping[str, Callable[[Mapping[str, Any]], set[str]]]

SHIPPED = {path.stem: path for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))}
"""Configurations that come with the package, by the names that `extends` knows them by."""
STAGES = ("vae", "flow", "joint", "final_flow")
"""Of a training, in their order; each has a folder in that of the run."""


@dataclass(frozen=True)
class Schedule:
    """How a stage is trained: by Adam, with a short warm-up of the learning rate, then a cosine down to 1 % of it.

    Args:
        epochs: at most so many.
        learning_rate: the highest.
        patience: epochs without a lower validation loss until it stops.
        clip_norm: longest gradient.
        decay_epochs: at which the cosine ends, if another stage goes on from a rate that is still high; `epochs` if
            None.
    """

    epochs: int
    learning_rate: float
    patience: int = 10
    clip_norm: float = 100.0
    decay_epochs: int | None = None


@dataclass(frozen=True)
class FlowSchedule(Schedule):
    """`Schedule`, for the fit of a flow to draws of the aggregate posterior.

    Args:
        draws: of q(z | x) for each training galaxy, each with its own symmetry and noise.
        batch_size: draws a step.
    """

    draws: int = 4
    batch_size: int = 256
    clip_norm: float = 10.0


@dataclass(frozen=True)
class Data:
    """How the galaxies of the dataset are seen.

    Args:
        psf: "hst", like that of HST's ACS at F814W; "dataset", the one in its manifest; or "none".
    """

    psf: str = "hst"


@dataclass(frozen=True)
class Reports:
    """What a training tells on the way.

    Args:
        report: called with the record of each epoch, stage after stage.
        watch: write TensorBoard's events.
        profile: first and last step of each stage that TensorFlow's profiler traces.
        progress: called with a stage, the share of its epochs that is done, and the record of the last one, empty
            before the first; a stage that stops early jumps to its end.
    """

    report: Report = lambda record: None
    watch: bool = True
    profile: tuple[int, int] | None = None
    progress: Progress = lambda stage, fraction, record: None


def read_config(path: str | Path, more: Tables | None = None, extending: tuple[Path, ...] = ()) -> Config:
    """A configuration from a TOML file.

    `extends` in it names another one whose tables it changes: one of `SHIPPED` by its name, or a path relative to it.

    Args:
        path: of the file.
        more: tables beside those of `check_config` that there must be.
        extending: files that this one is extended by.

    Raises:
        ParameterError: the file is missing, is not TOML, or says what `check_config` does not allow.
    """
    path = Path(path)
    try:
        config = parse_toml(path.read_text())
    except FileNotFoundError:
        raise ParameterError(f"{path}: the configuration does not exist") from None
    except (OSError, ValueError) as error:
        raise ParameterError(f"{path}: the configuration must be readable TOML, but {error}") from None
    if "extends" in config:
        extended = config.pop("extends")
        if not isinstance(extended, str):
            raise ParameterError(
                f"{path}: extends must be {', '.join(SHIPPED)} or the path of a file, got {extended!r}"
            )
        base_path = Path(SHIPPED.get(extended) or path.parent / extended)
        if base_path.resolve() in (place.resolve() for place in (*extending, path)):
            raise ParameterError(
                f"{path}: extends must name another file, but {extended!r} leads back to one before it"
            )
        base = read_config(base_path, more, (*extending, path))
        config = {**base, **{name: _changed(base.get(name), value) for name, value in config.items()}}
    try:
        return check_config(config, more)
    except ParameterError as error:
        raise ParameterError(f"{path}: {error}") from None


def check_config(config: Mapping[str, Any], more: Tables | None = None) -> Config:
    """The configuration, if every key in it is an argument of what its table names.

    Tables: `data` (`Data`), `observation` (`observed_galaxies`), `encoder`, `decoder` and `flow` (the networks of
    their `kind`), `vae` (`GalaxyVAE`; its `psf` is true or false), `vae_training` and `joint_training` (`Schedule`),
    `flow_training` (`FlowSchedule`), `condition` (`Condition`), `distortion` (`distorted`: what is done to every stamp
    anew in every epoch). Without `joint_training`, or with 0 epochs of it, there is no such stage; without `condition`
    the flow is told nothing. Besides, `seed`, and `precision`: "float32", "mixed_bfloat16" or "mixed_float16"; and the
    tables of `more`, as `read_config` takes them.

    Raises:
        ParameterError: a table or key is unknown, or a table that is needed is missing.

    Example:
        >>> check_config({"decoder": {"filtres": [8]}})
        Traceback (most recent call last):
        ...
        tflens.errors.ParameterError: [decoder] knows no 'filtres'; its keys: filters, kind, latent_dim, ...
    """
    tables = {**_TABLES, **(more or {})}
    for name, table in config.items():
        if name in _VALUES:
            continue
        if name not in tables:
            raise ParameterError(f"unknown table or key {name!r}; known: {', '.join([*_VALUES, *tables])}")
        if not isinstance(table, Mapping):
            raise ParameterError(f"{name} must be a table, [{name}] with keys under it, got {table!r}")
        allowed = tables[name](table)
        for key in table:
            if key not in allowed:
                raise ParameterError(f"[{name}] knows no {key!r}; its keys: {', '.join(sorted(allowed))}")
    missing = [name for name in tables if name not in config and name not in _OPTIONAL]
    if missing:
        raise ParameterError(f"the table [{missing[0]}] is missing")
    precision = config.get("precision", "float32")
    if precision not in _PRECISIONS:
        raise ParameterError(f"precision must be one of {', '.join(_PRECISIONS)}, got {precision!r}")
    return {"seed": 1, "precision": "float32", "data": {}, **config}


def train_galaxy_model(
    config: Config,
    galaxies: Splits,
    directory: str | Path,
    reports: Reports | None = None,
) -> tuple[GalaxyModel, Record]:
    """Autoencoder, then flow, then, if `joint_training` has any epochs, both with the flow inside the ELBO.

    A run that was killed goes on where it stopped. Trains on the devices of the strategy in whose scope it is called.

    Args:
        config: as `read_config` returns it.
        galaxies: `train` and `validation`; simulated (truth before the PSF, unit sum), or real (with their noise, and
            `flux` and `sigma` among the metadata).
        directory: of checkpoints, and, for each stage, of TensorBoard's events in `events/`.
        reports: what is told of the training on the way.

    Returns:
        The model, and the seconds that the epochs of each stage took, in however many calls; draws of q are not in it.

    Raises:
        ParameterError: the directory holds a run of another configuration, or the data do not suit it.
    """
    config, directory = check_config(config), Path(directory)
    _check_stamps(config, galaxies)
    claim(directory, config)
    vae = train_vae(config, galaxies, directory / "vae", reports)
    flow = train_flow(config, vae.posterior, galaxies, directory / "flow", reports)
    if _is_joint(config):
        train_jointly(config, vae, flow, galaxies, directory / "joint", reports)
        # It has seen the posterior with Newton's steps of the training; the model takes more.
        train_flow(config, vae.posterior, galaxies, directory / "final_flow", reports, flow)
    model = as_model(config, vae, flow, galaxies["train"].manifest)
    return model, {stage: seconds_of_training(directory / stage) for stage in stages_of(config)}


def stages_of(config: Config) -> tuple[str, ...]:
    """Those of `STAGES` that a configuration has."""
    return STAGES if _is_joint(config) else STAGES[:2]


def train_vae(config: Config, galaxies: Splits, directory: Path, reports: Reports | None = None) -> GalaxyVAE:
    """Train the autoencoder on `galaxies["train"]`, with early stopping by `galaxies["validation"]`."""
    keras.utils.set_random_seed(config["seed"])
    with _precision(config["precision"]):
        encoder, decoder = (make_network(role, config[role]) for role in ("encoder", "decoder"))
        vae = _autoencoder(config, galaxies, encoder, decoder)
    _train_autoencoder(config, vae, galaxies, directory, Schedule(**config["vae_training"]), reports)
    return vae


def train_flow(
    config: Config,
    posterior: PosteriorOf,
    galaxies: Splits,
    directory: Path,
    reports: Reports | None = None,
    flow: Flow | None = None,
) -> Flow:
    """Fit the flow to draws of the aggregate posterior by exact maximum likelihood.

    Args:
        config: as `read_config` returns it.
        posterior: image `[batch, n, n]` and sigma `[batch]` to q(z | x): a method of the autoencoder, or of a model.
        galaxies, directory, reports: as `train_galaxy_model`.
        flow: to be trained on, its Gaussian part as it is; a new one if None.
    """
    seed, schedule = config["seed"], FlowSchedule(**config["flow_training"])
    keras.utils.set_random_seed(seed)
    kept = directory / "draws.npz"
    if reports and not kept.exists():
        reports.progress(directory.name, 0.0, {})  # drawing takes its time as well
    draws, held_out = _kept_draws(config, posterior, galaxies, schedule.draws, kept)
    if flow is None:
        condition = _condition(config)
        flow = make_network("flow", {**config["flow"], "condition_dim": condition.dim if condition else 0})
        flow.adapt(*draws)

    def epoch_of_draws(epoch: int) -> tf.data.Dataset:
        order = np.random.default_rng([seed, epoch]).permutation(len(draws[0]))
        return tf.data.Dataset.from_tensor_slices(tuple(part[order] for part in draws)).batch(schedule.batch_size)

    validation = tf.data.Dataset.from_tensor_slices(held_out).batch(schedule.batch_size)
    train_stage(config, flow, epoch_of_draws, validation, directory, schedule, reports, xla=True)
    return flow


def train_jointly(
    config: Config,
    vae: GalaxyVAE,
    flow: Flow,
    galaxies: Splits,
    directory: Path,
    reports: Reports | None = None,
) -> None:
    """Train encoder, decoder and flow together, with the flow as the prior in the ELBO; they are changed in place.

    From a fitted flow the KL divergence starts where the stages before ended, so there is no warm-up.
    """
    joint = _autoencoder(config, galaxies, vae.encoder, vae.decoder, prior=flow, warmup_steps=0, newton_after=0)
    _train_autoencoder(config, joint, galaxies, directory, Schedule(**config["joint_training"]), reports)


def as_model(config: Config, vae: GalaxyVAE, flow: Flow, manifest: Mapping[str, Any]) -> GalaxyModel:
    """The trained networks as one model, on the pixel scale and of the resolution of the dataset."""
    before_psf = config["vae"].get("psf", True)
    return GalaxyModel(
        vae.encoder,
        vae.decoder,
        flow,
        pixel_scale=manifest.get("pixel_scale", 0.05),
        resolution=manifest.get("resolution", 0.06),
        condition=_condition(config),
        before_psf=before_psf,
        psf=psf_kernel(config, manifest) if before_psf else None,
        newton_steps=vae.newton_steps,
        flow_in_elbo=_is_joint(config),
    )


def psf_kernel(config: Config, manifest: Mapping[str, Any]) -> NDArray[np.float32] | None:
    """The kernel `[odd, odd]` that the galaxies of a dataset are seen through, None for none.

    Raises:
        ParameterError: the dataset was to have a PSF, and has none or one for each galaxy.
    """
    kind = Data(**config["data"]).psf
    if kind not in _PSFS:
        raise ParameterError(f"[data] psf must be one of {', '.join(_PSFS)}, got {kind!r}")
    if kind == "none":
        return None
    if kind == "hst":
        return hst_psf(manifest.get("pixel_scale", 0.05))
    if manifest.get("psf") is None:
        raise ParameterError(
            '[data] psf = "dataset" needs one PSF for all galaxies in the manifest of the dataset, which has none'
        )
    return np.asarray(manifest["psf"], np.float32)


def batches(config: Config, dataset: Dataset, seed: int, epoch: int = 0, augment: bool = True) -> tf.data.Dataset:
    """One epoch of a split as the networks see it: real galaxies as they are, simulated ones observed anew."""
    condition = _condition(config)
    extra = {"condition": condition(dataset.metadata)} if condition else {}
    settings = {"seed": seed, "epoch": epoch, "augment": augment, "extra": extra}
    if "sigma" in dataset.metadata:
        flux = dataset.metadata["flux"]
        images, sigma = dataset.images / flux[:, None, None], dataset.metadata["sigma"] / flux
        return noisy_galaxies(images, sigma, config["observation"]["batch_size"], **settings)
    kernel, images = psf_kernel(config, dataset.manifest), dataset.images
    if augment and "distortion" in config:
        images = distorted(images, seed, epoch, **config["distortion"])
    return observed_galaxies(images, kernel, **config["observation"], **settings)


def train_stage(
    config: Config,
    network: Trainable,
    train_data: Callable[[int], tf.data.Dataset],
    validation: tf.data.Dataset,
    directory: Path,
    schedule: Schedule,
    reports: Reports | None = None,
    *,
    precision: str = "float32",
    xla: bool = False,
    pictures: "_Pictures | None" = None,
) -> None:
    """Train one network by a schedule, and tell of it on the way.

    Args:
        config: written beside the curves.
        network: changed in place; left with the weights of its best epoch.
        train_data: number of an epoch, from 0, to its batches.
        validation: the same in every epoch.
        directory: of the stage, whose name is that of the stage.
        schedule: epochs and learning rate.
        reports: what is told of it.
        precision: that of the network.
        xla: compile the steps with XLA.
        pictures: drawn of it.
    """
    reports, steps = reports or Reports(), len(train_data(0))
    _compile(network, schedule, steps, precision)
    last: Record = {}

    with _telling(config, directory, reports, pictures) as (told, around_call):

        def around(step: int) -> AbstractContextManager:
            reports.progress(directory.name, step / (schedule.epochs * steps), last)
            return around_call(step)

        def tell(record: Record) -> None:
            last.update(record)
            told(record)
            reports.progress(directory.name, record["epoch"] / schedule.epochs, last)

        history = train(
            network,
            train_data,
            validation,
            directory,
            epochs=schedule.epochs,
            patience=schedule.patience,
            report=tell,
            xla=xla,
            around_call=around,
        )
    reports.progress(directory.name, 1.0, history[-1])


def _autoencoder(config: Config, galaxies: Splits, encoder: Encoder, decoder: keras.Model, **changes: Any) -> GalaxyVAE:
    settings = {"seed": config["seed"], **config["vae"], **changes}
    kernel = psf_kernel(config, galaxies["train"].manifest) if settings.pop("psf", True) else None
    vae = GalaxyVAE(encoder, decoder, kernel, **settings)
    vae.build()
    return vae


def _train_autoencoder(
    config: Config,
    vae: GalaxyVAE,
    galaxies: Splits,
    directory: Path,
    schedule: Schedule,
    reports: Reports | None,
) -> None:
    seed = config["seed"]
    validation = batches(config, galaxies["validation"], seed + 1, augment=False)
    train_stage(
        config,
        vae,
        lambda epoch: batches(config, galaxies["train"], seed, epoch),
        validation,
        directory,
        schedule,
        reports,
        precision=config["precision"],
        pictures=_Pictures(vae, validation, galaxies["validation"]),
    )


def _compile(model: keras.Model, schedule: Schedule, steps_per_epoch: int, precision: str = "float32") -> None:
    steps = (schedule.decay_epochs or schedule.epochs) * steps_per_epoch
    warmup = min(200, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        1e-5, steps - warmup, alpha=0.01, warmup_target=schedule.learning_rate, warmup_steps=warmup
    )
    optimizer = keras.optimizers.Adam(rate, global_clipnorm=schedule.clip_norm)
    # Gradients of half precision vanish unless the loss is scaled up; bfloat16 has the exponents of float32.
    model.compile(
        optimizer=keras.optimizers.LossScaleOptimizer(optimizer) if precision == "mixed_float16" else optimizer
    )


def _kept_draws(
    config: Config, posterior: PosteriorOf, galaxies: Splits, times: int, path: Path
) -> tuple[tuple[NDArray, ...], tuple[NDArray, ...]]:
    """Draws for the training galaxies, `times` for each, and one for each held-out galaxy; from the file if it exists.

    With Newton's steps they take minutes, and a run that was killed has them already.
    """
    if not path.exists():
        seed = config["seed"]
        parts = [_aggregate_posterior(config, posterior, galaxies["train"], seed + i) for i in range(times)]
        draws = {f"train_{i}": np.concatenate(part) for i, part in enumerate(zip(*parts, strict=True))}
        held_out = _aggregate_posterior(config, posterior, galaxies["validation"], seed + times)
        draws |= {f"validation_{i}": part for i, part in enumerate(held_out)}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: np.savez(file, **draws))
    with np.load(path, allow_pickle=False) as kept:
        return tuple(
            tuple(kept[name] for name in sorted(kept.files) if name.startswith(split))
            for split in ("train", "validation")
        )


def _aggregate_posterior(config: Config, posterior: PosteriorOf, dataset: Dataset, seed: int) -> tuple[NDArray, ...]:
    """One draw of q(z | x) for each galaxy `[N, D]`, and, for a conditional flow, its condition `[N, C]`."""
    data = batches(config, dataset, seed, epoch=_EPOCH_OF_DRAWS)
    draws = posterior_draws(posterior, data, seed)
    if _condition(config) is None:
        return (draws,)
    return draws, np.concatenate([batch["condition"] for batch in data])


def _check_stamps(config: Config, galaxies: Splits) -> None:
    side, sides = config["encoder"].get("stamp_size"), galaxies["train"].images.shape[1:]
    if side is not None and sides != (side, side):
        raise ParameterError(
            f"[encoder] stamp_size must be that of the galaxies, which are {sides[0]} x {sides[1]} pixels, got {side}; "
            "change it, that of [decoder] as well, or make the dataset with other stamps"
        )


def _is_joint(config: Config) -> bool:
    return config.get("joint_training", {}).get("epochs", 0) > 0


def _condition(config: Config) -> Condition | None:
    return Condition(**config["condition"]) if "condition" in config else None


@contextmanager
def _precision(policy: str) -> Iterator[None]:
    """Networks made in this context compute in the given precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def claim(directory: Path, config: Config) -> None:
    """Note the configuration of a run, or refuse to go on with another one.

    Raises:
        ParameterError: the directory holds another one.
    """
    path = directory / "config.json"
    directory.mkdir(parents=True, exist_ok=True)
    if path.exists() and json.loads(path.read_text()) != json.loads(json.dumps(config)):
        raise ParameterError(
            f"{directory}: holds a run of another configuration ({path}); choose another directory, or remove it"
        )
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(config, indent=2) + "\n"))


@contextmanager
def _telling(
    config: Config, directory: Path, reports: Reports, pictures: "_Pictures | None"
) -> Iterator[tuple[Report, Callable[[int], AbstractContextManager]]]:
    """What is called after each epoch, and what surrounds the calls of the loop."""
    if not reports.watch:
        yield reports.report, lambda step: nullcontext()
        return
    with TrainingWatcher(directory / "events") as watcher:
        watcher.hyperparameters(config)
        if reports.profile:
            watcher.profile(*reports.profile)
        records: list[Record] = []

        def tell(record: Record) -> None:
            epoch = int(record["epoch"])
            watcher.scalars(epoch, record)
            if pictures and is_due(epoch):
                pictures.write(watcher, epoch)
            records.append(record)
            reports.report(record)

        yield tell, watcher.step
        if records:  # a stage that had ended before has told its end
            best = min(records, key=lambda record: record["validation_loss"])
            watcher.hyperparameters(config, {key: best[key] for key in best if key.startswith("validation_")})
            if pictures:
                pictures.write_embedding(watcher, int(records[-1]["epoch"]))


@dataclass(frozen=True)
class _Pictures:
    """Pictures of an autoencoder in training, of held-out galaxies."""

    vae: GalaxyVAE
    batches: tf.data.Dataset
    galaxies: Dataset

    def write(self, watcher: TrainingWatcher, epoch: int) -> None:
        vae, batch = self.vae, self._batch()
        posterior = vae.posterior(batch["image"], batch["sigma"])
        mean, scale = posterior.moments()
        draws = posterior.draw(tf.random.stateless_normal(tf.shape(mean), [0, 0])).z
        prior = _PriorDraws(vae, batch.get("condition"))
        watcher.reconstructions(epoch, vae, batch)
        watcher.latent_units(epoch, mean, gaussian_kl(mean, scale), vae.free_bits)
        watcher.latent_pairs(epoch, draws, prior.latents(len(draws), 1))
        watcher.prior_samples(epoch, prior, self.galaxies.images)

    def write_embedding(self, watcher: TrainingWatcher, epoch: int) -> None:
        """Posterior means with the galaxies as thumbnails."""
        batch = self._batch()
        mean, _ = self.vae.posterior(batch["image"], batch["sigma"]).moments()
        count = len(mean)
        properties = {name: values[:count] for name, values in self.galaxies.metadata.items()}
        watcher.embedding(epoch, mean, self.galaxies.images[:count], properties)

    def _batch(self) -> dict[str, tf.Tensor]:
        return next(iter(self.batches.unbatch().batch(_PICTURED)))


@dataclass(frozen=True)
class _PriorDraws:
    """The prior of an autoencoder, with the conditions `[N, C]` of as many galaxies if it is conditional."""

    vae: GalaxyVAE
    condition: tf.Tensor | None

    def latents(self, n: int, seed: int) -> tf.Tensor:
        u = tf.random.stateless_normal([n, self.vae.decoder.latent_dim], [seed, 0])
        flow = self.vae.prior
        if flow is None:
            return u
        return flow(u, self.condition[:n] if flow.condition_dim else None)

    def sample_prior(self, n: int, seed: int) -> tf.Tensor:
        return self.vae.decoder(self.latents(n, seed))


def _changed(table: Any, changes: Any) -> Any:
    return {**table, **changes} if isinstance(table, dict) and isinstance(changes, dict) else changes


def arguments_of(function: Callable[..., Any], *without: str) -> set[str]:
    """The names that a table may give to a function or class, but those of `without`."""
    return set(inspect.signature(function).parameters) - {"self", "kwargs", *without}


def _network_arguments(role: str, *without: str) -> Callable[[Mapping[str, Any]], set[str]]:
    return lambda table: arguments_of(network_class(role, table).__init__, *without) | {"kind"}


_VALUES = ("seed", "precision")
_PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
_PSFS = ("hst", "dataset", "none")
_OPTIONAL = ("data", "condition", "joint_training", "distortion")
_TABLES: Tables = {
    "data": lambda table: arguments_of(Data),
    "observation": lambda table: arguments_of(
        observed_galaxies, "galaxies", "psf", "seed", "epoch", "augment", "extra"
    ),
    "encoder": _network_arguments("encoder"),
    "decoder": _network_arguments("decoder"),
    "vae": lambda table: arguments_of(GalaxyVAE.__init__, "encoder", "decoder", "prior", "seed"),
    "vae_training": lambda table: arguments_of(Schedule),
    "flow": _network_arguments("flow", "condition_dim"),
    "flow_training": lambda table: arguments_of(FlowSchedule),
    "joint_training": lambda table: arguments_of(Schedule),
    "condition": lambda table: arguments_of(Condition),
    "distortion": lambda table: arguments_of(distorted, "stamps", "seed", "epoch"),
}
_EPOCH_OF_DRAWS = 10_000  # far from those of the training: other symmetries, other noise
_PICTURED = 512  # galaxies for the pictures of the latent space
