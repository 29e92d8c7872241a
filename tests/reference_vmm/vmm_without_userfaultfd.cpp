// coppice-vmm on a machine where userfaultfd(2) is refused, as it is to an unprivileged user by default, and so is
// /dev/userfaultfd, unless UFFD_BY_DEVICE is set: the same arguments, the same API.
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

int main(int, char** argv) {
  constexpr unsigned ioc_new = 0xAA00;  // USERFAULTFD_IOC_NEW (linux/userfaultfd.h, Linux 6.1)
  const unsigned refused_ioctl =
      std::getenv("UFFD_BY_DEVICE") != nullptr ? 0 : ioc_new;  // 0: none that coppice-vmm uses
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 4, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 2),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[1])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refused_ioctl, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
  };
  const sock_fprog program{sizeof filter / sizeof *filter, filter};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    std::perror("vmm_without_userfaultfd: seccomp");
    return 1;
  }
  static char path[] = COPPICE_VMM;
  argv[0] = path;
  ::execv(path, argv);
  std::perror(path);
  return 1;
}
