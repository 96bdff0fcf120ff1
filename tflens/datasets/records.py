"""A dataset on disk: a folder of compressed TFRecord shards, one set for each split, and `dataset.json` about them.

Galaxies are made one block of keys at a time: block 3 fills at most `train-00003.tfrecord.gz`,
`validation-00003.tfrecord.gz` and `test-00003.tfrecord.gz`, and only then enters `dataset.json`. What is not in
`dataset.json` is not in the dataset, so a run that is killed loses at most one block, and goes on with it.

TensorFlow is imported where it is used: worker processes import this module for `Record`, and do without it.
"""

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b, file_digest
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tflens.disk import locked, make_writable, telling_of_full_disks
from tflens.errors import ParameterError
from tflens.files import remove_leftovers, write_atomically
from tflens.parsing import parse_json

if TYPE_CHECKING:
    import tensorflow as tf

Key = str | int
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SHARES = (0.9, 0.05, 0.05)
"""Shares of train, validation and test."""


@dataclass(frozen=True)
class Record:
    """One galaxy: `image` float32 `[n, n]`, a number of its own, scalar metadata (kept as float32; NaN = not known),
    and `psf` float32 `[m, m]` if the galaxies of the dataset have a PSF each."""

    image: NDArray[np.float32]
    index: int
    metadata: Mapping[str, float] = field(default_factory=dict)
    psf: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Rejected:
    """A galaxy that does not enter the dataset, and why: few words, the same for all that share the reason."""

    reason: str


@dataclass(frozen=True)
class Dataset:
    """A split in memory: `images` `[N, n, n]`, `index` `[N]`, `metadata` of `[N]` each, the manifest it was written
    with, and `psfs` `[N, m, m]` if every galaxy has its own."""

    images: NDArray[np.float32]
    index: NDArray[np.int64]
    metadata: dict[str, NDArray[np.float32]]
    manifest: dict[str, Any]
    psfs: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Summary:
    """What `dataset.json` says: the manifest, how many keys were asked for and done, how many galaxies each split
    holds, and the keys that were rejected by reason."""

    manifest: dict[str, Any]
    count: int
    done: int
    kept: dict[Split, int]
    rejected: dict[str, list[Key]]


def split_of(key: Key, shares: tuple[float, float, float] = SHARES) -> Split:
    """The split of a galaxy, by a hash of its key: it depends neither on the order nor on the number of galaxies.

    Args:
        key: name or number of the galaxy; `5` and `"5"` are the same.
        shares: of train, validation and test; they sum to 1.

    Example:
        >>> [split_of(index) for index in (0, 1, 2)]
        ['train', 'test', 'test']
    """
    position = int.from_bytes(blake2b(str(key).encode(), digest_size=4).digest(), "big") / 2**32
    return "train" if position < shares[0] else "validation" if position < shares[0] + shares[1] else "test"


