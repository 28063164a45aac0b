#!/usr/bin/env bash
# Runs everything that needs a real GPU, in nine minutes: build, gradient suite, compute-sanitizer, benchmark.
# Writes the results, even partial ones, into benchmarks/results/<gpu>-<date>/; benchmarks/README.md lists the files.
#
#   benchmarks/run_on_gpu.sh                    everything
#   benchmarks/run_on_gpu.sh --quick            a first look, in less than five minutes
#   benchmarks/run_on_gpu.sh --only benchmark   some of package,suite,further,sanitizer,benchmark
#   benchmarks/run_on_gpu.sh --build-only       only build the package, which needs no GPU
#
#   --out DIR       instead of the folder above       --seconds N   instead of 530
#   --package DIR   the folder of the built package (build/gpu_package)
#   --python EXE    instead of python3                --arch A      CUDA architecture (the device's, else 90a)
#   --trial         test the script without a GPU: CPU and emulator, tiny sizes, the installed package
#
# The status is 0 if every section passed. Nothing is downloaded if the build's requirements (scikit-build-core,
# nanobind, jaxlib) are installed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
# shellcheck source=benchmarks/sections.sh
source benchmarks/sections.sh

PYTHON=python3 PACKAGE=build/gpu_package TOTAL=530 TRIAL='' QUICK='' OUT='' ARCH='' BUILD_ONLY=''
ONLY=package,suite,further,sanitizer,benchmark
while (($#)); do
  case $1 in
    --quick) QUICK=1 TOTAL=270 ONLY=package,suite,sanitizer,benchmark ;;
    --trial) TRIAL=1 ;;
    --build-only) BUILD_ONLY=1 ;;
    --out | --seconds | --package | --python | --arch | --only)
      [ $# -ge 2 ] || { echo "run_on_gpu.sh: $1 needs a value" >&2; exit 2; }
      case $1 in
        --out) OUT=$2 ;;
        --seconds) TOTAL=$2 ;;
        --package) PACKAGE=$2 ;;
        --python) PYTHON=$2 ;;
        --arch) ARCH=$2 ;;
        --only) ONLY=$2 ;;
      esac
      shift
      ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' benchmarks/run_on_gpu.sh; exit 0 ;;
    *) echo "run_on_gpu.sh: unknown argument $1; --help lists them" >&2; exit 2 ;;
  esac
  shift
done
[[ $TOTAL =~ ^[0-9]+$ ]] || { echo "run_on_gpu.sh: --seconds $TOTAL is not a number" >&2; exit 2; }
for name in ${ONLY//,/ }; do
  case $name in
    package | suite | further | sanitizer | benchmark) ;;
    *) echo "run_on_gpu.sh: --only does not know $name, only package,suite,further,sanitizer,benchmark" >&2; exit 2 ;;
  esac
done

query() { nvidia-smi --query-gpu="$1" --format=csv,noheader 2> /dev/null | head -n 1; }
GPU=$(query name)
if [ -z "$GPU$TRIAL$BUILD_ONLY" ]; then
  echo "run_on_gpu.sh: nvidia-smi reports no GPU; --trial and --build-only need none" >&2
  exit 2
fi
read -r SHORT _ <<< "${GPU#NVIDIA }"
SHORT=${SHORT:-trial}
OUT=${OUT:-benchmarks/results/${SHORT,,}-$(date +%F)}
CAPABILITY=$(query compute_cap | tr -d .)
# An architecture with an "a" has instructions that only its generation supports; some kernels here need 90a's.
case ${ARCH:=${CAPABILITY:-90a}} in 90) ARCH=90a ;; esac

export PYTHON PACKAGE ARCH TRIAL QUICK OUT

# A hash of the package's sources. A package that was built from the same sources is not built again.
sources_sum() {
  find jax_convgrad common_src cpu_src cuda_src ffi_src CMakeLists.txt pyproject.toml -type f \
    -not -path '*/__pycache__/*' -not -name '*.so' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum |
    sha256sum | cut -d ' ' -f 1
}

