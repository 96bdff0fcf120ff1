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

# In several runs, since a process never gives back what it has compiled: all in one needs many times the memory. Files
# that look at one and the same small fit are together, for it takes minutes.
PYTEST := -m pytest --numprocesses 2 --dist loadfile
OF_SMALL_FIT := $(shell grep -l small_fit tests/test_*.py)
OTHERS := $(filter-out $(OF_SMALL_FIT),$(wildcard tests/test_*.py))
of = $(filter $(addprefix tests/test_,$(addsuffix %,$(1))),$(OTHERS))

test: $(READY)
	$(BIN)/python $(PYTEST) $(OF_SMALL_FIT)
	$(BIN)/python $(PYTEST) $(call of,a b c d)
	$(BIN)/python $(PYTEST) $(call of,e f g h i j k)
	$(BIN)/python $(PYTEST) $(call of,l m n o)
	$(BIN)/python $(PYTEST) $(call of,p q r)
	$(BIN)/python $(PYTEST) $(call of,s t u v w x y z)
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

# Damaged files into the readers, FUZZ_RUNS of them in all, guided by the code that they reach; FUZZ="--only fits" for one.
FUZZ_RUNS := 1000000

.PHONY: fuzz reliability-input

fuzz: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python scripts/fuzz.py --runs $(FUZZ_RUNS) $(FUZZ)

# What the cases of tests/bad_input.py are told, for docs/reliability.md.
reliability-input: $(READY)
	$(BIN)/python scripts/reliability_records.py
	$(BIN)/python scripts/update_tables.py

# How many fits grow with workers and lenses, and what they would cost elsewhere; SCALE="--quick" for a short form.
.PHONY: scale soak
scale: $(READY)
	$(BIN)/python scripts/scale.py $(SCALE)
	$(BIN)/python scripts/costs.py
	$(BIN)/python scripts/update_tables.py

# Jobs that are killed at random moments, and disks that fill up; SOAK="--kills 2" for a short form.
soak: $(READY)
	$(BIN)/python scripts/soak.py $(SOAK)
	$(BIN)/python scripts/update_tables.py
