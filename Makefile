# A fresh machine needs Python 3.11 or newer with venv, and make. Everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

# For other releases than those of .venv, everything once: fits with the default loggers, UBT, bench, report, export.
SMOKE := $(addprefix tests/,test_cli.py trainer/test_lookup.py datamodules/test_image_text.py \
	datamodules/triggers/test_badnet.py callbacks/measures/test_measures.py callbacks/artefacts/test_results.py \
	lightning_modules/encoders/test_open_clip.py lightning_modules/encoders/test_huggingface.py \
	lightning_modules/encoders/test_huggingface_tokenizer.py \
	lightning_modules/ubt/test_module.py::test_a_planted_backdoor_is_found_and_unlearnt \
	commands/bench/test_bench.py::test_a_grid_runs_once_and_is_tabulated commands/report/test_report.py \
	commands/export/test_export.py::test_a_model_of_the_sigmoid_loss_gets_its_bias_back)

.PHONY: demo docs test test-fuzz test-lowest test-python test-report test-slurm lint venv wheel clean

demo: $(STAMP)
	$(BIN)/untrigger demo

# PYTHONPATH is empty to test the tree in place, or the folder of an installed wheel (see .ci/run).
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

# Some thousand bent inputs for every door of the product; FUZZ_SEED draws others, FUZZ_KEEP is where a bad one is kept.
test-fuzz: $(STAMP)
	FUZZ_RUNS=$${FUZZ_RUNS:-500} OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/fuzz $(ARGS)

# At exactly the lowest releases that pyproject.toml allows; PYTHON is to be the lowest too. What they warn of is theirs.
test-lowest: .venv-lowest/installed
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n 2 -W default $(SMOKE) $(ARGS)

.venv-lowest/installed: pyproject.toml
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --upgrade \
		--editable '.[test]'
	touch $@

# With another Python, at the newest releases: make test-python PYTHON=python3.13
OTHER := .venv-$(notdir $(PYTHON))
test-python: $(OTHER)/installed
	OMP_NUM_THREADS=1 $(OTHER)/bin/python -m pytest -n 2 $(SMOKE) $(ARGS)

$(OTHER)/installed: pyproject.toml
	test -x $(OTHER)/bin/python || $(PYTHON) -m venv $(OTHER)
	$(OTHER)/bin/python -m pip install --quiet --editable '.[test]'
	touch $@

# Needs Debian's chromium. Leaves screenshots in screenshots/; RUNS='DIR DIR' shows those runs instead of small ones.
test-report: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[browser]'
	RUNS="$(RUNS)" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/commands/report/test_browser.py $(ARGS)

# Needs a SLURM that takes jobs of two tasks from here, named by SLURM_CONF if it is not the machine's. Prints what happened.
test-slurm: $(STAMP)
	$(BIN)/python tests/slurm/on_one_node.py $(ARGS)

lint: $(STAMP) wheel
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd .wheel && ../$(BIN)/python -m mypy --config-file ../pyproject.toml -p untrigger
	PYTHONPATH=.wheel $(BIN)/lint-imports

# The site, in site/; a broken link or docstring reference fails. Nothing is fetched while it is built.
docs: $(STAMP) wheel
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/python -m mkdocs build --strict

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
	rm -rf .venv .venv-* .wheel build dist *.egg-info
