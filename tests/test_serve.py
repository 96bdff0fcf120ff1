"""The server, asked over a socket: answers as TensorFlow Serving's, under load, and whatever clients send."""

import base64
import concurrent.futures
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from tflens.cli import app as command_line
from tflens.errors import ParameterError, SavedModelError
from tflens.galaxies.source import load_galaxy_model
from tflens.serving.app import Limits
from tflens.serving.export import write_saved_model
from tflens.serving.galaxies import galaxy_signatures
from tflens.serving.models import find_models, load_model
from tflens.serving.server import listen, load_models, make_server
from tflens.serving.signature import Argument, Signature


def signature(name, function, inputs, outputs, **example):
    return Signature(name, f"{name}, for a test", function, tuple(inputs), tuple(outputs), example)


def arguments(*given):
    return [Argument(name, shape, "a number", dtype=dtype) for name, shape, dtype in given]


def slow(given):
    """A loop of n steps: TensorFlow has no sleep."""
    n = tf.reduce_max(given["n"])
    total = tf.while_loop(lambda i, x: i < n, lambda i, x: (i + 1, x + 1), [0, 0], parallel_iterations=1)[1]
    return {"total": given["n"] - n + total}


def checked(given):
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(given["x"] >= 0), ["x must not be negative"])]):
        return {"root": tf.sqrt(given["x"])}


def tiny(factor):
    """Signatures for every kind of input that the server must handle."""
    x, y = ("x", (None, 3), "float32"), ("y", (None, 3), "float32")
    return [
        signature(
            "scale", lambda g: {"y": factor * g["x"]}, arguments(x), arguments(y), x=np.zeros((1, 3), np.float32)
        ),
        signature(
            "pair",
            lambda g: {"y": g["x"] * tf.cast(g["k"], tf.float32)[:, None], "k_plus_one": g["k"] + 1},
            arguments(x, ("k", (None,), "int32")),
            arguments(y, ("k_plus_one", (None,), "int32")),
            x=np.zeros((1, 3), np.float32),
            k=np.zeros(1, np.int32),
        ),
        signature("shift", lambda g: {"y": g["x"] + g["by"]}, arguments(x, ("by", (None, 3), "float32")), arguments(y)),
        signature(
            "count",
            lambda g: {"numbers": tf.range(g["n"])},
            arguments(("n", (), "int32")),
            arguments(("numbers", (None,), "int32")),
            n=np.array(1, np.int32),
        ),
        signature(
            "choose",
            lambda g: {"chosen": tf.where(g["which"], 1.0, tf.constant(np.nan, tf.float32))},
            arguments(("which", (None,), "bool")),
            arguments(("chosen", (None,), "float32")),
            which=np.ones(1, bool),
        ),
        signature("checked", checked, arguments(("x", (None,), "float32")), arguments(("root", (None,), "float32"))),
        signature(
            "slow",
            slow,
            arguments(("n", (None,), "int32")),
            arguments(("total", (None,), "int32")),
            n=np.ones(1, np.int32),
        ),
    ]


