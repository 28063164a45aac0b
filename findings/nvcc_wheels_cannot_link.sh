#!/usr/bin/env bash
# NVIDIA's wheels hold a whole CUDA compiler, but as they are installed it cannot link an empty program.
#
# Versions: nvidia-cuda-nvcc, -crt, -runtime and -cccl 13.0 with nvidia-nvvm 13.0, from PyPI, x86-64 Linux.
# Guess: with the compiler, its headers and the runtime installed from one vendor's wheels of one release, `nvcc empty.cu`
# makes a program; that is what the wheel of the runtime with its libcudart_static.a is for.
# Seen: it compiles, and fails to link: "cannot find -lcudart_static". nvcc looks in a folder lib64 beside its bin, as a
# toolkit has it, and the wheels put the library into lib. With a link lib64 -> lib the same command succeeds.
set -euo pipefail

[ "$(uname -sm)" = "Linux x86_64" ] || { echo "this needs x86-64 Linux" >&2; exit 2; }
command -v g++ > /dev/null || { echo "this needs g++" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check nvidia-cuda-nvcc==13.0.88 \
    nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85

toolkit=$(echo "$folder"/venv/lib/python3*/site-packages/nvidia/cu13)
test -f "$toolkit/lib/libcudart_static.a"
echo 'int main() { return 0; }' > "$folder/empty.cu"
if "$toolkit/bin/nvcc" -arch=sm_80 "$folder/empty.cu" -o "$folder/empty" > "$folder/log" 2>&1; then
    echo "nvcc links" >&2
    exit 1
fi
grep "cannot find -lcudart_static" "$folder/log" | head -1
ln -s lib "$toolkit/lib64"
"$toolkit/bin/nvcc" -arch=sm_80 "$folder/empty.cu" -o "$folder/empty"
"$folder/empty"
echo "with lib64 it links"
echo "as stated"
