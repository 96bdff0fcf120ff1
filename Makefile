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

define suite
	$(1) $(PYTEST) $(2) $(OF_SMALL_FIT)
	$(1) $(PYTEST) $(2) $(call of,a b c d)
	$(1) $(PYTEST) $(2) $(call of,e f g h i j k)
	$(1) $(PYTEST) $(2) $(call of,l m n o)
	$(1) $(PYTEST) $(2) $(call of,p q r)
	$(1) $(PYTEST) $(2) $(call of,s t u v w x y z)
	$(1) $(PYTEST) $(2) tflens
endef

test: $(READY)
	$(call suite,$(BIN)/python)

test-slow: $(READY)
	$(BIN)/python $(PYTEST) -m slow

# The same tests with the oldest versions that pyproject.toml allows, the newest that there are, and TFP of last night, in
# environments of their own; TESTS="tests/test_hmc.py" for some of them. Old packages warn about new ones: not our errors.
ENVS := .envs
.PHONY: test-oldest test-newest test-nightly
test-oldest test-newest test-nightly: test-%: $(ENVS)/%/.ready
	$(if $(TESTS),$(ENVS)/$*/bin/python $(PYTEST) -o filterwarnings=default $(TESTS),$(call suite,$(ENVS)/$*/bin/python,-o filterwarnings=default))

UV = $(@D)/bin/python -m uv pip install --quiet --python $(@D)/bin/python
$(ENVS)/%/.ready: pyproject.toml
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) --resolution $(if $(filter oldest,$*),lowest-direct,highest) --editable '.[dev]'
	$(if $(filter nightly,$*),$(@D)/bin/python -m uv pip uninstall --quiet --python $(@D)/bin/python tensorflow-probability && $(UV) tfp-nightly)
	touch $@

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
	rm -rf $(VENV) $(ENVS) dist build demo_output

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

# Precision, long chains, a thousand fits in one process; NUMERICS="--only many_fits --fits 30" for a short form.
.PHONY: numerics
numerics: $(READY)
	$(BIN)/python scripts/numerics.py $(NUMERICS)
	$(BIN)/python scripts/update_tables.py
