"""Cholesky factors of the smallest matrices, written out entry by entry.

XLA makes a dozen kernels on a CPU of TensorFlow's Cholesky factorisation and triangular solves, and twice as many of
their gradients; for the few amplitudes of a lens model these cost more than the numbers they work on.
"""

import tensorflow as tf

_LARGEST = 6  # beyond, n^3 / 3 operations written out take long to compile


class CholeskyFactor:
    """L of a positive definite matrix A = L L^T, `[...batch, n, n]`.

    Differentiable. A matrix that is not positive definite gives values that are not finite.

    Example:
        >>> import tensorflow as tf
        >>> factor = CholeskyFactor(tf.constant([[4.0, 2.0], [2.0, 5.0]]))
        >>> factor.solve(tf.constant([8.0, 8.0])).numpy()
        array([1.5, 1. ], dtype=float32)
        >>> factor.inverse().numpy()
        array([[ 0.3125, -0.125 ],
               [-0.125 ,  0.25  ]], dtype=float32)
    """

    def __init__(self, matrix: tf.Tensor) -> None:
        n = matrix.shape[-1]
        self._whole = tf.linalg.cholesky(matrix) if n > _LARGEST else None
        entries = [tf.unstack(row, axis=-1) for row in tf.unstack(matrix, axis=-2)]
        self._rows = [] if n > _LARGEST else _cholesky(entries)
        self._identity = tf.eye(n, dtype=matrix.dtype) + tf.zeros_like(matrix)

    def log_det(self) -> tf.Tensor:
        """log |A|, `[...batch]`."""
        if self._whole is not None:
            return 2 * tf.reduce_sum(tf.math.log(tf.linalg.diag_part(self._whole)), -1)
        return 2 * tf.add_n([tf.math.log(row[-1]) for row in self._rows])

    def solve(self, vector: tf.Tensor) -> tf.Tensor:
        """A^-1 v for vectors `[...batch, n]`."""
        if self._whole is not None:
            return tf.linalg.cholesky_solve(self._whole, vector[..., None])[..., 0]
        return tf.stack(_solve(self._rows, tf.unstack(vector, axis=-1)), -1)

    def inverse(self) -> tf.Tensor:
        """A^-1, `[...batch, n, n]`."""
        if self._whole is not None:
            return tf.linalg.cholesky_solve(self._whole, self._identity)
        columns = [_solve(self._rows, tf.unstack(column, axis=-1)) for column in tf.unstack(self._identity, axis=-1)]
        return tf.stack([tf.stack(column, -1) for column in columns], -1)


def _cholesky(a: list[list[tf.Tensor]]) -> list[list[tf.Tensor]]:
    """Rows of L, each up to its diagonal (Cholesky-Banachiewicz)."""
    rows: list[list[tf.Tensor]] = []
    for i, row in enumerate(a):
        rows.append([])
        for j in range(i + 1):
            rest = row[j]
            for k in range(j):
                rest -= rows[i][k] * rows[j][k]
            rows[i].append(tf.sqrt(rest) if i == j else rest / rows[j][j])
    return rows


def _solve(rows: list[list[tf.Tensor]], v: list[tf.Tensor]) -> list[tf.Tensor]:
    """Forward, then backward substitution."""
    n = len(rows)
    y: list[tf.Tensor] = []
    for i in range(n):
        rest = v[i]
        for k in range(i):
            rest -= rows[i][k] * y[k]
        y.append(rest / rows[i][i])
    x = list(y)
    for i in reversed(range(n)):
        rest = y[i]
        for k in range(i + 1, n):
            rest -= rows[k][i] * x[k]
        x[i] = rest / rows[i][i]
    return x
