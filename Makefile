# `make quickstart` and `make test` make .venv by themselves. PYTHON=... picks the interpreter (3.11 or newer).
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install quickstart test test-matrix test-order test-data-faults soak test-elastic gpu-check bench-storage bench-launch lint docs slurm clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.cfg setup.py $(wildcard storage/*/*.[ch]) scripts/install.sh $(filter-out requirements/benchmarks%,$(wildcard requirements/*))
	@VENV=$(VENV) scripts/install.sh
	@touch $@

quickstart: install
	@$(BIN)/trainwright quickstart $(ARGS)

# Slurm and a few tools for the tests, where apt may install them; elsewhere the tests that need it say that they were skipped.
slurm:
	@scripts/install_for_tests.sh

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The documentation as a site in build/docs; needs no network. A warning ends it.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Two workers: some tests wait most of the time, others keep two cores busy.
test: install slurm lint docs
	$(BIN)/pytest -n 2 $(ARGS)

# The files that have more cases than `make test` runs.
MATRIX := $(shell grep -lE "WHOLE|IN_MATRIX" tests/integration/test_*.py tests/contracts/test_*.py)

# With -rP the numbers and seeds that tests print are shown at the end.
# Every case of the fault and layout matrices, of which `make test` runs a representative part.
test-matrix: install
	WHOLE_MATRIX=1 $(BIN)/pytest -n 2 -rP --timeout 7200 $(or $(ARGS),$(MATRIX))

# Every test of the data order, of which `make test` runs a part; writes benchmarks/results/order.txt.
test-order: install
	@PYTHONPATH=typings $(BIN)/python -m benchmarks.order $(ARGS)

# Random faults over long runs; writes benchmarks/results/soak.txt. ARGS="--campaigns 20 --seed N --first K".
soak: install
	@PYTHONPATH=typings $(BIN)/python -m benchmarks.soak $(ARGS)

# Kills and changes of layout, of which `make test` runs five; writes benchmarks/results/elastic.txt. ARGS as for soak: --trials.
test-elastic: install
	@PYTHONPATH=typings $(BIN)/python -m benchmarks.elastic $(ARGS)

# Every fault of the data path, of which `make test` causes a part; writes benchmarks/results/data_faults.txt.
test-data-faults: install
	@PYTHONPATH=typings $(BIN)/python -m benchmarks.data_faults $(ARGS)

# What only a GPU can show, with the packages that GPU_PYTHON has: nothing is installed, no network is needed.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,python3)
gpu-check:
	PYTHONPATH=typings $(GPU_PYTHON) -m pytest -m gpu -rP $(ARGS) tests/gpu

# The data path against other projects' (build/bench-venv, 1.5 GB); ARGS names some of the benchmarks, or gives options.
bench-storage: install
	@VENV=$(VENV) benchmarks/storage/setup.sh
	@OMP_NUM_THREADS=1 PYTHONPATH=typings build/bench-venv/bin/python -m benchmarks.storage.run $(ARGS)

# From submit to the first step, against sbatch and srun by hand (root, Slurm); writes benchmarks/results/launch.txt.
bench-launch: install
	@OMP_NUM_THREADS=1 PYTHONPATH=typings $(BIN)/python -m benchmarks.launch

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
