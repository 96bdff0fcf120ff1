"""The training loop, one for every network: compiled, resumable, on one or several devices."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tflens.disk import locked, make_writable, telling_of_full_disks
from tflens.errors import ParameterError
from tflens.files import remove_leftovers, write_atomically

Record = dict[str, float]
Report = Callable[[Record], None]
Batch = Any
Sums = tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]

_BEST, _HISTORY = "best.weights.h5", "history.json"


class Trainable(keras.Model):
    """A model that says what it minimises; the rest of a step of training is the same for all.

    Several devices share a batch. Each computes the loss of the whole batch, by `batch_mean` and `shared_normal`, so
    that it is what one device would have computed.
    """

    def training_terms(self, batch: Batch, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """`"loss"`, a scalar to be minimised at a step counted from 0, and other scalars to be recorded."""
        raise NotImplementedError

    def validation_terms(self, batch: Batch) -> dict[str, tf.Tensor]:
        """`"loss"`, a scalar that decides which epoch was the best, and other scalars to be recorded."""
        raise NotImplementedError

    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """One step of the optimiser; what `training_terms` returns, and the norm of the gradient as `gradient_norm`."""
        context, variables = tf.distribute.get_replica_context(), self.trainable_variables
        devices = context.num_replicas_in_sync
        with tf.GradientTape() as tape:
            terms = self.training_terms(batch, tf.cast(self.optimizer.iterations, tf.int32))
            # Each device differentiates its own part of the loss that all of them share.
            loss = self.optimizer.scale_loss(terms["loss"]) / devices
        gradients = tape.gradient(loss, variables)
        if devices > 1:
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        scale = tf.cast(self.optimizer.scale_loss(tf.ones(())), tf.float32)  # 1 unless the precision is mixed
        norm = tf.linalg.global_norm(gradients) / scale
        if devices > 1:
            # The optimiser clips what each device hands it, and only then adds up: one of them hands over all of it.
            first = tf.equal(context.replica_id_in_sync_group, 0)
            gradients = [tf.where(first, gradient, 0.0) for gradient in gradients]
        self.optimizer.apply(gradients, variables)
        return {**terms, "gradient_norm": norm}

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """What `validation_terms` returns."""
        return self.validation_terms(batch)


def batch_mean(values: tf.Tensor) -> tf.Tensor:
    """Mean over the first axis of `[batch, ...]`, of the whole batch wherever several devices share one."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return tf.reduce_mean(values, 0)
    count = tf.cast(tf.shape(values)[0], values.dtype)
    total, count = context.all_reduce(tf.distribute.ReduceOp.SUM, [tf.reduce_sum(values, 0), count])
    return total / count


