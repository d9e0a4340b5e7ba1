"""A daemon that reads its config from a key of etcd: at its start, and on SIGHUP.

Arguments: the URL of etcd, and the key. It answers a request for `/` with its config, for `/loads`
with the number of times that it took one, and for `/refused` with the number of times that it took
none: a config has ` = ` in it.
"""

import base64
import http.server
import json
import signal
import sys
import threading
import time
import urllib.request

etcd, key = sys.argv[1:3]
config, loads, refused = b"", 0, 0


def load(*_):
    global config, loads, refused
    body = json.dumps({"key": base64.b64encode(key.encode()).decode()}).encode()
    request = urllib.request.Request(etcd + "/v3/kv/range", body)
    with urllib.request.urlopen(request, timeout=5) as answer:
        value = base64.b64decode(json.load(answer)["kvs"][0]["value"])
    if b" = " in value:
        config, loads = value, loads + 1
    else:
        refused += 1


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        numbers = {"/loads": loads, "/refused": refused}
        body = str(numbers[self.path]).encode() if self.path in numbers else config
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


load()
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
signal.signal(signal.SIGHUP, load)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
while True:
    time.sleep(0.05)
