"""A daemon that reloads when a client asks it over CONFIG.sock, and its client. A signal would end the daemon.
CONFIG.runs holds the message that it runs, CONFIG.loads how often it has loaded. CONFIG.asks has a line for each client.
It refuses the message `bad`, and ends on `die`.

serve CONFIG            the daemon
ask CONFIG [MODE [X]]   the client: prints the answer, and ends with 1 where that is no
  lies      ends with 0 and asks nothing
  hangs     never ends where CONFIG has the message `two`, and has a child in CONFIG.child
  kills     kills the daemon X, and ends with 0
  leaves    leaves a child behind that holds its output open, in CONFIG.child
  prints    prints 10 MB before the answer
  notes     first copies the file X to CONFIG.noted
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tomllib

ROLE, CONFIG = sys.argv[1:3]
MODE = sys.argv[3] if len(sys.argv) > 3 else ""
SOCKET = f"{CONFIG}.sock"


def put(name, text):
    with open(f"{CONFIG}.{name}.new", "w") as file:
        file.write(f"{text}\n")
    os.rename(f"{CONFIG}.{name}.new", f"{CONFIG}.{name}")


def message():
    with open(CONFIG, "rb") as file:
        return tomllib.load(file)["message"]


def serve():
    loads = 0
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(SOCKET)
        listener.listen()
        while True:
            new = message()
            if new == "die":
                sys.exit(3)
            if new != "bad":
                loads += 1
                put("loads", loads)
                put("runs", new)
            if loads > 1 or new == "bad":
                client.sendall(b"no: a bad message" if new == "bad" else b"ok")
                client.close()
            client, _ = listener.accept()


def child():
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    put("child", child.pid)


def ask():
    with open(f"{CONFIG}.asks", "a") as file:
        file.write(f"{MODE}\n")
    if MODE == "lies":
        return 0
    if MODE == "hangs" and message() == "two":
        child()
        signal.pause()
    if MODE == "kills":
        os.kill(int(sys.argv[4]), signal.SIGKILL)
        return 0
    if MODE == "leaves":
        child()
    if MODE == "prints":
        print(("x" * 99 + "\n") * 100_000, end="")
    if MODE == "notes":
        shutil.copyfile(sys.argv[4], f"{CONFIG}.noted")
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(SOCKET)
        answer = server.recv(100).decode()
    if not answer:
        print("the daemon has gone", file=sys.stderr)
        return 1
    print(f"it answers:\n{answer}")
    return 0 if answer == "ok" else 1


sys.exit(serve() if ROLE == "serve" else ask())
