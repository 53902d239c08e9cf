# Only python3 (3.11 or newer), pip and make are needed; everything else goes into .venv.
PYTHON ?= python3
WORKERS ?= 4
ARGS ?=

BIN := .venv/bin
READY := .venv/.ready
REPORTS := .stamps
DEMO_METHODS := erm mixup multimix

# One thread a worker: tests are small, and threads of several workers only get in each other's way.
# A file's tests stay on one worker: what a file has trained or started for all of them is made once.
RUN = -m pytest -n auto --maxprocesses $(WORKERS) --dist loadfile
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python $(RUN)
# What waits longest comes first, else it would be waited for at the end.
LONGEST := tests/parallel tests/lab/train tests/examples tests/test_typed_api.py tests/lab/cli tests
# What walks over everything is left to test-all: other tests catch its faults, or they come with a new release of a host.
CHOICE := -m 'not sweep'

# What makes sums of single precision round otherwise: instructions of other processors, and threads.
PROCESSORS := ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 OMP_NUM_THREADS=2

# The core alone, on the oldest and the newest that it says it runs on. An interpreter that is elsewhere is named so:
# make floors PYTHON_3.10=/path/to/python3.10; one that is missing is fetched by uv, if that is there.
FLOORS := 3.10 3.12 3.13
PYTHON_3.10 ?= python3.10
PYTHON_3.12 ?= python3.12
PYTHON_3.13 ?= python3.13
PINS_3.10 := 'torch==2.4.*' 'numpy<2'
PINS_3.12 := torch==2.6.0 numpy==1.26.4
PINS_3.13 := torch numpy
CORE := tests/ops tests/methods tests/distill tests/models tests/integrations

BENCHES := ops pairs step evaluation data start compile

# CIFAR-10 for make gpu, as multimix train --data has it; without, npz:data/cifar10.npz if that is there.
DATA ?=
DEVICE ?= cuda
GPU_PYTHON ?= $(BIN)/python

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_MKDOCS_2_WARNING := 1
# Else every interpreter that a test starts compiles all of its modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all processors floors check bench costs gpu chaos tables architecture docs lint format types layers \
  rest shapes \
  cov wheel lock clean

help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

demo: $(READY) ## Plain training, mixup and MultiMix on 200 digits, four seeds each; a table and report.html (ARGS="--epochs 1")
	@rm -rf demo report.html
	$(BIN)/multimix compare digits-few --methods $(DEMO_METHODS) --seeds 4 --jobs 2 --channels-last --out demo $(ARGS)
	$(BIN)/multimix evaluate demo/erm-0 --suites fit
	@cp demo/report.html report.html
	@echo "report: $(CURDIR)/report.html"

ifeq ($(ARGS),)
test: rest shapes ## Run the tests, those of the core with shape checks (ARGS='-k dirichlet': some of them, without)
else
test: $(READY)
	$(PYTEST) $(ARGS)
endif

test-all: ## Run the tests with those that walk over every family and run examples to their end
	$(MAKE) test CHOICE= ARGS=

rest: $(READY) ## Run the tests that need no shape checks
	$(PYTEST) --no-loadscope-reorder $(CHOICE) --shapes without --junitxml=$(REPORTS)/tests.xml $(LONGEST)
	@$(BIN)/python scripts/count_tests.py tests $(REPORTS)/tests.xml

shapes: $(READY) ## Run the core's tests with every shape in a signature checked
	PYTHONPATH=scripts $(PYTEST) $(CHOICE) --shapes only -p shape_checker --jaxtyping-packages=multimix,shape_checker.check --junitxml=$(REPORTS)/shapes.xml
	@$(BIN)/python scripts/count_tests.py 'with shape checks' $(REPORTS)/shapes.xml

