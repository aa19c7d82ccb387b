# Everything works from a fresh clone with Python 3.11, make and git; nothing is installed outside .venv.
PYTHON ?= python3.11
CONFIG ?= config/demo.yaml
PORT   ?= 3000
BIN    := .venv/bin
# One thread per numerical library: the work is spread over processes, and two levels of threads fight.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: demo ui test test-slow test-services bench lint format lock clean

demo: .venv/.installed ## the main job on real daily bars
	@SIGNALS_CONFIG=$(CONFIG) $(BIN)/signals demo

ui: .venv/.installed ## Dagster (webserver and daemon, loopback) on what the demo made
	@SIGNALS_CONFIG=$(CONFIG) $(BIN)/signals ui --port $(PORT)

test: .venv/.installed ## all set-up and the tests; no server needed
	$(BIN)/pytest

test-slow: .venv/.installed
	$(BIN)/pytest -m "slow and not services" $(ARGS)

test-services: .venv/.installed
	$(BIN)/pytest -m services

bench: .venv/.installed ## every claim of speed, measured as a ratio; minutes
	@set -e; for module in benchmarks/bench_*.py; do $(BIN)/python -m benchmarks.$$(basename $$module .py); done

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/dg check defs

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# pip installs uv from the lock (hash checked); uv then installs the rest several times faster. Where uv
# cannot reach the package index as pip is configured to, pip does the whole job.
.venv/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	awk '/^uv==/{p=1} p&&/^[a-z]/&&!/^uv==/{exit} p' requirements.lock > .venv/uv.lock
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r .venv/uv.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --link-mode=copy --require-hashes -r requirements.lock \
	  || $(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

lock: ## resolve requirements.lock anew
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --no-strip-extras --all-extras pyproject.toml -o requirements.lock

clean: ## removes what runs have made: stores, features, models, registry; not data/bars, not the environment
	rm -rf $(addprefix data/,market.sqlite market.sqlite-shm market.sqlite-wal features target validation drift \
	  signals predictions reports redis dagster_home main_job.lock synthetic alerts events)
	find models -mindepth 1 ! -name README.md -delete
