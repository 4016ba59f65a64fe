# Everything sets itself up: a fresh machine needs Python 3.11 or later, pip and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: demo test browser-test eval-test parity peers thorough core lint types imports check clean

demo: $(VENV)/installed-report
	$(BIN)/griffin ablate experiments/demo/plan.toml

test: $(VENV)/installed-test
	$(BIN)/griffin bench kernels --setup
	$(BIN)/pytest -n $(JOBS) --dist loadgroup

# Opens an ablation's report in headless Chromium; where there is none, Debian's is installed, which takes root.
browser-test: $(VENV)/installed-test
	@{ command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null || \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } || \
	  { echo 'no Chromium here, and it cannot be installed: install one, or leave browser-test out' >&2; exit 1; }
	$(BIN)/pytest -m browser tests/ablation/test_browser.py

# lm-eval and what it brings along (50 packages) in an environment of its own.
eval-test:
	$(PYTHON) -m venv $(VENV)-eval
	$(VENV)-eval/bin/pip install --quiet -c constraints.txt -e '.[test,eval]'
	$(VENV)-eval/bin/pytest -m lm_eval tests/evaluation

# Runs beside Hugging Face's and DeepMind's own programs, in an environment of its own (a quarter of an hour or more). Their versions do
# not fit together by their own word, hence --no-deps; torch comes first with what it needs, because on Linux its usual
# build imports nothing without CUDA's libraries (2.7 GB in all). A build for CPU alone, 0.2 GB, does as well: say where it is,
# as in `make parity TORCH=torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl`.
TORCH ?= torch==2.13.0

parity: .venv-parity/installed
	.venv-parity/bin/python experiments/parity/compare.py

# The speed of the three, in turns in one run; the table is experiments/parity/PEERS.md.
peers: .venv-parity/installed
	.venv-parity/bin/python experiments/parity/peers.py

.venv-parity/installed: experiments/parity/requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/pip install --quiet $(TORCH)
	.venv-parity/bin/pip install --quiet --no-deps -r experiments/parity/requirements.txt
	.venv-parity/bin/pip install --quiet --no-deps -e .
	touch $@

thorough: $(VENV)/installed-test
	$(BIN)/griffin bench kernels --setup
	$(BIN)/pytest -n $(JOBS) --dist loadgroup --profile thorough
	$(BIN)/python -m tests.mutants.table mutants --seeds 101 102 103
	$(BIN)/python -m tests.mutants.table correct --seeds 20

check: lint types imports

lint: $(VENV)/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-lint
	$(BIN)/pyright --pythonpath $(BIN)/python

imports: $(VENV)/installed-test
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'griffin_eqx needs Python 3.11 or later: make PYTHON=python3.11 ...' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/installed-report: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet -c constraints.txt -e '.[report]'
	touch $@ $(VENV)/installed

$(VENV)/installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test]'
	touch $@ $(VENV)/installed $(VENV)/installed-report

$(VENV)/installed-lint: $(VENV)/installed-test
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test,lint]'
	touch $@
