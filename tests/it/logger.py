"""A daemon that reports its reloads in a log alone. Its arguments are CONFIG and LOG, a file or the socket of journald.

message   what it runs; a message with "bad" in it is refused, and the old one stays
log       what happens at a reload before the line is written: "rename" (the log, and the line goes to a new one), "late" (the same, and the line goes to the old one), "cut" (to its beginning), "burst" (10 MB of other lines) "silent" (no line) or "successor" (a new process takes its place, and no line is written)
file      the log, in place of LOG; a message that is refused is written to the log of before
delay     how long a reload takes, in seconds
"""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
import tomllib

config, path = sys.argv[1:3]
journal = None
if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode):
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journal.connect(path)
held = journal or open(path, "ab", buffering=0)
runs = None


def write(line):
    try:
        if journal:
            journal.send(f"<13>logger[{os.getpid()}]: {line}".encode())
        else:
            held.write(f"{line}\n".encode())
    except OSError:
        pass


def load(first=False):
    global held, runs
    with open(config, "rb") as file:
        new = tomllib.load(file)
    time.sleep(new.get("delay", 0))
    act = new.get("log")
    if act == "successor" and not first:
        new = subprocess.Popen([sys.executable, *sys.argv], stdout=subprocess.PIPE)
        new.stdout.readline()
        os._exit(0)
    if first and act != "successor":
        act = None
    if act in ("rename", "late"):
        os.rename(path, f"{path}.1")
        opened = open(path, "ab", buffering=0)
        if act == "rename":
            held = opened
    if act == "cut":
        os.truncate(path, 0)
    if act == "burst":
        for _ in range(10):
            held.write((b"x" * 1023 + b"\n") * 1024)
    good = "bad" not in new["message"]
    if good:
        runs = new["message"]
        if "file" in new:
            held = open(new["file"], "ab", buffering=0)
    if act not in ("silent", "successor"):
        write(f"pid {os.getpid()}: reloaded {runs}" if good else f"pid {os.getpid()}: reload failed: {new['message']}")
    with open(f"{config}.{os.getpid()}", "w") as file:
        file.write(runs)


def hang_up(*_):
    load()


signal.signal(signal.SIGHUP, hang_up)
load(first=True)
print("ready", flush=True)
while True:
    signal.pause()
