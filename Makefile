# A fresh machine needs Python 3.11 or newer with venv, and make. Everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: demo test test-fuzz test-report test-slurm lint venv wheel clean

demo: $(STAMP)
	$(BIN)/untrigger demo

# PYTHONPATH is empty to test the tree in place, or the folder of an installed wheel (see .ci/run).
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

# Some thousand bent inputs for every door of the product; FUZZ_SEED draws others, FUZZ_KEEP is where a bad one is kept.
test-fuzz: $(STAMP)
	FUZZ_RUNS=$${FUZZ_RUNS:-500} OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/fuzz $(ARGS)

# Needs Debian's chromium. Leaves screenshots in screenshots/; RUNS='DIR DIR' shows those runs instead of small ones.
test-report: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[browser]'
	RUNS="$(RUNS)" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/commands/report/test_browser.py $(ARGS)

# Needs a SLURM that takes jobs of two tasks from here, told by SLURM_CONF if it is not the machine's. Prints what happened.
test-slurm: $(STAMP)
	$(BIN)/python tests/slurm/on_one_node.py $(ARGS)

lint: $(STAMP) wheel
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd .wheel && ../$(BIN)/python -m mypy --config-file ../pyproject.toml -p untrigger
	PYTHONPATH=.wheel $(BIN)/lint-imports

# The built package, unpacked: what a user installs, and what mypy and import-linter can read as `untrigger`.
wheel: $(STAMP)
	rm -rf .wheel build dist
	mkdir -p dist
	$(BIN)/python -m build --wheel --outdir dist . > dist/build.log 2>&1 || { cat dist/build.log; exit 1; }
	$(BIN)/python -m pip install --quiet --no-deps --target .wheel dist/*.whl

venv: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .wheel build dist *.egg-info
