"""What a graph of TensorFlow asks for."""

import re

from tensorflow.core.framework.graph_pb2 import GraphDef


def functions_in(graph: GraphDef) -> int:
    """How many functions a graph holds."""
    return len(re.findall(r"^  function \{", str(graph), re.MULTILINE))


def needs_xla(graph: GraphDef) -> bool:
    """Whether XLA compiles anything in a graph or in its functions."""
    return bool(re.search(r'"_XlaMustCompile"\s+value \{\s+b: true|op: "Xla', str(graph)))
