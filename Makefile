# Every target sets up what it needs in .venv, from nothing but Linux, Python >= 3.11, g++ and make.

PYTHON ?= python3
VENV   ?= .venv
# Where the emulator is built, for the Python of VENV.
EMULATOR ?= build/emulator
# The newest jax wants a newer Python than the lowest that is supported.
PYTHON_NEWEST ?= $(or $(shell python3.12 -c 'import sys; print(sys.executable)' 2>/dev/null),$(lastword $(sort $(wildcard $(HOME)/.pyenv/versions/3.12*/bin/python))))
NVCC   ?= $(or $(shell command -v nvcc),$(wildcard /usr/local/cuda/bin/nvcc))
# The package is built by the same one, through a launcher that keeps ptxas's reports for cuda-compile.
ifneq ($(NVCC),)
export CUDACXX := $(NVCC)
endif
KEEP_REPORTS := --config-settings cmake.define.CMAKE_CUDA_COMPILER_LAUNCHER=$(CURDIR)/tests/cuda_compiler/nvcc_report.py

# For more or fewer tests, or other options: make test PYTEST_FLAGS="-k pooling -x"
PYTEST_FLAGS    ?= -n auto --maxprocesses 8
# Which of the tests below test-sanitized runs, in pytest's -k: make test-sanitized SANITIZED="emulated and tiled"
SANITIZED       ?= emulated
SANITIZED_TESTS := tests/layers/test_gradients.py tests/layers/test_pooling.py tests/layers/test_zero_sizes.py \
                   tests/kernels/test_handlers.py tests/kernels/test_cuda_grouped.py
EXAMPLE_FLAGS   ?=
# make benchmark BENCHMARK_FLAGS="--peers lax,torch --out results"; benchmarks/README.md has more
BENCHMARK_FLAGS ?=
# To leave the CUDA kernels out where nvcc is found: INSTALL_FLAGS="--config-settings cmake.define.JAX_CONVGRAD_CUDA=OFF"
INSTALL_FLAGS   ?=

# Where all is installed for development, examples run on that, and nothing is built once more for them. Else they
# get what this machine can use: nvcc takes minutes for kernels that want a GPU.
EXAMPLES_INSTALLED = $(or $(wildcard $(VENV)/installed-dev),$(VENV)/installed-examples)
HAS_GPU = $(wildcard /dev/nvidiactl /dev/dxg)

# What ends up in the installed package: a change in any of these installs it anew.
SOURCES := pyproject.toml CMakeLists.txt \
           $(shell find jax_convgrad common_src cpu_src cuda_src ffi_src -type f -not -path '*/__pycache__/*' -not -name '*.so')
CXX_STYLED := $(shell find common_src cpu_src cuda_src ffi_src benchmarks tests/cuda_emulator tests/cpu_kernels -type f \
                \( -name '*.h' -o -name '*.cc' -o -name '*.cuh' -o -name '*.cu' \))
PY_STYLED  := jax_convgrad tests examples benchmarks docs

.DEFAULT_GOAL := help
.PHONY: help train examples test test-python test-newest test-aarch64 test-sanitized emulator emulator-sanitized \
        kernels kernels-sanitized lint docs cuda-compile cuda-table sass benchmark instructions clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

train: $(EXAMPLES_INSTALLED)  ## train a small network on handwritten digits (EXAMPLE_FLAGS="--help" for options)
	$(VENV)/bin/python examples/train_cnn.py $(EXAMPLE_FLAGS)

# Each in full, one after another; where it draws, into build/examples/. That in several processes has its test.
EXAMPLES ?= train_cnn gradient_flow segmentation flax_model custom_layer
examples: $(EXAMPLES_INSTALLED)  ## run every example, a minute at most each (docs/examples.md)
	@mkdir -p build/examples
	@set -e; for name in $(EXAMPLES); do \
	    plot="--plot build/examples/$$name.png"; [ $$name != flax_model ] || plot=; \
	    echo "python examples/$$name.py $$plot"; \
	    $(VENV)/bin/python examples/$$name.py $$plot; \
	done

