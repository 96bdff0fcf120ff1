"""A trained galaxy model: the neural source of a lens fit, saved, found and loaded."""

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from tflens.errors import ParameterError, SavedModelError
from tflens.files import remove_leftovers, write_atomically, write_folder
from tflens.galaxies.condition import Condition
from tflens.galaxies.decoder import Decoder
from tflens.galaxies.encoder import Encoder
from tflens.galaxies.flow import Flow, gaussian_part
from tflens.galaxies.networks import KINDS, describe_network, make_network
from tflens.galaxies.newton import check_newton_steps, newton_refined
from tflens.galaxies.posterior import GaussianPosterior, Posterior
from tflens.psf import PSF


class GalaxyModel:
    """Galaxies before the PSF as a function of u ~ N(0, I): z = T(u), image = decoder(z).

    With a conditional flow, T also depends on what is known of the galaxy: `condition`, `[...batch, C]` or `[C]`.

    Everything is a smooth function of its input, works in eager and graph mode and inside
    `tf.function(jit_compile=True)`, and can be differentiated twice. The networks compute in float32; results
    have the type of the input.

    Args:
        encoder, decoder, flow: of one latent dimension and stamp size.
        pixel_scale: of the decoded stamp, arcsec.
        resolution: FWHM of the Gaussian that the decoded galaxies are convolved with, arcsec.
        condition: what the flow is told, if it is conditional.
        before_psf: whether the decoder was trained to draw galaxies before the PSF; without a PSF in the likelihood it
            draws them as they were observed.
        psf: that the galaxies of the training were seen through, `[odd, odd]`; None if that is not known, or none.
        newton_steps: that refine the mean of the encoder's posterior (`newton_refined`); a decoder of galaxies before
            the PSF needs `psf` for them.
        flow_in_elbo: whether the flow was the prior of the autoencoder, and so of the posterior that the encoder gives.

    Raises:
        ParameterError: the networks disagree in latent dimension or stamp size, or the flow and the condition in its
            length; Newton's steps lack the PSF, or a Gaussian posterior.

    Example:
        >>> model = load_galaxy_model()
        >>> image = model.generate(tf.zeros((2, model.latent_dim)))
        >>> image.shape[0], abs(float(tf.reduce_sum(image[1])) - 1) < 1e-5
        (2, True)
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        flow: Flow,
        pixel_scale: float = 0.05,
        resolution: float = 0.06,
        condition: Condition | None = None,
        before_psf: bool = True,
        psf: ArrayLike | None = None,
        newton_steps: int = 0,
        flow_in_elbo: bool = False,
    ) -> None:
        if not encoder.latent_dim == decoder.latent_dim == flow.latent_dim:
            raise ParameterError(
                "GalaxyModel: encoder, decoder and flow must have one latent dimension, got "
                f"{encoder.latent_dim}, {decoder.latent_dim}, {flow.latent_dim}"
            )
        if encoder.stamp_size != decoder.stamp_size:
            raise ParameterError(
                "GalaxyModel: encoder and decoder must have one stamp size, got "
                f"{encoder.stamp_size} and {decoder.stamp_size}"
            )
        if flow.condition_dim != (condition.dim if condition else 0):
            raise ParameterError(
                f"GalaxyModel: a flow with condition_dim {flow.condition_dim} needs a condition of that length, got "
                f"{condition.dim if condition else 'none'}"
            )
        check_newton_steps("GalaxyModel", newton_steps, encoder)
        if newton_steps and before_psf and psf is None:
            raise ParameterError("GalaxyModel: newton_steps need the PSF of the training, got psf=None")
        self.encoder = encoder
        self.decoder = decoder
        self.flow = flow
        self.pixel_scale = float(pixel_scale)
        self.resolution = float(resolution)
        self.condition = condition
        self.before_psf = bool(before_psf)
        self.psf = None if psf is None else np.asarray(psf, np.float32)
        self.newton_steps = int(newton_steps)
        self.flow_in_elbo = bool(flow_in_elbo)
        self._refine = tf.function(self._refined_mean, reduce_retracing=True)
        self._convolution = None if psf is None else PSF(self.psf, (decoder.stamp_size,) * 2)
        for network in (encoder, decoder, flow):
            if not network.built:
                network.build()

    @property
    def latent_dim(self) -> int:
        return self.decoder.latent_dim

    @property
    def stamp_size(self) -> int:
        return self.decoder.stamp_size

    def decode(self, z: ArrayLike, xla: bool = False) -> tf.Tensor:
        """Galaxies of unit flux before the PSF.

        Args:
            z: latent variables `[...batch, D]`.
            xla: True for the form of the same function that is faster inside `tf.function(jit_compile=True)`.

        Returns:
            `[...batch, ny, nx]`, positive, of unit sum.
        """
        z = self._latent(z, "decode")
        flat = self.decoder(tf.reshape(tf.cast(z, tf.float32), [-1, self.latent_dim]), xla=xla)
        images = tf.reshape(flat, tf.concat([tf.shape(z)[:-1], [self.stamp_size, self.stamp_size]], 0))
        # Not tf.ensure_shape, through which a ForwardAccumulator cannot differentiate.
        images.set_shape([*z.shape[:-1], self.stamp_size, self.stamp_size])
        return tf.cast(images, z.dtype)

    def to_latent(self, u: ArrayLike, condition: ArrayLike | None = None) -> tf.Tensor:
        """The flow T, one pass: u `[...batch, D]`, N(0, I) a priori, to z `[...batch, D]`.

        Raises:
            ParameterError: the last axis of u is not D; the flow is conditional and there is no condition, or the
                other way round.
        """
        u = self._latent(u, "to_latent")
        if condition is not None:
            condition = tf.cast(condition, tf.float32)
            condition = tf.broadcast_to(condition, tf.concat([tf.shape(u)[:-1], tf.shape(condition)[-1:]], 0))
            condition = tf.reshape(condition, [-1, self.flow.condition_dim])
        z = tf.reshape(self.flow(tf.reshape(tf.cast(u, tf.float32), [-1, self.latent_dim]), condition), tf.shape(u))
        z.set_shape(u.shape)
        return tf.cast(z, u.dtype)

    def generate(self, u: ArrayLike, condition: ArrayLike | None = None, xla: bool = False) -> tf.Tensor:
        """`decode(to_latent(u))`: u `[...batch, D]` to galaxies `[...batch, ny, nx]`."""
        return self.decode(self.to_latent(u, condition), xla=xla)

    def encode(self, image: ArrayLike, sigma: ArrayLike) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean of z given noisy images and a root of its covariance: the encoder's, refined by Newton's steps if any.

        Args:
            image: `[...batch, ny, nx]`, of unit flux before noise, with the training's PSF.
            sigma: `[...batch]`, noise per pixel in the same unit.

        Returns:
            mean `[...batch, D]`, and scale `[...batch, D, D]`, the Cholesky factor of the covariance.
        """
        image, sigma = tf.convert_to_tensor(image), tf.convert_to_tensor(sigma)
        side = self.stamp_size
        if image.shape[-2:] != (side, side):
            raise ParameterError(f"GalaxyModel.encode: images must be [..., {side}, {side}], got {image.shape}")
        batch = tf.shape(image)[:-2]
        mean, scale = self.posterior(tf.reshape(image, [-1, side, side]), tf.reshape(sigma, [-1])).moments()
        dim = self.latent_dim
        mean, scale = (
            tf.reshape(mean, tf.concat([batch, [dim]], 0)),
            tf.reshape(scale, tf.concat([batch, [dim] * 2], 0)),
        )
        return tf.cast(mean, image.dtype), tf.cast(scale, image.dtype)

    def posterior(self, image: ArrayLike, sigma: ArrayLike) -> Posterior:
        """q(z | image, sigma): images `[batch, ny, nx]` and noise `[batch]` as in `encode`."""
        image, sigma = tf.cast(image, tf.float32), tf.cast(sigma, tf.float32)
        posterior = self.encoder.posterior(image, sigma)
        if not self.newton_steps:
            return posterior
        return GaussianPosterior(self._refine(image, sigma, posterior.mean, posterior.scale), posterior.scale)

    def sample_prior(self, n: int, seed: int, condition: ArrayLike | None = None) -> tf.Tensor:
        """`n` galaxies drawn from the prior, `[n, ny, nx]`; the same for the same seed."""
        return self.generate(tf.random.stateless_normal([n, self.latent_dim], [seed, 0]), condition)

    def replace(self, **changes: Any) -> "GalaxyModel":
        """The same model, networks and all, but for the given arguments of the constructor.

        Raises:
            ParameterError: the constructor refuses them.

        Example:
            >>> load_galaxy_model("galaxies", version=2).replace(newton_steps=0).newton_steps
            0
        """
        return GalaxyModel(**{name: getattr(self, name) for name in _ARGUMENTS} | changes)

    def save(self, directory: str | Path) -> None:
        """Write `config.json`, the networks' weights, the PSF, and a TensorFlow SavedModel in `saved_model/`.

        The SavedModel needs no code of this package; its endpoints, all with a batch axis, are `decode`,
        `to_latent`, `generate` and `encode`. With a conditional flow, `to_latent` and `generate` also take the
        condition.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        names = [f"{name}.weights.h5" for name in self._networks()]
        remove_leftovers(directory, [*names, _PSF, "config.json"])
        (directory / "config.json").unlink(missing_ok=True)  # of another model, whose files are about to go
        for name, network in self._networks().items():
            write_atomically(directory / f"{name}.weights.h5", network.save_weights)
        files = {name: directory / f"{name}.weights.h5" for name in self._networks()}
        if self.psf is not None:
            files["psf"] = directory / _PSF
            write_atomically(files["psf"], lambda path: np.save(path, self.psf))
        config = {
            "format": _FORMAT,
            "format_version": 2,
            "pixel_scale": self.pixel_scale,
            "resolution": self.resolution,
            "condition": self.condition.as_dict() if self.condition else None,
            "before_psf": self.before_psf,
            "newton_steps": self.newton_steps,
            "flow_in_elbo": self.flow_in_elbo,
            **{role: describe_network(role, network) for role, network in self._networks().items()},
            "sha256": {name: _sha256(path) for name, path in files.items()},
        }
        write_folder(directory / "saved_model", self._export)
        # Last: with it the model is one.
        write_atomically(directory / "config.json", lambda path: path.write_text(json.dumps(config, indent=2) + "\n"))

    @classmethod
    def load(cls, directory: str | Path) -> "GalaxyModel":
        """The model in a directory that `save` wrote.

        Raises:
            SavedModelError: a file is missing, unreadable, changed, or of a model of another form.
        """
        directory = Path(directory)
        try:
            config = json.loads((directory / "config.json").read_text())
        except FileNotFoundError:
            raise SavedModelError(f"{directory}: no config.json, so this is not a galaxy model") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise SavedModelError(f"{directory / 'config.json'} is not readable JSON: {error}") from None
        known = isinstance(config, dict) and config.get("format") == _FORMAT
        if not known or config.get("format_version") not in _VERSIONS:
            raise SavedModelError(
                f"{directory / 'config.json'} does not describe a galaxy model of format "
                f"{' or '.join(map(str, _VERSIONS))}"
            )
        try:
            networks = {role: make_network(role, config[role]) for role in KINDS}
            model = cls(
                **networks,
                pixel_scale=config["pixel_scale"],
                resolution=config["resolution"],
                # Format 1 knew none of these, nor the kinds of networks: it has the default ones.
                condition=Condition(**config["condition"]) if config.get("condition") else None,
                before_psf=config.get("before_psf", True),
                psf=_load_psf(directory / _PSF, config["sha256"].get("psf")),
                newton_steps=config.get("newton_steps", 0),
                flow_in_elbo=config.get("flow_in_elbo", False),
            )
            digests = {role: config["sha256"][role] for role in KINDS}
        except SavedModelError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            raise SavedModelError(
                f"{directory / 'config.json'} describes no model that can be built: {type(error).__name__}: {error}"
            ) from None
        for name, network in networks.items():
            path = directory / f"{name}.weights.h5"
            _check_unchanged(path, digests[name])
            try:
                network.load_weights(path)
            except (OSError, ValueError, KeyError) as error:
                raise SavedModelError(f"{path} does not fit the networks of config.json: {error}") from None
        return model

    def _refined_mean(self, image: tf.Tensor, sigma: tf.Tensor, mean: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        prior = gaussian_part(self.flow if self.flow_in_elbo else None)
        start = GaussianPosterior(mean, scale)
        return newton_refined(start, image, sigma, self._observe, self.newton_steps, prior).mean

    def _observe(self, z: tf.Tensor) -> tf.Tensor:
        image = self.decoder(z)
        return self._convolution.convolve(image) if self.before_psf else image

    def _latent(self, values: ArrayLike, method: str) -> tf.Tensor:
        values = tf.convert_to_tensor(values)
        if values.shape.rank == 0 or values.shape[-1] != self.latent_dim:
            raise ParameterError(
                f"GalaxyModel.{method}: the last axis must be the latent dimension {self.latent_dim}, "
                f"got the shape {values.shape}"
            )
        return values

    def _networks(self) -> dict[str, keras.Model]:
        return {"encoder": self.encoder, "decoder": self.decoder, "flow": self.flow}

    def _export(self, directory: Path) -> None:
        z = tf.TensorSpec([None, self.latent_dim], tf.float32, name="z")
        image = tf.TensorSpec([None, self.stamp_size, self.stamp_size], tf.float32, name="image")
        sigma = tf.TensorSpec([None], tf.float32, name="sigma")

        def encode(image: tf.Tensor, sigma: tf.Tensor) -> dict[str, tf.Tensor]:
            mean, scale = self.encode(image, sigma)
            return {"mean": mean, "scale": scale}

        program = tf.Module()
        # Keras' own ExportArchive stores every variable twice.
        program.weights = [variable.value for network in self._networks().values() for variable in network.variables]
        program.decode = tf.function(lambda z: self.decode(z), input_signature=[z])
        prior = [tf.TensorSpec([None, self.latent_dim], tf.float32, name="u")]
        if self.condition:
            prior.append(tf.TensorSpec([None, self.condition.dim], tf.float32, name="condition"))
        program.to_latent = tf.function(lambda *inputs: self.to_latent(*inputs), input_signature=prior)
        program.generate = tf.function(lambda *inputs: self.generate(*inputs), input_signature=prior)
        program.encode = tf.function(encode, input_signature=[image, sigma])
        endpoints = {name: getattr(program, name) for name in ("decode", "to_latent", "generate", "encode")}
        tf.saved_model.save(program, str(directory), signatures=endpoints)


def load_galaxy_model(name: str | Path = "galaxies", version: int | str | None = None) -> GalaxyModel:
    """A trained galaxy model, by the name of one that is shipped or by its path.

    Args:
        name: of a model in `saved_models`, beside the installed package or in the checkout; or the path of a
            model's directory, or of a directory of its versions.
        version: the newest if None.

    Raises:
        SavedModelError: no such model or version, or what is there cannot be loaded.

    Example:
        >>> model = load_galaxy_model("galaxies", version=2)
        >>> model.pixel_scale
        0.05
    """
    return GalaxyModel.load(find_galaxy_model(name, version))


def find_galaxy_model(name: str | Path, version: int | str | None = None) -> Path:
    """The directory of the model that `load_galaxy_model` would load; arguments and errors are its own."""
    package = Path(__file__).resolve().parents[1]
    shipped = [package / "saved_models" / name, package.parent / "saved_models" / name]
    # A bare name means a shipped model, whatever lies in the current folder; a path is written with a separator.
    places = shipped if Path(name).name == str(name) else [Path(name)]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise SavedModelError(f"no galaxy model {str(name)!r}: looked for {', '.join(str(place) for place in places)}")
    if version is None and (found / "config.json").is_file():
        return found
    versions = sorted(int(path.name) for path in found.iterdir() if path.is_dir() and path.name.isdigit())
    if not versions:
        raise SavedModelError(f"{found} holds no versions of a galaxy model (directories 1, 2, ...)")
    if version is None:
        return found / str(versions[-1])
    if str(version) not in map(str, versions):
        raise SavedModelError(f"{found} has no version {version}; it has {', '.join(map(str, versions))}")
    return found / str(version)


_FORMAT = "tflens.galaxies"
_VERSIONS = (1, 2)
_PSF = "psf.npy"
_ARGUMENTS = [name for name in inspect.signature(GalaxyModel.__init__).parameters if name != "self"]


def _load_psf(path: Path, digest: str | None) -> NDArray[np.float32] | None:
    """The PSF, if the model was saved with one; a file without a digest is another model's."""
    if digest is None:
        return None
    _check_unchanged(path, digest)
    return np.load(path, allow_pickle=False)


def _check_unchanged(path: Path, digest: str) -> None:
    if not path.is_file():
        raise SavedModelError(f"{path} is missing; restore the model's directory as it was saved")
    if _sha256(path) != digest:
        raise SavedModelError(f"{path} is not the file that config.json was written for (its SHA-256 differs)")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
