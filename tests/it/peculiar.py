"""An unusual daemon. Its first argument is its mode, the second its config, which it reads at its start and at every SIGHUP.
CONFIG.runs holds the config that it runs, CONFIG.stamp the time of its load in whole seconds.
CONFIG.health is `ok` unless its message is `bad`.

sigwait   it waits for the signal in sigwait
thread    a thread of it does so, and all others block the signal
open      the same, but another thread does not block the signal, which would end it
blocks    it has a handler, and blocks the signal except for short moments
watches   it also reads its config whenever that changes
users R E S   it has these real, effective and saved users
"""

import os
import signal
import sys
import threading
import time
import tomllib

MODE, CONFIG = sys.argv[1:3]
HUP = {signal.SIGHUP}


def put(name, text):
    with open(f"{CONFIG}.{name}.new", "w") as file:
        file.write(f"{text}\n")
    os.rename(f"{CONFIG}.{name}.new", f"{CONFIG}.{name}")


def load(*_):
    with open(CONFIG, "rb") as file:
        message = tomllib.load(file)["message"]
    put("stamp", int(time.time()))
    put("health", "no" if message == "bad" else "ok")
    put("runs", message)


def wait():
    while True:
        signal.sigwait(HUP)
        load()


if MODE in ("sigwait", "thread", "open", "blocks"):
    signal.pthread_sigmask(signal.SIG_BLOCK, HUP)
if MODE not in ("sigwait", "thread", "open"):
    signal.signal(signal.SIGHUP, load)
load()
if MODE == "users":
    os.setresuid(*(int(uid) for uid in sys.argv[3:6]))
if MODE == "sigwait":
    wait()
if MODE in ("thread", "open"):
    threading.Thread(target=wait, daemon=True).start()
if MODE == "open":
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HUP)
if MODE == "open":
    put("ready", "")
seen = os.stat(CONFIG).st_ino
while True:
    time.sleep(0.01 if MODE == "watches" else 0.05)
    if MODE == "blocks" and signal.SIGHUP in signal.sigpending():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HUP)
        signal.pthread_sigmask(signal.SIG_BLOCK, HUP)
    if MODE == "watches" and os.stat(CONFIG).st_ino != seen:
        seen = os.stat(CONFIG).st_ino
        load()
