"""TensorFlow's start-up chatter, silenced: for the faces (command line, scripts), never for the library."""

import logging
import os
import sys
import tempfile

_MARK = "TFLENS_QUIET"


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow, and keeps it, XLA and absl from writing on stderr what is no concern of who runs a command.

    Does nothing if the user has set `TF_CPP_MIN_LOG_LEVEL`, or if TensorFlow is already there.

    Example:
        >>> import_tensorflow_quietly()
    """
    ours = os.environ.get(_MARK) is not None  # the level is that of this function, in the process that started this one
    if ("TF_CPP_MIN_LOG_LEVEL" in os.environ and not ours) or "tensorflow" in sys.modules:
        return
    os.environ[_MARK] = "1"
    # 3 leaves fatal errors alone: the missing graphics card of most machines is reported as an error (cuInit).
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # TensorFlow 2.21 writes its first lines before it reads that level. They bypass sys.stderr, so the descriptor
    # itself is turned away while it loads; what a failing import said is passed on.
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except BaseException:
            said.seek(0)
            os.write(stderr, said.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
