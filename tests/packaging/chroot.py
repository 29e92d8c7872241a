"""A minimal Debian (or Ubuntu) of the machine's own release, to install packages into. Needs root."""
import contextlib
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile
import time

BASE_AGE = 7 * 86400  # seconds, after which the mirror may have newer packages than the base's lists name
DEVICES = {"kvm": ("root", "kvm", 0o660), "userfaultfd": ("root", "root", 0o600), "net/tun": ("root", "root", 0o666)}


class NoMirror(Exception):
    """The packages can't be had."""


def enter_namespaces() -> None:
    """Starts this program anew where its mounts and processes end with it. Returns in that second life."""
    if os.environ.get("COPPICE_IN_NAMESPACES"):
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)  # of the processes that are seen here
        return
    os.environ["COPPICE_IN_NAMESPACES"] = "1"
    os.execvp("unshare", ["unshare", "--mount", "--pid", "--fork", "--kill-child", sys.executable, *sys.argv])


def release() -> str:
    """bookworm, say."""
    lines = pathlib.Path("/etc/os-release").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME="))


def mirror() -> str:
    """The one that this machine's apt uses for its release."""
    command = ["apt-get", "indextargets", "--format", "$(CODENAME) $(SITE)", "Created-By: Packages"]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        codename, _, site = line.partition(" ")
        if codename == release():
            return site
    raise NoMirror(f"apt has no mirror of {release()}")


class Chroot:
    """Made of a base archive in `cache`, which is kept for a week. remove() removes it."""

    def __init__(self, cache: pathlib.Path):
        self.cache = cache
        base = cache / f"{release()}.tar"
        if not base.exists() or time.time() - base.stat().st_mtime > BASE_AGE:
            self._bootstrap(base)
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="coppice-chroot-", dir="/var/tmp"))
        subprocess.run(["tar", "-xpf", base, "-C", self.root], check=True)
        self._mount_all()

    def _bootstrap(self, base: pathlib.Path) -> None:
        shutil.rmtree(self.cache, ignore_errors=True)
        self.cache.mkdir(parents=True)
        tree = self.cache / "tree"
        command = ["debootstrap", "--variant=minbase", "--include=systemd", release(), tree, mirror()]
        made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if made.returncode != 0:
            raise NoMirror("debootstrap failed:\n" + "\n".join(made.stdout.splitlines()[-5:]))
        (tree / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")  # it is thrown away: no fsync
        if subprocess.run(["chroot", tree, "apt-get", "-qq", "update"]).returncode != 0:
            raise NoMirror("apt-get update failed")
        subprocess.run(["chroot", tree, "apt-get", "clean"], check=True)
        partial = base.with_suffix(".partial")
        subprocess.run(["tar", "-cpf", partial, "-C", tree, "."], check=True)
        partial.rename(base)
        shutil.rmtree(tree)

    def _mount_all(self) -> None:
        archives = self.cache / "archives"
        archives.mkdir(exist_ok=True)
        self._mount("proc", "proc", "proc")
        self._mount("dev/shm", "tmpfs", "tmpfs")
        self._mount("var/cache/apt/archives", archives, None)

    def _unmount_all(self) -> None:
        for place in ("var/cache/apt/archives", "dev/shm", "proc"):
            subprocess.run(["umount", "--lazy", self.root / place])

    def _mount(self, place: str, source, kind) -> None:
        (self.root / place).mkdir(parents=True, exist_ok=True)
        how = ["--bind"] if kind is None else ["-t", kind]
        subprocess.run(["mount", *how, source, self.root / place], check=True)

    def add_devices(self) -> None:
        """The host's devices that VMs need, with the rights that udev gives them. REQUIRES: the group kvm."""
        for name, (user, group, mode) in DEVICES.items():
            there = pathlib.Path("/dev", name)
            if not there.exists():
                continue
            (self.root / "dev" / name).parent.mkdir(exist_ok=True)
            os.mknod(self.root / "dev" / name, stat.S_IFCHR | 0o600, there.stat().st_rdev)
            self.run("chown", f"{user}:{group}", f"/dev/{name}")
            (self.root / "dev" / name).chmod(mode)

    def command(self, *words, user: str = "root", groups: str = "") -> list:
        return ["chroot", f"--userspec={user}", f"--groups={groups}", self.root, *words]

    def run(self, *words, check: bool = True) -> str:
        """Its output. Raises if it fails."""
        environment = dict(os.environ, LC_ALL="C.UTF-8", DEBIAN_FRONTEND="noninteractive")
        done = subprocess.run(self.command(*words), env=environment, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(map(str, words))}: exit code {done.returncode}\n{done.stdout}")
        return done.stdout

    def install(self, package: pathlib.Path) -> str:
        """By apt, with what it depends on. Files of the operator's stay, as dpkg does where it can't ask."""
        shutil.copy(package, self.root / "tmp" / package.name)
        return self.run("apt-get", "install", "-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confdef",
                        f"/tmp/{package.name}")

    def runs(self, program: str) -> bool:
        """Whether a process of that name runs in the namespaces."""
        for each in (self.root / "proc").glob("[0-9]*/comm"):
            with contextlib.suppress(OSError):  # it ended
                if each.read_text().strip() == program:
                    return True
        return False

    def boot(self, limit: float) -> str:
        """Boots the system in a container of its own, until it powers itself off. What systemd-nspawn says. Raises after
        `limit` seconds."""
        nodes = self.root / "srv" / "devices"  # with the rights of add_devices(); the tree's own /dev is hidden meanwhile
        nodes.mkdir()
        binds = []
        for name in DEVICES:
            if (self.root / "dev" / name).exists():
                node = nodes / name.replace("/", "-")
                subprocess.run(["cp", "-a", self.root / "dev" / name, node], check=True)
                binds.append(f"--bind={node}:/dev/{name}")
        self._unmount_all()  # systemd-nspawn would take these for its own
        booted = subprocess.run(["systemd-nspawn", "--quiet", "--directory", self.root, "--boot", "--register=no",
                                 "--keep-unit", "--console=pipe", *binds, "--system-call-filter=bpf",
                                 # systemd keeps to DevicePolicy= by BPF, and says nothing where it can't.
                                 "--capability=CAP_NET_ADMIN,CAP_BPF,CAP_PERFMON"],
                                env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}, timeout=limit,
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self._mount_all()
        shutil.rmtree(nodes)
        return booted.stderr.strip()

    def remove(self) -> None:
        self._unmount_all()
        shutil.rmtree(self.root, ignore_errors=True)
