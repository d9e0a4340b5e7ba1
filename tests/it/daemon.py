"""A daemon for the tests. Its config, read again at every SIGHUP, sets its behaviour. Its arguments are CONFIG and further ones.

message   its answer, unless `answers` is set
listen    "HOST:PORT" or "unix:PATH", or a list of these; opened anew where it has changed, or always with `rebind`
tls       a PEM file with certificate and key; with `clients`, a PEM file, only clients with such a certificate
asks      the required value of `Authorization`; without it the answer is 401
page      its answer at /page with `status` (200)
slow      the delay of each answer, in seconds
many      the number of lines before the metrics at /metrics
workers   the number of children that accept instead of it; with `alone` only they have the sockets
old, new  old workers at a reload "end" (default), "drain" or "stay"; new ones "live" (default) or "die"
leaves    at a reload, an orphan keeps its socket and gives this answer
ends      the same after its own end
"""

import os
import select
import signal
import socket
import ssl
import sys
import time
import tomllib

CONFIG = sys.argv[1]
reloads, hung, told = 0, False, None


def read():
    with open(CONFIG, "rb") as file:
        return tomllib.load(file)


def bind(where):
    if where.startswith("unix:"):
        if os.path.exists(where[5:]):
            os.unlink(where[5:])
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(where[5:])
    else:
        host, port = where.rsplit(":", 1)
        host = host.strip("[]")
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if where.endswith(" only"):
            port = port.removesuffix(" only")
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, int(port)))
    listener.listen(64)
    listener.setblocking(False)
    return listener


def bind_all(config):
    listen = config["listen"]
    return [bind(where) for where in ([listen] if isinstance(listen, str) else listen)]


def answer(connection, config, body):
    connection.settimeout(5)
    if "tls" in config:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(config["tls"])
        if "clients" in config:
            context.load_verify_locations(config["clients"])
            context.verify_mode = ssl.CERT_REQUIRED
        connection = context.wrap_socket(connection, server_side=True)
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        piece = connection.recv(4096)
        if not piece:
            return
        request += piece
    path = request.split(b" ")[1].decode()
    if path == "/json":
        body = '{"loaded": %f, "reloads": %d}' % (loaded, reloads)
    if path == "/metrics":
        body = 'loaded{of="config"} %.16e\nreloads_total %d\n' % (loaded, reloads)
        body = "filler_seconds_total{of=\"x\"} 1\n" * int(config.get("many", 0)) + body
    if path == "/host":
        body = request.lower().split(b"host: ")[1].split(b"\r\n")[0].decode()
    status, more = 200, ""
    if path == "/page":
        status, body = config.get("status", 200), config.get("page", body)
    if path == "/missing":
        status, body = 404, "no such page"
    if path == "/moved":
        status, body, more = 302, "elsewhere", "Location: http://ops:geheim@elsewhere.test/x\r\n"
    if "asks" in config and f"authorization: {config['asks']}\r\n".lower() not in request.decode().lower():
        status, body, more = 401, "credentials are missing", "WWW-Authenticate: Basic realm=here\r\n"
    time.sleep(float(config.get("slow", 0)))
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nX-Message: {body.strip()[:20].splitlines()[0] if body.strip() else ''}\r\n{more}Connection: close\r\n\r\n"
    connection.sendall((head + body).encode())
    connection.close()


def serve(listeners, config, body, goes_on):
    while goes_on():
        try:
            for listener in select.select(listeners, [], [], 0.02)[0]:
                answer(listener.accept()[0], config, body)
        # Another worker took it, the client disconnected, or the worker drains.
        except OSError:
            pass


def fork(run):
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            run()
        finally:
            os._exit(0)
    return pid


def worker(config, listeners):
    master, listeners = os.getpid(), list(listeners)

    def drain(*_):
        while listeners:
            listeners.pop().close()

    def run():
        if config.get("new") == "die" and reloads:
            return
        if config.get("alone"):
            listeners.extend(bind_all(config))
        signal.signal(signal.SIGUSR1, drain)
        serve(listeners, config, config.get("answers", config["message"]), lambda: os.getppid() == master)

    return fork(run)


def leave(listeners, config, body):
    """Leave an orphan on the socket, which ends by itself after a minute. It answers only once it has the socket alone."""
    out, into = os.pipe()
    gate, opens = os.pipe()
    until, master = time.monotonic() + 60, os.getpid()

    def is_alone():
        with open(f"/proc/{master}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] in "ZX"

    def run():
        os.close(opens)
        os.read(gate, 1)
        while "ends" in config and not is_alone():
            time.sleep(0.001)
        serve(listeners, config, body, lambda: time.monotonic() < until)

    os.waitpid(fork(lambda: os.write(into, b"%d" % fork(run))), 0)
    pid = int(os.read(out, 20))
    for end in (out, into, gate):
        os.close(end)
    with open(CONFIG + ".left", "w") as file:
        file.write(str(pid))
    return pid, opens


def on_hangup(*_):
    global hung
    hung = True


signal.signal(signal.SIGHUP, on_hangup)
config, loaded, workers, left = read(), time.time(), [], None
listeners = [] if config.get("alone") else bind_all(config)
print(*[str(at.getsockname()) for at in listeners], flush=True)

while True:
    with open(CONFIG + ".runs", "w") as file:
        file.write(config.get("answers", config["message"]) + "\n")
    workers += [worker(config, listeners) for _ in range(config.get("workers", 0))]
    serve([] if workers else listeners, config, config.get("answers", config["message"]), lambda: not hung)
    hung, before, config, reloads = False, config, read(), reloads + 1
    loaded = time.time()
    if left:
        os.kill(left, signal.SIGKILL)
        left = None
    if "leaves" in config or "ends" in config:
        left, opens = leave(listeners, config, config.get("leaves", config.get("ends")))
    if "ends" in config:
        sys.exit(0)
    if not config.get("alone") and (before["listen"] != config["listen"] or config.get("rebind")):
        for listener in listeners:
            listener.close()
        if left:
            os.close(opens)
        # A killed process may still hold the socket.
        for _ in range(500):
            try:
                listeners = bind_all(config)
                break
            except OSError:
                time.sleep(0.01)
    stay = workers[:1] if config.get("old") == "stay" else []
    for pid in workers:
        if pid not in stay:
            os.kill(pid, signal.SIGUSR1 if config.get("old") == "drain" else signal.SIGKILL)
            if config.get("old") != "drain":
                os.waitpid(pid, 0)
    workers = stay
