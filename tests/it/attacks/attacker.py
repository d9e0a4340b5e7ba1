"""An attacking process: COUNT VERB ARGS. The file COUNT holds the number of times that its attack was in place.

exchange A B [SECONDS]   exchanges two names, and waits for a moment of any length up to this; 0: none
cued DIR MARK A B        exchanges them and back for a moment, once something with MARK in its name stands in DIR
lead DIR MARK A B MOST   the same once for each, a moment of any length up to MOST later, until it is gone
swap DIR MARK FILE       puts a copy of FILE in place of each such name
loot DIR MARK WORD       reads each such name; a file OUT (COUNT.loot) keeps each that has WORD in it
hide DIR MARK A..        gives each of A.. such a name once it is seen, and its own one back a moment later
lock DIR                 holds the lock of DIR with a process that starts the next one and ends, again and again
flocks PATH..            locks whatever of these, and below these, it may open
grasp                    reaches for each new process of its own user that is still a stage of `hello`
"""
import ctypes
import fcntl
import mmap
import os
import random
import shutil
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, EXCHANGE, PTRACE_SEIZE, PTRACE_DETACH, WALL = -100, 2, 0x4206, 17, 0x40000000


class Count:
    def __init__(self, path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(fd, 16)
        # Each number is written at once: another process reads the file.
        self.numbers = (ctypes.c_uint64 * 2).from_buffer(mmap.mmap(fd, 16))

    def add(self, at=0):
        self.numbers[at] += 1


def exchange(a, b):
    return LIBC.renameat2(AT_FDCWD, a.encode(), AT_FDCWD, b.encode(), EXCHANGE) == 0


def pause(most):
    if most:
        time.sleep(random.choice([0, random.uniform(0, most / 20), random.uniform(0, most)]))


def marked(fd, mark):
    return [name for name in os.listdir(fd) if mark in name]


def hold(path):
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def run_exchange(count, a, b, most="0.02"):
    while True:
        if exchange(a, b):
            count.add()
        pause(float(most))


def run_cued(count, where, mark, a, b):
    fd = hold(where)
    while True:
        if not marked(fd, mark):
            time.sleep(0.0003)
            continue
        pause(0.02)
        end = time.monotonic() + random.choice([0, random.uniform(0, 0.05), random.uniform(0, 0.3)])
        while True:
            # A name that was removed in between was not exchanged in time.
            if exchange(a, b):
                if marked(fd, mark):
                    count.add()
                pause(random.choice([0, 0.01]))
                exchange(a, b)
            if time.monotonic() >= end or not marked(fd, mark):
                break
        while marked(fd, mark):
            time.sleep(0.0003)


def run_lead(count, where, mark, a, b, most):
    fd = hold(where)
    while True:
        if not marked(fd, mark):
            time.sleep(0.0003)
            continue
        time.sleep(random.uniform(0, float(most)))
        end = time.monotonic() + 0.2
        if exchange(a, b):
            if marked(fd, mark):
                count.add()
            while marked(fd, mark) and time.monotonic() < end:
                time.sleep(0.001)
            exchange(a, b)
        # A name that stays is redirected again later.
        while marked(fd, mark) and time.monotonic() < end:
            time.sleep(0.001)


def run_swap(count, where, mark, file):
    fd = hold(where)
    copy = os.path.join(where, "copy")
    while True:
        for name in marked(fd, mark):
            shutil.copy(file, copy)
            if exchange(copy, os.path.join(where, name)):
                count.add()
        time.sleep(0.0003)


def run_loot(count, where, mark, word):
    fd = hold(where)
    while True:
        for name in marked(fd, mark):
            count.add()
            try:
                with open(name, "rb", opener=lambda path, flags: os.open(path, flags, dir_fd=fd)) as file:
                    if word.encode() in file.read():
                        count.add(1)
            except OSError:
                pass


def run_hide(count, where, mark, *things):
    fd = hold(where)
    path = lambda name: os.path.join(where, name)
    while True:
        names = marked(fd, mark)
        for name, thing in zip(names, random.sample(things, len(things))):
            if exchange(path(thing), path(name)):
                count.add()
                pause(0.01)
                exchange(path(thing), path(name))
        pause(0.002)


def run_lock(count, where):
    first = os.fork()
    if first:
        # The process that took the lock has ended, and every process is reaped.
        os.waitpid(first, 0)
        time.sleep(1000)
    fd = hold(where)
    fcntl.flock(fd, fcntl.LOCK_EX)
    while True:
        # The child holds the lock of its parent.
        if os.fork():
            os._exit(0)
        count.add()
        if random.random() < 0.1:
            pause(0.01)


def run_flocks(count, *paths):
    held = []
    for path in paths:
        for top, _, files in os.walk(path):
            held += [top] + [os.path.join(top, name) for name in files]
    while True:
        for path in held + list(paths):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            except OSError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                count.add()
                pause(0.01)
            except OSError:
                pass
            os.close(fd)


MARK = b"\0exec-become"


def line_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return None


def is_stage(pid):
    """Return whether it is still a stage of `hello`, and not yet the command."""
    return MARK in (line_of(pid) or b"")


def is_mine(pid):
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return b"\nUid:\t%d\t" % os.getuid() in file.read()
    except OSError:
        return False


def reach(count, pid):
    attempts = [lambda: os.listdir(f"/proc/{pid}/fd")]
    for name in ["cwd", "root", "exe", "environ", "mem", "maps"]:
        attempts.append(lambda name=name: os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY)))
    for attempt in attempts:
        try:
            attempt()
        except OSError:
            continue
        # Otherwise it is the command by now, which belongs to the attacker.
        if is_stage(pid):
            count.add(1)
    if LIBC.ptrace(PTRACE_SEIZE, int(pid), 0, 0) == 0 and is_stage(pid):
        count.add(1)


def let_go():
    """Reap the stops of a traced process: only then its parent learns of its end."""
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG | WALL)
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                LIBC.ptrace(PTRACE_DETACH, pid, 0, os.WSTOPSIG(status))
    except OSError:
        pass


def chase(count, pid):
    """Attack a stage until it is the command."""
    seen, empty = False, 0
    while empty < 300:
        line = line_of(pid)
        if line is None or (line and MARK not in line):
            break
        # It has none during an exec, and after its end.
        empty = 0 if line else empty + 1
        if line and is_mine(pid):
            if not seen:
                count.add()
            seen = True
            reach(count, pid)


def run_grasp(count):
    """Count the stages that were seen as this user, and the attempts that succeeded."""
    done = set()
    while True:
        let_go()
        now = {pid for pid in os.listdir("/proc") if pid.isdigit()}
        done &= now
        for pid in now - done:
            line = line_of(pid)
            if line and MARK in line:
                chase(count, pid)
            # A supervisor may become the next stage.
            if line is None or (line and b"\0exec-supervise" not in line):
                done.add(pid)


if __name__ == "__main__":
    COUNT = Count(sys.argv[1])
    print("begun", flush=True)
    globals()["run_" + sys.argv[2]](COUNT, *sys.argv[3:])
