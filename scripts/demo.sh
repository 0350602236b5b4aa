#!/usr/bin/env bash
# Installs what is missing, builds a release and prints text from the model in assets/.
#
#   scripts/demo.sh ["It was a dark and stormy night"] [options of krait generate, such as -n 300]
#
# The text goes to stdout, everything else to stderr.
. "$(dirname "$0")/lib.sh"

prompt='It was a dark and stormy night'
if (($#)) && [[ $1 != -* ]]; then
  prompt=$1
  shift
fi
options=("$@")
for default in '-n 128' '--temp 0.8' '--seed 1'; do
  # shellcheck disable=SC2206  # an option and its value: two words
  [[ " $* " == *" ${default% *} "* ]] || options+=($default)
done

# CUDA only where a device can run it, and for that device alone, which keeps the build short.
cuda=(-DKRAIT_CUDA=OFF)
nvcc=$(command -v nvcc || find /usr/local/cuda/bin -name nvcc 2>/dev/null || true)
# shellcheck disable=SC2054
query=(nvidia-smi --query-gpu=compute_cap --format=csv,noheader)
if [[ -n $nvcc ]] && capability=$("${query[@]}" 2>/dev/null); then
  capability=${capability%%$'\n'*}
  cuda=(-DKRAIT_CUDA=ON -DCMAKE_CUDA_COMPILER="$nvcc" -DCMAKE_CUDA_ARCHITECTURES="${capability/./}")
fi

(
  cd "$root"
  scripts/setup.sh build
  cmake --preset release -B build/demo "${cuda[@]}" \
    -DKRAIT_TESTS=OFF -DKRAIT_BENCH=OFF -DKRAIT_EXAMPLES=OFF
  cmake --build build/demo --target krait_cli --parallel "$jobs"
) >&2

exec "$root/build/demo/bin/krait" generate -m "$root/assets/classics-mamba" -p "$prompt" \
  "${options[@]}"