package() {
  local sum isolation=()
  sum=$(sources_sum)
  if [ "$(cat "$PACKAGE/sources.sha256" 2> /dev/null)" = "$sum" ]; then
    sha256sum "$PACKAGE"/jax_convgrad/*.so
    echo "already built from the same sources: $(cat "$PACKAGE/built_by.txt")"
    return
  fi
  command -v nvcc > /dev/null || { echo "nvcc is missing, and $PACKAGE was built from other sources"; return 1; }
  if "$PYTHON" -c 'import jaxlib, nanobind, scikit_build_core' 2> /dev/null; then
    isolation=(--no-build-isolation)
  fi
  rm -rf "$PACKAGE"
  "$PYTHON" -m pip install --no-deps --no-compile --target "$PACKAGE" "${isolation[@]}" . \
    --config-settings cmake.define.JAX_CONVGRAD_CUDA=ON --config-settings "cmake.define.CMAKE_CUDA_ARCHITECTURES=$ARCH-real" || return
  sha256sum "$PACKAGE"/jax_convgrad/*.so
  echo "$(nvcc --version | grep release), $ARCH, $("$PYTHON" -V), $(git rev-parse HEAD 2> /dev/null)" \
    > "$PACKAGE/built_by.txt"
  echo "$sum" > "$PACKAGE/sources.sha256"
  echo "built by $(cat "$PACKAGE/built_by.txt")"
}

machine() {
  date -u +%FT%TZ
  uname -a
  git log -1 --format='commit %H of %cI' 2> /dev/null
  git status --short 2> /dev/null | head -n 20
  echo "sources of the package $(sources_sum)"
  if command -v nvidia-smi > /dev/null; then
    nvidia-smi
    nvidia-smi -q | grep -E 'Product Name|Driver Version|CUDA Version|VBIOS|ECC Mode|Current  |Graphics  |SM  |Memory  |Max Clocks|Clocks$|Throttle|Slowdown|Power Limit|Temp' |
      head -n 80
  fi
  nvcc --version 2> /dev/null
  compute-sanitizer --version 2> /dev/null
  "$PYTHON" benchmarks/harness/machine.py
}

# The test files that name a backend. The suite has the most important ones and runs first. Since pytest keeps the
# tests of a backend together, a single run that is short of time would skip whole backends.
SUITE=(tests/kernels/test_cuda_graphs.py tests/kernels/test_determinism.py tests/layers/test_gradients.py
  tests/kernels/test_gemm.py tests/kernels/test_wgmma.py tests/kernels/test_few_channels.py
  tests/kernels/test_cuda_grouped.py tests/kernels/test_epilogue.py tests/kernels/test_filter_and_bias.py)
FURTHER=(tests/layers/test_pooling.py tests/kernels/test_cuda_pool_kernels.py tests/layers/test_accuracy.py
  tests/layers/test_zero_sizes.py tests/layers/test_higher_order.py tests/layers/test_training_step.py
  tests/kernels/test_handlers.py)

# Nearly as many processes as cores: a test compiles for some tenths of a second on one core and runs for
# microseconds. All processes share the device, where each has a context of about half a gigabyte.
suite() {
  local seconds=$1 processes
  shift
  processes=$(($(nproc) - 2))
  processes=$((processes > 12 ? 12 : processes < 1 ? 1 : processes))
  if [ -n "$TRIAL" ]; then
    "$PYTHON" -P -m pytest -q -p no:cacheprovider tests/layers/test_gradients.py -k "emulated_cuda-gemm and 2d_1x1"
  else
    JAX_CONVGRAD_TEST_DEVICE=cuda JAX_CONVGRAD_TEST_SECONDS=$seconds \
      "$PYTHON" -P -m pytest -q -p no:cacheprovider -n "$processes" "$@"
  fi
}

# The three tools run at the same time, since each is one process that mostly waits for its launches. Each line of
# the log begins with the tool's name, and is written at once in case the section is stopped.
sanitizer() {
  local seconds=$1 tool failed=0 options pid pids=()
  if [ -n "$TRIAL" ]; then
    "$PYTHON" tests/support/device_shapes.py --cases 3 --arithmetics bfloat16
    return
  fi
  command -v compute-sanitizer > /dev/null || { echo "compute-sanitizer is not on this machine"; return 77; }
  for tool in memcheck racecheck synccheck; do
    options=(--tool "$tool" --error-exitcode 9 --print-limit 20)
    # Every buffer is a separate allocation with a gap after it, so memcheck sees an access past its end.
    if [ "$tool" = memcheck ] && compute-sanitizer --help | grep -q -- --padding; then
      options+=(--padding 256)
    fi
    (
      export JAX_CONVGRAD_TEST_DEVICE=cuda XLA_PYTHON_CLIENT_PREALLOCATE=false
      export XLA_PYTHON_CLIENT_ALLOCATOR=platform
      compute-sanitizer "${options[@]}" "$PYTHON" tests/support/device_shapes.py --seconds "$seconds" 2>&1 |
        sed -u "s/^/$tool: /"
      exit "${PIPESTATUS[0]}"
    ) &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do
    wait "$pid" || failed=1
  done
  ((failed)) && echo "compute-sanitizer: FAILED" || echo "compute-sanitizer: three tools found nothing"
  return "$failed"
}

benchmark() {
  local seconds=$1 options=()
  [ -z "$QUICK" ] || options+=(--quick)
  if [ -n "$TRIAL" ]; then
    "$PYTHON" benchmarks/run.py --device trial --quick --seconds "$seconds" --out "$OUT" \
      --peers lax --arithmetics tf32 --layer "1x6x6x2, 3x3, 4, pad 1"
  else
    "$PYTHON" benchmarks/run.py --device cuda --seconds "$seconds" --out "$OUT" "${options[@]}"
  fi
}
export -f package sources_sum machine suite sanitizer benchmark

if [ -n "$BUILD_ONLY" ]; then
  package
  exit
fi
wanted() { [[ ,$ONLY, == *,$1,* ]]; }
mkdir -p "$OUT"
rm -f "$OUT"/{machine.txt,build.log,tests.log,sanitizer.log,benchmark.log}
sections_begin "$TOTAL" "$OUT/sections.txt"
if [ -z "$TRIAL" ]; then
  [[ $PACKAGE == /* ]] || PACKAGE=$PWD/$PACKAGE
  export PYTHONPATH=$PACKAGE${PYTHONPATH:+:$PYTHONPATH}
  # Without a CUDA device JAX has to fail instead of using the CPU.
  export JAX_PLATFORMS=cuda,cpu
  ! wanted package || section package 240 "$OUT/build.log" package
fi
section machine 30 "$OUT/machine.txt" machine
# The first sections' limits leave half of the time to the benchmark, which also gets the time that they do not use.
if [ -n "$QUICK" ]; then suite_s=40 further_s=10 sanitizer_s=25; else suite_s=110 further_s=35 sanitizer_s=50; fi
# A section's limit is longer than the seconds in which tests may start: Python and JAX start first, and the last
# tests have to end.
! wanted suite || section suite $((suite_s + 40)) "$OUT/tests.log" suite "$suite_s" "${SUITE[@]}"
! wanted further || section further $((further_s + 25)) "$OUT/tests.log" suite "$further_s" "${FURTHER[@]}"
! wanted sanitizer || section sanitizer $((sanitizer_s + 40)) "$OUT/sanitizer.log" sanitizer "$sanitizer_s"
# The last process' end and the report come after the benchmark's seconds.
left=$(sections_left)
! wanted benchmark || section benchmark "$left" "$OUT/benchmark.log" benchmark $((left > 60 ? left - 40 : left))
# A benchmark that was stopped has written its numbers, but no tables.
if [ -f "$OUT/results.json" ]; then
  "$PYTHON" benchmarks/report.py "$OUT/results.json" -o "$OUT/report.md"
fi
[ ! -f "$OUT/report.md" ] || sed -n '/^## Goals/,/^## Our kernels/p' "$OUT/report.md" | sed '$d'
sections_end
