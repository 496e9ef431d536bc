"""The process in which strangers' code runs: IPython without a terminal, its output in a pipe, its figures as images."""

import builtins
import glob
import io
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
import warnings

import system

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Type

DATA = '/mnt/data'
PIECE = 32 * 1024
PLAIN_OBJECT = '<IPython.core.display.'


class Line:
    """The socket to the supervisor."""

    def __init__(self):
        self.socket = None
        self.pid = None
        self.lock = threading.RLock()
        self.images = 0
        self.is_in_cell = False

    def open(self, fd):
        self.socket = socket.socket(fileno=fd)
        self.pid = os.getpid()

    def is_mine(self):
        """False in a process that strangers' code has forked."""
        return self.is_in_cell and os.getpid() == self.pid

    def send_image(self, image_format, data):
        """Returns when the supervisor has taken it, so that images and text stay in order."""
        with self.lock:
            if not self.is_mine():
                return
            flush()
            self.images += 1
            number = struct.pack('>I', self.images)
            for start in range(0, len(data), PIECE) or (0,):
                is_last = b'1' if start + PIECE >= len(data) else b'0'
                self.socket.send(b'I' + number + image_format + is_last + data[start : start + PIECE])
            while True:
                answer = self.socket.recv(64)
                if not answer or answer == b'A' + number:
                    return

    def next_cell(self):
        """Tag and code of the next cell; what else comes is an answer that nobody waits for any more."""
        while True:
            message, fds, _, _ = socket.recv_fds(self.socket, 64, 1)
            if not message:
                os._exit(0)
            if message[:1] == b'X' and fds:
                with open(fds[0], 'rb') as file:
                    return message[1:], file.read().decode()


line = Line()


class Streams:
    def __init__(self):
        self.output = None
        self.stdout = self.stderr = None

    def open(self, fd):
        self.output = fd

    def renew(self):
        """Code may have closed or replaced any of them."""
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        if null != 0:
            os.close(null)
        os.dup2(self.output, 1)
        os.dup2(self.output, 2)
        if self.stdout is None or self.stdout.closed:
            self.stdout = text_stream(1)
        if self.stderr is None or self.stderr.closed:
            self.stderr = text_stream(2)
        sys.stdout = sys.__stdout__ = self.stdout
        sys.stderr = sys.__stderr__ = self.stderr
        sys.stdin = sys.__stdin__ = open(0, closefd=False)


streams = Streams()


def text_stream(fd):
    return open(fd, 'w', encoding='utf-8', errors='backslashreplace', buffering=1, closefd=False)


