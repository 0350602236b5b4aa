#!/usr/bin/env bash
# For maintainers: runs the README's two commands in a fresh Debian, and tells how long they took.
#
#   scripts/check_fresh_system.sh bookworm|trixie [demo|test ...]      default: demo demo test
#
# Debootstraps the system (once; kept as /var/tmp/krait-fresh-SUITE.tar), clones the last commit
# into it and works in a chroot, where of the environment only KRAIT_BUDGET_FACTOR counts. Needs root,
# debootstrap and git, on a Debian whose apt knows a mirror.
. "$(dirname "$0")/lib.sh"
suite=${1:?bookworm or trixie}
commands=("${@:2}")
((${#commands[@]})) || commands=(demo demo test)
((EUID == 0)) || fail "run this as root: it makes a chroot"

# In name spaces of its own: no mount and no process outlives the script.
if [[ ${KRAIT_UNSHARED:-} != 1 ]]; then
  KRAIT_UNSHARED=1 exec unshare --mount --propagation private --pid --fork --kill-child "$0" "$@"
fi

system=$(mktemp -d /var/tmp/krait-fresh.XXXXXX)
chmod 755 "$system"  # as any root folder: apt works as a user of its own
clean_up() {
  local point
  for point in proc sys dev; do
    ! mountpoint -q "$system/$point" || umount "$system/$point"
  done
  rm -rf --one-file-system "$system"
}
trap clean_up EXIT

base=/var/tmp/krait-fresh-$suite.tar
if [[ ! -e $base ]]; then
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' \
    'Origin: Debian' | head -n 1)
  [[ -n $mirror ]] || fail "the host's apt knows no Debian mirror; run apt-get update"
  say "debootstrapping $suite"
  debootstrap --variant=minbase --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
    "$suite" "$system" "$mirror" >&2
  rm -f "$system"/var/cache/apt/archives/*.deb
  tar -C "$system" -cf "$base.part" .
  mv "$base.part" "$base"
else
  tar -C "$system" -xf "$base"
fi

# How the host reaches its mirror: names, certificates, and apt's own network options.
cp -L /etc/resolv.conf /etc/hosts "$system/etc/"
if [[ -e /etc/ssl/certs/ca-certificates.crt ]]; then
  install -D -m 644 -t "$system/etc/ssl/certs" /etc/ssl/certs/ca-certificates.crt
fi
apt-config dump | grep -E '^Acquire::(https?|Check-|Retries)' \
  >"$system/etc/apt/apt.conf.d/90host" || true

mount -t proc proc "$system/proc"
mount -t sysfs -o ro sysfs "$system/sys"
mount --bind /dev "$system/dev"

[[ -z $(git -C "$root" status --porcelain) ]] || say "uncommitted changes are not tried"
git clone -q --no-local "$root" "$system/root/krait"

in_system() {
  env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    KRAIT_BUDGET_FACTOR="${KRAIT_BUDGET_FACTOR:-1}" chroot "$system" bash -c "cd /root/krait && $1"
}

report="$suite, $jobs cores:" worst=0
for command in "${commands[@]}"; do
  say "scripts/$command.sh"
  SECONDS=0 status=0
  in_system "./scripts/$command.sh" </dev/null || status=$?
  report+=$(printf '\n%-6s %5d s  exit code %d' "$command" "$SECONDS" "$status")
  ((status == 0)) || worst=1
done
printf '\n%s\n' "$report"
exit "$worst"
