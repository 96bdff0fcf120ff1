"""Normalising flows: every kind is a bijection with the density it says, and learns what a Gaussian cannot."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_galaxies import DIM, adam, disturb, normal

from tflens._tfp import tfd
from tflens.errors import ParameterError
from tflens.galaxies.coupling import CouplingFlow
from tflens.galaxies.flow import Conditioner, InverseAutoregressiveFlow
from tflens.galaxies.spline import SplineFlow

# Keras 3 turns its variables into arrays, when it saves them, in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

KINDS = (InverseAutoregressiveFlow, CouplingFlow, SplineFlow)
CONDITION = 3

every_kind = pytest.mark.parametrize("kind", KINDS)
conditional_or_not = pytest.mark.parametrize("condition_dim", [0, CONDITION])


def make_flow(kind=InverseAutoregressiveFlow, dim=DIM, stages=3, hidden=(12, 12), **options):
    keras.utils.set_random_seed(1)
    flow = kind(dim, stages=stages, hidden=hidden, **options)
    flow.build()
    return flow


def conditions(count, condition_dim):
    return normal(count, condition_dim, seed=7) if condition_dim else None


class TestConditioner:
    @pytest.mark.parametrize("trained", [False, True])
    @conditional_or_not
    def test_jacobian_is_triangular_also_after_steps_of_the_optimiser(self, trained, condition_dim):
        conditioner = Conditioner(DIM, hidden=(12, 12), condition_dim=condition_dim)
        conditioner.build()
        disturb(conditioner)
        condition = conditions(8, condition_dim)
        if trained:
            optimizer = adam(0.1)
            for seed in range(3):
                with tf.GradientTape() as tape:
                    loss = tf.add_n([tf.reduce_sum(y**3) for y in conditioner(normal(8, DIM, seed=seed), condition)])
                variables = conditioner.trainable_variables
                optimizer.apply(tape.gradient(loss, variables), variables)
        x = normal(1, DIM)
        condition = conditions(1, condition_dim)
        for output in (0, 1):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = conditioner(x, condition)[output]
            jacobian = tape.jacobian(y, x)[0, :, 0, :].numpy()
            assert np.all(np.triu(jacobian) == 0)
            assert np.all(jacobian[np.tril_indices(DIM, -1)] != 0)

    def test_every_dimension_depends_on_the_condition(self):
        conditioner = disturb(Conditioner(DIM, hidden=(12, 12), condition_dim=CONDITION))
        conditioner.build()
        disturb(conditioner)
        condition = conditions(1, CONDITION)
        with tf.GradientTape() as tape:
            tape.watch(condition)
            shift, _ = conditioner(normal(1, DIM), condition)
        assert np.all(tape.jacobian(shift, condition)[0, :, 0].numpy() != 0)


@every_kind
class TestBijection:
    @conditional_or_not
    def test_round_trip_without_the_cache(self, kind, condition_dim):
        flow = disturb(make_flow(kind, condition_dim=condition_dim))
        condition = conditions(50, condition_dim)
        u = normal(50, DIM)
        z = flow(u, condition)
        assert float(tf.reduce_max(tf.abs(z - u))) > 0.1
        np.testing.assert_allclose(flow.inverse(tf.identity(z), condition), u, atol=1e-4)

    @conditional_or_not
    def test_log_determinants_are_those_of_the_jacobian(self, kind, condition_dim):
        flow = disturb(make_flow(kind, condition_dim=condition_dim))
        flow.scale.assign(np.linalg.cholesky(np.cov(np.random.default_rng(1).normal(size=(DIM, 20)))))
        condition = conditions(1, condition_dim)
        u = normal(1, DIM)
        with tf.GradientTape() as tape:
            tape.watch(u)
            z = flow(u, condition)
        _, log_det = np.linalg.slogdet(tape.jacobian(z, u)[0, :, 0].numpy().astype(float))
        forward, forward_log_det = flow.forward_and_log_det(u, condition)
        np.testing.assert_allclose(forward, z, rtol=1e-6)
        assert float(forward_log_det[0]) == pytest.approx(log_det, abs=1e-4)
        assert float(flow.inverse_and_log_det(tf.identity(z), condition)[1][0]) == pytest.approx(-log_det, abs=1e-4)
        base = -0.5 * float(tf.reduce_sum(u**2)) - DIM / 2 * np.log(2 * np.pi)
        assert float(flow.log_prob(tf.identity(z), condition)[0]) == pytest.approx(base - log_det, abs=1e-3)

    def test_density_integrates_to_one(self, kind):
        flow = disturb(make_flow(kind, dim=2), size=0.5)
        flow.adapt(np.random.default_rng(1).normal(size=(50, 2)) @ [[1.0, 0.3], [0.0, 0.7]] + 0.5)
        axis = np.linspace(-12, 13, 401, dtype=np.float32)
        grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
        total = np.exp(flow.log_prob(grid).numpy().astype(float)).sum() * (axis[1] - axis[0]) ** 2
        assert total == pytest.approx(1, abs=2e-3)

    def test_starts_as_the_full_gaussian(self, kind):
        flow = make_flow(kind)
        rng = np.random.default_rng(1)
        z = rng.normal(size=(500, DIM)) @ rng.normal(size=(DIM, DIM)) + 1
        flow.adapt(z)
        gaussian = tfd.MultivariateNormalFullCovariance(z.mean(0), np.cov(z, rowvar=False))
        np.testing.assert_allclose(flow.log_prob(z.astype(np.float32)), gaussian.log_prob(z), rtol=1e-3)

    def test_xla_equals_eager(self, kind):
        flow = disturb(make_flow(kind))
        z = normal(5, DIM)
        compiled = tf.function(lambda z: (flow(z), flow.log_prob(z)), jit_compile=True)
        for a, b in zip(compiled(z), (flow(z), flow.log_prob(z)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)

    def test_gradients_far_from_the_data_are_finite(self, kind):
        flow = disturb(make_flow(kind))
        z = tf.concat([normal(4, DIM), 20 * normal(4, DIM), tf.zeros((1, DIM))], 0)
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss = tf.reduce_sum(flow.log_prob(z))
        for gradient in tape.gradient(loss, [z, *flow.trainable_variables]):
            assert np.isfinite(gradient.numpy()).all()


@every_kind
class TestLearning:
    @conditional_or_not
    def test_every_variable_is_trained_and_saved(self, kind, condition_dim, tmp_path):
        flow = make_flow(kind, condition_dim=condition_dim)
        flow.compile(optimizer=adam())
        # Two steps: the inner layers of a conditioner move once its last layer is no longer zero.
        before = [variable.numpy() for variable in flow.trainable_variables]
        condition = (conditions(64, condition_dim),) if condition_dim else ()
        for seed in range(2):
            flow.train_step((normal(64, DIM, seed=seed) ** 2, *condition))
        assert len(before) == 3 * 2 * 3  # stages, kernel and bias, layers
        for old, variable in zip(before, flow.trainable_variables, strict=True):
            assert np.any(old != variable.numpy()), variable.path
        flow.save_weights(tmp_path / "flow.weights.h5")
        other = make_flow(kind, condition_dim=condition_dim)
        other.load_weights(tmp_path / "flow.weights.h5")
        assert len(other.variables) == len(flow.variables) == len(before) + (4 if condition_dim else 2)
        u, condition = normal(5, DIM), conditions(5, condition_dim)
        np.testing.assert_array_equal(other(u, condition), flow(u, condition))
        again = kind.from_config(flow.get_config())
        assert [v.shape for v in again.variables] == [v.shape for v in other.variables][: len(again.variables)]

    def test_learns_what_a_gaussian_cannot(self, kind):
        """Maximum likelihood on a curved density gains most of what there is to gain over the full Gaussian."""
        rng = np.random.default_rng(1)
        x = rng.normal(size=(4096, 2))
        z = np.stack([x[:, 0], x[:, 0] ** 2 + 0.3 * x[:, 1]], 1).astype(np.float32)
        flow = make_flow(kind, dim=2, stages=2, hidden=(16,))
        flow.adapt(z[:2048])
        flow.compile(optimizer=adam(2e-2))
        held_out = z[2048:]
        start = float(flow.test_step(held_out)["loss"])
        step = tf.function(flow.train_step)
        for _ in range(150):
            step(z[:2048])
        assert float(flow.test_step(held_out)["loss"]) < start - 0.8  # the truth: 1.2 nats below the Gaussian

    def test_conditional_flow_finds_a_conditional_gaussian(self, kind):
        """z | c ~ N(A c, s(c)^2): held out, within 0.1 nats of the truth, 0.7 better than without the condition."""
        rng = np.random.default_rng(1)
        condition = rng.uniform(-2, 2, size=(4096, 1))
        spread = np.exp(0.3 * condition)
        z = condition @ [[1.0, -0.5]] + spread * rng.normal(size=(4096, 2))
        flow = make_flow(kind, dim=2, stages=2, hidden=(16,), condition_dim=1)
        z, condition = z.astype(np.float32), 100 + 50 * condition.astype(np.float32)  # far from standard
        flow.adapt(z[:2048], condition[:2048])
        flow.compile(optimizer=adam(2e-2))
        step = tf.function(flow.train_step)
        for _ in range(200):
            step((z[:2048], condition[:2048]))
        truth = tfd.MultivariateNormalDiag((condition[2048:] - 100) / 50 * [1.0, -0.5], np.repeat(spread[2048:], 2, 1))
        loss = float(flow.test_step((z[2048:], condition[2048:]))["loss"])
        best = -float(tf.reduce_mean(truth.log_prob(z[2048:])))
        assert loss == pytest.approx(best, abs=0.1)
        gaussian = tfd.MultivariateNormalFullCovariance(z.mean(0), np.cov(z, rowvar=False).astype(np.float32))
        assert loss < -float(tf.reduce_mean(gaussian.log_prob(z[2048:]))) - 0.3


@every_kind
def test_condition_must_suit_the_flow(kind):
    with pytest.raises(ParameterError, match=r"must have 3 numbers \(condition_dim\), got none"):
        make_flow(kind, condition_dim=3)(normal(2, DIM))
    with pytest.raises(ParameterError, match=r"must have 0 numbers \(condition_dim\), got 2"):
        make_flow(kind).log_prob(normal(2, DIM), normal(2, 2))


def test_coupling_needs_two_dimensions():
    with pytest.raises(ParameterError, match="CouplingFlow: latent_dim must be at least 2, got 1"):
        CouplingFlow(1)


def test_each_pair_of_coupling_stages_transforms_every_dimension():
    for dim in (2, 3, 4, 7):
        flow = disturb(make_flow(CouplingFlow, dim=dim, stages=2, hidden=(6,)))
        u = normal(1, dim)
        with tf.GradientTape() as tape:
            tape.watch(u)
            z = flow(u)
        jacobian = np.abs(tape.jacobian(z, u)[0, :, 0].numpy())
        # More than a permutation: no row has a single entry of size one.
        assert np.all((jacobian > 1e-6).sum(1) > 1) or np.all(jacobian.max(1) != 1)
