#!/usr/bin/env bash
# Runs clang-tidy with the checks of .clang-tidy; every finding is a failure.
#
#   scripts/tidy.sh                       everything, which takes a quarter of an hour on 2 cores
#   scripts/tidy.sh ops/linear.cpp ...    these files, and the headers that they include
#   scripts/tidy.sh $(git diff --name-only --diff-filter=d main -- '*.cpp')
#
# For that time, no part of scripts/test.sh. CUDA sources are left out: clang knows only older CUDAs.
. "$(dirname "$0")/lib.sh"
cd "$root"
command -v clang-tidy >/dev/null || fail "install clang-tidy"

# With clang's flags, which clang-tidy understands, and for all targets. Nothing is built.
mkdir -p build
cmake --preset asan-ubsan -B build/tidy -DKRAIT_SANITIZE= -DKRAIT_BENCH=ON -DKRAIT_EXAMPLES=ON \
  -DKRAIT_CUDA=OFF -DCMAKE_EXPORT_COMPILE_COMMANDS=ON >build/tidy.log ||
  { cat build/tidy.log && exit 1; }
files=("$@")
if ((${#files[@]} == 0)); then
  mapfile -t files < <(sed -nE 's/^ *"file": "(.*)",?$/\1/p' build/tidy/compile_commands.json | sort -u)
fi
printf '%s\0' "${files[@]}" |
  xargs -0 -r -n 1 -P "$jobs" clang-tidy --quiet -p build/tidy --warnings-as-errors='*' \
    2> >(grep -v ' warnings generated' >&2)
