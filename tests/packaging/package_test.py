#!/usr/bin/env python3
"""The .deb in a minimal system: it installs, its service's command runs and branches, snapshots survive an upgrade, and a
purge leaves nothing behind."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import traceback

from chroot import Chroot, NoMirror, enter_namespaces

BUILD = pathlib.Path(os.environ["COPPICE_BUILD"])  # set by CMake
SERVER = ["coppice", "--server", "unix:/run/coppice/coppiced.sock", "--json"]
UNIT = "/usr/lib/systemd/system/coppiced.service"
SETTINGS = "etc/coppice/coppiced.toml"
PATIENCE = 60  # seconds
SKIPPED = 77


def make_package(folder: pathlib.Path) -> pathlib.Path:
    subprocess.run(["cpack", "--config", BUILD / "CPackConfig.cmake", "-B", folder], check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("coppice_*.deb"))


def with_version(package: pathlib.Path, version: str) -> pathlib.Path:
    """The same package under a version of its own, whose settings have a line more."""
    tree = package.parent / "tree"
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(re.sub("(?m)^Version: .*", f"Version: {version}", control.read_text()))
    with open(tree / SETTINGS, "a") as settings:
        settings.write(f"# New in {version}.\n")
    made = package.with_name(f"coppice_{version}_amd64.deb")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, made], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return made


def setting(unit: str, name: str) -> str:
    return re.search(f"(?m)^{name}=(.*)$", unit).group(1)


class Service:
    """coppiced as the unit says, as far as it goes without systemd: its command, its user, its folders, its notifications."""

    def __init__(self, system: Chroot):
        unit = (system.root / UNIT[1:]).read_text()
        user = setting(unit, "User")
        for folder, mode in (("/var/lib/coppice", "0700"), ("/var/log/coppice", "0700"), ("/run/coppice", "0755")):
            system.run("install", "-d", "-o", user, "-g", user, "-m", mode, folder)
        words = setting(unit, "ExecStart").split()
        groups = f"{user},{setting(unit, 'SupplementaryGroups')}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(system.root / "run" / "notify"))
            system.run("chmod", "666", "/run/notify")
            manager.settimeout(PATIENCE)
            environment = dict(os.environ, NOTIFY_SOCKET="/run/notify")
            self.process = subprocess.Popen(system.command(*words, user=f"{user}:{user}", groups=groups), env=environment,
                                            stderr=subprocess.PIPE, text=True)
            first = manager.recv(500).decode()
            assert first.startswith("READY=1\n"), first
        (system.root / "run" / "notify").unlink()

    def stop(self) -> None:
        self.process.terminate()
        log = self.process.communicate(timeout=PATIENCE)[1]
        assert self.process.returncode == 0, log


PROBE = pathlib.Path(__file__).resolve().parent / "probe.sh"
PROBE_UNIT = """[Unit]
After=coppiced.service
[Service]
Type=oneshot
StandardOutput=file:/root/probe.out
StandardError=inherit
ExecStart=/bin/bash /root/probe.sh
ExecStopPost=systemctl --no-block poweroff
[Install]
WantedBy=default.target
"""


def ask(system: Chroot, *words):
    return json.loads(system.run(*SERVER, *words))


def tags(system: Chroot) -> set:
    return {each["tag"] for each in ask(system, "snapshot", "ls")}


def the_package_is_clean(package: pathlib.Path) -> None:
    if shutil.which("lintian") is None:
        return print("  (skipped: no lintian here)")
    found = subprocess.run(["lintian", "--fail-on", "error,warning", package], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def it_installs(system: Chroot, package: pathlib.Path) -> None:
    system.install(package)
    system.add_devices()
    for program in ("coppice", "coppiced", "coppice-vmm"):
        assert system.run(program, "--version").strip(), program
    assert "coppice" in system.run("id", "coppice") and "kvm" in system.run("id", "coppice")
    assert system.run("systemctl", "is-enabled", "coppiced").strip() == "enabled"
    system.run("systemd-analyze", "verify", UNIT)
    system.run("systemd-tmpfiles", "--create", "coppice.conf")  # its ExecStartPre
    assert system.run("stat", "-c", "%G %a", "/dev/userfaultfd").strip() == "coppice 660"


def the_unit_holds_under_systemd(system: Chroot, package: pathlib.Path) -> None:
    """With all that hardens it: in a container that boots the system."""
    if shutil.which("systemd-nspawn") is None:
        return print("  (skipped: no systemd-nspawn here)")
    unit = system.root / "etc/systemd/system/probe.service"
    unit.write_text(PROBE_UNIT)
    shutil.copy(PROBE, system.root / "root/probe.sh")
    shutil.copy(package, system.root / "root/coppice.deb")
    system.run("systemctl", "enable", "probe")
    said = system.boot(4 * PATIENCE)
    system.run("systemctl", "disable", "probe")
    unit.unlink()
    (system.root / "root/coppice.deb").unlink()
    told = system.root / "root/probe.out"
    if not told.exists():  # it is written whatever becomes of coppiced
        return print(f"  (skipped: no system can be booted in a container here: {said})")
    for skipped in re.findall("(?m)^SKIPPED: (.*)$", told.read_text()):
        print(f"  (skipped: {skipped})")
    assert told.read_text().endswith("all is well\n"), told.read_text() + system.run("journalctl", "-u", "coppiced", check=False)


def the_service_branches_a_guest_live(system: Chroot) -> None:
    service = Service(system)
    ask(system, "snapshot", "create", "base", "--kernel", "/usr/share/coppice/journal.elf", "--memory", "64M")
    parent = ask(system, "sandbox", "create", "base")[0]
    assert parent["backing"] == "shared", parent
    branch = ask(system, "branch", parent["id"], "--tag", "b1")
    assert branch["status"] == "ready", branch
    assert ask(system, "verify", "b1")["ok"]
    assert len(ask(system, "sandbox", "create", "b1", "-n", "2")) == 2
    assert system.runs("coppice-vmm")
    service.stop()
    assert not system.runs("coppice-vmm"), "a VM outlived the daemon"


def snapshots_survive_an_upgrade(system: Chroot, newer: pathlib.Path) -> None:
    settings = system.root / SETTINGS
    settings.write_text(settings.read_text() + 'log-level = "debug"\n')
    edited = settings.read_text()
    system.install(newer)
    assert system.run("dpkg-query", "-W", "-f", "${Version}", "coppice") in newer.name
    assert settings.read_text() == edited, "a file of the operator's was overwritten"
    assert "New in 99.0" in settings.with_name("coppiced.toml.dpkg-dist").read_text()
    service = Service(system)
    assert tags(system) == {"base", "b1"}
    assert ask(system, "verify", "b1")["ok"]
    ask(system, "sandbox", "create", "b1")
    service.stop()


def a_removal_keeps_the_snapshots(system: Chroot) -> None:
    system.run("apt-get", "remove", "-y", "coppice")
    assert (system.root / "var/lib/coppice/snapshots/b1/manifest.json").exists()
    assert (system.root / SETTINGS).exists()
    assert not (system.root / "usr/bin/coppiced").exists()


def a_purge_leaves_nothing_behind(system: Chroot) -> None:
    system.run("apt-get", "purge", "-y", "coppice")
    skipped = ["-path", "/proc", "-prune", "-o", "-path", "/tmp", "-prune", "-o", "-path", "/var/cache/apt", "-prune"]
    left = system.run("find", "/", *skipped, "-o", "(", "-name", "*coppice*", "-o", "-user", "coppice", ")", "-print")
    assert left == "", left


def run(steps: list) -> int:
    for step, *arguments in steps:
        print(step.__name__.replace("_", " "), flush=True)
        try:
            step(*arguments)
        except Exception:  # the report of a test: what was expected, and where
            traceback.print_exc()
            return 1
    return 0


def main() -> int:
    missing = [each for each in ("debootstrap", "cpack", "dpkg-deb") if shutil.which(each) is None]
    if os.geteuid() != 0 or missing or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print(f"SKIPPED: root, /dev/kvm and debootstrap are needed; missing programs: {missing}")
        return SKIPPED
    enter_namespaces()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, contextlib.ExitStack() as at_end:
        package = make_package(pathlib.Path(folder))
        try:
            system = Chroot(BUILD / "packaging")
        except NoMirror as reason:
            print(f"SKIPPED: {reason}")
            return SKIPPED
        at_end.callback(system.remove)
        return run([(the_package_is_clean, package), (it_installs, system, package),
                    (the_unit_holds_under_systemd, system, package), (the_service_branches_a_guest_live, system),
                    (snapshots_survive_an_upgrade, system, with_version(package, "99.0")),
                    (a_removal_keeps_the_snapshots, system), (a_purge_leaves_nothing_behind, system)])


if __name__ == "__main__":
    sys.exit(main())
