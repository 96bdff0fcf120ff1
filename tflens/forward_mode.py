"""Forward-mode differentiation whose result does not depend on what the process did before.

TensorFlow traces a derivative of every operation. Once it has done so 32 times for one kind of operation, it traces for
unknown shapes: another program, whose rounding differs, so that the same seed would give other draws in a process that
has fitted something else before. Shapes are always known here, so the switch is put off for good.
"""

import tensorflow as tf
from tensorflow.python.eager import forwardprop

ForwardAccumulator = tf.autodiff.ForwardAccumulator

forwardprop._TRACE_COUNT_LIMIT = 2**31
