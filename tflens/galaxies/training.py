"""The training loop, one for the autoencoder and for the flow."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

Record = dict[str, float]


def train(
    model: keras.Model,
    train_data: Callable[[int], tf.data.Dataset],
    validation_data: tf.data.Dataset,
    directory: str | Path,
    epochs: int,
    patience: int = 10,
    report: Callable[[Record], None] = lambda record: None,
    write_images: Callable[[int], None] = lambda epoch: None,
    xla: bool = False,
) -> list[Record]:
    """Train a compiled model whose `train_step` and `test_step` take a batch to a dictionary with `"loss"`.

    Everything that the run depends on is in the checkpoint of its last epoch: a run that was killed goes on from
    there when it is called again with the same arguments. The model ends with the weights of the epoch of lowest
    validation loss.

    Args:
        model: compiled with an optimiser.
        train_data: epoch number to its batches.
        validation_data: the same in every epoch.
        directory: holds `checkpoint/`, `best.weights.h5`, `history.json` and TensorBoard's `events`.
        epochs: at most so many.
        patience: stop after so many epochs without a lower validation loss.
        report: called with the record of each epoch.
        write_images: called with the number of the epoch, under TensorBoard's writer.
        xla: compile the steps with XLA.

    Returns:
        A record for each epoch: `epoch`, `seconds`, and the means of what the steps return, those of the validation
        data with the prefix `validation_`.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    best_weights = directory / "best.weights.h5"
    model.optimizer.build(model.trainable_variables)
    epoch, best, waited = (tf.Variable(value) for value in (0, float("inf"), 0))
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer, epoch=epoch, best=best, waited=waited)
    manager = tf.train.CheckpointManager(checkpoint, str(directory / "checkpoint"), max_to_keep=1)
    history: list[Record] = []
    if manager.latest_checkpoint:
        checkpoint.restore(manager.latest_checkpoint).assert_consumed()
        history = json.loads((directory / "history.json").read_text())[: int(epoch)]

    train_step = tf.function(model.train_step, jit_compile=xla)
    test_step = tf.function(model.test_step, jit_compile=xla)
    with tf.summary.create_file_writer(str(directory / "events")).as_default():
        while int(epoch) < epochs and int(waited) < patience:
            start = time.perf_counter()
            trained = _means(train_step, train_data(int(epoch)))
            validated = _means(test_step, validation_data)
            record = {"epoch": int(epoch) + 1, **trained, **{f"validation_{k}": v for k, v in validated.items()}}
            if record["validation_loss"] < float(best):
                best.assign(record["validation_loss"])
                waited.assign(0)
                model.save_weights(best_weights)
            else:
                waited.assign_add(1)
            epoch.assign_add(1)
            for name in record.keys() - {"epoch"}:
                tf.summary.scalar(name, record[name], step=int(epoch))
            write_images(int(epoch))
            record["seconds"] = time.perf_counter() - start
            history.append(record)
            (directory / "history.json").write_text(json.dumps(history))
            manager.save()
            report(record)
    if best_weights.exists():
        model.load_weights(best_weights)
    return history


def _means(step: Callable[..., dict[str, tf.Tensor]], batches: tf.data.Dataset) -> Record:
    """Means over the batches, weighted by their sizes."""
    sums: dict[str, tf.Tensor] = {}
    count = 0
    for batch in batches:
        size = int(tf.nest.flatten(batch)[0].shape[0])
        count += size
        for name, value in step(batch).items():
            sums[name] = sums.get(name, 0.0) + size * value
    return {name: float(total) / count for name, total in sums.items()}
