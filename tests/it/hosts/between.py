"""Stands between a coordinator and the agent of a host, as an ssh does.

Its arguments are FOLDER NAME AGENT... It appends every line to FOLDER/NAME.wire, behind `>` if it
goes to the agent and `<` if it comes from it, and the pid of the agent to FOLDER/NAME.pids.
FOLDER/NAME.rules is a list of rules. Each is used once, for the first line that fits:

way    ">" or "<"
line   an expression that is searched in the line
after  true if the line is passed on first; in an "insert", if it goes before the text
back   true if the host can be reached again after a "cut" or a "stop"; else FOLDER/NAME.down is
       made, and no later connection reaches it until that file is removed
act    "kill" or "int" the coordinator, "cut" both pipes, "stop" to pass anything on, "end" the agent,
       "drop" the line, pass it on "double", "insert" the text of `text`, or run it in a "shell"
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading

FOLDER, NAME, AGENT = sys.argv[1], sys.argv[2], sys.argv[3:]
PATH = os.path.join(FOLDER, NAME)
coordinator = os.getppid()
rules = []
if os.path.exists(PATH + ".rules"):
    with open(PATH + ".rules") as file:
        rules = json.load(file)
signal.signal(signal.SIGINT, signal.SIG_IGN)
if os.path.exists(PATH + ".down"):
    sys.stderr.write("No route to host\n")
    sys.stderr.flush()
    os._exit(255)
agent = subprocess.Popen(AGENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
with open(PATH + ".pids", "a") as file:
    file.write(f"{agent.pid}\n")
wire = open(PATH + ".wire", "ab", buffering=0)
lock = threading.Lock()
stopped = False


def send(to, line):
    try:
        to.write(line)
        to.flush()
    except OSError:
        pass


def close(pipe):
    try:
        pipe.close()
    except OSError:
        pass


def leave(rule):
    """Keeps the rule from the next connection, or the next connection from the host."""
    if rule.get("back"):
        with open(PATH + ".rules", "w") as file:
            json.dump(rules, file)
    else:
        open(PATH + ".down", "w").close()


def act(rule, to, line):
    global stopped
    kind = rule["act"]
    if rule.get("after"):
        send(to, line)
    if kind == "kill":
        os.kill(coordinator, signal.SIGKILL)
    elif kind == "int":
        os.kill(coordinator, signal.SIGINT)
    elif kind == "end":
        if rule.get("back"):
            leave(rule)
        agent.kill()
    elif kind == "cut":
        stopped = True
        leave(rule)
        close(agent.stdin)
        os.close(1)
    elif kind == "stop":
        stopped = True
        leave(rule)
    elif kind == "drop" and rule.get("back"):
        leave(rule)
    elif kind == "insert":
        send(to, rule["text"].encode())
    elif kind == "shell":
        subprocess.run(rule["text"], shell=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    elif kind == "double":
        send(to, line)
    if not rule.get("after") and not stopped and kind not in ("kill", "drop"):
        send(to, line)


def carry(way, source, to):
    for line in source:
        with lock:
            wire.write(way.encode() + line)
            if stopped:
                continue
            text = line.decode(errors="replace")
            fits = [r for r in rules if r["way"] == way and re.search(r["line"], text)]
            if fits:
                rules.remove(fits[0])
                act(fits[0], to, line)
            else:
                send(to, line)


def from_agent():
    carry("<", agent.stdout, sys.stdout.buffer)
    if not stopped:
        os.close(1)


reader = threading.Thread(target=from_agent)
reader.start()
carry(">", sys.stdin.buffer, agent.stdin)
close(agent.stdin)
agent.wait()
reader.join()
os._exit(0)
