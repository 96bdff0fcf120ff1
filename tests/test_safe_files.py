"""Files from elsewhere are data: nothing in the package runs what they say, but SavedModels that are trusted."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from bad_input import exported, served

from tflens.errors import SavedModelError
from tflens.serving.export import write_saved_model
from tflens.serving.models import load_model
from tflens.serving.signature import Argument, Signature
from tflens.serving.trust import check_trusted, digests

PACKAGE = Path(__file__).resolve().parents[1] / "tflens"

MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "jsonpickle"}
# By the last part of their name, so that no alias of a module hides them.
CALLS = {"eval", "exec", "compile", "__import__", "unsafe_load", "full_load", "load_all", "read_pickle", "Lambda"}
CALLS |= {"enable_unsafe_deserialization", "full_load_all", "unsafe_load_all", "execfile"}


def name_of(function: ast.expr) -> str:
    """The dotted name of what is called."""
    if isinstance(function, ast.Attribute):
        return f"{name_of(function.value)}.{function.attr}"
    return function.id if isinstance(function, ast.Name) else ""


def faults(source: str) -> list[str]:
    """What in a file could run what another file says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [f"imports {name}" for name in names if name.split(".")[0] in MODULES or name.endswith("Lambda")]
        if not isinstance(node, ast.Call):
            continue
        name, keywords = name_of(node.func), {each.arg: each.value for each in node.keywords}
        last = name.rpartition(".")[2]
        # re.compile and model.compile run nothing of a file.
        if last in CALLS and not (last == "compile" and "." in name):
            found.append(f"calls {name}")
        if name in ("np.load", "numpy.load"):
            allowed = keywords.get("allow_pickle")
            if not (isinstance(allowed, ast.Constant) and allowed.value is False):
                found.append(f"calls {name} without allow_pickle=False")
        if name in ("yaml.load", "yaml.load_all") and "Safe" not in ast.dump(node):
            found.append(f"calls {name} without the safe loader")
        if name.endswith("models.load_model") and "keras" in name:
            mode = keywords.get("safe_mode")
            if not (isinstance(mode, ast.Constant) and mode.value is True):
                found.append(f"calls {name} without safe_mode=True")
        if name in ("joblib.load", "torch.load"):
            found.append(f"calls {name}")
        shell = keywords.get("shell")
        if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
            found.append(f"calls {name} through a shell")
        if "allow_pickle" in keywords and not (
            isinstance(keywords["allow_pickle"], ast.Constant) and keywords["allow_pickle"].value is False
        ):
            found.append(f"calls {name} with allow_pickle")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from dill import loads",
        "eval('1')",
        "exec(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.save(path, array, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "keras.layers.Lambda(lambda x: x)",
        "from keras.layers import Lambda",
        "keras.models.load_model(path)",
        "tf.keras.models.load_model(path, safe_mode=False)",
        "keras.config.enable_unsafe_deserialization()",
        "joblib.load(path)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_check_finds(source):
    assert faults(source)


@pytest.mark.parametrize(
    "source",
    [
        "np.load(path, allow_pickle=False)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "keras.models.load_model(path, safe_mode=True)",
        "re.compile(text)",
    ],
)
def test_the_check_allows(source):
    assert faults(source) == []


def test_nothing_in_the_package_runs_what_a_file_says():
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    found = {str(file.relative_to(PACKAGE)): faults(file.read_text(encoding="utf-8")) for file in files}
    assert {name: each for name, each in found.items() if each} == {}


def test_saved_models_are_loaded_in_one_place():
    """Where it is checked whether they are trusted."""
    loading = [
        file.name
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and name_of(node.func).endswith("saved_model.load")
    ]
    assert loading == ["models.py"]


@pytest.fixture
def twice(tmp_path) -> Path:
    """An export, `models/m/1`."""
    exported()(tmp_path / "models")
    return tmp_path / "models" / "m" / "1"


def test_what_was_exported_is_trusted(twice):
    check_trusted(twice)
    model = load_model("m", 1, twice)
    np.testing.assert_array_equal(model.signatures["double"].run({"x": np.array([1.5], np.float32)})["x"], [3.0])


def test_variables_loops_and_conditions_are_trusted(tmp_path):
    """Functions that a graph calls are looked through, and those of the saver, which touch files, are not called."""
    weight = tf.Variable(2.0)

    def power(given):
        x = tf.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * weight), [0, given["x"]])[1]
        return {"x": tf.cond(x[0] > 0, lambda: tf.sqrt(x), lambda: -x)}

    x = (Argument("x", (None,), "a number"),)
    place = write_saved_model(tmp_path, "m", 1, [Signature("power", "of a number", power, x, x, None)], {})
    check_trusted(place)
    found = load_model("m", 1, place).signatures["power"].run({"x": np.array([2.0], np.float32)})["x"]
    np.testing.assert_allclose(found, [4.0])


def test_trust_is_for_the_user_to_give(tmp_path):
    def write(models):
        module = tf.Module()
        module.f = tf.function(lambda x: {"y": x + 1}, input_signature=[tf.TensorSpec([None], tf.float32)])
        tf.saved_model.save(module, str(models / "m/1"), signatures={"f": module.f})

    with pytest.raises(SavedModelError, match="--trust"):
        served(write)(tmp_path)
    model = load_model("m", 1, tmp_path / "models/m/1", trust=True)
    np.testing.assert_array_equal(model.signatures["f"].run({"x": np.array([1.0], np.float32)})["y"], [2.0])


def test_nothing_of_a_refused_model_has_run(tmp_path):
    """A resource that writes a file as soon as the model is loaded."""
    mark = tmp_path / "mark"

    class Resource(tf.Module):
        def __init__(self):
            self.table = tf.lookup.StaticHashTable(
                tf.lookup.TextFileInitializer(str(tmp_path / "words"), tf.string, 0, tf.int64, 1, delimiter="\t"),
                -1,
            )

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def f(self, x):
            tf.io.write_file(str(mark), "x")
            return {"y": x + tf.cast(self.table.size(), tf.float32)}

    (tmp_path / "words").write_text("a\t1\n")
    module = Resource()
    place = tmp_path / "models/m/1"
    tf.saved_model.save(module, str(place), signatures={"f": module.f})
    described = {"sha256": digests(place)}
    (place / "signatures.json").write_text(json.dumps(described))
    with pytest.raises(SavedModelError, match="may do more than compute"):
        load_model("m", 1, place)
    assert not mark.exists()
