"""How often TensorFlow traces."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


@contextmanager
def counted_traces() -> Iterator[list[str]]:
    """A list that gets the name of every graph that is traced, whatever for, branches and bodies of loops included."""
    # Private, for there is no other place that all of them pass.
    from tensorflow.python.framework.func_graph import FuncGraph

    traced: list[str] = []
    make = FuncGraph.__init__

    def counted(graph: FuncGraph, name: str, *arguments: Any, **options: Any) -> None:
        traced.append(name)
        make(graph, name, *arguments, **options)

    with patch.object(FuncGraph, "__init__", counted):
        yield traced
