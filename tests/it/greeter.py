"""A mail server for the tests, as far as its greeting. Its argument is CONFIG, read again at every SIGHUP. It starts a child, `sleep`, and replaces it at a reload.

message   the text behind 220 in the greeting; a message with "stay" in it keeps the child
"""

import os
import signal
import socket
import subprocess
import sys
import tomllib

config = sys.argv[1]
message, left, child = None, 1000, None


def load(*_):
    global message, left, child
    with open(config, "rb") as file:
        message = tomllib.load(file)["message"]
    left -= 1
    with open(f"{config}.left.new", "w") as file:
        file.write(f"reloads left: {left} of 1000\n")
    os.rename(f"{config}.left.new", f"{config}.left")
    if child and "stay" in message:
        return
    if child:
        child.kill()
        child.wait()
    child = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def end(*_):
    child.kill()
    child.wait()
    sys.exit()


signal.signal(signal.SIGHUP, load)
signal.signal(signal.SIGTERM, end)
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(64)
load()
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    try:
        connection.sendall(f"220 {message}\r\n".encode())
    except OSError:
        pass
    connection.close()
