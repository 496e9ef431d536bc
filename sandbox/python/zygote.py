"""Imports once what most code needs, and forks a worker from itself whenever the supervisor asks for one."""

import gc
import json
import os
import select
import signal
import socket
import sys
import warnings

# The first entry is this directory, and strangers' `import system` is not meant for us.
HERE = sys.path.pop(0)
sys.path.insert(0, HERE)
import system  # noqa: E402
import worker  # noqa: E402

sys.path.remove(HERE)


def main():
    system.set_dumpable(False)
    control = socket.socket(fileno=3)
    control.set_inheritable(False)
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    shell = preload()
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    tell(control, {'t': 'ready'})
    while True:
        ready = {fd for fd, _ in poll(control.fileno(), reader)}
        if reader in ready:
            drain(reader)
            tell_exits(control)
        if control.fileno() in ready:
            message, fds, _, _ = socket.recv_fds(control, 65536, 2)
            if not message:
                os._exit(0)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                worker.serve(shell, *fds, json.loads(message))
                os._exit(0)
            for fd in fds:
                os.close(fd)
            tell(control, {'t': 'forked', 'pid': pid})


def preload():
    """What is not there is not preloaded: a root of somebody's own may have less."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        worker.copy_font_cache()
        import IPython.core.interactiveshell  # noqa: F401

        for name in ('numpy', 'pandas', 'matplotlib.pyplot'):
            try:
                __import__(name)
            except ImportError:
                pass
        return worker.create_shell()


def poll(*fds):
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return poller.poll()


def drain(fd):
    try:
        os.read(fd, 4096)
    except BlockingIOError:
        pass


def tell_exits(control):
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        tell(control, {'t': 'exit', 'pid': pid, 'status': status})


def tell(control, message):
    control.send(json.dumps(message).encode())


if __name__ == '__main__':
    main()