def shared_normal(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Standard normal noise `[batch, ...]`: this device's rows of one draw for the whole batch."""
    context = tf.distribute.get_replica_context()
    devices = context.num_replicas_in_sync
    if devices == 1:
        return tf.random.stateless_normal(shape, seed)
    own = context.replica_id_in_sync_group
    sizes = tf.one_hot(own, devices, dtype=tf.float32) * tf.cast(shape[0], tf.float32)
    sizes = tf.cast(context.all_reduce(tf.distribute.ReduceOp.SUM, sizes), tf.int32)
    start = tf.cumsum(sizes, exclusive=True)[own]
    whole = tf.random.stateless_normal(tf.concat([[tf.reduce_sum(sizes)], shape[1:]], 0), seed)
    return whole[start : start + shape[0]]


def train(
    model: Trainable,
    train_data: Callable[[int], tf.data.Dataset],
    validation_data: tf.data.Dataset,
    directory: str | Path,
    epochs: int,
    patience: int = 10,
    report: Report = lambda record: None,
    xla: bool = False,
    steps_per_call: int = 100,
    around_call: Callable[[int], AbstractContextManager] = lambda step: nullcontext(),
) -> list[Record]:
    """Train a compiled model, and leave it with the weights of the epoch of lowest validation loss.

    Many steps run in one call of a compiled loop that takes its batches itself. Everything that the run depends on is
    in the checkpoint of its last epoch: a run that was killed goes on from there, when it is called again with the
    same arguments, and ends with the same weights, bit for bit where the kernels of the device are deterministic (on
    CPUs they were found to be; on GPUs call `tf.config.experimental.enable_op_determinism`).

    Runs on the devices of the strategy in whose scope it is called, and in whose scope the model must have been made.
    Those may be on several machines (`tf.distribute.MultiWorkerMirroredStrategy`), each of which calls it with the same
    arguments: all of them read `directory`, and the chief alone writes to it.

    Args:
        model: compiled with an optimiser.
        train_data: number of the epoch, from 0, to its batches, of known number.
        validation_data: the same in every epoch.
        directory: holds `checkpoint/`, `best.weights.h5` and `history.json`.
        epochs: at most so many.
        patience: stop after so many epochs without a lower validation loss.
        report: called with the record of each epoch after it has been saved.
        xla: compile the steps with XLA (one device).
        steps_per_call: how many steps run before Python is asked again.
        around_call: number of the first step of a call, from 0, to a context that the call runs in; for the profiler.

    Returns:
        A record for each epoch: `epoch` from 1, `seconds`, `learning_rate` at its end, `data_wait`, the share of the
        time of training that was spent waiting for data, and the means of what the steps return, those of the
        validation data with the prefix `validation_`.

    Raises:
        ParameterError: there is no training or validation data, or a dataset does not know the number of its batches;
            a step returns no finite loss; another process trains in the directory.
        StorageError: the directory cannot be written to, or the disk is full; finished epochs are kept.
    """
    directory, strategy = Path(directory), tf.distribute.get_strategy()
    with _writing(strategy, directory) as own:
        best_weights = directory / _BEST
        model.optimizer.build(model.trainable_variables)
        epoch, best, waited = (tf.Variable(value) for value in (0, float("inf"), 0))
        checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer, epoch=epoch, best=best, waited=waited)
        manager = tf.train.CheckpointManager(checkpoint, str(own / "checkpoint"), max_to_keep=1)
        history: list[Record] = []
        if latest := tf.train.latest_checkpoint(str(directory / "checkpoint")):
            checkpoint.restore(latest).assert_consumed()
            history = json.loads((directory / _HISTORY).read_text())[: int(epoch.numpy())]
        _meet(strategy)  # all have read before the first one writes

        train_loop = _compiled(model.train_step, strategy, xla)
        test_loop = _compiled(model.test_step, strategy, xla)
        while int(epoch.numpy()) < epochs and int(waited.numpy()) < patience:
            start = time.perf_counter()
            data = train_data(int(epoch.numpy()))
            trained, data_wait = _run(train_loop, data, strategy, steps_per_call, around_call, int(epoch.numpy()))
            validated, _ = _run(test_loop, validation_data, strategy, steps_per_call)
            record = {
                "epoch": int(epoch.numpy()) + 1,
                **trained,
                **{f"validation_{name}": value for name, value in validated.items()},
                "learning_rate": float(tf.convert_to_tensor(model.optimizer.learning_rate)),
                "data_wait": data_wait,
                "seconds": time.perf_counter() - start,
            }
            if not np.isfinite(record["validation_loss"]):
                raise ParameterError(
                    f"train: the validation loss must be finite, got {record['validation_loss']} after epoch "
                    f"{record['epoch']}; lower the learning rate (the checkpoint of the epoch before is in {directory})"
                )
            if record["validation_loss"] < float(best.numpy()):
                best.assign(record["validation_loss"])
                waited.assign(0)
                write_atomically(own / _BEST, model.save_weights)
            else:
                waited.assign_add(1)
            epoch.assign_add(1)
            history.append(record)
            write_atomically(own / _HISTORY, lambda path: path.write_text(json.dumps(history)))
            manager.save()
            report(record)
        _meet(strategy)  # what the last epoch wrote is there
        if best_weights.exists():
            model.load_weights(best_weights)
        return history


@contextmanager
def _writing(strategy: tf.distribute.Strategy, directory: Path) -> Iterator[Path]:
    """Where this process may write: the directory, which is then its alone; for workers beside the chief, another one,
    which goes at the end: what they write is what the chief writes."""
    if not is_chief(strategy):
        with tempfile.TemporaryDirectory() as other:
            yield Path(other)
        return
    make_writable(directory)
    with locked(directory), telling_of_full_disks(directory, "Finished epochs are kept."):
        remove_leftovers(directory, (_BEST, _HISTORY))
        _remove_unfinished_checkpoints(directory / "checkpoint")
        yield directory


