"""Signatures written as a SavedModel that needs nothing but TensorFlow: `<name>/<version>/`, whole or not there."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tflens._version import __version__
from tflens.errors import ParameterError
from tflens.files import write_folder
from tflens.serving.signature import Argument, Signature
from tflens.serving.trust import DESCRIPTION, digests
from tflens.serving.warmup import WARM_UP, write_warm_up


def write_saved_model(
    base: str | Path,
    name: str,
    version: int,
    signatures: Sequence[Signature],
    about: Mapping[str, Any],
    overwrite: bool = False,
) -> Path:
    """Writes `base/name/version/` as TensorFlow Serving wants it.

    Beside the SavedModel it holds `signatures.json` and `README.md`, which say what every signature takes and gives, in
    which units, and `assets.extra/tf_serving_warmup_requests` if a signature has an example. A server that watches the
    folder never sees half of it.

    Args:
        base: folder of models; made if missing.
        name: of the model, as it stands in a server's addresses.
        version: a positive whole number.
        signatures: at least one.
        about: plain values for `signatures.json`: what was exported; "title" is a line for people.
        overwrite: whether a version that is there is replaced.

    Returns:
        The folder of the version.

    Raises:
        ParameterError: the name or the version cannot be one, the version is there already, or the folder cannot be
            written to.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ParameterError(f"the name of a model must be of letters, digits, '.', '_' and '-', got {name!r}")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ParameterError(f"the version of a model must be a whole number from 1, got {version!r}")
    target = Path(base) / name / str(version)
    if target.exists() and not overwrite:
        raise ParameterError(
            f"{target}: version {version} of {name} is there already. Give another --version, or allow to replace it "
            "(--overwrite)."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_folder(target, lambda folder: _write(folder, name, signatures, {"version": version, **about}))
    except OSError as error:
        raise ParameterError(f"{target}: cannot be written: {error.strerror or error}. Choose another place.") from None
    return target


def _write(folder: Path, name: str, signatures: Sequence[Signature], about: Mapping[str, Any]) -> None:
    program = tf.Module()
    traced = {each.name: each.traced() for each in signatures}
    captured = [variable for function in traced.values() for variable in function.get_concrete_function().variables]
    # What is not tracked is not saved; each variable once, whichever signatures use it.
    program.weights = list({id(variable): variable for variable in captured}.values())
    for signature, function in traced.items():
        setattr(program, signature, function)
    # No names of Python files and functions in what is given away.
    tf.saved_model.save(
        program, str(folder), signatures=traced, options=tf.saved_model.SaveOptions(save_debug_info=False)
    )
    requests = [(each.name, each.example) for each in signatures if each.example is not None]
    if requests:
        (folder / WARM_UP).parent.mkdir()
        write_warm_up(folder / WARM_UP, name, requests)
    described = {
        "name": name,
        **about,
        "tflens": __version__,
        "tensorflow": tf.__version__,
        "signatures": {each.name: each.as_dict() for each in signatures},
    }
    (folder / "README.md").write_text(readme(name, signatures, described))
    described["sha256"] = digests(folder)
    (folder / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n")


def readme(name: str, signatures: Sequence[Signature], about: Mapping[str, Any]) -> str:
    """What the folder of a model tells its reader."""
    first = signatures[0]
    lines = [
        f"# {name}, version {about['version']}",
        "",
        f"{about.get('title', 'A model of tflens')}. A TensorFlow SavedModel, written by tflens {__version__} with "
        f"TensorFlow {tf.__version__}; it needs neither tflens nor Keras nor TensorFlow Probability.",
        "",
        "```python",
        "import tensorflow as tf",
        "",
        'model = tf.saved_model.load("this folder")',
        f'result = model.signatures["{first.name}"]({", ".join(f"{each.name}=..." for each in first.inputs)})',
        "```",
        "",
        "In shapes, `batch` is any number, the same for all inputs. The same is in `signatures.json`.",
    ]
    for each in signatures:
        lines += ["", f"## {each.name}", "", each.meaning]
        for side in ("inputs", "outputs"):
            lines += ["", f"| {side[:-1]} | type | shape | unit | |", "|---|---|---|---|---|"]
            lines += [_row(argument) for argument in getattr(each, side)]
    return "\n".join(lines) + "\n"


def _row(argument: Argument) -> str:
    shape = ", ".join("batch" if length is None else str(length) for length in argument.shape)
    return f"| `{argument.name}` | {argument.dtype} | [{shape}] | {argument.unit} | {argument.meaning} |"
