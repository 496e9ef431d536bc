"""What supervisor, zygote and worker ask of the kernel alike. Standard library only."""

import ctypes
import os
import resource
import signal
import socket

PR_SET_DUMPABLE = 4

_libc = ctypes.CDLL(None, use_errno=True)


def set_dumpable(dumpable):
    """Whether processes of the same user may look into this one (/proc/<pid>/mem, ptrace)."""
    _libc.prctl(PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)


def limit_process(limits):
    """Bounds this process and, each for itself, its children. Memory is bounded here so that Python raises MemoryError."""
    bounds = {
        resource.RLIMIT_DATA: int(limits['memoryBytes'] * 0.9),
        resource.RLIMIT_FSIZE: limits['diskBytes'],
        resource.RLIMIT_NPROC: limits['processes'],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 1024,
    }
    for which, bound in bounds.items():
        hard = resource.getrlimit(which)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(which, (bound, bound))
    try:
        with open('/proc/self/oom_score_adj', 'w') as file:
            file.write('1000')
    except OSError:
        pass  # some sandboxes show no such file


def default_signals():
    """Python ignores two signals, and programs inherit that: `yes | head` would not end."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def nice_fd(fd):
    """The same file under a number that programs rarely close by accident."""
    import fcntl

    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 200)
    os.close(fd)
    return high


def packet_pair():
    """A pair of sockets that keep messages whole."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