benchmark: $(EXAMPLES_INSTALLED)  ## time every layer and op, against jax.lax (BENCHMARK_FLAGS="--help" for options)
	$(VENV)/bin/python benchmarks/run.py $(BENCHMARK_FLAGS)

instructions: $(VENV)/installed-dev  ## count the hot CPU kernels' instructions; fails where they have become more
	$(call build,tests/cpu_kernels,build/kernels,,--target run_kernel)
	$(VENV)/bin/python benchmarks/instructions.py

test: emulator kernels  ## run every test: CPU kernels, and CUDA kernels in the emulator
	@$(MAKE) --no-print-directory test-python

test-python: $(VENV)/installed-dev  ## those in Python alone
	$(call build,tests/cuda_emulator,$(EMULATOR),$(EMULATOR_FLAGS),--target _cuda_emulated)
	JAX_CONVGRAD_EMULATOR_DIR=$(CURDIR)/$(EMULATOR) $(VENV)/bin/pytest $(PYTEST_FLAGS) tests

test-newest:  ## those in Python on Python 3.12 and the newest jax, in a virtual environment of its own
	@[ -n "$(PYTHON_NEWEST)" ] || { echo "test-newest: no Python 3.12; name one: make test-newest PYTHON_NEWEST=..."; exit 1; }
	$(MAKE) test-python VENV=.venv-newest EMULATOR=build/emulator-newest PYTHON="$(PYTHON_NEWEST)"

# libstdc++ comes along because AddressSanitizer looks up the functions that throw exceptions when it is
# loaded, and the python executable has none. A report goes to a file, since pytest keeps stderr to itself and
# does not survive the abort that follows.
SANITIZER_REPORT := build/emulator-sanitized/report
test-sanitized: $(VENV)/installed-dev emulator-sanitized kernels-sanitized  ## emulated kernels and the CPU's under AddressSanitizer and UBSan
	@rm -f $(SANITIZER_REPORT).*
	JAX_CONVGRAD_EMULATOR_DIR=$(CURDIR)/build/emulator-sanitized \
	JAX_CONVGRAD_EMULATOR_SEED=20231 \
	ASAN_OPTIONS=detect_leaks=0:log_path=$(CURDIR)/$(SANITIZER_REPORT) \
	UBSAN_OPTIONS=print_stacktrace=1:log_path=$(CURDIR)/$(SANITIZER_REPORT) \
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	$(VENV)/bin/pytest -k "$(SANITIZED)" $(PYTEST_FLAGS) $(SANITIZED_TESTS) \
	|| { cat $(SANITIZER_REPORT).* 2>/dev/null; exit 1; }

emulator: $(VENV)/installed-dev  ## build the CUDA kernels for the emulator, and test the emulator itself
	$(call build_and_test,tests/cuda_emulator,$(EMULATOR),$(EMULATOR_FLAGS))

emulator-sanitized: $(VENV)/installed-dev  ## the same with AddressSanitizer and UBSan
	$(call build_and_test,tests/cuda_emulator,build/emulator-sanitized,$(PYTHON_OF_VENV) -DJAX_CONVGRAD_SANITIZE=ON)

kernels: $(VENV)/installed-dev  ## every CPU kernel on every instruction set of this machine, without Python
	$(call build_and_test,tests/cpu_kernels,build/kernels)

kernels-sanitized: $(VENV)/installed-dev  ## the same with AddressSanitizer and UBSan
	$(call build_and_test,tests/cpu_kernels,build/kernels-sanitized,-DJAX_CONVGRAD_SANITIZE=ON)

AARCH64_CXX  ?= aarch64-linux-gnu-g++
AARCH64_QEMU ?= $(firstword $(shell command -v qemu-aarch64 || command -v qemu-aarch64-static))
# Where the cross-compiler's libraries are.
AARCH64_ROOT ?= /usr/aarch64-linux-gnu
test-aarch64: $(VENV)/installed-dev  ## the same compiled for aarch64, in an emulator
	@missing="$(if $(shell command -v $(AARCH64_CXX)),,g++-aarch64-linux-gnu) $(if $(AARCH64_QEMU),,qemu-user)"; \
	 [ "$$missing" = " " ] || { echo "test-aarch64: these Debian packages are missing: $$missing"; exit 1; }
	$(call build_and_test,tests/cpu_kernels,build/kernels-aarch64,-DCMAKE_SYSTEM_NAME=Linux \
	    -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=$(AARCH64_CXX) \
	    "-DCMAKE_CROSSCOMPILING_EMULATOR=$(AARCH64_QEMU);-L;$(AARCH64_ROOT)")