processors: $(READY) ## Run the tests as other processors would: five settings, a line of counts each (an hour on two cores)
	@mkdir -p $(REPORTS); failed=0; for setting in $(PROCESSORS); do \
	  OMP_NUM_THREADS=1 env $$setting $(BIN)/python $(RUN) $(CHOICE) -q --junitxml=$(REPORTS)/$$setting.xml $(ARGS) \
	    > $(REPORTS)/$$setting.txt 2>&1 || { failed=1; grep -E '^(FAILED|ERROR)' $(REPORTS)/$$setting.txt; }; \
	  $(BIN)/python scripts/count_tests.py $$setting $(REPORTS)/$$setting.xml || failed=1; \
	done; exit $$failed

floors: $(FLOORS:%=floor-%) ## Run the core's tests on the oldest and the newest Python and torch (.floors, 15 GB)

floor-%: .floors/%/.ready
	@OMP_NUM_THREADS=1 .floors/$*/bin/python $(RUN) $(CHOICE) $(CORE) -q --junitxml=$(REPORTS)/floor-$*.xml $(ARGS); code=$$?; \
	.floors/$*/bin/python scripts/count_tests.py "Python $*" $(REPORTS)/floor-$*.xml; exit $$code

.PRECIOUS: .floors/%/.ready
.floors/%/.ready: pyproject.toml
	@if $(PYTHON_$*) -c '' 2> /dev/null; then $(PYTHON_$*) -m venv --clear .floors/$*; \
	elif command -v uv > /dev/null; then uv venv -q --clear --seed --python $* .floors/$*; \
	else echo "floors: '$(PYTHON_$*)' is not there; make floors PYTHON_$*=/path/to/python$*" >&2; exit 1; fi
	@.floors/$*/bin/python -m pip install -qq -e . $(PINS_$*) hypothesis pytest pytest-timeout pytest-xdist scipy
	@touch $@

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

architecture: $(READY) ## Draw docs/architecture.svg from the imports
	$(BIN)/python scripts/architecture.py

docs: $(READY) ## Build the documentation into site/
	$(BIN)/python scripts/architecture.py --check
	$(BIN)/python scripts/fill_tables.py --check
	$(BIN)/mkdocs build --strict
	$(BIN)/python scripts/check_search.py site

wheel: $(READY) ## Build the wheel and use it from an empty folder
	@sh scripts/check_wheel.sh $(BIN)/python

check: lint types layers test docs wheel ## Everything that has to pass

bench: $(READY) ## Measure all that design and docs have a bar for (make costs has the rest)
	@mkdir -p benchmarks
	@for suite in $(BENCHES); do $(BIN)/multimix bench $$suite --out benchmarks/$$suite-cpu.jsonl || exit 1; done

costs: $(READY) ## Run demo and test once each and write what they cost
	$(BIN)/python scripts/costs.py --out benchmarks/commands.jsonl

gpu: ## Tests, benches and five methods on a GPU, at most 8 minutes (DATA=npz:FILE; DEVICE=cpu SMALL=1: a try)
	@command -v $(GPU_PYTHON) > /dev/null || { \
	  echo "run make setup first, or name an interpreter that has the packages: make gpu GPU_PYTHON=python3" >&2; exit 1; }
	$(GPU_PYTHON) scripts/gpu.py --device $(DEVICE) $(if $(SMALL),--small --out $(REPORTS)/gpu) $(if $(DATA),--data $(DATA)) $(ARGS)

chaos: $(READY) ## Kill 50 runs, compare processes, 300 wrong inputs, a soak; records in benchmarks/chaos.jsonl (minutes)
	@rm -f benchmarks/chaos.jsonl
	PYTHONPATH=tests:tests/lab OMP_NUM_THREADS=1 $(BIN)/python -m chaos --out benchmarks/chaos.jsonl $(ARGS)

lock: $(READY) ## Pin what .venv holds now in constraints.txt
	$(BIN)/python scripts/lock.py
	@touch $(READY)

clean: ## Remove what the other targets made, but for .venv, .floors and runs/
	rm -rf demo report.html site dist .coverage* $(REPORTS) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests scripts studies -name __pycache__ -type d -prune -exec rm -rf {} +
