#!/bin/sh
# What Firecracker's jailer does with the arguments that coppiced gives it (src/jailer/src/env.rs), for any program: a
# chroot with a copy of the program and its devices, and a user of its own. For tests where there is no jailer.
set -eu
while [ "$1" != -- ]; do
  case $1 in
    --id) id=$2 ;;
    --exec-file) program=$2 ;;
    --uid) uid=$2 ;;
    --gid) gid=$2 ;;
    --chroot-base-dir) base=$2 ;;
    *) echo "jailer: unknown argument $1" >&2; exit 1 ;;
  esac
  shift 2
done
shift

name=$(basename "$program")
root=$base/$name/$id/root
umask 022
mkdir -p "$root/dev/net" "$root/run"
cp "$program" "$root/"
for library in $(ldd "$program" | grep -o '/[^ ]*'); do  # the real one wants a static program
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done
mknod -m 600 "$root/dev/kvm" c 10 232
mknod -m 600 "$root/dev/net/tun" c 10 200
mknod -m 600 "$root/dev/urandom" c 1 9
userfaultfd=$(awk '$2 == "userfaultfd" { print $1 }' /proc/misc)
if [ -n "$userfaultfd" ]; then mknod -m 600 "$root/dev/userfaultfd" c 10 "$userfaultfd"; fi
chmod 700 "$root" "$root/dev" "$root/dev/net" "$root/run"
for place in "$root" "$root/run" "$root/dev" "$root/dev/net" "$root"/dev/*; do chown "$uid:$gid" "$place"; done
exec chroot --userspec="$uid:$gid" --groups= "$root" "/$name" --id "$id" "$@"
