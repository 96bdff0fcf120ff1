PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo demo-mnist test test-slow lint bench bench-pipeline bench-profiles bench-clean wheel docs clean

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tflens needs Python 3.11 or newer; call: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: $(READY)
	$(BIN)/python scripts/demo.py

demo-mnist: $(READY)
	$(BIN)/python scripts/demo_mnist.py

# In several runs, since a process never gives back what it has compiled: all in one needs many times the memory.
TEST_RUNS := [a-c] [d-h] [i-l] [m-o] [p-r] [s-z]
PYTEST := -m pytest --numprocesses 2 --dist loadfile

test: $(READY)
	for files in $(TEST_RUNS); do $(BIN)/python $(PYTEST) tests/test_$$files*.py || exit 1; done
	$(BIN)/python $(PYTEST) tflens

test-slow: $(READY)
	$(BIN)/python $(PYTEST) -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The other packages get environments of their own in .bench/, made at the first run; BENCH="--quick" for a short one.
bench: $(READY)
	$(BIN)/python scripts/bench.py $(BENCH)

# From an image to a posterior, the same way; PIPELINE="--lenses 5 --seeds 5" for all of it.
bench-pipeline: $(READY)
	$(BIN)/python scripts/bench_pipeline.py $(PIPELINE)
	$(BIN)/python scripts/update_tables.py

bench-profiles: $(READY)
	$(BIN)/python scripts/profile_costs.py

bench-clean:
	rm -rf .bench

# The documentation site, in build/site; a warning is an error.
docs: $(READY)
	$(BIN)/python -m mkdocs build --strict --quiet

wheel: $(READY)
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) dist build demo_output
