# `make quickstart` and `make test` make .venv by themselves. PYTHON=... picks the interpreter (3.11 or newer).
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install quickstart test test-matrix lint slurm clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.cfg scripts/install.sh $(wildcard requirements/*)
	@VENV=$(VENV) scripts/install.sh
	@touch $@

quickstart: install
	@$(BIN)/trainwright quickstart $(ARGS)

# Slurm for the tests, where apt may install it; elsewhere the tests that need it say that they were skipped.
slurm:
	@scripts/install_slurm.sh

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: install slurm lint
	$(BIN)/pytest $(ARGS)

# Every case of the fault and layout matrices, of which `make test` runs a representative part.
test-matrix: install
	WHOLE_MATRIX=1 $(BIN)/pytest -s tests/integration/test_layouts.py tests/integration/test_resume.py tests/integration/test_export_layouts.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
