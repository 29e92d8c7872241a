#!/bin/bash
# The package on a live systemd, in a container that has booted for it: see package_test.py, which reads what this prints.
# The package is installed, and its service was started by the boot. /root/coppice.deb is the same package.
set -eux
export COPPICE_SERVER=unix:/run/coppice/coppiced.sock DEBIAN_FRONTEND=noninteractive
drop_ins=/run/systemd/system/coppiced.service.d  # gone with the boot

of_service() { systemctl show -p "$1" --value coppiced; }
until_true() {
  for _ in $(seq 300); do
    if "$@"; then return; fi
    sleep 0.1
  done
  echo "not within 30 s: $*"
  exit 1
}
must_fail() {  # bash's ! would not end the script
  if "$@"; then
    echo "this should have failed: $*"
    exit 1
  fi
}
new_sandbox() { coppice --json sandbox create "$@" | grep -o '"sb-[0-9a-f]*"' | head -1 | tr -d '"'; }

: it branches a guest live
systemctl is-active coppiced
coppice snapshot create probe --kernel /usr/share/coppice/journal.elf --memory 32M
sandbox=$(new_sandbox probe)
coppice branch "$sandbox" --tag probe-branch
coppice verify probe-branch
coppice sandbox create probe-branch
systemctl reload coppiced
test "$(of_service NRestarts)" = 0

: daemon and VMs are in the slice, and the kernel takes a VM first
daemon=$(of_service MainPID)
vm=$(pidof -s coppice-vmm)
test "$(of_service Slice)" = coppice.slice
for pid in "$daemon" "$vm"; do grep -q /coppice.slice/coppiced.service "/proc/$pid/cgroup"; done
test "$(cat /proc/$vm/oom_score_adj)" -gt "$(cat /proc/$daemon/oom_score_adj)"

: the service opens its own devices, and no other
mknod /root/foreign c 10 237  # loop-control
processes=/sys/fs/cgroup/coppice.slice/coppiced.service/daemon/cgroup.procs  # the daemon moves there where it divides its group
[ -e $processes ] || processes=/sys/fs/cgroup/coppice.slice/coppiced.service/cgroup.procs
if [ -e $processes ] && (exec 3< /root/foreign); then
  in_service() { sh -c "echo \$\$ > $processes && exec 3<> $1"; }
  in_service /dev/kvm
  must_fail in_service /root/foreign
else
  echo "SKIPPED: foreign devices, which this container can't open anyway, or has no cgroup v2"
fi
rm /root/foreign

: settings that are wrong are refused by a reload, named, and change nothing
cp -a /etc/coppice/coppiced.toml /root/kept.toml
echo 'copy-rate = "fast"' >> /etc/coppice/coppiced.toml
must_fail systemctl reload coppiced
kill -HUP "$daemon"
warned() { journalctl -u coppiced -p warning -o cat | grep -q copy-rate; }
until_true warned
cp -a /root/kept.toml /etc/coppice/coppiced.toml
systemctl reload coppiced
test "$(of_service MainPID)" = "$daemon"

: a memory limit, by the cgroup that systemd gives away
if grep -qw memory /sys/fs/cgroup/cgroup.controllers; then
  coppice sandbox create probe --memory-limit-mib 300
  test "$(cat /sys/fs/cgroup/coppice.slice/coppiced.service/vm-*/memory.max)" = $((300 << 20))
else
  echo "SKIPPED: memory limits, for want of cgroup v2 with the memory controller; they must be refused"
  must_fail coppice sandbox create probe --memory-limit-mib 300
fi

: no upgrade ends VMs
dpkg -i /root/coppice.deb
test "$(of_service MainPID)" = "$daemon"
systemctl restart coppiced

: the doctor knows by the configuration which daemon to look for
coppice doctor
coppice --json doctor | grep -q 'coppiced .* answers at unix:/run/coppice/coppiced.sock'

: the watchdog ends a daemon that does not answer
mkdir -p $drop_ins
printf '[Service]\nWatchdogSec=6\n' > $drop_ins/watchdog.conf
systemctl daemon-reload
systemctl restart coppiced
coppice sandbox create probe
daemon=$(of_service MainPID)
vm=$(pidof -s coppice-vmm)
kill -STOP "$daemon"
is_restarted() { [ "$(of_service NRestarts)" = 1 ] && systemctl --quiet is-active coppiced; }
until_true is_restarted
test "$(of_service MainPID)" != "$daemon"
test ! -e "/proc/$vm"
journalctl -u coppiced | grep -q 'Watchdog timeout'
coppice snapshot ls | grep -q probe-branch
rm $drop_ins/watchdog.conf

: sandboxes in network namespaces, with the drop-in only
must_fail coppice sandbox create probe --netns
if unshare --net true && [ -c /dev/net/tun ]; then
  cp /usr/share/coppice/systemd/networking.conf $drop_ins
  systemctl daemon-reload
  systemctl restart coppiced
  coppice sandbox create probe --netns
  vm=$(pidof -s coppice-vmm)
  grep -q tap0: "/proc/$vm/net/dev"
  grep -q 'CapEff:.*0000000000000000' "/proc/$vm/status"
  grep -q 'CapEff:.*0000000000201000' "/proc/$(of_service MainPID)/status"  # CAP_NET_ADMIN and CAP_SYS_ADMIN
  rm $drop_ins/networking.conf
  systemctl daemon-reload
else
  echo "SKIPPED: network namespaces, which this container can't have"
fi

: a removal ends the service and its VMs, an installation starts it
systemctl restart coppiced
coppice sandbox create probe
dpkg --remove coppice
must_fail pidof coppiced coppice-vmm
dpkg -i /root/coppice.deb
systemctl is-active coppiced
systemctl is-enabled coppiced
coppice snapshot ls | grep -q probe-branch

: a daemon that can not start says so once, and starts when that is mended
cp -a /etc/coppice/coppiced.toml /root/kept.toml
echo 'token-file = "/etc/coppice/tokens"' >> /etc/coppice/coppiced.toml
must_fail systemctl restart coppiced
test "$(of_service NRestarts)" = 0
cp -a /root/kept.toml /etc/coppice/coppiced.toml
systemctl start coppiced

: so does a purge, and nothing is left for the next one
echo secret > /etc/coppice/tokens
coppice sandbox create probe
dpkg --purge coppice
must_fail pidof coppiced coppice-vmm
test ! -e /var/lib/coppice && test ! -e /run/coppice && test ! -e /etc/coppice
dpkg -i /root/coppice.deb
systemctl is-active coppiced
test "$(coppice --json snapshot ls)" = '[]'
echo all is well