def _remove_unfinished_checkpoints(folder: Path) -> None:
    """What TensorFlow leaves of a checkpoint that it was writing when it was killed, or when the disk was full."""
    latest = tf.train.latest_checkpoint(str(folder))
    known = f"{Path(latest).name}." if latest else None
    for path in folder.iterdir() if folder.exists() else ():
        if path.name != "checkpoint" and not (known and path.name.startswith(known)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_chief(strategy: tf.distribute.Strategy | None = None) -> bool:
    """Whether this process is the one of a strategy's workers that writes; it is without other workers.

    Example:
        >>> is_chief()
        True
    """
    resolver = (strategy or tf.distribute.get_strategy()).cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" or (not chief and resolver.task_type == "worker" and resolver.task_id == 0)


def strategy_of_environment() -> tf.distribute.Strategy:
    """That of the machines which the environment variable TF_CONFIG names, TensorFlow's own way to name them; without
    it, the one in whose scope this is called. To be called before anything else is done with TensorFlow.

    Raises:
        ParameterError: TF_CONFIG does not name workers, and which of them this is.

    Example:
        >>> strategy_of_environment().num_replicas_in_sync
        1
    """
    given = os.environ.get("TF_CONFIG")
    if not given:
        return tf.distribute.get_strategy()
    try:
        config = json.loads(given)
        addresses, own = config["cluster"]["worker"], config["task"]
        if own["type"] not in ("worker", "chief") or not own["index"] < len(addresses):
            raise ValueError("its task is none of its workers")
    except (ValueError, KeyError, TypeError) as error:
        raise ParameterError(
            'TF_CONFIG must be like {"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, "task": {"type": "worker", '
            f'"index": 0}}}}, got {given!r} ({type(error).__name__}: {error}). Mend it, or unset it to train alone.'
        ) from None
    return tf.distribute.MultiWorkerMirroredStrategy()


def _meet(strategy: tf.distribute.Strategy) -> None:
    """Waits for all workers of a strategy."""
    if strategy.cluster_resolver is None:
        return

    @tf.function
    def count() -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: tf.ones(())), axis=None)

    count()


def seconds_of_training(directory: str | Path) -> float:
    """Of all epochs that `train` has made in a directory, in however many calls."""
    return sum(record["seconds"] for record in json.loads((Path(directory) / _HISTORY).read_text()))


def _compiled(step: Callable[[Batch], dict[str, tf.Tensor]], strategy: tf.distribute.Strategy, xla: bool) -> Callable:
    """Iterator and number of steps to the sums of what the steps return, of the galaxies, and of the seconds waited."""
    # Devices cannot meet inside of a function of its own; a single one has its step traced once, not twice.
    one_step = tf.function(step, jit_compile=xla) if strategy.num_replicas_in_sync == 1 else step

    def weighted(batch: Batch) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        return one_step(batch), tf.cast(tf.shape(tf.nest.flatten(batch)[0])[0], tf.float64)

    def timed(iterator: tf.data.Iterator, done: list[tf.Tensor]) -> Sums:
        with tf.control_dependencies(done):
            before = tf.timestamp()
        with tf.control_dependencies([before]):
            batch = next(iterator)
        local = [part for value in tf.nest.flatten(batch) for part in strategy.experimental_local_results(value)]
        with tf.control_dependencies(local):
            wait = tf.timestamp() - before
        terms, size = strategy.run(weighted, (batch,))
        # Each device returns the terms of the whole batch.
        size = strategy.reduce(tf.distribute.ReduceOp.SUM, size, axis=None)
        terms = {name: strategy.reduce(tf.distribute.ReduceOp.MEAN, term, axis=None) for name, term in terms.items()}
        return {name: size * tf.cast(term, tf.float64) for name, term in terms.items()}, size, wait

    @tf.function
    def loop(iterator: tf.data.Iterator, steps: tf.Tensor) -> Sums:
        sums = timed(iterator, [])
        for _ in tf.range(steps - 1):
            sums = tf.nest.map_structure(tf.add, sums, timed(iterator, tf.nest.flatten(sums)))
        return sums

    return loop


def _run(
    loop: Callable,
    data: tf.data.Dataset,
    strategy: tf.distribute.Strategy,
    steps_per_call: int,
    around_call: Callable[[int], AbstractContextManager] = lambda step: nullcontext(),
    epoch: int = 0,
) -> tuple[Record, float]:
    """Means over the galaxies, and the share of the time that was spent waiting for them."""
    batches = int(data.cardinality())
    if batches < 1:
        raise ParameterError(
            "train: the data must be one batch at least, of a known number of batches (see tf.data's "
            f"assert_cardinality), got {'none' if batches == 0 else 'an unknown number'}"
        )
    # Machines share every batch, as devices of one do, whatever files the data may come from.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    iterator = iter(strategy.experimental_distribute_dataset(data.with_options(options)))
    sums: dict[str, float] = {}
    count = wait = 0.0
    loop.get_concrete_function(iterator, tf.TensorSpec([], tf.int32))  # tracing is no time of waiting or working
    began = time.perf_counter()
    for start in range(0, batches, steps_per_call):
        steps = min(steps_per_call, batches - start)
        with around_call(epoch * batches + start):
            terms, size, seconds = loop(iterator, tf.constant(steps))
            sums = {name: sums.get(name, 0.0) + float(term) for name, term in terms.items()}
        count, wait = count + float(size), wait + float(seconds)
    return {name: value / count for name, value in sums.items()}, wait / (time.perf_counter() - began)
