"""A trained galaxy model: the neural source of a lens fit, saved, found and loaded."""

import hashlib
import json
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from numpy.typing import ArrayLike

from tflens.errors import ParameterError, SavedModelError
from tflens.galaxies.decoder import Decoder
from tflens.galaxies.encoder import Encoder
from tflens.galaxies.flow import InverseAutoregressiveFlow


class GalaxyModel:
    """Galaxies before the PSF as a function of u ~ N(0, I): z = T(u), image = decoder(z).

    Everything is a smooth function of its input, works in eager and graph mode and inside
    `tf.function(jit_compile=True)`, and can be differentiated twice. The networks compute in float32; results
    have the type of the input.

    Args:
        encoder, decoder, flow: of one latent dimension and stamp size.
        pixel_scale: of the decoded stamp, arcsec.
        resolution: FWHM of the Gaussian that the decoded galaxies are convolved with, arcsec.

    Raises:
        ParameterError: the networks disagree in latent dimension or stamp size.

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
        flow: InverseAutoregressiveFlow,
        pixel_scale: float = 0.05,
        resolution: float = 0.06,
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
        self.encoder = encoder
        self.decoder = decoder
        self.flow = flow
        self.pixel_scale = float(pixel_scale)
        self.resolution = float(resolution)
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

    def to_latent(self, u: ArrayLike) -> tf.Tensor:
        """The flow T, one pass: u `[...batch, D]`, N(0, I) a priori, to z `[...batch, D]`."""
        u = self._latent(u, "to_latent")
        z = tf.reshape(self.flow(tf.reshape(tf.cast(u, tf.float32), [-1, self.latent_dim])), tf.shape(u))
        z.set_shape(u.shape)
        return tf.cast(z, u.dtype)

    def generate(self, u: ArrayLike, xla: bool = False) -> tf.Tensor:
        """`decode(to_latent(u))`: u `[...batch, D]` to galaxies `[...batch, ny, nx]`."""
        return self.decode(self.to_latent(u), xla=xla)

    def encode(self, image: ArrayLike, sigma: ArrayLike) -> tuple[tf.Tensor, tf.Tensor]:
        """The posterior of z given noisy images, as the encoder sees it.

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
        mean, scale = self.encoder(
            tf.reshape(tf.cast(image, tf.float32), [-1, side, side]), tf.reshape(tf.cast(sigma, tf.float32), [-1])
        )
        dim = self.latent_dim
        mean, scale = (
            tf.reshape(mean, tf.concat([batch, [dim]], 0)),
            tf.reshape(scale, tf.concat([batch, [dim] * 2], 0)),
        )
        return tf.cast(mean, image.dtype), tf.cast(scale, image.dtype)

    def sample_prior(self, n: int, seed: int) -> tf.Tensor:
        """`n` galaxies drawn from the prior, `[n, ny, nx]`; the same for the same seed."""
        return self.generate(tf.random.stateless_normal([n, self.latent_dim], [seed, 0]))

    def save(self, directory: str | Path) -> None:
        """Write `config.json`, the networks' weights, and a TensorFlow SavedModel in `saved_model/`.

        The SavedModel needs no code of this package; its endpoints, all with a batch axis, are `decode`,
        `to_latent`, `generate` and `encode`.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        for name, network in self._networks().items():
            network.save_weights(directory / f"{name}.weights.h5")
        config = {
            "format": _FORMAT,
            "format_version": 1,
            "pixel_scale": self.pixel_scale,
            "resolution": self.resolution,
            **{name: _own_config(network) for name, network in self._networks().items()},
            "sha256": {name: _sha256(directory / f"{name}.weights.h5") for name in self._networks()},
        }
        (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        self._export(directory / "saved_model")

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
        if not isinstance(config, dict) or config.get("format") != _FORMAT or config.get("format_version") != 1:
            raise SavedModelError(f"{directory / 'config.json'} does not describe a galaxy model of format 1")
        try:
            networks = {name: kind(**config[name]) for name, kind in _NETWORKS.items()}
            model = cls(**networks, pixel_scale=config["pixel_scale"], resolution=config["resolution"])
            digests = {name: config["sha256"][name] for name in _NETWORKS}
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise SavedModelError(
                f"{directory / 'config.json'} describes no model that can be built: {type(error).__name__}: {error}"
            ) from None
        for name, network in networks.items():
            path = directory / f"{name}.weights.h5"
            if not path.is_file():
                raise SavedModelError(f"{path} is missing; restore the model's directory as it was saved")
            if _sha256(path) != digests[name]:
                raise SavedModelError(f"{path} is not the file that config.json was written for (its SHA-256 differs)")
            try:
                network.load_weights(path)
            except (OSError, ValueError, KeyError) as error:
                raise SavedModelError(f"{path} does not fit the networks of config.json: {error}") from None
        return model

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
        latent = tf.TensorSpec([None, self.latent_dim], tf.float32)
        image = tf.TensorSpec([None, self.stamp_size, self.stamp_size], tf.float32, name="image")
        sigma = tf.TensorSpec([None], tf.float32, name="sigma")

        def encode(image: tf.Tensor, sigma: tf.Tensor) -> dict[str, tf.Tensor]:
            mean, scale = self.encode(image, sigma)
            return {"mean": mean, "scale": scale}

        program = tf.Module()
        # Keras' own ExportArchive stores every variable twice.
        program.weights = [variable.value for network in self._networks().values() for variable in network.variables]
        program.decode = tf.function(lambda z: self.decode(z), input_signature=[latent])
        program.to_latent = tf.function(lambda u: self.to_latent(u), input_signature=[latent])
        program.generate = tf.function(lambda u: self.generate(u), input_signature=[latent])
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
        >>> model = load_galaxy_model("galaxies", version=1)
        >>> model.pixel_scale
        0.05
    """
    return GalaxyModel.load(_find(name, version))


_FORMAT = "tflens.galaxies"
_NETWORKS = {"encoder": Encoder, "decoder": Decoder, "flow": InverseAutoregressiveFlow}


def _find(name: str | Path, version: int | str | None) -> Path:
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


def _own_config(network: keras.Model) -> dict[str, Any]:
    return {key: value for key, value in network.get_config().items() if key not in ("name", "trainable", "dtype")}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


__all__ = ["GalaxyModel", "load_galaxy_model"]
