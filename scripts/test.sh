#!/usr/bin/env bash
# Builds and runs every test, after installing what is missing.
#
#   scripts/test.sh [PART ...]       parts as in the table below; default: all
#
# Each part has a budget of seconds, for the first run on 2 cores, when no cache helps: together 25
# minutes, for ever. A part beyond its budget has failed; at twice the budget it is stopped. On a
# slower or busy machine set KRAIT_BUDGET_FACTOR to 2 or more.
. "$(dirname "$0")/lib.sh"
cd "$root"
exec 2>&1

# part     seconds needs       what
table='
setup           55 -           scripts/setup.sh
format          10 -           clang-format on every source file
build-dev      410 setup       preset dev: gcc, assertions, warnings are errors
unit            30 build-dev   tests/unit
golden          15 build-dev   tests/golden
conformance     30 build-dev   tests/conformance
threads          5 build-dev   tests/threads
scripts         20 build-dev   tests/scripts, include directions
consumer        50 build-dev   the installed package, static and shared, used by tests/consumer
build-asan     440 setup       preset asan-ubsan: clang, every test and fuzz target
asan           200 build-asan  unit, golden, conformance and threads, sanitized
fuzz            90 build-asan  every target of tests/fuzz, 20 seconds each
build-tsan     135 setup       preset tsan: tests/threads
tsan            10 build-tsan  threads, sanitized
'

# Tests that are slow under a sanitizer and touch no memory in a way that others do not: the quality
# of quantised models, linear once more for every number of threads, and the instruction set that is
# tested under its own name, too.
repeats='BitsPerByteHardlyChange|SameBitsForAnyNumberOfThreadsAndEveryTime/linear($|[^_])|NoneIsLost/.*_on_cpu($|[^_])'

run_part() {
  case $1 in
    setup) scripts/setup.sh build test ;;
    format) check_format ;;
    build-dev) build dev ;;
    build-asan) build asan-ubsan ;;
    build-tsan) build tsan --target threads_tests ;;
    asan) run_tests asan-ubsan 'unit|golden|conformance|threads' -E "$repeats" ;;
    fuzz) run_tests asan-ubsan fuzz ;;
    tsan) run_tests tsan threads ;;
    *) run_tests dev "$1" ;;
  esac
}

passed=0 failed=0 skipped=0

check_format() {
  if ! command -v clang-format >/dev/null; then
    say "SKIPPED: clang-format is not installed"
    skipped=$((skipped + 1))
    return
  fi
  local version sources
  sources='.*\.(h|hpp|c|cpp|cu|cuh)'
  version=$(clang-format --version | sed -nE 's/.*version ([0-9]+).*/\1/p')
  if find ./*/ -regextype posix-extended \
    \( -path './build*' -o -path ./tests/golden/data \) -prune \
    -o -type f -regex "$sources" -print0 |
    xargs -0 -r clang-format --dry-run -Werror --ferror-limit=1; then
    passed=$((passed + 1))
  elif [[ $version == 14 ]]; then
    say "run clang-format -i on the files above"
    return 1
  else
    say "SKIPPED: clang-format $version lays out some files differently from 14, which decides"
    skipped=$((skipped + 1))
  fi
}

# build PRESET [cmake --build arguments]
build() {
  use_compiler_cache  # which the part setup may just have installed
  cmake --preset "$1" >"build/$1.log" 2>&1 || { cat "build/$1.log" && return 1; }
  # -k 0: show every error, not only the first.
  timeout --foreground -k 10 "$hard_limit" \
    cmake --build --preset "$1" --parallel "$jobs" "${@:2}" -- -k 0
}

# run_tests PRESET LABELS [ctest arguments]: runs the tests with one of these labels (a|b|c) and
# counts them.
run_tests() {
  local report=$root/build/$1-tests.xml wrapper=() status=0 field
  # The sanitizers of gcc 12 and clang 14 cannot bear the address randomisation of newer kernels.
  if [[ $1 == *san ]] && setarch -R true 2>/dev/null; then wrapper=(setarch -R); fi
  rm -f "$report"
  UBSAN_OPTIONS=print_stacktrace=1 timeout --foreground -k 10 "$hard_limit" "${wrapper[@]}" \
    ctest --preset "$1" -L "^($2)\$" "${@:3}" -j "$jobs" --output-junit "$report" |
    sed -uE '/^ *(Start +[0-9]+: |[0-9]+\/[0-9]+ Test +#.* Passed )/d' || status=$?
  declare -A count=([tests]=0 [failures]=0 [disabled]=0 [skipped]=0)
  for field in "${!count[@]}"; do
    count[$field]=$(sed -nE "s/^\s+$field=\"([0-9]+)\".*/\1/p" "$report" 2>/dev/null | head -n 1)
  done
  failed=$((failed + count[failures]))
  skipped=$((skipped + count[skipped] + count[disabled]))
  passed=$((passed + count[tests] - count[failures] - count[skipped] - count[disabled]))
  # A failure that ctest did not count, such as a label without tests, is counted by the caller.
  ((status == 0 || count[failures] > 0))
}

# Which parts to run: those asked for and what they need.
declare -A wanted
want() {
  local needs
  needs=$(awk -v part="$1" '$1 == part { print $3 }' <<<"$table")
  [[ -n $needs ]] || fail "there is no part '$1'; the parts are:" "${all_parts[@]}"
  wanted[$1]=1
  [[ $needs == - ]] || want "$needs"
}
mapfile -t all_parts < <(awk 'NF { print $1 }' <<<"$table")
(($#)) || set -- "${all_parts[@]}"
for part; do want "$part"; done

mkdir -p build
declare -A broken
summary=$(printf '\n%-12s %8s %8s  %s' part seconds budget verdict)
while read -r part budget needs what; do
  [[ -n $part && -n ${wanted[$part]:-} ]] || continue
  budget=$((budget * ${KRAIT_BUDGET_FACTOR:-1}))
  hard_limit=$((2 * budget))
  verdict=ok
  before=$failed
  SECONDS=0
  if [[ -n ${broken[$needs]:-} ]]; then
    verdict="not run: $needs failed"
    broken[$part]=1
  else
    printf '\n== %s: %s\n' "$part" "$what"
    run_part "$part" </dev/null || failed=$((failed + 1))
    if ((failed > before)); then
      verdict=FAILED
      [[ $part == build-* || $part == setup ]] && broken[$part]=1
    elif ((SECONDS > budget)); then
      verdict='FAILED: over budget'
      failed=$((failed + 1))
    fi
  fi
  summary+=$(printf '\n%-12s %8d %8d  %s' "$part" "$SECONDS" "$budget" "$verdict")
done <<<"$table"

printf '%s\n\n' "$summary"
tally="$passed passed, $failed failed"
((skipped == 0)) || tally+=", $skipped skipped"
echo "$tally"
((failed == 0))
