# Only python3 (3.11 or newer), pip and make are needed; everything else goes into .venv.
PYTHON ?= python3
WORKERS ?= 4
ARGS ?=

BIN := .venv/bin
READY := .venv/.ready
REPORTS := .stamps
DEMO_METHODS := erm mixup cutmix manifold-mixup multimix dense-multimix distilled-multimix

# One thread a worker: tests are small, and threads of several workers only get in each other's way.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses $(WORKERS)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench chaos tables docs lint format types layers rest shapes cov wheel lock clean

help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv and install the package with its pinned tools

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "multimix needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing)." >&2; \
	  echo "Name another one: make setup PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "setup 1/2: virtual environment in .venv"
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo "setup 2/2: pinned packages, about 6 GB the first time (a few minutes)"
	@$(BIN)/python -m pip install -qq -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## Train every method on digits with three seeds, print the table, leave report.html (ARGS="--epochs 1")
	@rm -rf demo report.html
	$(BIN)/multimix compare digits --methods $(DEMO_METHODS) --seeds 3 --jobs 2 --out demo $(ARGS)
	@cp demo/report.html report.html
	@echo "report: $(CURDIR)/report.html"

ifeq ($(ARGS),)
test: rest shapes ## Run the tests, those of the core with shape checks (ARGS='-k dirichlet': some of them, without)
else
test: $(READY)
	$(PYTEST) $(ARGS)
endif

rest: $(READY) ## Run the tests that need no shape checks
	$(PYTEST) --shapes without --junitxml=$(REPORTS)/tests.xml
	@$(BIN)/python scripts/count_tests.py tests $(REPORTS)/tests.xml

shapes: $(READY) ## Run the core's tests with every shape in a signature checked
	PYTHONPATH=scripts $(PYTEST) --shapes only --jaxtyping-packages=multimix,shape_checker.check --junitxml=$(REPORTS)/shapes.xml
	@$(BIN)/python scripts/count_tests.py 'with shape checks' $(REPORTS)/shapes.xml

cov: $(READY) ## Run the tests and list what they leave out, file by file (half an hour)
	$(PYTEST) --cov --cov-report=
	@$(BIN)/coverage report --show-missing --skip-covered

lint: $(READY) ## Look at format, style and tidiness
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@git ls-files -z | xargs -0 $(BIN)/python scripts/tidy.py

format: $(READY) ## Bring the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(READY) ## Check the types
	$(BIN)/mypy

layers: $(READY) ## Check that imports only go downwards
	$(BIN)/lint-imports --no-logo

tables: $(READY) ## Put tables made from the committed records into README and docs
	$(BIN)/python scripts/fill_tables.py

docs: $(READY) ## Build the documentation into site/
	$(BIN)/python scripts/fill_tables.py --check
	$(BIN)/mkdocs build --strict

wheel: $(READY) ## Build the wheel and use it from an empty folder
	@sh scripts/check_wheel.sh $(BIN)/python

check: lint types layers test docs wheel ## Everything that has to pass

bench: $(READY) ## Measure the core op, pairwise mixing, training steps and suites (half an hour on two quiet cores)
	@mkdir -p benchmarks
	$(BIN)/multimix bench ops --out benchmarks/ops-cpu.jsonl
	$(BIN)/multimix bench pairs --out benchmarks/pairs-cpu.jsonl
	$(BIN)/multimix bench step --out benchmarks/step-cpu.jsonl
	$(BIN)/multimix bench evaluation --out benchmarks/evaluation-cpu.jsonl

chaos: $(READY) ## Kill 50 runs, compare processes, 300 wrong inputs, a soak, a fan-out; records in benchmarks/chaos.jsonl (minutes)
	@rm -f benchmarks/chaos.jsonl
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m chaos --out benchmarks/chaos.jsonl $(ARGS)

lock: $(READY) ## Pin what .venv holds now in constraints.txt
	$(BIN)/python scripts/lock.py
	@touch $(READY)

clean: ## Remove what the other targets made, but for .venv and runs/
	rm -rf demo report.html site dist .coverage* $(REPORTS) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests scripts studies -name __pycache__ -type d -prune -exec rm -rf {} +
