"""A command about an instance that attacks root's session: FACTS PORT. Sends its results to PORT, one JSON object per line."""
import ctypes
import errno
import fcntl
import json
import os
import platform
import socket
import sys
import termios

LIBC = ctypes.CDLL(None, use_errno=True)
KEYCTL = 219 if platform.machine() == "aarch64" else 250
SEARCH, READ = 10, 11
PTRACE_SEIZE = 0x4206

with open(sys.argv[1]) as told:
    session, key, terminal = told.read().split()


def attempt(act):
    try:
        act()
        return "yes"
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e.errno))


def type_into(fd):
    for letter in "touch typed-by-alice\n":
        fcntl.ioctl(fd, termios.TIOCSTI, letter.encode())


def type_at(path):
    type_into(os.open(path, os.O_RDWR | os.O_NOCTTY))


def read_key(serial):
    payload = ctypes.create_string_buffer(100)
    length = LIBC.syscall(KEYCTL, READ, serial, payload, 100)
    return payload.raw[:length].decode() if length > 0 else None


def seize(pid):
    if LIBC.ptrace(PTRACE_SEIZE, pid, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "")


found = [read_key(int(key))]
for ring in range(-5, 0):
    serial = LIBC.syscall(KEYCTL, SEARCH, ring, b"user", b"attacks", 0)
    found.append(read_key(serial) if serial > 0 else None)
parent = os.getppid()
notes = {
    "uid": os.getuid(),
    "in_session": os.getsid(0) == int(session),
    "tty": attempt(lambda: type_at("/dev/tty")),
    "terminal": attempt(lambda: type_at(terminal)),
    "descriptors": [attempt(lambda: type_into(fd)) for fd in range(3)],
    "terminals": sum(os.isatty(fd) for fd in range(3)),
    "controls": attempt(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 1)),
    "keys": [found for found in found if found],
    "signals": attempt(lambda: os.kill(parent, 0)),
    "traces": attempt(lambda: seize(parent)),
    "environment": attempt(lambda: open(f"/proc/{parent}/environ", "rb").close()),
    "files": attempt(lambda: os.listdir(f"/proc/{parent}/fd")),
}
with socket.create_connection(("127.0.0.1", int(sys.argv[2]))) as noted:
    noted.sendall(json.dumps(notes).encode() + b"\n")
