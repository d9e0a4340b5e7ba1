"""Stands between a coordinator and the agent of a host, as an ssh does.

Its arguments are FOLDER NAME AGENT... Below, PATH is FOLDER/NAME. It appends

PATH.wire   every line, behind `>` if it goes to the agent and `<` if it comes from it
PATH.pids   the pid of each agent that it starts
PATH.acts   each rule that it has used, before it acts

PATH.down makes it a link that is down: no connection is made while the file is there. The file is
an object; `refuse` is the number of connections that fail before the file goes away, `until` the
end of it on the clock since boot.

PATH.rules is a list of rules. The first one that fits a line is used for it:

way         ">" or "<"
line        an expression that is searched in the line; every line fits without it
nth         the number of the line among those that fit, from 1; 1 without it
connection  the number of the connection to this host, from 1; any without it
back        true if one connection alone uses it, and the next ones pass everything on; else each
            connection uses it once, and a "cut" or a "stop" leaves the link down
after       true if the line is passed on first; in an "insert", if it goes before the text
lost        true if the line is not passed on
down        the content of PATH.down, written before the act

act    "kill" or "int" the coordinator, or "pause" it for `seconds`
       "end" every agent of the host, after `text` in a shell; "freeze" them for `seconds`
       "cut" both pipes; with `open` seconds the agent learns of it after that time alone
       "stop" to pass anything on
       "drop" the line, "double" it, "garble" it, "hold" it for `seconds`, "swap" it with the next,
       send `bytes` in its stead ("long"), or the line with `old` replaced by `new` ("replace")
       "insert" the text of `text`, or run it in a "shell"
"""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

FOLDER, NAME, AGENT = sys.argv[1], sys.argv[2], sys.argv[3:]
PATH = os.path.join(FOLDER, NAME)
# The longest wait of a "swap" for the next line.
NEXT_LINE = 0.3
coordinator = os.getppid()


def clock():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read(name, otherwise):
    try:
        with open(PATH + name) as file:
            return json.load(file)
    except (FileNotFoundError, ValueError):
        return otherwise


def replace(name, value):
    with open(f"{PATH}{name}.{os.getpid()}", "w") as file:
        json.dump(value, file)
    os.rename(file.name, PATH + name)


class Locked:
    """Excludes the other connections to this host."""

    def __enter__(self):
        self.file = open(PATH + ".lock", "w")
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_):
        self.file.close()


def is_down():
    down = read(".down", None)
    if down is None and not os.path.exists(PATH + ".down"):
        return False
    down = down or {}
    if "refuse" in down:
        down["refuse"] -= 1
        if down["refuse"] < 1:
            os.remove(PATH + ".down")
        else:
            replace(".down", down)
    elif "until" in down and clock() >= down["until"]:
        os.remove(PATH + ".down")
        return False
    return True


with Locked():
    if is_down():
        print(f"ssh: connect to host {NAME} port 22: No route to host", file=sys.stderr)
        sys.exit(255)
    connection = read(".count", 0) + 1
    replace(".count", connection)
