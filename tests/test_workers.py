"""What a worker starts with."""

import json
import subprocess
import sys

SCRIPT = """
import json
from tflens.workers import start_tensorflow
start_tensorflow(1)
import numpy, scipy.linalg, tensorflow as tf
from threadpoolctl import threadpool_info
numpy.ones((2, 2)) @ numpy.ones((2, 2))
print(json.dumps([pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]))
print(tf.config.threading.get_intra_op_parallelism_threads())
"""


def test_a_worker_of_one_thread_has_one_for_linear_algebra_too():
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    blas, tensorflow = found.stdout.splitlines()
    assert set(json.loads(blas)) == {1}
    assert tensorflow == "1"