class Text(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def __call__(self, text):
        return {"length": tf.strings.length(text), "again_bytes": text, "same": text}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for version in (1, 2):
        write_saved_model(folder, "tiny", version, tiny(float(version + 1)), {})
    module = Text()
    tf.saved_model.save(module, str(folder / "text/1"), signatures={"serving_default": module.__call__})
    (folder / "text/notes").mkdir()
    (folder / "empty").mkdir()
    return folder


@contextmanager
def running(folder, **limits):
    """A server in a thread; gives its port."""
    place = listen("127.0.0.1", 0)
    server = make_server(load_models(folder, all_versions=True, trust=True), Limits(**limits))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
    thread.start()
    try:
        yield place.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
        place.close()
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def port(models):
    with running(models, max_body=200_000, max_rows=40, max_batch=16) as port:
        yield port


def ask(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    return response.status, json.loads(content) if response.headers["content-type"] == "application/json" else content


def get(port, path):
    return ask(port, "GET", path)


def predict(port, content, path="/v1/models/tiny"):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return ask(port, "POST", f"{path}:predict", body, {"Content-Type": "application/json"})


def alive(port):
    assert predict(port, {"signature_name": "scale", "instances": [[1, 2, 3]]}) == (
        200,
        {"predictions": [[3.0, 6.0, 9.0]]},
    )


class TestAnswers:
    def test_rows_and_columns(self, port):
        rows = [[1, 2, 3], [0.1, -4, 1e-3]]
        expected = (3 * np.array(rows, np.float32)).tolist()
        for content in ({"instances": rows}, {"instances": [{"x": row} for row in rows]}):
            code, answer = predict(port, {"signature_name": "scale", **content})
            assert code == 200
            np.testing.assert_allclose(answer["predictions"], expected, rtol=1e-7)
        for content in ({"inputs": rows}, {"inputs": {"x": rows}}):
            code, answer = predict(port, {"signature_name": "scale", **content})
            assert code == 200
            np.testing.assert_allclose(answer["outputs"], expected, rtol=1e-7)

    def test_several_inputs_and_outputs(self, port):
        asked = {"signature_name": "pair", "instances": [{"x": [1, 2, 3], "k": 2}, {"x": [1, 1, 1], "k": -1}]}
        expected = [{"y": [2.0, 4.0, 6.0], "k_plus_one": 3}, {"y": [-1.0, -1.0, -1.0], "k_plus_one": 0}]
        assert predict(port, asked) == (200, {"predictions": expected})
        asked = {"signature_name": "pair", "inputs": {"x": [[1, 2, 3]], "k": [2]}}
        assert predict(port, asked) == (200, {"outputs": {"y": [[2.0, 4.0, 6.0]], "k_plus_one": [3]}})

    def test_no_batch_axis(self, port):
        asked = {"signature_name": "count", "inputs": {"n": 3}}
        assert predict(port, asked) == (200, {"outputs": [0, 1, 2]})
        code, answer = predict(port, {"signature_name": "count", "instances": [3]})
        assert code == 400
        assert "input 'n' must be int32 []" in answer["error"]

    def test_strings_and_bytes(self, port):
        raw = bytes(range(256))
        content = ["grün", {"b64": base64.b64encode(raw).decode()}]
        code, answer = predict(port, {"instances": content}, "/v1/models/text")
        assert code == 200
        assert [row["length"] for row in answer["predictions"]] == [5, 256]
        assert answer["predictions"][0]["same"] == "grün"
        assert base64.b64decode(answer["predictions"][1]["again_bytes"]["b64"]) == raw

    def test_what_is_not_finite_comes_out_as_tensorflow_serving_writes_it(self, port):
        code, answer = predict(port, {"signature_name": "choose", "instances": [True, False]})
        assert code == 200
        assert answer["predictions"][0] == 1
        assert np.isnan(answer["predictions"][1])

    def test_more_rows_than_a_batch(self, port):
        rows = np.random.default_rng(0).normal(size=(39, 3)).astype(np.float32)
        code, answer = predict(port, {"signature_name": "scale", "instances": rows.tolist()})
        assert code == 200
        np.testing.assert_array_equal(np.array(answer["predictions"], np.float32), 3 * rows)
        code, answer = predict(port, {"signature_name": "scale", "instances": [[1, 2, 3]] * 41})
        assert (code, answer["error"]) == (400, "a request may have 40 rows at most, got 41")

    def test_one_row_for_many(self, port):
        rows = np.arange(117.0).reshape(39, 3)
        asked = {"signature_name": "shift", "inputs": {"x": rows.tolist(), "by": [[1, 2, 3]]}}
        code, answer = predict(port, asked)
        assert code == 200
        np.testing.assert_array_equal(answer["outputs"], rows + np.array([1, 2, 3]))
        asked["inputs"]["by"] = [[1, 2, 3]] * 2
        code, answer = predict(port, asked)
        assert (code, answer["error"]) == (400, "the inputs have unequal numbers of rows: [2, 39]")

    def test_versions(self, port):
        asked = {"signature_name": "scale", "instances": [[1, 1, 1]]}
        assert predict(port, asked, "/v1/models/tiny/versions/1")[1] == {"predictions": [[2.0, 2.0, 2.0]]}
        assert predict(port, asked, "/v1/models/tiny/versions/2") == predict(port, asked)
        code, answer = predict(port, asked, "/v1/models/tiny/versions/3")
        assert code == 404
        assert answer["error"].startswith("Servable not found for request: Specific(tiny, 3)")
        state = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        both = [{"version": "2", **state}, {"version": "1", **state}]
        assert get(port, "/v1/models/tiny") == (200, {"model_version_status": both})
        assert get(port, "/v1/models/tiny/versions/1") == (200, {"model_version_status": both[1:]})

    def test_metadata(self, port):
        code, answer = get(port, "/v1/models/tiny/metadata")
        assert code == 200
        assert answer["model_spec"] == {"name": "tiny", "signature_name": "", "version": "2"}
        described = answer["metadata"]["signature_def"]["signature_def"]
        assert set(described) == {each.name for each in tiny(1.0)}
        x = described["scale"]["inputs"]["x"]
        assert x["dtype"] == "DT_FLOAT"
        sizes = [{"size": "-1", "name": ""}, {"size": "3", "name": ""}]
        assert x["tensor_shape"] == {"dim": sizes, "unknown_rank": False}
        assert described["scale"]["method_name"] == "tensorflow/serving/predict"
        assert get(port, "/v1/models/tiny/versions/1/metadata")[1]["model_spec"]["version"] == "1"

    def test_health_and_metrics(self, port):
        alive(port)
        assert get(port, "/healthz") == (200, {"status": "ok", "models": {"text": ["1"], "tiny": ["1", "2"]}})
        code, text = get(port, "/monitoring/prometheus/metrics")
        assert code == 200
        lines = dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#"))
        key = 'tflens_serving_requests_total{code="200",model="tiny"}'
        before = float(lines[key])
        assert before >= 1
        alive(port)
        predict(port, b"", "/v1/models/no-such-model")
        text = get(port, "/monitoring/prometheus/metrics")[1].decode()
        assert f"{key} {before + 1}" in text
        assert 'tflens_serving_requests_total{code="404",model=""}' in text
        assert "no-such-model" not in text
        assert "tflens_serving_in_work 0.0" in text


BAD = {
    "empty": b"",
    "not JSON": b"hello",
    "truncated JSON": b'{"signature_name": "scale", "instances": [[1, 2',
    "not UTF-8": b'{"signature_name": "\xff\xfe", "instances": [[1, 2, 3]]}',
    "NaN": b'{"signature_name": "scale", "instances": [[1, 2, NaN]]}',
    "Infinity": b'{"signature_name": "scale", "instances": [[1, 2, -Infinity]]}',
    "1e400": b'{"signature_name": "scale", "instances": [[1, 2, 1e400]]}',
    "more than a float32": b'{"signature_name": "scale", "instances": [[1, 2, 1e200]]}',
    "a number of many digits": b'{"signature_name": "scale", "instances": [[1, 2, ' + b"9" * 5000 + b"]]}",
    "too many digits for an int32": b'{"signature_name": "count", "inputs": {"n": 99999999999}}',
    "more than 64 bits": b'{"signature_name": "count", "inputs": {"n": 99999999999999999999999}}',
    "a list": b"[1, 2, 3]",
    "a number": b"1",
    "nested deep": b"[" * 150_000,
    "nested deep and closed": b'{"signature_name": "scale", "instances": ' + b"[" * 900 + b"1" + b"]" * 900 + b"}",
    "a deep name": b'{"signature_name": ' + b"[" * 1000 + b"]" * 1000 + b', "instances": [[1, 2, 3]]}',
    "deep objects": b'{"a":' * 20_000,
    "no tensors": {"signature_name": "scale"},
    "rows and columns": {"signature_name": "scale", "instances": [[1, 2, 3]], "inputs": [[1, 2, 3]]},
    "no signature": {"instances": [[1, 2, 3]]},
    "unknown signature": {"signature_name": "train", "instances": [[1, 2, 3]]},
    "signature that is no name": {"signature_name": {"a": 1}, "instances": [[1, 2, 3]]},
    "init op": {"signature_name": "__saved_model_init_op", "inputs": {}},
    "no rows": {"signature_name": "scale", "instances": []},
    "rows that are none": {"signature_name": "scale", "instances": 5},
    "null": {"signature_name": "scale", "instances": None},
    "nulls": {"signature_name": "scale", "instances": [[1, None, 3]]},
    "short row": {"signature_name": "scale", "instances": [[1, 2]]},
    "ragged": {"signature_name": "scale", "instances": [[1, 2, 3], [1, 2]]},
    "ragged in depth": {"signature_name": "scale", "instances": [[1, 2, 3], [1, 2, [3]]]},
    "no batch axis": {"signature_name": "scale", "inputs": [1, 2, 3]},
    "one axis more": {"signature_name": "scale", "inputs": [[[1, 2, 3]]]},
    "no columns": {"signature_name": "scale", "inputs": {"x": [[]]}},
    "strings": {"signature_name": "scale", "instances": [["1", "2", "3"]]},
    "a string among numbers": {"signature_name": "scale", "instances": [[1, "2", 3]]},
    "bytes for numbers": {"signature_name": "scale", "instances": [{"b64": "AAAA"}]},
    "booleans for numbers": {"signature_name": "scale", "instances": [[True, False, True]]},
    "numbers for booleans": {"signature_name": "choose", "instances": [1, 0]},
    "fractions for whole numbers": {"signature_name": "pair", "instances": [{"x": [1, 2, 3], "k": 1.5}]},
    "objects for numbers": {"signature_name": "scale", "instances": [[{}, {}, {}]]},
    "missing input": {"signature_name": "pair", "instances": [{"x": [1, 2, 3]}]},
    "unnamed inputs": {"signature_name": "pair", "instances": [[1, 2, 3]]},
    "unnamed columns": {"signature_name": "pair", "inputs": [[1, 2, 3]]},
    "unknown input": {"signature_name": "scale", "instances": [{"x": [1, 2, 3], "y": 1}]},
    "rows of unlike names": {"signature_name": "scale", "instances": [{"x": [1, 2, 3]}, {"y": [1, 2, 3]}]},
    "rows of unlike kinds": {"signature_name": "scale", "instances": [{"x": [1, 2, 3]}, [1, 2, 3]]},
    "unequal columns": {"signature_name": "pair", "inputs": {"x": [[1, 2, 3]] * 2, "k": [1, 2, 3]}},
    "refused by the model": {"signature_name": "checked", "instances": [-1.0]},
}


@pytest.mark.parametrize("case", BAD)
def test_a_hostile_body_gets_a_clean_answer(case, port):
    code, answer = predict(port, BAD[case])
    assert code == 400
    assert list(answer) == ["error"]
    assert 0 < len(answer["error"]) < 700
    assert "Traceback" not in answer["error"]
    alive(port)


NO_STRINGS = [[3], [None], [{"b64": "no base64!"}], [{"b64": 3}], [["a"], "b"], [{"b64": "AA==", "c": 1}], [[["a"]]]]


def test_hostile_strings(port):
    for instances in NO_STRINGS:
        code, answer = predict(port, {"instances": instances}, "/v1/models/text")
        assert code == 400, instances
        assert list(answer) == ["error"]
    deep = b'{"instances": ' + b"[" * 1000 + b"]" * 1000 + b"}"
    assert predict(port, deep, "/v1/models/text")[0] == 400
    # A string that looks like depth is a string.
    assert predict(port, {"instances": ["[" * 500]}, "/v1/models/text")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/models", 404),
        ("GET", "/v1/models/none", 404),
        ("GET", "/v1/models/none/metadata", 404),
        ("GET", "/v1/models/tiny/versions/x", 404),
        ("GET", "/v1/models/tiny/versions/" + "9" * 5000, 404),
        ("GET", "/v1/models/tiny/versions/%D9%A1", 404),  # an Arabic 1
        ("GET", "/v1/models/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/v1/models/%ff%00", 404),
        ("GET", "/v1/models/tiny:predict", 405),
        ("DELETE", "/v1/models/tiny", 405),
        ("POST", "/v1/models/tiny", 405),
        ("POST", "/v1/models/tiny:classify", 400),
        ("POST", "/v1/models/none:predict", 404),
    ],
)
def test_wrong_addresses(method, path, code, port):
    found, answer = ask(port, method, path, b"{}" if method == "POST" else None)
    assert found == code
    assert list(answer) == ["error"]
    alive(port)


