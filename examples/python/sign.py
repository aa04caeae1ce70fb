"""Gets a token from keyturn with Python's standard library, and prints it.

    KEYTURN_SOCKET=/tmp/kt/sign.sock python3 sign.py PROFILE [SUBJECT [AUDIENCE]]
"""
import http.client
import json
import os
import socket
import sys
import time


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket. It may be kept and used again."""

    def __init__(self, path, timeout=10):
        super().__init__("keyturn", timeout=timeout)  # the host is not looked at
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Refused(Exception):
    """What keyturn refuses: decide on code, show detail to people."""

    def __init__(self, problem):
        super().__init__(f"{problem['code']}: {problem.get('detail', '')}")
        self.code = problem["code"]


def sign(path, request, patience=30):
    """Returns {"token", "kid", "expires_at", "expires_in"}.

    Asks again while the daemon is away or busy: asking twice is safe.
    """
    give_up = time.monotonic() + patience
    while True:
        pause = 0.2
        try:
            connection = UnixConnection(path)
            try:
                connection.request("POST", "/v1/sign", json.dumps(request), {"Content-Type": "application/json"})
                response = connection.getresponse()
                body = json.loads(response.read())
            finally:
                connection.close()
            if response.status == 200:
                return body
            failure = Refused(body)
            if response.status not in (429, 503):
                raise failure
            pause = float(response.headers.get("Retry-After", 1))
        except (OSError, http.client.HTTPException) as err:
            failure = err
        if time.monotonic() + pause > give_up:
            raise failure
        time.sleep(pause)


if __name__ == "__main__":
    request = dict(zip(("profile", "subject", "audience"), sys.argv[1:]))
    socket_path = os.environ.get("KEYTURN_SOCKET", "/run/keyturn/sign.sock")
    try:
        token = sign(socket_path, request)["token"]
    except (Refused, OSError, http.client.HTTPException) as err:
        sys.exit(f"{socket_path}: {err}")
    print(token)
