# Everything runs in .venv, which the first target that needs it makes: a machine with Python and
# nothing else will do. PYTHON chooses another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
READY := $(VENV)/.installed
TORCH := $(VENV)/.torch
DEMO_READY := $(VENV)/.demo
# mergekit has an environment of its own: what it pins is nothing to us.
MERGEKIT := .venv-mergekit
MERGEKIT_READY := $(MERGEKIT)/.installed
# Other tools that keep versions, for benchmarks.
PEERS := .venv-peers
PEERS_READY := $(PEERS)/.installed
CODE := mergepipe tests benchmarks examples docs
# The seams that most changes touch, and a few commands: a minute altogether, on two cores.
QUICK := $(addprefix tests/,objects packs catalog planner codecs checkpoints cli/test_merging.py)
# A process for each core, which takes over what another has left; JOBS=0 runs one test after the other.
JOBS ?= auto
SPREAD = -n $(JOBS) --dist worksteal
# Not quiet: it takes minutes, and says what it is at.
PIP := --disable-pip-version-check --no-input -c constraints.txt

.PHONY: help demo cluster-demo install check kernels test test-quick test-lowest test-newest format lint types layers compat compat-random faults torture bench bench-all docs clean

help:
	@echo "make demo     train, commit, merge and compare real models, in ./demo-output: 2 to 4 minutes"
	@echo "make cluster-demo  merge on a Ray of two nodes over an S3 bucket, all of it here, and kill a node: a few minutes"
	@echo "make test     run the tests, a process for each core: ten minutes at most on two"
	@echo "make test-quick  those of the tests that take seconds: a minute at most"
	@echo "make test-lowest, test-newest  the quick tests with the oldest, or newest, of all that is needed"
	@echo "make check    formatting, lint, types, layers and tests: what .ci/run runs"
	@echo "make compat   every recipe beside mergekit itself, which it installs in .venv-mergekit"
	@echo "make compat-random  thousands of random recipes beside mergekit and float64: an hour or two"
	@echo "make faults   remotes whose lines break and whose servers are killed, thousands of times"
	@echo "make docs     the documentation as a site, in build/site"
	@echo "make torture  kills, power cuts, full disks and damage, thousands of times"
	@echo "make mutations  takes away each fsync, hash comparison, limit and link check: which test misses it?"
	@echo "make bench    beside git-lfs, DVC, zipnn, mergekit: ratios, and the README's table; BENCH=--quick is rough"
	@echo "make bench-all  that, and all other benchmarks that need no data: an hour or two"
	@echo "make format   format the code"
	@echo "make clean    remove .venv and caches"

install: $(READY)

demo: $(DEMO_READY)
	$(RUN)/python examples/demo/run.py demo-output

cluster-demo: $(READY)
	$(RUN)/python examples/cluster_demo/run.py cluster-demo-output

# torch first and alone: the pinned version decides which build the rest is resolved against.
$(TORCH): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mergepipe needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Installing into $(VENV), once: torch (hundreds of megabytes) and what mergepipe needs; minutes"
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install $(PIP) torch==2.13.0
	@touch $@

$(READY): $(TORCH)
	$(RUN)/python -m pip install $(PIP) -e '.[test,check]'
	@touch $@

$(DEMO_READY): $(TORCH)
	$(RUN)/python -m pip install $(PIP) -e '.[demo]'
	@touch $@

check: lint types layers test

# First what every process of the tests would else compile for itself.
kernels: $(READY)
	@$(RUN)/mp doctor --compile >/dev/null

test: kernels
	$(RUN)/python -m pytest $(SPREAD)

test-quick: kernels
	$(RUN)/python -m pytest $(SPREAD) $(QUICK)

# With the oldest releases that pyproject.toml allows, which uv picks, and with the newest. torch is the
# pinned one in both: it alone is hundreds of megabytes a build.
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --disable-pip-version-check --quiet uv torch==2.13.0
	.venv-lowest/bin/uv pip install --python .venv-lowest/bin/python --resolution lowest-direct -e '.[test]' torch==2.13.0
	.venv-lowest/bin/python -m pytest $(QUICK)