def write_dataset(
    directory: str | Path,
    manifest: Mapping[str, Any],
    keys: Sequence[Key],
    make: Callable[[Key], Record | Rejected | None],
    *,
    processes: int = 1,
    shard_size: int = 500,
    shares: tuple[float, float, float] = SHARES,
    progress: Callable[[int, int], object] = lambda done, kept: None,
) -> Path:
    """Makes a record of every key and writes them, split by split; a run that was killed goes on where it stopped.

    The files depend on the manifest, the keys, `make`, `shard_size` and `shares` alone: not on the number of
    processes, nor on how often the run was killed. More keys may be appended in a later run. Memory holds one block
    of `shard_size` records.

    Args:
        directory: made if missing.
        manifest: all that the records follow from, as JSON knows it; a later run must give the same.
        keys: names or numbers of the galaxies, each once.
        make: the record of a key, or `Rejected(reason)`, or None (rejected for no stated reason). A pure function;
            picklable if `processes` is above 1.
        processes: 1 works in this process, more in as many others, at lower priority.
        shard_size: keys in a block.
        shares: of train, validation and test; they sum to 1.
        progress: called with the number of keys done and of galaxies kept, after each key.

    Returns:
        The directory.

    Raises:
        ParameterError: a setting is out of range, a key comes twice, the directory holds another dataset or is being
            written by another process, records differ in their form, or a worker process was killed.
        StorageError: the directory cannot be written to, or the disk is full; finished blocks are kept.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> def make(key):
        ...     if key == 4:
        ...         return Rejected("too faint")
        ...     return Record(np.full((2, 2), key, np.float32), key, {"flux": 4.0 * key})
        >>> path = write_dataset(folder.name, {"name": "squares"}, range(20), make)
        >>> summarize_dataset(path).kept, summarize_dataset(path).rejected
        ({'train': 17, 'validation': 0, 'test': 2}, {'too faint': [4]})
        >>> load_dataset(path, "test").metadata["flux"]
        array([4., 8.], dtype=float32)
        >>> folder.cleanup()
    """
    for name, value in (("processes", processes), ("shard_size", shard_size)):
        if value < 1:
            raise ParameterError(f"write_dataset: {name} must be at least 1, got {value!r}")
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
        raise ParameterError(f"write_dataset: shares of {', '.join(SPLITS)} must sum to 1, got {shares!r}")
    keys = [key if isinstance(key, str) else int(key) for key in keys]
    twice = [key for key, times in Counter(map(str, keys)).items() if times > 1]
    if not keys or twice:
        raise ParameterError(
            f"write_dataset: the key {twice[0]} comes twice" if twice else "write_dataset: there are no keys"
        )
    directory = Path(directory)
    make_writable(directory)
    kept_words = "Finished blocks are kept."
    with locked(directory), telling_of_full_disks(directory, kept_words), _mapping(make, processes) as make_all:
        remove_leftovers(directory, (*(f"{split}-*.gz" for split in SPLITS), _NAME))
        ledger = _Ledger.open_for(directory, dict(manifest), keys, shard_size, shares)
        kept = 0
        for number, start in enumerate(range(0, len(keys), shard_size)):
            block = keys[start : start + shard_size]
            if not ledger.has(number, block):
                records: dict[Split, list[Record]] = {split: [] for split in SPLITS}
                rejected: dict[str, list[Key]] = {}
                for i, (key, made) in enumerate(zip(block, make_all(block), strict=True), start=1):
                    if isinstance(made, Record):
                        ledger.check(key, made)
                        records[split_of(key, shares)].append(made)
                    else:
                        rejected.setdefault(made.reason if made else "rejected", []).append(key)
                    progress(start + i, kept + sum(map(len, records.values())))
                ledger.add(number, block, records, rejected)
            kept += ledger.kept(number)
            progress(start + len(block), kept)
    return directory


def load_dataset(directory: str | Path, split: Split) -> Dataset:
    """A whole split in memory.

    Raises:
        ParameterError: no such split, no (whole) dataset in the directory, or a file of it is missing or damaged.
    """
    import tensorflow as tf

    ledger, shards = _open_split("load_dataset", directory, split)
    count = sum(shard["records"] for _, shard in shards)
    form = ledger.form
    if form is None or not count:
        raise ParameterError(f"load_dataset: the dataset in {directory} has no galaxy in its split {split}")
    images = np.empty((count, *form["image"]), np.float32)
    psfs = np.empty((count, *form["psf"]), np.float32) if form["psf"] else None
    index = np.empty(count, np.int64)
    metadata = {name: np.empty(count, np.float32) for name in form["metadata"]}
    batches = _stream([path for path, _ in shards], 1).batch(_BATCH)
    start = 0
    parsed = batches.map(lambda examples: _parse(examples, form)).prefetch(tf.data.AUTOTUNE)
    try:
        for batch in parsed.as_numpy_iterator():
            chosen = slice(start, start + len(batch["index"]))
            images[chosen], index[chosen] = batch["image"], batch["index"]
            for name, values in metadata.items():
                values[chosen] = batch[name]
            if psfs is not None:
                psfs[chosen] = batch["psf"]
            start = chosen.stop
    except (tf.errors.OpError, ValueError) as error:
        # The digest was right: it was written so.
        raise ParameterError(
            f"load_dataset: the files of {directory} cannot be read as records of the form in {_NAME} "
            f"({str(error).splitlines()[0][:200]}); remove it and make the dataset anew"
        ) from None
    if start != count:
        raise ParameterError(
            f"load_dataset: the files of {directory} should hold {count} galaxies by {_NAME}, but hold {start}; remove "
            "it and make the dataset anew"
        )
    return Dataset(images, index, metadata, ledger.content["manifest"], psfs)