@pytest.mark.parametrize("size", [200_001, 600_000, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_huge_body(size, chunked, port):
    body = b'{"instances": [' + b" " * size
    sent = iter([body[i : i + 50_000] for i in range(0, len(body), 50_000)]) if chunked else body
    try:
        code, answer = ask(port, "POST", "/v1/models/tiny:predict", sent)
    except OSError:  # what goes on far beyond the limit is cut off
        assert size > 4 * 200_000
    else:
        assert code == 413
        assert answer == {"error": "the body must be no larger than 200000 bytes"}
    alive(port)


def send(port, *parts, pause=0.0, read=True):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        for part in parts:
            client.sendall(part)
            time.sleep(pause)
        reply = b""
        while read and (part := client.recv(65536)):
            reply += part
        return reply


HEAD = b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n"


def test_bodies_that_never_end(port):
    for _ in range(5):
        send(port, HEAD, b'{"instances"', read=False)
    assert b" 400 " in send(port, b"\x16\x03\x01 no HTTP at all\r\n\r\n").split(b"\r\n")[0]
    assert b" 400 " in send(port, HEAD.replace(b"1000", b"-5")).split(b"\r\n")[0]
    alive(port)


def test_a_body_that_is_slow(models):
    with running(models, timeout=0.3) as port:
        reply = send(port, HEAD, b'{"instances"')
        assert reply.startswith(b"HTTP/1.1 408 ")
        assert b"did not arrive within 0.3 seconds" in reply
        alive(port)


def test_one_bad_request_of_a_batch_fails_alone(models):
    with running(models, window=0.2) as port, concurrent.futures.ThreadPoolExecutor(8) as pool:
        values = [4.0, -1.0, 9.0, 16.0, -2.0, 25.0]
        asked = [{"signature_name": "checked", "instances": [value]} for value in values]
        answers = list(pool.map(lambda content: predict(port, content), asked))
        for value, (code, answer) in zip(values, answers, strict=True):
            if value < 0:
                assert code == 400
                assert "x must not be negative" in answer["error"]
            else:
                assert (code, answer) == (200, {"predictions": [value**0.5]})


def test_requests_are_joined(models):
    with running(models, window=0.5) as port, concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [{"signature_name": "scale", "instances": [[i, i, i]] * 2} for i in range(8)]
        answers = list(pool.map(lambda content: predict(port, content), asked))
        assert [answer["predictions"] for _, answer in answers] == [[[3.0 * i] * 3] * 2 for i in range(8)]
        text = get(port, "/monitoring/prometheus/metrics")[1].decode()
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        of = '{model="tiny",signature="scale"}'
        assert float(lines[f"tflens_serving_batch_rows_sum{of}"]) == 16
        assert float(lines[f"tflens_serving_batch_rows_count{of}"]) <= 4


ENDLESS = {"signature_name": "slow", "instances": [400_000]}


def test_time_limit_and_a_full_queue(models):
    """Requests that take long get 504, those for which there is no place 429; then everything is as before."""
    with running(models, timeout=0.5, queue=2, window=0.0) as port:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            late = [pool.submit(predict, port, ENDLESS) for _ in range(2)]
            time.sleep(0.2)
            code, answer = predict(port, {"signature_name": "scale", "instances": [[1, 2, 3]]})
            assert code == 429
            assert answer["error"].startswith("the queue is full: 2 requests are in work")
            for each in late:
                assert each.result()[0] == 504
                assert each.result()[1] == {"error": "Timed out: the request took more than 0.5 seconds"}
        assert get(port, "/healthz")[0] == 200


def test_many_clients_at_once(models, capsys):
    """64 clients, each with a connection of its own: every answer is there and right."""
    clients, each = 64, 12

    def client(number):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        rng, seconds = np.random.default_rng(number), []
        for _ in range(each):
            rows = rng.normal(size=(int(rng.integers(1, 5)), 3)).astype(np.float32)
            begun = time.perf_counter()
            body = json.dumps({"signature_name": "scale", "instances": rows.tolist()})
            connection.request("POST", "/v1/models/tiny:predict", body)
            response = connection.getresponse()
            answer = json.loads(response.read())
            seconds.append(time.perf_counter() - begun)
            assert response.status == 200, answer
            np.testing.assert_array_equal(np.array(answer["predictions"], np.float32), 3 * rows)
        connection.close()
        return seconds

    with running(models) as port, concurrent.futures.ThreadPoolExecutor(clients) as pool:
        begun = time.perf_counter()
        latencies = np.concatenate(list(pool.map(client, range(clients))))
        seconds = time.perf_counter() - begun
    assert latencies.size == clients * each
    middle, high, worst = 1e3 * np.quantile(latencies, [0.5, 0.95, 1])
    with capsys.disabled():
        print(
            f"\n{clients} clients: {latencies.size / seconds:.0f} requests/s; latency median {middle:.1f} ms, ", end=""
        )
        print(f"95 % {high:.1f} ms, worst {worst:.1f} ms")


def serve(*options):
    command = [
        sys.executable,
        "-c",
        "from tflens.cli import main; main()",
        "serve",
        *map(str, options),
        "--trust",
        "--port",
        "0",
    ]
    environment = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **pipes, text=True, env=environment | {"COLUMNS": "200"})


def test_a_server_that_is_told_to_end_answers_what_is_in_work(models):
    process = serve(models, "--window", 0)
    try:
        base = process.stdout.readline().strip()
        assert base.startswith("http://127.0.0.1:")
        port = int(base.rsplit(":", 1)[1])
        alive(port)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            late = pool.submit(predict, port, {"signature_name": "slow", "instances": [200_000]})
            time.sleep(0.1)
            assert not late.done()
            process.send_signal(signal.SIGTERM)
            assert late.result() == (200, {"predictions": [200_000]})
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == f"{base}/v1/models/text/versions/1: serving_default"
    assert lines[1].startswith(f"{base}/v1/models/tiny/versions/2: checked, choose, count")
    assert lines[2:] == ["stopped"]
    with pytest.raises(OSError, match="refused"):
        get(port, "/healthz")


def test_what_runs_beyond_its_time_does_not_keep_the_server_from_ending(models):
    process = serve(models, "--timeout", 0.2)
    try:
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        assert predict(port, {**ENDLESS, "instances": [2_000_000_000]})[0] == 504
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert err.splitlines()[-1].startswith("note: what took longer")


def call(*options):
    return CliRunner().invoke(command_line, ["serve", *map(str, options)])


def test_what_cannot_be_served_is_refused(models, tmp_path):
    for folder, words in ((tmp_path / "none", "does not exist"), (models / "empty", "holds no SavedModel")):
        result = call(folder)
        assert result.exit_code == 1
        assert words in result.stderr
    (tmp_path / "m/1").mkdir(parents=True)
    (tmp_path / "m/1/saved_model.pb").write_bytes(b"\xff\xff")
    result = call(tmp_path, "--trust")
    assert result.exit_code == 1
    assert f"{tmp_path / 'm/1'} cannot be loaded as a SavedModel" in result.stderr
    with listen("127.0.0.1", 0) as place:
        result = call(models / "text", "--trust", "--port", place.getsockname()[1])
    assert result.exit_code == 1
    assert "cannot listen at 127.0.0.1" in result.stderr


def test_help_warns():
    words = " ".join(call("--help").stdout.replace("│", " ").split())
    assert "WARNING: a SavedModel is a program" in words


def test_folders(models):
    assert {name: sorted(versions) for name, versions in find_models(models).items()} == {"text": [1], "tiny": [1, 2]}
    assert find_models(models / "tiny") == {"tiny": {n: models / "tiny" / str(n) for n in (1, 2)}}
    assert [(each.name, each.version) for each in load_models(models, trust=True)] == [("text", 1), ("tiny", 2)]


def test_a_model_without_signatures(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "1"))
    with pytest.raises(SavedModelError, match="has no signature to serve"):
        load_model("m", 1, tmp_path / "1", trust=True)