def flush():
    for stream in (sys.stdout, sys.stderr, streams.stdout, streams.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # code has closed it, or put something else in its place


class Publisher(DisplayPublisher):
    def publish(self, data, metadata=None, source=None, *, transient=None, update=False, **kwargs):
        text = show(data)
        if text is not None:
            print(text)


class ResultHook(DisplayHook):
    """The value of the last expression ends the output of its cell, without a newline."""

    def write_output_prompt(self):
        pass

    def write_format_data(self, format_dict, md_dict=None):
        text = show(format_dict)
        if text is not None:
            sys.stdout.write(text)

    def finish_displayhook(self):
        flush()


def show(bundle):
    """Sends the picture of a bundle, or returns its text."""
    for mime, image_format in (('image/png', b'p'), ('image/jpeg', b'j')):
        data = bundle.get(mime)
        if data:
            if isinstance(data, str):
                import base64

                data = base64.b64decode(data)
            line.send_image(image_format, data)
            return None
    text = bundle.get('text/plain')
    if text is None or text.startswith(PLAIN_OBJECT):
        text = bundle.get('text/markdown') or bundle.get('text/html') or bundle.get('text/latex') or text
    return text


class Shell(InteractiveShell):
    displayhook_class = Type(ResultHook)
    display_pub_class = Type(Publisher)

    def init_history(self):
        HistoryManager.enabled = False
        super().init_history()

    def system(self, command):
        """`!command`. IPython's own wants a terminal."""
        flush()
        shell_command = self.var_expand(command, depth=1)
        self.user_ns['_exit_code'] = subprocess.call(shell_command, shell=True, executable='/bin/sh')

    system_raw = system_piped = system

    def enable_matplotlib(self, gui=None):
        """`%matplotlib inline` and its like: figures are shown in any case."""
        return 'agg', 'agg'

    def enable_gui(self, gui=None):
        pass

    def ask_exit(self):
        pass

    def _showtraceback(self, etype, evalue, stb):
        flush()
        text = self.InteractiveTB.stb2text(stb)
        sys.stdout.write(text.rstrip('\n'))
        flush()

    def showtraceback(self, *args, **kwargs):
        error = sys.exc_info()[1]
        if isinstance(error, SystemExit):
            if not is_quiet_exit(error):
                print(f'SystemExit: {error.code}', file=sys.stderr)
        else:
            super().showtraceback(*args, **kwargs)


def is_quiet_exit(error):
    return isinstance(error, SystemExit) and error.code in (None, 0)


def create_shell():
    # The one instance: display() and tracebacks ask for it.
    shell = Shell.instance(colors='nocolor', xmode='Context')
    builtins.input = no_input
    if 'matplotlib.pyplot' in sys.modules:
        sys.modules['matplotlib.pyplot'].show = lambda *args, **kwargs: show_figures()
    shell.run_cell('None', store_history=False)
    return shell


def no_input(prompt='', /):
    raise EOFError('input() is not supported: nobody is there to answer. Set the value in the code instead.')


def show_figures():
    """Every open figure becomes an image and is closed."""
    pyplot = sys.modules.get('matplotlib.pyplot')
    if pyplot is None or not line.is_mine():
        return
    for number in pyplot.get_fignums():
        figure = pyplot.figure(number)
        try:
            if figure.axes or figure.lines or figure.patches or figure.texts or figure.images:
                buffer = io.BytesIO()
                figure.savefig(buffer, format='png', bbox_inches='tight')
                line.send_image(b'p', buffer.getvalue())
        finally:
            pyplot.close(figure)


def copy_font_cache():
    """matplotlib takes its list of fonts only from a directory that it can write to; without it, it looks at all fonts."""
    source, target = os.environ.get('FONT_CACHE'), os.environ.get('MPLCONFIGDIR')
    if not source or not target:
        return
    os.makedirs(target, exist_ok=True)
    for path in glob.glob(os.path.join(source, 'fontlist-*.json')):
        shutil.copy(path, target)


def serve(shell, control, output, limits):
    """The life of a worker, in a process that was just forked."""
    os.setsid()
    control, output = system.nice_fd(control), system.nice_fd(output)
    os.closerange(3, 200)
    line.open(control)
    streams.open(output)
    streams.renew()
    system.limit_process(limits)
    system.set_dumpable(True)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, ignore)
    warnings.filterwarnings('ignore', message='To exit: use')
    reseed()
    os.chdir(DATA)
    sys.path.insert(0, '')
    sys.argv = ['']
    line.socket.send(b'R')
    while True:
        try:
            tag, code = line.next_cell()
            is_ok = run(shell, tag, code)
            line.socket.send((b'O' if is_ok else b'E') + tag)
        except OSError:
            os._exit(0)  # code has closed our files


def ignore(number, frame):
    """Not SIG_IGN: programs that code starts would inherit that."""


def run(shell, tag, code):
    """Returns whether the code ended without an exception."""
    streams.renew()
    is_ok = False
    try:
        try:
            line.is_in_cell = True
            signal.signal(signal.SIGINT, signal.default_int_handler)
            line.socket.send(b'S' + tag)
            is_ok = run_cell(shell, code)
        finally:
            leave_fork()
            line.is_in_cell = False
            signal.signal(signal.SIGINT, ignore)
    except KeyboardInterrupt:
        pass  # in the last moment
    except BaseException:  # out of memory, say, while IPython told of it
        line.is_in_cell = False
        print_plainly()
    flush()
    return is_ok


def run_cell(shell, code):
    result = shell.run_cell(code, store_history=True)
    error = result.error_before_exec or result.error_in_exec
    try:
        show_figures()
    except Exception:
        shell.showtraceback()
        return False
    return error is None or is_quiet_exit(error)


def print_plainly():
    try:
        traceback.print_exc()
    except BaseException:
        pass


def leave_fork():
    """Code that forks comes back here twice."""
    if os.getpid() != line.pid:
        flush()
        os._exit(0)


def reseed():
    """Workers that were forked from one zygote would draw the same numbers."""
    random.seed()
    numpy = sys.modules.get('numpy')
    if numpy is not None:
        numpy.random.seed()