def read_dataset(directory: str | Path, split: Split, interleave: int = 4) -> "tf.data.Dataset":
    """A split as a stream of galaxies, in memory that does not grow with the dataset.

    Args:
        directory: of the dataset.
        split: `"train"`, `"validation"` or `"test"`.
        interleave: files that are read by turns. The order is always the same; shuffle it with `Dataset.shuffle`.

    Returns:
        A dataset of `{"image": [n, n], "index": int64, name: float32, ...}` with every name of the metadata, and
        `"psf": [m, m]` if every galaxy has its own.

    Raises:
        ParameterError: no such split, no (whole) dataset in the directory, or a file of it is missing or damaged.
    """
    import tensorflow as tf

    ledger, shards = _open_split("read_dataset", directory, split)
    form = ledger.form
    if form is None:
        raise ParameterError(f"read_dataset: the dataset in {directory} has no galaxy")
    batches = _stream([path for path, _ in shards], interleave).batch(_BATCH)
    return batches.map(lambda examples: _parse(examples, form), num_parallel_calls=tf.data.AUTOTUNE).unbatch()


def summarize_dataset(directory: str | Path) -> Summary:
    """What is in a dataset, finished or not, without reading it.

    Raises:
        ParameterError: no dataset in the directory.
    """
    ledger = _Ledger.open("summarize_dataset", Path(directory))
    blocks = ledger.done
    rejected: dict[str, list[Key]] = {}
    for block in blocks:
        for reason, keys in block["rejected"].items():
            rejected.setdefault(reason, []).extend(keys)
    return Summary(
        ledger.content["manifest"],
        ledger.content["count"],
        sum(block["count"] for block in blocks),
        {split: sum(block["shards"][split]["records"] for block in blocks) for split in SPLITS},
        rejected,
    )


