"""Holds the terminal and the key; runs no code of strangers.

It speaks protocol v1 with the host (see frames.ts), has the zygote fork workers, ends cells that take too long, and
counts what is put out. The zygote is another program, so that the key is in no memory that a worker inherits.
"""

import base64
import errno
import fcntl
import hashlib
import hmac
import json
import os
import re
import selectors
import signal
import socket
import sys
import termios
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import system  # noqa: E402

GRACE_S = 2
SILENCE_S = 120
CHUNK = 64 * 1024
QUEUE_LIMIT = 512 * 1024
LINE_LIMIT = 64 * 1024 * 1024
# Of all images of a cell together.
IMAGE_BUDGET = 32 * 1024 * 1024
IMAGES_PER_CELL = 64
IMAGE_BEGINNINGS = {'png': b'\x89PNG\r\n\x1a\n', 'jpeg': b'\xff\xd8\xff'}
MEMORY_CHECK_S = 0.25
IDLE_MEMORY_CHECK_S = 1
PROCESS_LIMIT = 32
INTERRUPT = b'\x03'
# Python has the name from 3.10 on.
F_GETPIPE_SZ = 1032
FRAME = re.compile(rb'~([0-9a-f]{32}) (\[(\d{1,15}),.*\])')


class Terminal:
    """The line to the host. Nothing here blocks: what cannot be written waits in a queue."""

    def __init__(self, selector):
        self.selector = selector
        self.key = None
        self.sent = self.received = self.bad = 0
        self.input = bytearray()
        self.queue = bytearray()
        self.is_waiting = False
        self.heard_at = time.monotonic()
        make_raw(0)
        os.set_blocking(0, False)
        os.set_blocking(1, False)
        selector.register(0, selectors.EVENT_READ, self.on_ready)

    @property
    def is_full(self):
        return len(self.queue) > QUEUE_LIMIT

    def hello(self):
        self.queue += b'\n~hello {"protocol":1}\n'
        self.flush()

    def send(self, message):
        self.sent += 1
        body = json.dumps([self.sent, message], separators=(',', ':')).replace('\x7f', '\\u007f').encode()
        self.queue += b'\n~' + self.mac(b'S', body).encode() + b' ' + body + b'\n'
        self.flush()

    def mac(self, direction, body):
        return hmac.new(self.key, direction + body, hashlib.sha256).hexdigest()[:32]

    def on_ready(self, events):
        if events & selectors.EVENT_WRITE:
            self.flush()
        if events & selectors.EVENT_READ:
            self.read()

    def flush(self):
        try:
            while self.queue:
                del self.queue[: os.write(1, self.queue[:CHUNK])]
        except BlockingIOError:
            pass
        except OSError:
            os._exit(0)  # the host is gone
        if self.is_waiting != bool(self.queue):
            self.is_waiting = bool(self.queue)
            if self.queue:
                self.selector.register(1, selectors.EVENT_WRITE, self.on_ready)
            else:
                self.selector.unregister(1)

    def read(self):
        try:
            data = os.read(0, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        if not data:
            os._exit(0)
        first, *rest = data.split(INTERRUPT)
        self.feed(first)
        for data in rest:
            self.on_interrupt()
            self.feed(data)

    def feed(self, data):
        if b'\n' not in data:
            self.input += data
            if len(self.input) > LINE_LIMIT:
                self.input.clear()
            return
        *lines, rest = (bytes(self.input) + data).split(b'\n')
        self.input = bytearray(rest)
        for line in lines:
            if line:
                self.on_line(line)

    def on_line(self, line):
        if self.key is None:
            if re.fullmatch(rb'KEY [0-9a-f]{64}', line):
                self.key = bytes.fromhex(line[4:].decode())
            return
        match = FRAME.fullmatch(line)
        if not match or not hmac.compare_digest(self.mac(b'H', match[2]).encode(), match[1]):
            return self.on_bad_frame()
        if int(match[3]) <= self.received:
            return self.on_bad_frame()
        self.received = int(match[3])
        self.heard_at = time.monotonic()
        self.on_message(json.loads(match[2])[1])

    def on_bad_frame(self):
        self.bad += 1
        self.send({'t': 'badframe', 'count': self.bad})


def make_raw(fd):
    """No echo, no signals, no lines, no translation: bytes only. Pipes are like that already."""
    if not os.isatty(fd):
        return
    attributes = termios.tcgetattr(fd)
    attributes[0] &= ~(
        termios.BRKINT | termios.ICRNL | termios.INLCR | termios.IGNCR | termios.INPCK
        | termios.ISTRIP | termios.IXON | termios.IXOFF | termios.IXANY
    )
    attributes[1] &= ~termios.OPOST
    attributes[2] = (attributes[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    attributes[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    attributes[6][termios.VMIN] = 1
    attributes[6][termios.VTIME] = 0
    termios.tcsetattr(fd, termios.TCSANOW, attributes)


class Cell:
    def __init__(self, message):
        self.id = message['id']
        # What a worker says of a cell has it, so that nothing late is taken for news of the next one.
        self.tag = str(message['id']).encode()
        self.started_at = time.monotonic()
        self.deadline = self.started_at + message['timeoutMs'] / 1000
        self.budget = message['outputBytes']
        self.dropped = 0
        self.images = 0
        self.image_budget = IMAGE_BUDGET
        # Why it was told to stop, and when patience ends.
        self.reason = None
        self.kill_at = None
        self.is_running = False
        self.is_started = False


class Worker:
    """The process in which strangers' code runs. Whatever it says is what a stranger says."""

    def __init__(self, control, output):
        self.control = control
        self.output = output
        self.pid = None
        self.has_said_ready = False
        self.image = bytearray()
        self.image_size = 0
        self.image_number = None
        self.killed = None

    @property
    def is_ready(self):
        return self.has_said_ready and self.pid is not None


class Supervisor:
    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self.terminal = Terminal(self.selector)
        self.terminal.on_message = self.on_message
        self.terminal.on_interrupt = lambda: self.stop_cell('interrupted')
        self.limits = None
        self.watches_memory = False
        self.asks_to_confine = False
        self.zygote = None
        self.worker = None
        self.cell = None
        self.processes = {}
        self.memory_checked_at = 0
        self.memory_excesses = 0
        self.wakeup()
        self.start_zygote()

    def wakeup(self):
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        self.selector.register(reader, selectors.EVENT_READ, lambda _: self.on_child(reader))

    def run(self):
        self.terminal.hello()
        while True:
            for key, events in self.selector.select(self.patience()):
                # What came before in this round may have closed it.
                if self.selector.get_map().get(key.fd) is key:
                    key.data(events)
            self.look_at_clock()
            self.choose_outputs()

    # --- time -----------------------------------------------------------------------------------------------------

    def patience(self):
        now = time.monotonic()
        ends = [self.terminal.heard_at + SILENCE_S]
        cell = self.cell
        if cell:
            ends.append(cell.deadline if cell.reason is None else cell.kill_at or now + GRACE_S)
        if self.watches_memory:
            ends.append(self.next_memory_check())
        ends += [process.deadline for process in self.processes.values() if process.deadline]
        return max(0, min(ends) - now)

    def look_at_clock(self):
        now = time.monotonic()
        if now > self.terminal.heard_at + SILENCE_S:
            os._exit(0)  # nobody is there any more
        cell = self.cell
        if cell and cell.reason is None and now >= cell.deadline:
            self.stop_cell('timeout')
        if cell and cell.kill_at and now >= cell.kill_at:
            self.kill_worker(cell.reason)
        # What a cell has left running may go on taking memory.
        if self.watches_memory and now >= self.next_memory_check():
            self.memory_checked_at = now
            self.check_memory()
        for process in list(self.processes.values()):
            if process.deadline and now >= process.deadline:
                process.end(timed_out=True)

    def check_memory(self):
        if memory_used(os.getpid()) <= self.limits['memoryBytes']:
            self.memory_excesses = 0
            return
        self.kill_worker('memory')
        self.memory_excesses += 1
        # Then it was not the worker's: it has had the time to go.
        if self.memory_excesses > 3:
            for process in list(self.processes.values()):
                process.end()

    def next_memory_check(self):
        return self.memory_checked_at + (MEMORY_CHECK_S if self.cell else IDLE_MEMORY_CHECK_S)

    def stop_cell(self, reason):
        cell = self.cell
        if not cell or cell.reason:
            return
        cell.reason = reason
        cell.kill_at = time.monotonic() + GRACE_S
        if cell.is_started:
            kill(-self.worker.pid, signal.SIGINT)

    def kill_worker(self, why):
        """Everything of the worker's goes, what has left its session too. Its end is then told by the zygote."""
        if self.cell:
            self.cell.kill_at = None
        if self.worker and not self.worker.killed:
            self.worker.killed = why
            self.kill_all()

    def kill_all(self):
        keep = {1, os.getpid(), self.zygote.pid}
        groups = {process.pid for process in self.processes.values()}
        # Stopped processes hold their places, so that bombs cannot fork on while they are being killed.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            done = set()
            for _ in range(20):
                found = {
                    pid for pid, state, group in all_processes()
                    if pid not in keep and group not in groups and state not in 'ZX'
                } - done
                if not found:
                    break
                for pid in found:
                    kill(pid, number)
                done |= found

    # --- messages of the host -------------------------------------------------------------------------------------

    def on_message(self, message):
        kind = message['t']
        if kind == 'ping':
            self.terminal.send({'t': 'pong', 'n': message['n']})
        elif kind == 'exec':
            self.on_exec(message)
        elif kind == 'start':
            self.limits = message['limits']
            self.watches_memory = message['watchMemory']
            self.asks_to_confine = message['confine']
            self.confine(self.zygote.pid)
            self.start_worker()
        elif kind == 'confined':
            self.on_confined(message['pid'])
        elif kind == 'spawn':
            self.on_spawn(message)
        elif kind == 'shutdown':
            os._exit(0)
        elif message.get('id') in self.processes:
            self.processes[message['id']].on_message(message)

    def confine(self, pid):
        """The host puts what runs strangers' code into a group with bounds, where this process is not."""
        if self.asks_to_confine:
            self.terminal.send({'t': 'confine', 'pid': pid})
        else:
            self.on_confined(pid)

    def on_confined(self, pid):
        if pid == self.zygote.pid:
            self.zygote.on_confined()
        for process in self.processes.values():
            if process.pid == pid:
                process.on_confined()

    def on_exec(self, message):
        self.cell = Cell(message)
        self.code = base64.b64decode(message['code'])
        if self.worker and self.worker.is_ready:
            self.begin_cell()

    def begin_cell(self):
        worker = self.worker
        if self.cell.reason:
            return self.end_cell(status='stopped')
        drain(worker.output)
        fd = os.memfd_create('cell')
        try:
            with open(fd, 'wb', closefd=False) as file:
                file.write(self.code)
            os.lseek(fd, 0, os.SEEK_SET)
            socket.send_fds(worker.control, [b'X' + self.cell.tag], [fd])
        except OSError:
            pass  # it has just died: the zygote will say so
        finally:
            os.close(fd)
            self.code = None
        self.cell.is_running = True

    def on_spawn(self, message):
        try:
            if len(self.processes) >= PROCESS_LIMIT:
                raise OSError(errno.EAGAIN, f'more than {PROCESS_LIMIT} processes at once')
            process = Process(self, message)
        except (OSError, ValueError) as error:
            self.terminal.send({'t': 'pfailed', 'id': message['id'], 'error': str(error)})
            return
        self.processes[message['id']] = process
        self.confine(process.pid)

    # --- zygote and worker ----------------------------------------------------------------------------------------

    def start_zygote(self):
        self.zygote = Zygote(self)

    def on_zygote(self, message):
        if message['t'] == 'exit' and self.worker and message['pid'] == self.worker.pid:
            self.on_worker_exit(message['status'])
        elif message['t'] == 'forked' and self.worker and self.worker.pid is None:
            self.worker.pid = message['pid']
            self.begin_if_ready()

    def on_zygote_end(self, said):
        """Strangers' code can kill it, and a root without Python's packages cannot start it."""
        if not self.zygote.was_ready:
            self.terminal.send({'t': 'fatal', 'error': said})
            self.terminal.flush()
            os._exit(1)
        self.kill_all()
        self.start_zygote()
        self.confine(self.zygote.pid)
        if self.worker:
            self.on_worker_exit(signal.SIGKILL)

    def start_worker(self):
        ours, theirs = system.packet_pair()
        output, writer = os.pipe2(os.O_CLOEXEC)
        self.worker = Worker(ours, output)
        os.set_blocking(output, False)
        ours.setblocking(False)
        self.zygote.fork(theirs.fileno(), writer, self.limits)
        theirs.close()
        os.close(writer)
        self.selector.register(ours, selectors.EVENT_READ, lambda _: self.on_worker())

    def choose_outputs(self):
        """Where the host does not keep up, the worker waits: nothing is lost, and nothing piles up here."""
        listens = not self.terminal.is_full
        worker = self.worker
        if worker and worker.pid:
            self.listen(worker.output, listens, lambda _: self.on_output())
        for process in self.processes.values():
            process.listen(listens)

    def listen(self, fd, wanted, callback):
        is_registered = fd in self.selector.get_map()
        if wanted and not is_registered:
            self.selector.register(fd, selectors.EVENT_READ, callback)
        elif not wanted and is_registered:
            self.selector.unregister(fd)

    def on_output(self, most=CHUNK):
        try:
            data = os.read(self.worker.output, most)
        except BlockingIOError:
            return 0
        if self.cell and self.cell.is_running:
            self.put_out(data)
        if not data:  # every writer has closed it; the worker itself would have ended
            self.listen(self.worker.output, False, None)
        return len(data)

    def put_out(self, data):
        cell = self.cell
        kept = data[: cell.budget]
        cell.budget -= len(kept)
        cell.dropped += len(data) - len(kept)
        if kept:
            self.terminal.send({'t': 'out', 'id': cell.id, 'd': base64.b64encode(kept).decode()})

    def drain_output(self):
        """What the worker wrote before its last message is in the pipe by now; no more than a pipe holds is read."""
        left = fcntl.fcntl(self.worker.output, F_GETPIPE_SZ)
        while left > 0:
            size = self.on_output(min(left, CHUNK))
            if not size:
                return
            left -= size

    def on_worker(self):
        worker = self.worker
        try:
            data = worker.control.recv(CHUNK * 2)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        if not data:
            self.selector.unregister(worker.control)
            # Its end is told by the zygote. Where it has only closed the line, in a cell the clock ends it.
            if not self.cell:
                self.kill_worker('closed')
            return
        kind, body = data[:1], data[1:]
        if kind == b'R' and not worker.has_said_ready:
            worker.has_said_ready = True
            self.begin_if_ready()
        elif kind == b'I':
            self.on_image(body)
        elif not self.cell or not self.cell.is_running or body != self.cell.tag:
            return
        elif kind == b'S':
            # Only now does it listen to interrupts: one that came before would have been lost.
            self.cell.is_started = True
            if self.cell.reason:
                kill(-worker.pid, signal.SIGINT)
        elif kind in (b'O', b'E'):
            self.drain_output()
            self.end_cell(status='ok' if kind == b'O' else 'error')

    def begin_if_ready(self):
        """The worker says that it is there, and the zygote which process it is, in either order."""
        if not self.worker.is_ready:
            return
        self.terminal.send({'t': 'ready'})
        if self.cell and not self.cell.is_running:
            self.begin_cell()

    def on_image(self, body):
        """number (4 bytes), format (1), whether it is the last piece (1), data"""
        worker, cell = self.worker, self.cell
        if len(body) < 6:
            return
        number, image_format, is_last, data = body[:4], body[4:5], body[5:6], body[6:]
        if number != worker.image_number:
            worker.image_number = number
            worker.image = bytearray()
            worker.image_size = 0
        worker.image_size += len(data)
        if cell and worker.image_size <= cell.image_budget:
            worker.image += data
        if is_last != b'1':
            return
        image, worker.image, worker.image_number = worker.image, bytearray(), None
        if cell and cell.is_running:
            self.drain_output()
            name = 'jpeg' if image_format == b'j' else 'png'
            is_whole = len(image) == worker.image_size
            if is_whole and cell.images < IMAGES_PER_CELL and image.startswith(IMAGE_BEGINNINGS[name]):
                cell.images += 1
                cell.image_budget -= len(image)
                self.send_image(cell, name, image)
            else:
                cell.dropped += worker.image_size
        try:
            worker.control.send(b'A' + number)
        except OSError:
            pass

    def send_image(self, cell, image_format, image):
        for start in range(0, len(image), CHUNK):
            piece = base64.b64encode(image[start : start + CHUNK]).decode()
            is_last = start + CHUNK >= len(image)
            self.terminal.send({'t': 'image', 'id': cell.id, 'f': image_format, 'd': piece, 'last': is_last})

    def end_cell(self, kind='done', **more):
        cell, self.cell = self.cell, None
        milliseconds = (time.monotonic() - cell.started_at) * 1000
        self.terminal.send({
            't': kind, 'id': cell.id, 'reason': cell.reason,
            'dropped': cell.dropped, 'ms': round(milliseconds, 3), **more,
        })

    def on_worker_exit(self, status):
        worker = self.worker
        if self.cell and self.cell.is_running:
            self.drain_output()
        self.listen(worker.output, False, None)
        self.listen(worker.control, False, None)
        os.close(worker.output)
        worker.control.close()
        self.worker = None
        self.kill_all()
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        if self.cell and (self.cell.is_running or self.cell.reason):
            self.end_cell('died', signal=number, code=code, killed=worker.killed)
        else:
            self.terminal.send({'t': 'lost', 'signal': number, 'code': code, 'killed': worker.killed})
        self.start_worker()

    def on_child(self, reader):
        try:
            os.read(reader, 4096)
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for process in list(self.processes.values()):
                if process.pid == pid:
                    process.on_exit(status)


class Zygote:
    def __init__(self, supervisor):
        self.supervisor = supervisor
        self.was_ready = False
        self.is_confined = False
        self.said = b''
        self.waiting = []
        self.socket, theirs = system.packet_pair()
        self.errors, writer = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            self.become(theirs, writer)
        theirs.close()
        os.close(writer)
        os.set_blocking(self.errors, False)
        self.socket.setblocking(False)
        supervisor.selector.register(self.socket, selectors.EVENT_READ, self.on_ready)
        supervisor.selector.register(self.errors, selectors.EVENT_READ, self.on_said)

    def become(self, control, errors):
        try:
            os.setsid()
            null = os.open('/dev/null', os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(errors, 1)
            os.dup2(errors, 2)
            os.dup2(control.fileno(), 3) if control.fileno() != 3 else os.set_inheritable(3, True)
            os.closerange(4, 1024)
            signal.set_wakeup_fd(-1)
            system.default_signals()
            program = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'zygote.py')
            os.execv(sys.executable, [sys.executable, '-s', '-B', '-u', program])
        finally:
            os._exit(127)

    def fork(self, control, output, limits):
        self.waiting.append((json.dumps(limits).encode(), os.dup(control), os.dup(output)))
        self.send_waiting()

    def on_confined(self):
        self.is_confined = True
        self.send_waiting()

    def send_waiting(self):
        while self.waiting and self.was_ready and self.is_confined:
            message, *fds = self.waiting.pop()
            try:
                socket.send_fds(self.socket, [message], fds)
            except OSError:
                pass  # it is dead: the end of its socket says so
            for fd in fds:
                os.close(fd)

    def on_ready(self, _):
        try:
            data = self.socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        if not data:
            return self.on_end()
        message = json.loads(data)
        if message['t'] == 'ready':
            self.was_ready = True
            self.send_waiting()
        self.supervisor.on_zygote(message)

    def on_said(self, _):
        try:
            data = os.read(self.errors, CHUNK)
        except BlockingIOError:
            return
        if not data:
            self.supervisor.listen(self.errors, False, None)
        self.said = (self.said + data)[-4096:]

    def on_end(self):
        self.on_said(None)
        for thing in (self.socket, self.errors):
            self.supervisor.listen(thing, False, None)
        self.socket.close()
        os.close(self.errors)
        kill(self.pid, signal.SIGKILL)
        self.supervisor.on_zygote_end(self.said.decode('utf-8', 'replace'))


class Process:
    """A program that the host started beside the interpreter. Its output goes out as far as the host has asked for."""

    def __init__(self, supervisor, message):
        self.supervisor = supervisor
        self.id = message['id']
        self.is_over = False
        self.timed_out = False
        self.credit = {1: 0, 2: 0}
        self.pending = b''
        timeout = message.get('timeoutMs')
        self.deadline = time.monotonic() + timeout / 1000 if timeout else None
        inputs, outputs, errors, failure, gate = (os.pipe2(os.O_CLOEXEC) for _ in range(5))
        self.stdin = inputs[1]
        self.streams = {1: outputs[0], 2: errors[0]}
        self.failure = failure[0]
        self.gate = gate[1]
        self.has_started = False
        self.pid = os.fork()
        if self.pid == 0:
            os.close(gate[1])
            self.become(message, inputs[0], outputs[1], errors[1], failure[1], gate[0])
        for fd in (inputs[0], outputs[1], errors[1], failure[1], gate[0]):
            os.close(fd)
        for fd in (self.stdin, *self.streams.values()):
            os.set_blocking(fd, False)
        supervisor.selector.register(self.failure, selectors.EVENT_READ, self.on_failure)

    def on_confined(self):
        if self.gate is not None:
            os.close(self.gate)
            self.gate = None

    def on_failure(self, _):
        """Its pipe is closed by a program that has started."""
        reason = os.read(self.failure, 4096).decode('utf-8', 'replace')
        self.supervisor.listen(self.failure, False, None)
        os.close(self.failure)
        self.has_started = True
        if reason:
            self.say('failed', error=reason)
        else:
            self.say('started')

    def become(self, message, stdin, stdout, stderr, failure, gate):
        try:
            os.setsid()
            os.read(gate, 1)  # until it is where it belongs
            signal.set_wakeup_fd(-1)
            system.default_signals()
            os.dup2(stdin, 0)
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            os.chdir(message.get('workdir') or '/mnt/data')
            system.limit_process(self.supervisor.limits)
            os.execvpe(message['argv'][0], message['argv'], {**os.environ, **message.get('env', {})})
        except BaseException as error:
            os.write(failure, str(error).encode())
        finally:
            os._exit(127)

    def on_message(self, message):
        kind = message['t']
        if kind == 'credit':
            self.credit[message['s']] += message['bytes']
        elif kind == 'kill':
            self.end()
        elif kind == 'stdin' and self.stdin is not None:
            self.pending += base64.b64decode(message['d'])
            self.write()
        elif kind == 'stdin':
            self.say('stdin', error='the program has closed its input')
        elif kind == 'eof' and self.stdin is not None:
            self.close_stdin()

    def end(self, timed_out=False):
        self.deadline = None
        self.timed_out = timed_out
        if not self.is_over:
            kill(-self.pid, signal.SIGKILL)

    def write(self, _=None):
        try:
            while self.pending:
                self.pending = self.pending[os.write(self.stdin, self.pending) :]
        except BlockingIOError:
            if self.stdin not in self.supervisor.selector.get_map():
                self.supervisor.selector.register(self.stdin, selectors.EVENT_WRITE, self.write)
            return
        except OSError:
            self.pending = b''
            self.close_stdin()
            return self.say('stdin', error='the program has closed its input')
        self.supervisor.listen(self.stdin, False, None)
        self.say('stdin')

    def close_stdin(self):
        self.supervisor.listen(self.stdin, False, None)
        os.close(self.stdin)
        self.stdin = None

    def listen(self, wanted):
        for number, fd in self.streams.items():
            if fd is not None:
                is_wanted = wanted and self.has_started and self.credit[number] > 0
                self.supervisor.listen(fd, is_wanted, lambda _, number=number: self.on_output(number))

    def on_output(self, number):
        fd = self.streams[number]
        try:
            data = os.read(fd, min(CHUNK, self.credit[number]))
        except BlockingIOError:
            return
        if not data:
            self.supervisor.listen(fd, False, None)
            os.close(fd)
            self.streams[number] = None
            self.say('end', s=number)
            return self.forget()
        self.credit[number] -= len(data)
        self.say('data', s=number, d=base64.b64encode(data).decode())

    def on_exit(self, status):
        self.is_over = True
        self.deadline = None
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        self.say('exit', code=code, signal=number, timedOut=self.timed_out)
        self.forget()

    def forget(self):
        if self.is_over and not any(fd is not None for fd in self.streams.values()):
            if self.stdin is not None:
                self.close_stdin()
            self.supervisor.processes.pop(self.id, None)

    def say(self, kind, **more):
        self.supervisor.terminal.send({'t': 'p' + kind, 'id': self.id, **more})


def kill(pid, number):
    try:
        os.kill(pid, number)
    except OSError:
        pass  # it has ended


def drain(fd):
    """Throws away what came between two cells."""
    try:
        for _ in range(64):
            if not os.read(fd, CHUNK):
                return
    except BlockingIOError:
        pass


def all_processes():
    """(pid, state, process group) of all that this namespace shows."""
    for name in os.listdir('/proc'):
        if name.isdigit():
            try:
                with open(f'/proc/{name}/stat', 'rb') as file:
                    fields = file.read().rpartition(b')')[2].split()
            except OSError:
                continue
            yield int(name), fields[0].decode(), int(fields[2])


def memory_used(supervisor):
    """Bytes of all processes but init and this one; what several share counts once."""
    total = 0
    for pid, state, _ in all_processes():
        if pid not in (1, supervisor) and state not in 'ZX':
            total += memory_of(pid)
    return total


def memory_of(pid):
    try:
        with open(f'/proc/{pid}/smaps_rollup', 'rb') as file:
            return sum(
                int(line.split()[1]) * 1024
                for line in file
                if line.startswith((b'Pss_Anon:', b'Pss_Shmem:'))
            )
    except OSError:
        pass  # the zygote lets nobody look, and what it has is counted with the workers that share it
    return 0


if __name__ == '__main__':
    system.set_dumpable(False)
    os.closerange(3, 1024)
    Supervisor().run()