rules = [r for r in read(".rules", []) if r.get("connection", connection) == connection]
signal.signal(signal.SIGINT, signal.SIG_IGN)
agent = subprocess.Popen(AGENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
with open(PATH + ".pids", "a") as file:
    file.write(f"{agent.pid}\n")
wire = open(PATH + ".wire", "ab", buffering=0)
lock = threading.Lock()
stopped = False


def agents():
    """Returns the pids of all agents of this host: also of one from an earlier connection."""
    state = AGENT[AGENT.index("--state") + 1]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                words = file.read().split("\0")
        except OSError:
            continue
        is_between = os.path.basename(words[0]).startswith("python")
        if "agent" in words and state in words and not is_between:
            yield int(pid)


def tell(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def later(seconds, pids):
    """Continues processes after a time, even if this one has ended."""
    pids = " ".join(map(str, pids))
    script = f"sleep {seconds}; kill -CONT {pids}"
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.Popen(["sh", "-c", script], start_new_session=True, **quiet)


def send(to, line):
    try:
        to.write(line)
        to.flush()
    except (OSError, ValueError):
        pass


def close(pipe):
    try:
        pipe.close()
    except OSError:
        pass


def end_output():
    try:
        os.close(1)
    except OSError:
        pass


def cut(rule):
    global stopped
    stopped = True
    if rule.get("open"):
        pipes = (agent.stdin.fileno(), agent.stdout.fileno())
        words = ["sleep", str(rule["open"])]
        subprocess.Popen(
            words, pass_fds=pipes, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    close(agent.stdin)
    end_output()


def is_used(rule):
    """Returns true if an earlier connection has used the rule. Else it is used from now on."""
    with Locked():
        text = json.dumps(rule)
        used = read(".used", [])
        if rule.get("back") and text in used:
            return True
        replace(".used", used + [text])
        with open(PATH + ".acts", "a") as file:
            file.write(json.dumps({"rule": rule, "connection": connection}) + "\n")
        is_for_good = rule["act"] in ("cut", "stop") and not rule.get("back")
        if is_for_good or "down" in rule:
            down = dict(rule.get("down", {}))
            if "seconds" in down:
                down["until"] = clock() + down["seconds"]
            replace(".down", down)
    return False


def run_shell(text):
    subprocess.run(text, shell=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def changed(rule, line):
    """Returns what is sent in place of a line."""
    kind = rule["act"]
    if kind == "drop":
        return b""
    if kind == "garble":
        return b"}" + line[::-1].replace(b"\n", b"") + b"\n"
    if kind == "long":
        return b"x" * rule["bytes"] + b"\n"
    if kind == "replace":
        return re.sub(rule["old"], rule["new"], line.decode()).encode()
    return line


def act(rule, to, line):
    global stopped
    kind = rule["act"]
    # The coordinator must have no time to hear what comes of the line.
    kills_first = kind == "kill" and rule["way"] == ">"
    if rule.get("after") and not kills_first:
        send(to, line)
    if kind == "kill":
        tell(coordinator, signal.SIGKILL)
        if rule.get("after") and kills_first:
            send(to, line)
    elif kind == "int":
        tell(coordinator, signal.SIGINT)
    elif kind == "pause":
        tell(coordinator, signal.SIGSTOP)
        later(rule["seconds"], [coordinator])
    elif kind == "end":
        run_shell(rule.get("text", "true"))
        for pid in list(agents()):
            tell(pid, signal.SIGKILL)
        agent.wait()
    elif kind == "freeze":
        pids = list(agents())
        for pid in pids:
            tell(pid, signal.SIGSTOP)
        later(rule["seconds"], pids)
    elif kind == "cut":
        cut(rule)
    elif kind == "stop":
        stopped = True
    elif kind == "insert":
        send(to, rule["text"].encode())
    elif kind == "shell":
        run_shell(rule["text"])
    elif kind == "double":
        send(to, line)
    elif kind == "hold":
        time.sleep(rule["seconds"])
    is_over = rule.get("after") or rule.get("lost") or stopped or kind == "kill"
    if not is_over:
        send(to, changed(rule, line))


def fitting(way, text):
    """Returns the rule for a line, and counts the line for all rules that it fits."""
    found = None
    for rule in list(rules):
        if rule["way"] != way or not re.search(rule.get("line", ""), text):
            continue
        rule["seen"] = rule.get("seen", 0) + 1
        if rule["seen"] == rule.get("nth", 1) and found is None:
            found = rule
            rules.remove(rule)
    if found is not None:
        found = {key: value for key, value in found.items() if key != "seen"}
        found = None if is_used(found) else found
    return found


class Swapped:
    """A line that waits for the next one, and goes behind it."""

    def __init__(self, to, line):
        self.to, self.line = to, line
        self.lock = threading.Lock()
        self.timer = threading.Timer(NEXT_LINE, self.release)
        self.timer.start()

    def release(self):
        with self.lock:
            line, self.line = self.line, b""
            send(self.to, line)


def carry(way, source, to):
    swapped = None
    for line in source:
        with lock:
            wire.write(way.encode() + line)
            if stopped:
                continue
            rule = fitting(way, line.decode(errors="replace"))
        if rule and rule["act"] == "swap":
            swapped = Swapped(to, line)
            continue
        if rule:
            act(rule, to, line)
        else:
            send(to, line)
        if swapped:
            swapped.release()
            swapped = None


def from_agent():
    carry("<", agent.stdout, sys.stdout.buffer)
    if not stopped:
        end_output()


reader = threading.Thread(target=from_agent)
reader.start()
carry(">", sys.stdin.buffer, agent.stdin)
close(agent.stdin)
agent.wait()
reader.join()
os._exit(0)
