"""Models as TOML files: what is written is read as the same model, and what cannot be is refused by name."""

import numpy as np
import pytest
import tensorflow as tf
import tiny_lens
from sentence import SENTENCE

from tflens._tfp import tfd
from tflens.errors import ParameterError
from tflens.inference.pipeline import default_model
from tflens.light import MultiGaussian, Sersic, Shapelets
from tflens.mass import EPL, SIE, EllipticalMultipole, Shear
from tflens.model import LensModel, LensTarget
from tflens.model_file import model_of, read_model, tables_of, write_model
from tflens.parameters import ellipticity, normal, uniform
from tflens.psf_error import PSFError
from tflens.run import describe_model


def again(model: LensModel, tmp_path) -> LensModel:
    path = tmp_path / "model.toml"
    path.write_text(write_model(model))
    return read_model(path)


def test_a_sentence_is_the_model_it_says(tmp_path):
    path = tmp_path / "model.toml"
    path.write_text(SENTENCE)
    model = read_model(path)
    assert [repr(each) for each in model.lens] == ["EPL(max_ellipticity=0.6, tolerance=0.0001)", "Shear()"]
    assert isinstance(model.lens_light[1], MultiGaussian)
    assert isinstance(model.sources[0], Sersic)
    assert not model.sky
    assert model.fixed == {"lens.gamma": 2.0, "light1.e1": 0.05, "light1.e2": 0.1}
    assert model.tied == {"source.e1": "lens.e1", "source.e2": "lens.e2"}
    np.testing.assert_allclose(model.physical(tf.zeros([model.dim]))["lens.theta_E"], 1.2, rtol=1e-6)
    np.testing.assert_allclose(model.physical(tf.zeros([model.dim]))["light1.R_sersic"], 1.05, rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LensModel(),
        lambda: default_model((0.1, -0.2)),
        lambda: LensModel(source=Sersic(), psf_error=PSFError(), priors={"psf.e2": 0.0}),
        lambda: LensModel(source=[Sersic(), Shapelets(n_max=3)], priors={"source2.center_x": "source1.center_x"}),
        lambda: LensModel(
            [SIE(max_ellipticity=0.4), EllipticalMultipole(m=3)], [Shapelets(n_max=4)], Sersic(), sky=False
        ),
        lambda: tiny_lens.model(priors={"lens.e1,e2": ellipticity(0.1, 0.5), "light.e1,e2": (0.0, 0.1)}),
    ],
)
def test_what_is_written_is_read_as_the_same_model(make, tmp_path):
    model = make()
    assert describe_model(again(model, tmp_path)) == describe_model(model)
    assert write_model(again(model, tmp_path)) == write_model(model)
    assert describe_model(model_of(tables_of(model))) == describe_model(model)


def test_posteriors_agree(tmp_path):
    given = {"lens.gamma": 1.9, "light.center_x": "lens.center_x", "source.n_sersic": uniform(0.5, 3.0)}
    model = tiny_lens.model(priors=given)
    u = tf.constant(0.1 * np.random.default_rng(3).normal(size=(2, model.dim)))
    values = [LensTarget(each, tiny_lens.observation()).log_prob(u) for each in (model, again(model, tmp_path))]
    np.testing.assert_array_equal(*values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('lenz = [{ profile = "EPL" }]', "unknown key 'lenz'; a model has lens, lens_light"),
        ('lens = [{ profile = "EPLL" }]', r"lens\[0\]: there is no profile 'EPLL'; there are DPIE, EPL"),
        ('lens = [{ profile = "Sersic" }]', r"lens\[0\]: there is no profile 'Sersic'"),
        ('lens = { profile = "EPL" }', "lens must be a list of profiles"),
        ('lens = ["EPL"]', r"lens\[0\] must be a table with a profile"),
        ('lens = [{ profile = "EPL", tolerence = 1 }]', r"EPL has no setting 'tolerence'; it has max_ellipticity, tol"),
        ('lens = [{ profile = "EPL", tolerance = "fine" }]', r"lens\[0\]: EPL cannot be made of {'tolerance': 'fine'}"),
        ('lens_light = [{ profile = "Shapelets" }]', r"lens_light\[0\]: Shapelets needs n_max"),
        ('source = { profile = "Sersic", n = 4 }', "source: Sersic has no setting 'n'; it has none"),
        ('sky = "yes"', "sky must be true or false, got 'yes'"),
        ('dtype = "float16"', 'dtype must be "float32" or "float64", got \'float16\''),
        ("priors = 3", "priors must be a table of parameters, got 3"),
        ('priors = { "lens.thetaE" = 1.0 }', r"unknown parameter.s. \['lens.thetaE'\]"),
        ('priors = { "lens.gamma" = { gaussian = [2, 1] } }', "lens.gamma must be one of normal, log_normal"),
        ('priors = { "lens.gamma" = { normal = [2] } }', r"lens.gamma: normal takes loc, scale; got \[2\]"),
        ('priors = { "lens.gamma" = { normal = { mean = 2 } } }', "lens.gamma: normal takes loc, scale; got"),
        ('priors = { "lens.gamma" = { normal = [2, -1] } }', r"normal\(2, -1\): loc finite, scale positive"),
        ("lens = [", "the file of the model must be readable TOML"),
    ],
)
def test_what_cannot_be_is_refused_with_the_file_and_the_key(text, message, tmp_path):
    path = tmp_path / "model.toml"
    path.write_text(text)
    with pytest.raises(ParameterError, match=message) as caught:
        read_model(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="the file of the model does not exist"):
        read_model(tmp_path / "none.toml")


def test_what_a_file_cannot_hold_is_refused():
    class Mine(EPL):
        pass

    with pytest.raises(ParameterError, match=r"the prior of lens\.gamma has no name that a file could hold"):
        write_model(LensModel(priors={"lens.gamma": tfd.Normal(2.0, 0.1)}))
    with pytest.raises(ParameterError, match="a file of a model knows no profile Mine"):
        write_model(LensModel([Mine(), Shear()]))


def test_priors_are_written_with_their_names():
    assert '"lens.gamma" = {normal = {loc = 2.0, scale = 0.1}}' in write_model(
        LensModel(priors={"lens.gamma": normal(2.0, scale=0.1)})
    )
