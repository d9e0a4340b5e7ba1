"""A terminal session of root with a key in its keyring: FACTS ARGS. Runs ARGS, and prints the output of the terminal.

The file FACTS gets the session, the serial number of the key, and the terminal. At the end the shell of the session reads a
line, as it would read the next command.
"""
import ctypes
import os
import platform
import pty
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
ADD_KEY, KEYCTL = (217, 219) if platform.machine() == "aarch64" else (248, 250)
JOIN_SESSION, SESSION = 1, -3
SHELL = '"$@"; code=$?; line=; IFS= read -r -t 0.1 line; echo "code:$code typed:$line."'

child, terminal = pty.fork()
if child == 0:
    LIBC.syscall(KEYCTL, JOIN_SESSION, None)
    key = LIBC.syscall(ADD_KEY, b"user", b"attacks", b"a key of root's", 15, SESSION)
    with open(sys.argv[1], "w") as told:
        told.write("%d %d %s" % (os.getsid(0), key, os.ttyname(0)))
    os.execvp("bash", ["bash", "-c", SHELL, "bash"] + sys.argv[2:])
shown = b""
while True:
    try:
        piece = os.read(terminal, 65536)
    except OSError:
        break
    if not piece:
        break
    shown += piece
os.waitpid(child, 0)
sys.stdout.buffer.write(shown)
