"""Connections to the public internet only.

Private, loopback and link-local addresses are refused when the name is resolved and again on the open connection: a name that
changes its address in between gains nothing. One address, that of a test's server, can be allowed.
"""

from __future__ import annotations

import ipaddress
import socket
import threading

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


class Unavailable(Exception):
    """No answer that can be used: one line that says whose and why."""


class Silent(Unavailable):
    """Nobody answers at that address."""


class Refused(Unavailable):
    """An address that is not of the public internet, or not http(s)."""


LIVE = threading.local()  # .socket: the one that this thread reads from
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # IPv4 addresses as IPv6


def public(address: str) -> bool:
    """Whether an IP address belongs to the public internet."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if ip.version == 6:
        ip = ip.ipv4_mapped or ip
    hidden = ip.version == 6 and (ip.sixtofour or ip.teredo or ip in _TRANSLATED)
    return ip.is_global and not ip.is_multicast and not hidden


def _resolve(host: str, port: int) -> None:
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        raise Silent(f"{host} is not a known host") from None
    for address in sorted(found):
        if not public(address):
            raise Refused(f"{host} has the address {address}, which is not of the public internet")


def _connection(kind: type[HTTPConnection], allowed: tuple[str, int] | None) -> type[HTTPConnection]:
    class Guarded(kind):
        def _new_conn(self):
            if (self.host, self.port) == allowed:
                return super()._new_conn()
            _resolve(self.host, self.port)
            connection = super()._new_conn()
            if not public(connection.getpeername()[0]):
                connection.close()
                raise Refused(f"{self.host} has an address that is not of the public internet")
            return connection

        def request(self, *args, **named):
            super().request(*args, **named)
            LIVE.socket = self.sock

    return Guarded


class Guard(HTTPAdapter):
    def __init__(self, allowed: tuple[str, int] | None):
        self.allowed = allowed
        super().__init__(pool_maxsize=16)

    def init_poolmanager(self, *args, **named):
        super().init_poolmanager(*args, **named)
        self.poolmanager.pool_classes_by_scheme = {
            "http": type("Pool", (HTTPConnectionPool,), {"ConnectionCls": _connection(HTTPConnection, self.allowed)}),
            "https": type("Pool", (HTTPSConnectionPool,), {"ConnectionCls": _connection(HTTPSConnection, self.allowed)}),
        }


def cut(late: threading.Event, live: dict) -> None:
    """End a connection that has had its time; whoever reads from it stops waiting."""
    late.set()
    try:
        live["socket"].shutdown(socket.SHUT_RDWR)
    except (KeyError, AttributeError, OSError, ValueError):
        pass
