"""The package as a user meets it: quick to import, complete when installed."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tflens

ROOT = Path(__file__).resolve().parents[1]


def run(code):
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("module", ["tflens", "tflens.cli"])
def test_import_is_light_and_silent(module):
    heavy = ("tensorflow", "keras", "matplotlib", "arviz", "galsim", "astropy", "scipy", "numpy")
    result = run(f"import sys, {module}\nsys.exit(str([m for m in {heavy} if m in sys.modules] or ''))")
    assert (result.stdout, result.stderr.strip()) == ("", "")


def test_reading_input_needs_no_tensorflow():
    result = run("import sys, tflens.config, tflens.output, tflens.run\nsys.exit('tensorflow' in sys.modules)")
    assert result.returncode == 0, result.stderr


def test_public_names_exist():
    for name in tflens.__all__:
        assert getattr(tflens, name) is not None
    with pytest.raises(AttributeError, match="public names"):
        tflens.no_such_name  # noqa: B018


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = folder.glob("tflens-*.whl")
    return path


def test_a_wheel_holds_the_code_and_the_models(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tflens").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert expected
    assert expected <= names
    models = [path for path in (ROOT / "saved_models").rglob("*") if path.is_file()]
    assert any(path.name == "config.json" for path in models)
    for path in models:
        assert f"tflens/{path.relative_to(ROOT).as_posix()}" in names


def test_an_unpacked_wheel_finds_its_models(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import warnings; warnings.simplefilter('ignore')\n"
        "from tflens.galaxies.source import find_galaxy_model\n"
        "print(find_galaxy_model('galaxies', None))"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).is_relative_to(tmp_path / "tflens" / "saved_models")