PYTHON_OF_VENV = -DPython_EXECUTABLE=$(CURDIR)/$(VENV)/bin/python
EMULATOR_FLAGS = $(PYTHON_OF_VENV) -DJAX_CONVGRAD_SANITIZE=OFF

# Of a folder with a CMakeLists.txt, into a folder, with further options, and targets. cmake and ninja are the
# venv's own (see installed-dev).
define build
	$(VENV)/bin/cmake -S $(1) -B $(2) -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(VENV)/bin/ninja $(3)
	$(VENV)/bin/cmake --build $(2) $(4)
endef
define build_and_test
	$(call build,$(1),$(2),$(3))
	$(VENV)/bin/ctest --test-dir $(2) --output-on-failure --no-tests=error --parallel $(shell nproc)
endef

lint: $(VENV)/installed-dev  ## layout, lint and types of the sources
	$(VENV)/bin/ruff check $(PY_STYLED)
	$(VENV)/bin/ruff format --check $(PY_STYLED)
	$(VENV)/bin/clang-format --dry-run --Werror $(CXX_STYLED)
	$(VENV)/bin/mypy jax_convgrad

docs: $(VENV)/installed-docs  ## build the documentation as a site, build/site/index.html; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict --quiet -f docs/site/mkdocs.yml
	@echo "The site begins at build/site/index.html"

cuda-compile: $(VENV)/installed-dev  ## how nvcc compiled the CUDA kernels: no warnings, no register spills in the fast ones
	@if [ -n "$(NVCC)" ]; then $(VENV)/bin/python tests/cuda_compiler/check.py; \
	 else echo "cuda-compile: no nvcc on this machine, no CUDA kernel was compiled"; fi

sass: $(VENV)/installed-dev  ## disassemble the CUDA kernels: tensor cores and asynchronous copies where they should be
	$(VENV)/bin/python tests/cuda_compiler/sass.py

cuda-table: cuda-compile emulator  ## write docs/cuda_kernels.md: registers, shared memory and occupancy
	$(VENV)/bin/python tests/cuda_compiler/table.py "$(shell $(NVCC) --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')"

$(VENV)/installed-examples: $(SOURCES) | $(VENV)/bin/python
	@echo "Installing into $(VENV), and compiling the kernels: some minutes, the first time"
	$(VENV)/bin/python -m pip install $(or $(INSTALL_FLAGS),$(if $(HAS_GPU),,--config-settings cmake.define.JAX_CONVGRAD_CUDA=OFF)) '.[examples]'
	@touch $@

# The site is made of the sources, so the extra is installed without the package, which would have to be built.
$(VENV)/installed-docs: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	    print(*project["optional-dependencies"]["docs"], sep="\n")' | $(VENV)/bin/python -m pip install -r /dev/stdin
	@touch $@

# The emulator's build needs what the package's build gets from its build requirements. All builds are by the same
# cmake and compiler name, or their command lines would differ and a compiler cache see different sources.
export CXX
$(VENV)/installed-dev: $(SOURCES) | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install cmake ninja 'nanobind>=2.9,<4'
	CMAKE_EXECUTABLE="$$($(VENV)/bin/python -c 'import cmake; print(cmake.CMAKE_BIN_DIR)')/cmake" \
	$(VENV)/bin/python -m pip install $(KEEP_REPORTS) $(INSTALL_FLAGS) '.[test,examples,lint,sass]'
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("jax_convgrad needs Python 3.11 or later, " \
	    "$(PYTHON) is " + sys.version.split()[0] + "; choose another with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

clean:  ## remove everything that make built
	rm -rf .venv .venv-newest build .pytest_cache .ruff_cache .mypy_cache
	find jax_convgrad tests examples docs -name __pycache__ -type d -prune -exec rm -rf {} +
