#!/usr/bin/env bash
# Collects what a machine with a GPU but without build tools needs to run Krait and its tests.
#
#   scripts/pack_for_gpu.sh build/dev FOLDER
#
# FOLDER then holds bin/ (the command, tests, benchmarks; stripped), lib/ (the CUDA module, and the
# shared libraries that a plain system lacks) and data/ (what tests read). There:
#
#   . FOLDER/environment && krait devices && golden_tests
. "$(dirname "$0")/lib.sh"

(($# == 2)) || fail "expected a build folder and a folder to fill"
build=$1 folder=$2
[[ -x $build/bin/krait ]] || fail "$build/bin/krait is not there; build it first"

mkdir -p "$folder"/{bin,lib,data/tests/golden,data/tests/conformance}
for name in krait unit_tests golden_tests conformance_tests ops_bench; do
  if [[ -x $build/bin/$name ]]; then
    strip -o "$folder/bin/$name" "$build/bin/$name"
  else
    say "without $name, which was not built"
  fi
done
if [[ -f $build/lib/libkrait_cuda.so ]]; then
  strip -o "$folder/lib/libkrait_cuda.so" "$build/lib/libkrait_cuda.so"
else
  say "without the CUDA module: the build has none"
fi

# The C and C++ runtimes stay the system's own.
find "$folder/bin" "$folder/lib" -type f -exec ldd {} + | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
  awk '!/\/(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s)\.so/' |
  xargs --no-run-if-empty cp --dereference --target-directory="$folder/lib"

cp -r "$root/assets" "$folder/data/"
cp -r "$root/tests/golden/data" "$folder/data/tests/golden/"
cp "$root/tests/conformance/coverage.json" "$folder/data/tests/conformance/"
mkdir -p "$folder/data/scripts"
cp "$root"/scripts/convert_checkpoint.py "$folder/data/scripts/"

cat >"$folder/environment" <<'END'
# shellcheck shell=bash
# Source this in bash.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH=$here/bin:$PATH LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export KRAIT_SOURCE_DIR=$here/data
END
say "$folder: $(du -sh "$folder" | cut -f1)"
