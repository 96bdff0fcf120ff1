"""SavedModels for others: they load without this package, agree with it, and say what they are."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tiny_lens
from graphs import functions_in, needs_xla
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tiny_galaxies import DIM, SIDE, blobs, disturb, make_decoder, make_encoder, normal
from typer.testing import CliRunner

from tflens.cli import app
from tflens.errors import ParameterError
from tflens.galaxies.condition import Condition
from tflens.galaxies.coupling import CouplingFlow
from tflens.galaxies.flow import InverseAutoregressiveFlow
from tflens.galaxies.source import GalaxyModel, load_galaxy_model
from tflens.grid import PixelGrid
from tflens.light import Pixelated, Sersic
from tflens.mass import EPL, Shear
from tflens.model import LensModel, LensTarget
from tflens.observation import Observation
from tflens.psf_error import PSFError
from tflens.serving.export import write_saved_model
from tflens.serving.galaxies import MOST_DRAWS, galaxy_signatures
from tflens.serving.lens import lens_signatures
from tflens.serving.signature import Argument, Signature
from tflens.serving.warmup import WARM_UP, read_warm_up

# Keras 3 turns its variables into arrays, when it saves them, in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

RTOL = 2e-5  # of the float32 figures that docs/serving.md states; latents and log densities have their own below


def galaxies(**options):
    condition_dim = options["condition"].dim if "condition" in options else 0
    flow = InverseAutoregressiveFlow(DIM, stages=2, hidden=(8,), condition_dim=condition_dim)
    psf = np.outer([1, 2, 1], [1, 2, 1]) / 16
    parts = disturb(make_encoder(posterior="full")), disturb(make_decoder()), disturb(flow)
    return GalaxyModel(*parts, pixel_scale=0.2, psf=psf, newton_steps=2, **options)


def exported(folder, signatures, name="tiny"):
    path = write_saved_model(folder, name, 1, signatures, {"title": "A test"})
    return tf.saved_model.load(str(path)).signatures


@pytest.fixture(scope="module")
def model():
    return galaxies()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return write_saved_model(tmp_path_factory.mktemp("models"), "tiny", 3, galaxy_signatures(model), {"title": "Tiny"})


@pytest.fixture(scope="module")
def program(folder):
    return tf.saved_model.load(str(folder)).signatures


class TestGalaxies:
    def test_encode(self, model, program):
        image, sigma = blobs(5), np.full(5, 0.01, np.float32)
        mean, scale = model.encode(image, sigma)
        found = program["encode"](image=tf.constant(image), sigma=tf.constant(sigma))
        # Newton's steps pass rounding on to what the image hardly tells: what counts is how well that is known.
        width = np.sqrt(np.sum(np.square(scale), -1))
        assert np.abs((found["mean"] - mean) / width).max() < 1e-3
        np.testing.assert_allclose(found["covariance"], scale @ tf.linalg.matrix_transpose(scale), atol=1e-5)

    def test_decode(self, model, program):
        z = normal(5, DIM)
        np.testing.assert_allclose(program["decode"](z=z)["galaxy"], model.decode(z), rtol=RTOL)

    def test_sample_prior(self, model, program):
        found = program["sample_prior"](seed=tf.constant(7), n=tf.constant(4))
        np.testing.assert_allclose(found["galaxy"], model.sample_prior(4, seed=7), rtol=10 * RTOL)
        np.testing.assert_allclose(model.decode(found["z"]), found["galaxy"], rtol=RTOL)

    @pytest.mark.parametrize("n", [-1, 0, MOST_DRAWS + 1, 2**31 - 1])
    def test_no_call_fills_the_memory(self, program, n):
        with pytest.raises(tf.errors.InvalidArgumentError, match="n must be from 1 to 1024"):
            program["sample_prior"](seed=tf.constant(7), n=tf.constant(n))

    def test_log_prior(self, model, program):
        u = normal(5, DIM)
        z = model.to_latent(u)
        found = program["log_prior"](z=z)
        np.testing.assert_allclose(found["u"], u, atol=1e-4)
        np.testing.assert_allclose(found["log_prior"], model.flow.log_prob(z), atol=1e-4)

    def test_condition(self, tmp_path):
        model = galaxies(condition=Condition(names=("redshift",), classes={"kind": 2}))
        program = exported(tmp_path, galaxy_signatures(model))
        one = np.array([0.5, 0, 1], np.float32)
        drawn = program["sample_prior"](seed=tf.constant(7), n=tf.constant(4), condition=tf.constant(one))
        np.testing.assert_allclose(drawn["galaxy"], model.sample_prior(4, 7, one), rtol=10 * RTOL)
        each = normal(4, 3, seed=4)
        found = program["log_prior"](z=drawn["z"], condition=each)["log_prior"]
        np.testing.assert_allclose(found, model.flow.log_prob(drawn["z"], each), rtol=1e-4)

    def test_other_kinds_of_networks(self, tmp_path):
        model = GalaxyModel(make_encoder(), make_decoder(), disturb(CouplingFlow(DIM, stages=2, hidden=(6,))))
        z = normal(3, DIM)
        found = exported(tmp_path, galaxy_signatures(model))["log_prior"](z=z)["log_prior"]
        np.testing.assert_allclose(found, model.flow.log_prob(z), atol=1e-4)

    @pytest.mark.slow
    def test_shipped(self, tmp_path):
        model = load_galaxy_model()
        program = exported(tmp_path, galaxy_signatures(model))
        u = normal(3, model.latent_dim)
        z = model.to_latent(u)
        np.testing.assert_allclose(program["decode"](z=z)["galaxy"], model.decode(z), rtol=1e-3, atol=1e-8)
        found = program["log_prior"](z=z)
        np.testing.assert_allclose(found["log_prior"], model.flow.log_prob(z), atol=1e-2)
        np.testing.assert_allclose(found["u"], u, atol=1e-3)
        image, sigma = model.decode(z), np.full(3, 1e-3, np.float32)
        mean, _ = model.encode(image, sigma)
        np.testing.assert_allclose(program["encode"](image=image, sigma=tf.constant(sigma))["mean"], mean, atol=1e-3)


GRID = PixelGrid(tiny_lens.SHAPE, tiny_lens.PIXEL_SCALE)


def lens_model(source=None, **settings):
    # Few terms of the power law's series: what is compared here is one program with another.
    lens = [EPL(max_ellipticity=0.3, tolerance=1e-4), Shear()]
    return LensModel(lens, [Sersic()], source or tiny_lens.Blobs(), **settings)


LENS_MODELS = {
    "latents": lens_model,
    "no source": lambda: LensModel(lens=[], lens_light=[Sersic()], source=None),
    "several sources, no sky": lambda: lens_model([tiny_lens.Blobs(), Sersic()], sky=False),
    "fixed, tied, PSF error, float64": lambda: lens_model(
        Sersic(),
        dtype="float64",
        psf_error=PSFError(),
        priors={"lens.gamma": 2.0, "light.center_x": "lens.center_x", "source.e1,e2": (0.1, 0.0)},
    ),
}


@pytest.fixture(scope="module")
def lens_folder(tmp_path_factory):
    """The exported model of a case, written once."""
    base = tmp_path_factory.mktemp("lenses")

    @functools.cache
    def folder(case):
        signatures = lens_signatures(LENS_MODELS[case](), GRID, tiny_lens.PSF, supersampling=1)
        return write_saved_model(base, f"lens{len(list(base.iterdir()))}", 1, signatures, {})

    return folder


def data(n, seed=0):
    rng = np.random.default_rng(seed)
    noise = rng.uniform(0.5, 2, (n, *GRID.shape)).astype(np.float32)
    image = (5 + noise * rng.normal(size=noise.shape)).astype(np.float32)
    return image, noise, rng.random(noise.shape) > 0.2


@pytest.mark.parametrize("case", ["latents", pytest.param("fixed, tied, PSF error, float64", marks=pytest.mark.slow)])
def test_log_prob_is_that_of_a_fit(case, lens_folder):
    model = LENS_MODELS[case]()
    program = tf.saved_model.load(str(lens_folder(case))).signatures
    u = tf.cast(0.3 * normal(3, model.dim), model.dtype)
    image, noise, mask = data(3)
    tolerance = {"float32": 1e-4, "float64": 1e-9}[model.dtype]
    # What is not used may hold anything.
    given = {"image": np.where(mask, image, np.nan), "noise": np.where(mask, noise, 0.0)}
    given = {name: tf.constant(value, model.dtype) for name, value in given.items()} | {"mask": tf.constant(mask)}
    together = program["log_prob"](u=u, **given)
    shared = program["log_prob"](u=u, **{name: value[1:2] for name, value in given.items()})
    seen = [Observation(image[i], noise[i], tiny_lens.PSF, tiny_lens.PIXEL_SCALE, mask[i]) for i in range(3)]
    target = LensTarget(model, seen[0], supersampling=1)
    for i in range(3):
        target.observe(seen[i])
        value, gradient = target.value_and_gradient(u)
        amplitudes = target.linear(u).mean
        for found, row in ((together, i), *(((shared, row) for row in range(3)) if i == 1 else ())):
            np.testing.assert_allclose(found["log_prob"][row], value[row], rtol=tolerance)
            scale = float(tf.reduce_max(abs(gradient[row])))
            np.testing.assert_allclose(found["gradient"][row], gradient[row], atol=30 * tolerance * scale)
            for number, name in enumerate(model.amplitude_names):
                np.testing.assert_allclose(
                    found[name.replace(".", "_")][row], amplitudes[row, number], rtol=30 * tolerance, atol=1e-5
                )


@pytest.mark.parametrize("case", LENS_MODELS)
def test_simulate_is_the_model_of_a_fit(case, lens_folder):
    model = LENS_MODELS[case]()
    program = tf.saved_model.load(str(lens_folder(case))).signatures
    u = tf.cast(0.3 * normal(3, model.dim), model.dtype)
    amplitudes = tf.cast(1 + tf.abs(normal(3, len(model.amplitude_names))), model.dtype)
    image, noise, _ = data(1)
    target = LensTarget(model, Observation(image[0], noise[0], tiny_lens.PSF, tiny_lens.PIXEL_SCALE), supersampling=1)
    expected = target.component_images(u, amplitudes).numpy()
    values = program["parameters"](u=u)
    values |= {name.replace(".", "_"): amplitudes[:, i] for i, name in enumerate(model.amplitude_names)}
    assert {name.replace(".", "_") for name in model.names} <= set(values)
    found = program["simulate"](**values)
    tolerance = {"float32": RTOL, "float64": 1e-9}[model.dtype]
    np.testing.assert_allclose(found["image"], expected.sum(1), rtol=tolerance, atol=tolerance * expected.max())
    arcs = expected[:, list(model.source_amplitudes)].sum(1)
    np.testing.assert_allclose(found["lensed_source"], arcs, rtol=tolerance, atol=tolerance * arcs.max())


def test_a_source_without_an_image_is_refused():
    with pytest.raises(ParameterError, match=r"Pixelated.* has no image of its own"):
        lens_signatures(lens_model(Pixelated(0.1)), GRID)


ALONE = """
import json, sys