@pytest.mark.parametrize("limits", [{"queue": 0}, {"timeout": 0.0}, {"timeout": float("nan")}, {"max_batch": -1}])
def test_limits_are_checked(limits):
    with pytest.raises(ParameterError, match=next(iter(limits))):
        Limits(**limits)


@pytest.mark.slow
def test_shipped_galaxies(tmp_path):
    galaxies = load_galaxy_model()
    write_saved_model(tmp_path, "galaxies", 2, galaxy_signatures(galaxies), {})
    z = np.random.default_rng(0).normal(size=(3, galaxies.latent_dim)).astype(np.float32)
    with running(tmp_path) as port:
        asked = {"signature_name": "decode", "instances": z.tolist()}
        code, answer = predict(port, asked, "/v1/models/galaxies")
        assert code == 200
        np.testing.assert_allclose(answer["predictions"], galaxies.decode(z), rtol=1e-3, atol=1e-8)
        asked = {"signature_name": "sample_prior", "inputs": {"seed": 5, "n": 2}}
        code, answer = predict(port, asked, "/v1/models/galaxies")
        assert code == 200
        np.testing.assert_allclose(answer["outputs"]["galaxy"], galaxies.sample_prior(2, seed=5), rtol=1e-3, atol=1e-8)
        asked["inputs"]["n"] = 10**9
        assert predict(port, asked, "/v1/models/galaxies")[0] == 400


def test_answers_are_not_held_back_for_an_acknowledgement():
    with listen("127.0.0.1", 0) as place, socket.create_connection(place.getsockname()), place.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
