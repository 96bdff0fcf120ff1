"""The report of a fit: what it says, that it is whole in itself, and that names of others stay text."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from astropy.io import fits
from small_fit import SETTINGS, small_fit
from typer.testing import CliRunner

from tflens.cli import app
from tflens.errors import ParameterError
from tflens.report import SIGNS, commands, prior_in_words, report_page, write_report
from tflens.results import NEEDED, Results

VOID = {"meta", "link", "img", "br", "hr", "input", "source", "col"}
HOSTILE = "<script>alert(1)</script>\" onload='x' & </title>"


class Page(HTMLParser):
    """Elements with their attributes and text; refuses tags that do not close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), list(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), list(self.open)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes, _ in self.elements if name == tag]

    @property
    def words(self):
        return re.sub(r"\s+", " ", "".join(self.text))


@pytest.fixture(scope="module")
def results():
    return Results.load(small_fit().folder)


@pytest.fixture(scope="module")
def text():
    return (small_fit().folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The page of a fit whose names were chosen by someone who means ill."""
    folder = tmp_path_factory.mktemp("hostile") / "out"
    shutil.copytree(small_fit().folder, folder, ignore=shutil.ignore_patterns("tensorboard", "*.p*"))
    summary = json.loads((folder / "summary.json").read_text())
    summary["name"] = HOSTILE
    summary["check"][0]["words"] = HOSTILE
    summary["parameters"][HOSTILE] = summary["parameters"]["lens.theta_E"]
    (folder / "summary.json").write_text(json.dumps(summary))
    config = json.loads((folder / "config.json").read_text())
    config["input"]["file"] = config["commit"] = HOSTILE
    config["model"]["components"][HOSTILE] = {"profile": HOSTILE, "x": HOSTILE}
    config["model"]["priors"][HOSTILE] = {"type": HOSTILE}
    (folder / "config.json").write_text(json.dumps(config))
    return write_report(folder).read_text(encoding="utf-8")


def test_page_is_well_formed_and_fits_a_phone(page, text):
    assert text.startswith("<!DOCTYPE html>")
    (html,) = page.all("html")
    assert html["lang"] == "en"
    viewport = [meta["content"] for meta in page.all("meta") if meta.get("name") == "viewport"]
    assert viewport == ["width=device-width, initial-scale=1"]
    for rule in ("prefers-color-scheme: dark", "@media print", "max-width: 40rem"):
        assert rule in text


def test_page_needs_nothing_but_itself(page, text):
    assert not page.all("script")
    assert not page.all("link")
    references = [
        value
        for _, attributes, _ in page.elements
        for name, value in attributes.items()
        if name in ("href", "xlink:href", "src", "srcset", "action", "data", "poster")
    ]
    assert references
    assert all(reference.startswith(("#", "data:image/png;base64,")) for reference in references)
    assert not re.search(r"url\((?!#)|@import", text)
    addresses = set(re.findall(r"https?://[^\"'\s<)]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, never fetched


def test_identifiers_are_unique_and_every_reference_has_its_target(page):
    found = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(found) == len(set(found))
    inside = [a.get("href") or a.get("xlink:href") for _, a, _ in page.elements]
    inside = {reference[1:] for reference in inside if reference and reference.startswith("#")}
    clips = {match for _, a, _ in page.elements for match in re.findall(r"url\(#([^)]+)\)", a.get("clip-path", ""))}
    assert clips
    assert inside | clips <= set(found)


def test_every_figure_has_words_and_a_caption(page, results):
    figures = page.all("figure")
    outer = [a for tag, a, parents in page.elements if tag == "svg" and "svg" not in parents]
    assert len(outer) == len(figures) == 11
    titles = {a["id"] for a in page.all("title") if "id" in a}
    assert all(svg["role"] == "img" and svg["aria-labelledby"] in titles for svg in outer)
    assert len(page.all("figcaption")) == len(figures)
    ny, nx = results.images["mask"].shape
    assert f"The observed image, {nx} by {ny} pixels" in page.words


def test_headings_have_no_gaps(page):
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert max(np.diff(levels)) <= 1


def test_every_parameter_and_derived_quantity_has_its_row(page, results):
    names = [*results.summary["parameters"], *results.summary["derived"]]
    assert set(results.posterior.names) < set(names)
    for name in names:
        assert name in page.words
    row = results.summary["parameters"]["lens.theta_E"]
    assert f"{row['r_hat']:.3f}" in page.words
    assert "Einstein radius (intermediate axis)" in page.words


def test_checks_and_settings_and_the_way_to_repeat(page, results):
    for finding in results.findings():
        assert re.sub(r"\s+", " ", finding.words) in page.words
        assert f"{SIGNS[finding.level]} {finding.level}" in page.words
    assert str(small_fit().file) in page.words
    assert results.config["input"]["sha256"]["file"] in page.words
    assert "tflens fit --config config.json --out NEW_FOLDER" in page.words
    assert f"--draws {SETTINGS['draws']}" in page.words
    assert "log-normal, median" in page.words


def test_names_of_others_stay_text(hostile):
    assert "<script" not in hostile
    page = Page(hostile)
    assert not page.all("script")
    assert not any(name.startswith("on") for _, attributes, _ in page.elements for name in attributes)
    assert page.words.count("<script>alert(1)</script>") >= 6


def test_the_page_is_that_of_the_folder(results, text):
    assert report_page(results) == text


def test_a_folder_without_curves_has_a_report_without_them(tmp_path):
    for name in NEEDED:
        shutil.copy(small_fit().folder / name, tmp_path)
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert len(page.all("figure")) == 10
    assert "critical curve; dashed" not in page.words


def test_command_makes_it_anew(tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(small_fit().folder, folder)
    (folder / "report.html").unlink()
    result = CliRunner().invoke(app, ["report", str(folder)])
    assert result.exit_code == 0
    assert result.stdout.strip() == str(folder / "report.html")
    again = CliRunner().invoke(app, ["report", str(folder), "--json"])
    assert json.loads(again.stdout) == {"pages": [str(folder / "report.html")]}
    assert (folder / "report.html").read_bytes() == (small_fit().folder / "report.html").read_bytes()


def test_what_is_no_result_is_refused(tmp_path):
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 1
    assert "must be the output folder of a fit" in result.stderr
    for name in NEEDED:
        shutil.copy(small_fit().folder / name, tmp_path)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(ParameterError, match=r"summary\.json: cannot be read"):
        Results.load(tmp_path)


def test_what_is_read_back_is_what_was_fitted(results):
    fit = small_fit().fit
    np.testing.assert_array_equal(results.images["mask"], fit.mask)
    np.testing.assert_allclose(results.images["data"], fit.target.image, rtol=1e-6)
    np.testing.assert_allclose(results.images["model"], fit.best.image, rtol=1e-6)
    np.testing.assert_allclose(results.extent, fit.target.grid.extent, atol=1e-6)
    assert results.findings() == fit.check()
    assert results.wcs is None


def test_curves_are_where_the_magnification_diverges(results):
    critical, caustic = results.curves
    assert len(critical.tangential) == 1
    (line,) = critical.tangential
    assert line.shape == caustic.tangential[0].shape
    area = abs(np.sum(line[:-1, 0] * line[1:, 1] - line[1:, 0] * line[:-1, 1])) / 2
    radius = results.summary["derived"]["lens.einstein_radius"]
    assert radius["low95"] - 0.01 < np.sqrt(area / np.pi) < radius["high95"] + 0.01
    with fits.open(small_fit().folder / "curves.fits") as hdus:
        header, map_ = hdus["MAGNIFICATION"].header, hdus["MAGNIFICATION"].data
    left, _, bottom, _ = results.extent
    column = np.clip(((line[:, 0] - left) / header["PIXSCALE"]).astype(int), 0, map_.shape[1] - 1)
    row = np.clip(((line[:, 1] - bottom) / header["PIXSCALE"]).astype(int), 0, map_.shape[0] - 1)
    assert np.median(np.abs(map_[row, column])) > 10 * np.median(np.abs(map_))


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        ({"type": "Normal", "loc": 0.0, "scale": 0.07}, "normal, 0 ± 0.07"),
        ({"type": "Uniform", "low": -1.0, "high": 2.5}, "uniform between -1 and 2.5"),
        ({"type": "Mystery", "a": [1]}, '{"type": "Mystery", "a": [1]}'),
        ({"type": "Normal"}, '{"type": "Normal"}'),
        (
            {
                "type": "TransformedDistribution",
                "distribution": {"type": "LogitNormal", "loc": 0.0, "scale": 0.5},
                "bijector": {"bijectors": [{"type": "Shift", "shift": 1.2}, {"type": "Scale", "scale": 1.6}]}
                | {"type": "Chain"},
            },
            "bell-shaped between 1.2 and 2.8, median 2",
        ),
    ],
)
def test_priors_in_words(prior, words):
    assert prior_in_words(prior) == words


def test_commands_are_only_those_that_repeat_the_fit():
    plain = {"file": "a.fits", "image": "SCI", "noise": "WHT", "mask": None, "noise_file": None, "noise_scale": 1.0}
    assert commands({"input": plain, "source": "sersic"})[1][1] == (
        "tflens fit a.fits --out NEW_FOLDER --noise WHT --no-mask --source sersic"
    )
    evil = commands({"input": {"file": "x; rm -rf ~.fits"}})
    assert evil[1][1] == "tflens fit 'x; rm -rf ~.fits' --out NEW_FOLDER"
    kernel = {**plain, "noise_correlation": [[1.0]]}
    for config in ({"input": kernel}, {"input": plain, "tables": {}}, {"input": plain, "shared": {}}, {}):
        assert len(commands(config)) == 1