HIDDEN = {"tflens", "keras", "tf_keras", "tensorflow_probability"}

class Without:
    # A finder that finds everything but what is hidden, as if it were not installed.

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in HIDDEN else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import numpy as np
import tensorflow as tf

result = {}
for folder in sys.argv[1:]:
    loaded = tf.saved_model.load(folder)
    for name, function in loaded.signatures.items():
        specs = function.structured_input_signature[1]
        given = {key: tf.ones([2 if n is None else n for n in spec.shape], spec.dtype) for key, spec in specs.items()}
        given |= {"n": tf.constant(2)} if "n" in specs else {}
        result[name] = {k: [v.shape.as_list(), float(tf.reduce_sum(tf.cast(v, tf.float64)))]
                        for k, v in function(**given).items()}
assert not HIDDEN & {name.split(".")[0] for name in sys.modules}
print(json.dumps(result))
"""


def test_they_run_where_there_is_only_tensorflow(folder, lens_folder, tmp_path):
    command = [sys.executable, "-c", ALONE, str(folder), str(lens_folder("latents"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {
        *("encode", "decode", "sample_prior", "log_prior"),
        *("simulate", "parameters", "log_prob"),
    }
    assert found["decode"]["galaxy"] == [[2, SIDE, SIDE], pytest.approx(2)]
    assert found["encode"]["covariance"][0] == [2, DIM, DIM]
    assert found["simulate"]["image"][0] == [2, *GRID.shape]
    signatures = lens_signatures(lens_model(), GRID, tiny_lens.PSF, supersampling=1)
    ones = {each.name: tf.ones([2, *each.shape[1:]], each.dtype) for each in signatures[2].inputs}
    value = signatures[2].function(ones)["log_prob"]
    assert found["log_prob"]["log_prob"] == [[2], pytest.approx(float(tf.reduce_sum(value)), rel=1e-4)]


def test_nothing_needs_xla(folder, lens_folder):
    for path in (folder, lens_folder("latents")):
        (graph,) = SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs
        assert functions_in(graph.graph_def) > 3
        assert not needs_xla(graph.graph_def)


def test_the_folder_says_what_is_in_it(folder):
    told = json.loads((folder / "signatures.json").read_text())
    assert (told["name"], told["version"], told["title"]) == ("tiny", 3, "Tiny")
    decode = told["signatures"]["decode"]
    assert decode["inputs"]["z"]["shape"] == [None, DIM]
    assert "0.2 arcsec" in decode["outputs"]["galaxy"]["meaning"]
    text = (folder / "README.md").read_text()
    assert f"| `galaxy` | float32 | [batch, {SIDE}, {SIDE}] |" in text
    shown = subprocess.run(
        [Path(sys.executable).parent / "saved_model_cli", "show", "--dir", folder, "--all"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    ).stdout
    assert "inputs['z'] tensor_info:\n        dtype: DT_FLOAT\n        shape: (-1, 4)" in shown
    assert f"outputs['galaxy'] tensor_info:\n        dtype: DT_FLOAT\n        shape: (-1, {SIDE}, {SIDE})" in shown


def test_declared_units_cover_everything(model):
    for each in [*galaxy_signatures(model), *lens_signatures(lens_model(), GRID)]:
        for argument in (*each.inputs, *each.outputs):
            assert argument.meaning
            assert argument.name.isidentifier()


def test_warm_up_is_what_tensorflow_serving_reads(folder):
    """By the message classes of TensorFlow Serving itself."""
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    records = list(tf.data.TFRecordDataset(str(folder / WARM_UP)).as_numpy_iterator())
    requests = [logs.PredictionLog.FromString(record).predict_log.request for record in records]
    assert [each.model_spec.name for each in requests] == ["tiny"] * 4
    names = [each.model_spec.signature_name for each in requests]
    assert names == ["encode", "decode", "sample_prior", "log_prior"]
    assert tf.make_ndarray(requests[1].inputs["z"]).shape == (1, DIM)
    assert tf.make_ndarray(requests[2].inputs["n"]).dtype == np.int32
    program = tf.saved_model.load(str(folder)).signatures
    for name, inputs in read_warm_up(folder / WARM_UP):
        program[name](**{key: tf.constant(value) for key, value in inputs.items()})


def test_what_is_no_warm_up_is_passed_over(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "requests")) as writer:
        writer.write(b"\xff\xff no message")
        writer.write(b"")
    assert list(read_warm_up(tmp_path / "requests")) == []


def double(factor=2.0):
    x = Argument("x", (None,), "a number")
    y = Argument("y", (None,), "its double")
    example = {"x": np.zeros(1, np.float32)}
    return [Signature("double", "Twice.", lambda given: {"y": factor * given["x"]}, (x,), (y,), example)]


def doubled(path):
    return float(tf.saved_model.load(str(path)).signatures["double"](x=tf.ones(1))["y"][0])


def test_a_version_is_not_overwritten_unless_told(tmp_path):
    path = write_saved_model(tmp_path, "m", 1, double(), {})
    with pytest.raises(ParameterError, match=r"m/1: version 1 of m is there already.*--overwrite"):
        write_saved_model(tmp_path, "m", 1, double(3.0), {})
    assert doubled(path) == 2
    write_saved_model(tmp_path, "m", 1, double(3.0), {}, overwrite=True)
    assert doubled(path) == 3
    assert [each.name for each in (tmp_path / "m").iterdir()] == ["1"]


def test_a_failed_export_leaves_the_old_version(tmp_path):
    write_saved_model(tmp_path, "m", 1, double(), {})
    (bad,) = double()
    bad = Signature("double", "", lambda given: {"z": given["x"]}, bad.inputs, bad.outputs, bad.example)
    with pytest.raises(ParameterError, match="declared"):
        write_saved_model(tmp_path, "m", 1, [bad], {}, overwrite=True)
    assert [each.name for each in (tmp_path / "m").iterdir()] == ["1"]
    assert doubled(tmp_path / "m/1") == 2


def test_wrong_declarations_are_refused():
    x = Argument("x", (None,), "a number")
    for y in (Argument("y", (None, 3), ""), Argument("y", (None,), "", dtype="int32")):
        with pytest.raises(ParameterError, match="is declared"):
            Signature("f", "", lambda given: {"y": given["x"]}, (x,), (y,), {}).traced().get_concrete_function()
    with pytest.raises(ParameterError, match="identifier"):
        Argument("lens.theta_E", (None,), "")


@pytest.mark.parametrize(("name", "version"), [("../m", 1), ("", 1), ("a/b", 1), (".m", 1), ("m", 0), ("m", True)])
def test_names_and_versions_are_checked(name, version, tmp_path):
    with pytest.raises(ParameterError, match="must be"):
        write_saved_model(tmp_path / "models", name, version, double(), {})
    assert not (tmp_path / "models").exists()


def call(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_command_line_lens(tmp_path):
    (tmp_path / "model.toml").write_text('lens_light = []\nsource = { profile = "Sersic" }\n')
    out = tmp_path / "out"
    options = ["--model", tmp_path / "model.toml", "--out", out]
    result = call("lens", *options, "--shape", "20,22", "--pixel-scale", 0.1, "--psf-fwhm", 0.2, "--version", 4)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out / 'lens/4'}\n"
    told = json.loads((out / "lens/4/signatures.json").read_text())
    assert told["signatures"]["log_prob"]["inputs"]["image"]["shape"] == [None, 20, 22]
    assert told["pixel_scale"] == 0.1
    rng = np.random.default_rng(0)
    psf = np.outer([1, 2, 1], [1, 2, 1]) / 16
    Observation(rng.normal(size=(18, 20)), np.ones((18, 20)), psf, 0.15).to_fits(tmp_path / "a.fits")
    result = call("lens", *options, "--like", tmp_path / "a.fits", "--name", "like")
    assert result.exit_code == 0, result.output
    told = json.loads((out / "like/1/signatures.json").read_text())
    assert told["signatures"]["simulate"]["outputs"]["image"]["shape"] == [None, 18, 20]
    again = call("lens", *options, "--like", tmp_path / "a.fits", "--name", "like")
    assert again.exit_code == 1
    assert "is there already" in again.stderr


def test_command_line_galaxies(model, tmp_path):
    model.save(tmp_path / "trained/7")
    result = call("galaxies", tmp_path / "trained", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'out/trained/7'}\n"
    again = call("galaxies", tmp_path / "trained", "--out", tmp_path / "out", "--overwrite", "--json")
    assert json.loads(again.stdout) == {
        "folder": str(tmp_path / "out/trained/7"),
        "signatures": ["encode", "decode", "sample_prior", "log_prior"],
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["lens", "--out", "x"],
        ["lens", "--out", "x", "--like", "a.fits", "--shape", "20,20"],
        ["lens", "--out", "x", "--shape", "20,20"],
        ["lens", "--out", "x", "--like", "a.fits", "--source", "sersic", "--model", "m.toml"],
    ],
)
def test_misuse(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []
