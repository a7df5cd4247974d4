"""A connection to a service that can be broken."""

import socket
import threading
from contextlib import suppress


class Cable:
    """Carries bytes to a service, can be pulled out and put back, and holds them back while `flows` is not set."""

    def __init__(self, target):
        host, _, port = target.rpartition(":")
        self.target = host, int(port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.ends, self.is_in = [], True
        self.flows = threading.Event()
        self.flows.set()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if not self.is_in:
                near.close()
                continue
            far = socket.create_connection(self.target)
            self.ends += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    def carry(self, one, other):
        with suppress(OSError):
            while data := one.recv(65536):
                self.flows.wait()
                other.sendall(data)
        for end in (one, other):
            hang_up(end)

    def pull(self):
        self.is_in = False
        for end in self.ends:
            hang_up(end)
        self.ends.clear()

    def put_back(self):
        self.is_in = True

    def close(self):
        self.flows.set()
        self.pull()
        self.listener.close()


def hang_up(end):
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