test-newest:
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --disable-pip-version-check --quiet torch==2.13.0
	.venv-newest/bin/python -m pip install --disable-pip-version-check --quiet --upgrade --upgrade-strategy eager -e '.[test]' torch==2.13.0
	.venv-newest/bin/python -m pytest $(QUICK)

$(MERGEKIT_READY): tests/compat/mergekit.txt
	$(PYTHON) -m venv $(MERGEKIT)
	$(MERGEKIT)/bin/python -m pip install --quiet torch==2.13.0
	$(MERGEKIT)/bin/python -m pip install --quiet -r tests/compat/mergekit.txt
	@touch $@

compat: $(READY) $(MERGEKIT_READY)
	MERGEKIT_PYTHON=$(abspath $(MERGEKIT))/bin/python $(RUN)/python -m pytest -m compat tests/compat

# A thousand configs of a Llama for every method, and a thousand over all architectures, whose results are
# also loaded, run and compared with a merge in float64. COMPAT_RANDOM=N takes N of each. Prints classes.
compat-random: $(READY) $(MERGEKIT_READY)
	COMPAT_RANDOM=$${COMPAT_RANDOM:-1000} MERGEKIT_PYTHON=$(abspath $(MERGEKIT))/bin/python \
		$(RUN)/python -m pytest -m compat -rP tests/compat/test_random.py tests/compat/test_zoo.py

# Hours on a small machine. -rP prints how many runs there were, and how they ended.
faults: $(READY)
	$(RUN)/python -m pytest -m slow -rP tests/faults

# Kills, power cuts, full disks, damage, races and a state machine, of every command that writes; FUZZ inputs
# (a million) over all parsers.
# FAULTS=N kills N times as often at random. -rP prints the counts (docs/reliability.md). The last line takes
# 500 examples of each property, and 2,500 recipes, where make test takes 20 and 100.
torture: $(READY)
	$(RUN)/python -m pytest -m slow -rP tests/torture tests/properties tests/fuzz tests/faults/test_killed_verbs.py \
		tests/faults/test_failing_steps.py tests/faults/test_power_loss_verbs.py \
		tests/faults/test_system_calls.py tests/faults/test_clocks.py tests/faults/test_syncs.py \
		tests/faults/test_gc_races.py tests/faults/test_planted.py
	EXAMPLES=500 $(RUN)/python -m pytest tests/properties/test_round_trip.py tests/mergekit/test_fuzz.py

# Minutes. ONLY=fsync, or a file below mergepipe/, takes those alone (docs/mutations.md).
mutations: $(READY)
	$(RUN)/python -m tests.mutations $(ONLY)

format: $(READY)
	$(RUN)/ruff format $(CODE)
	$(RUN)/ruff check --fix $(CODE)

lint: $(READY)
	$(RUN)/ruff format --check $(CODE)
	$(RUN)/ruff check $(CODE)

types: $(READY)
	$(RUN)/mypy

layers: $(READY)
	$(RUN)/lint-imports

# Pages, and reference made from the code, as a site; a link that leads nowhere fails.
docs: $(READY)
	$(RUN)/python docs/site.py

# What is kept beside git-lfs, DVC and zipnn, and merged beside mergekit: one table of ratios, CSV and PNG in
# build/bench, and the README's table. BENCH=--quick is small and once.
bench: $(READY) $(MERGEKIT_READY) $(PEERS_READY)
	MERGEKIT_PYTHON=$(abspath $(MERGEKIT))/bin/python PEERS_PYTHON=$(abspath $(PEERS))/bin/python \
		$(RUN)/python benchmarks/beside_peers.py $(BENCH)
	$(RUN)/python benchmarks/readme_table.py

# What does not install is skipped by the benchmark, with a word.
$(PEERS_READY):
	$(PYTHON) -m venv $(PEERS)
	-$(PEERS)/bin/python -m pip install --quiet dvc
	-$(PEERS)/bin/python -m pip install --quiet zipnn
	@touch $@

# Every one that needs no peer and no data, each with a table of its own (benchmarks/README.md): an hour or two.
bench-all: bench
	@for script in storage remotes start methods fine_tunes changed_expert hub scale; do \
		echo "== $$script"; $(RUN)/python benchmarks/$$script.py || exit 1; done

clean:
	rm -rf $(VENV) $(MERGEKIT) $(PEERS) .venv-lowest .venv-newest demo-output cluster-demo-output .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