class _Ledger:
    """`dataset.json`: what the dataset is, and which blocks of it are done. Written anew after every block."""

    def __init__(self, directory: Path, content: dict[str, Any]) -> None:
        self.directory = directory
        self.content = content

    @classmethod
    def open(cls, caller: str, directory: Path) -> "_Ledger":
        path = directory / _NAME
        if not path.exists():
            raise ParameterError(
                f"{caller}: no dataset in {directory} ({_NAME} is missing); make one with `tflens data`"
            )
        try:
            content = parse_json(path.read_text())
            if content["format"] != _FORMAT:
                raise ParameterError(f"{caller}: {path} has format {content['format']}, not {_FORMAT}; make it anew")
            _check_content(content)
        except ParameterError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ParameterError(
                f"{caller}: {path} is not that of a dataset ({type(error).__name__}: {error}); make the dataset anew"
            ) from error
        return cls(directory, content)

    @classmethod
    def open_for(
        cls,
        directory: Path,
        manifest: dict[str, Any],
        keys: list[Key],
        shard_size: int,
        shares: tuple[float, float, float],
    ) -> "_Ledger":
        """The ledger of a new dataset, or of the one in the directory if it is the same, perhaps with fewer keys."""
        try:
            wanted = json.loads(
                json.dumps(
                    {
                        "format": _FORMAT,
                        "manifest": manifest,
                        "shard_size": shard_size,
                        "shares": shares,
                        "count": len(keys),
                        "form": None,
                        "blocks": [],
                    },
                    allow_nan=False,
                )
            )
        except (TypeError, ValueError) as error:
            raise ParameterError(f"write_dataset: the manifest must be made of what JSON knows: {error}") from error
        if not (directory / _NAME).exists():
            ledger = cls(directory, wanted)
            ledger.save()
            return ledger
        ledger = cls.open("write_dataset", directory)
        found = ledger.content
        differences = _differences(found["manifest"], wanted["manifest"])
        differences += _differences(*({name: c[name] for name in ("shard_size", "shares")} for c in (found, wanted)))
        if found["count"] > len(keys):
            differences.append(f"it has {found['count']} keys, not {len(keys)}")
        for start, block in zip(range(0, len(keys), shard_size), found["blocks"], strict=False):
            if block and not differences and _digest(keys[start : start + block["count"]]) != block["keys"]:
                differences.append(f"its keys {start} to {start + block['count'] - 1} are others")
        if differences:
            raise ParameterError(
                f"write_dataset: {directory} holds another dataset: {'; '.join(differences)}. "
                "Remove it or choose another directory"
            )
        found["count"] = len(keys)
        return ledger

    @property
    def done(self) -> list[dict[str, Any]]:
        """The blocks that are done."""
        return [block for block in self.content["blocks"] if block]

    @property
    def form(self) -> dict[str, Any] | None:
        return self.content["form"]

    def has(self, number: int, block: list[Key]) -> bool:
        """Whether the block is done and its files are there. If not, it is struck out."""
        blocks = self.content["blocks"]
        if number >= len(blocks):
            blocks.append(None)
        done = blocks[number]
        if done and not (
            done["count"] == len(block)
            and all(
                not shard["records"] or _size(self._path(number, split)) == shard["bytes"]
                for split, shard in done["shards"].items()
            )
        ):
            done = blocks[number] = None
            self.save()
        return done is not None

    def kept(self, number: int) -> int:
        return sum(shard["records"] for shard in self.content["blocks"][number]["shards"].values())

    def check(self, key: Key, record: Record) -> None:
        """All records have the form of the first; what a dataset of several forms would mean is nowhere defined."""
        image, psf = np.shape(record.image), None if record.psf is None else np.shape(record.psf)
        form = {
            "image": list(image),
            "psf": psf and list(psf),
            "metadata": sorted(record.metadata),
        }
        if self.content["form"] is None:
            if len(image) != 2 or image[0] != image[1]:
                raise ParameterError(f"write_dataset: the image of {key} must be [n, n], got the shape {image}")
            if "image" in record.metadata or "index" in record.metadata or "psf" in record.metadata:
                raise ParameterError("write_dataset: image, index and psf are no names for metadata")
            self.content["form"] = form
        if form != self.content["form"]:
            differences = "; ".join(_differences(self.content["form"], form))
            raise ParameterError(
                f"write_dataset: the record of {key} differs in form from those before it: {differences}"
            )
        if not np.all(np.isfinite(record.image)):
            raise ParameterError(f"write_dataset: the image of {key} has pixels that are not finite; reject it instead")

    def add(
        self, number: int, block: list[Key], records: dict[Split, list[Record]], rejected: dict[str, list[Key]]
    ) -> None:
        shards = {split: _write_shard(self._path(number, split), records[split]) for split in SPLITS}
        self.content["blocks"][number] = {
            "count": len(block),
            "keys": _digest(block),
            "shards": shards,
            "rejected": dict(sorted(rejected.items())),
        }
        self.save()

    def save(self) -> None:
        content = json.dumps(self.content, indent=1) + "\n"
        write_atomically(self.directory / _NAME, lambda path: path.write_text(content))

    def shards(self, split: Split) -> Iterator[tuple[Path, dict[str, Any]]]:
        for number, block in enumerate(self.content["blocks"]):
            if block and block["shards"][split]["records"]:
                yield self._path(number, split), block["shards"][split]

    def _path(self, number: int, split: Split) -> Path:
        return self.directory / f"{split}-{number:05d}.tfrecord.gz"


def _check_content(content: Mapping[str, Any]) -> None:
    """Every place of a manifest that is read later.

    Raises:
        KeyError, TypeError, ValueError: one is missing or of another kind.
    """
    form, whole = content["form"], [content["count"], content["shard_size"]]
    if form is not None:
        shapes = [form["image"], *([form["psf"]] if form["psf"] else [])]
        whole += [n for shape in shapes for n in [*shape]]
        whole += [0 if isinstance(name, str) else name for name in form["metadata"]]
    for block in filter(None, content["blocks"]):
        whole.append(block["count"])
        dict(block["rejected"]), block["keys"]
        for split in SPLITS:
            shard = block["shards"][split]
            whole += [shard["records"], *([shard["bytes"]] if shard["records"] else [])]
            if shard["records"] and not isinstance(shard["digest"], str):
                raise TypeError(f"digest {shard['digest']!r}")
    dict(content["manifest"]), len(content["shares"])
    for number in whole:
        if not isinstance(number, int) or number < 0:
            raise TypeError(f"{number!r} where a whole number is wanted")


def _open_split(caller: str, directory: str | Path, split: str) -> tuple[_Ledger, list[tuple[Path, dict[str, Any]]]]:
    """The ledger and the files of a split, every one of them compared with the digest it was written with."""
    if split not in SPLITS:
        raise ParameterError(f"{caller}: split must be one of {', '.join(SPLITS)}, got {split!r}")
    ledger = _Ledger.open(caller, Path(directory))
    done, count = sum(block["count"] for block in ledger.done), ledger.content["count"]
    if done < count:
        raise ParameterError(
            f"{caller}: the dataset in {directory} is unfinished ({done} of {count} done); "
            "run the command that makes it again, it goes on where it stopped"
        )
    shards = list(ledger.shards(split))
    for path, shard in shards:
        state = "missing" if not path.exists() else "damaged" if _file_digest(path) != shard["digest"] else ""
        if state:
            raise ParameterError(
                f"{caller}: {path} is {state}; remove it if it is there, and run the command that makes the dataset "
                "again, it makes this file anew"
            )
    return ledger, shards


def _stream(paths: list[Path], interleave: int) -> "tf.data.Dataset":
    import tensorflow as tf

    names = tf.constant([str(path) for path in paths], tf.string)
    return tf.data.Dataset.from_tensor_slices(names).interleave(
        lambda name: tf.data.TFRecordDataset(name, compression_type="GZIP"),
        cycle_length=interleave,
        num_parallel_calls=min(interleave, os.cpu_count() or 1),
        deterministic=True,
    )


def _parse(examples: "tf.Tensor", form: dict[str, Any]) -> dict[str, "tf.Tensor"]:
    import tensorflow as tf

    arrays = {name: form[name] for name in ("image", "psf") if form[name]}
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in arrays}
    features |= {name: tf.io.FixedLenFeature([], tf.float32) for name in form["metadata"]}
    features["index"] = tf.io.FixedLenFeature([], tf.int64)
    parsed = tf.io.parse_example(examples, features)
    for name, shape in arrays.items():
        parsed[name] = tf.reshape(tf.io.decode_raw(parsed[name], tf.float32), [-1, *shape])
    return parsed


def _write_shard(path: Path, records: list[Record]) -> dict[str, Any]:
    """Writes a file of one split, if there is anything to write, and returns what the ledger says of it."""
    import tensorflow as tf

    if not records:
        return {"records": 0}

    def write(temporary: Path) -> None:
        with tf.io.TFRecordWriter(str(temporary), tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
            for record in records:
                writer.write(_serialize(record))

    write_atomically(path, write)
    return {"records": len(records), "bytes": path.stat().st_size, "digest": _file_digest(path)}


def _serialize(record: Record) -> bytes:
    import tensorflow as tf

    def raw(array: NDArray[np.float32]) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[np.asarray(array, "<f4").tobytes()]))

    feature = {"image": raw(record.image)}
    if record.psf is not None:
        feature["psf"] = raw(record.psf)
    feature["index"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[record.index]))
    for name in sorted(record.metadata):
        feature[name] = tf.train.Feature(float_list=tf.train.FloatList(value=[record.metadata[name]]))
    # The order of a map is not fixed otherwise, and the bytes of a file are compared.
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return example.SerializeToString(deterministic=True)


@contextmanager
def _mapping(make: Callable[[Key], Any], processes: int) -> Iterator[Callable[[list[Key]], Iterator[Any]]]:
    """`map(make, keys)` in this process or in others."""
    if processes == 1:
        yield lambda keys: map(make, keys)
        return
    # Workers must not inherit TensorFlow's threads, hence "spawn".
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin_worker) as executor:
        try:
            yield lambda keys: executor.map(make, keys, chunksize=max(1, min(8, len(keys) // (4 * processes))))
        except BrokenProcessPool as error:
            raise ParameterError(
                "write_dataset: a worker process was killed, perhaps for want of memory; run it again with fewer "
                f"processes than {processes}, it goes on where it stopped"
            ) from error
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    os.nice(5)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends its workers
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    """Ends this worker when its parent is killed, which would otherwise leave it waiting for work for ever."""
    parent.join()
    os._exit(1)


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    names = sorted(found.keys() | wanted.keys())
    missing = "nothing"
    return [
        f"its {name} is {_short(found.get(name, missing))}, not {_short(wanted.get(name, missing))}"
        for name in names
        if found.get(name, missing) != wanted.get(name, missing)
    ]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _digest(keys: Sequence[Key]) -> str:
    return blake2b(json.dumps([str(key) for key in keys]).encode(), digest_size=8).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


_NAME = "dataset.json"
_FORMAT = 1
_BATCH = 128
