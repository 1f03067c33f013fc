"""Host names of the server, and the pages that may send it requests."""
import ipaddress
import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import Scope

LOOPBACK = ('127.0.0.1', 'localhost', '::1')
ANY_ADDRESS = {'': '127.0.0.1', '0.0.0.0': '127.0.0.1', '::': '::1'}  # with an address by which this machine reaches it
_HOST = re.compile(r'(\[[\da-f:.]+\]|[\w.-]+)(?::(\d{1,5}))?', re.ASCII)
_ORIGIN = re.compile(r'(https?)://(.*)', re.DOTALL)
_DEFAULT_PORTS = dict(http=80, https=443)


class Hosts:
    """Host names of a server.

    A page of another site can point its own host name to this machine (DNS rebinding) and then read the answers to
    requests for that name. Therefore a request must use a known name: the address that the server listens on (if it
    stands for all addresses of the machine, the one that the request arrived at), or an additional name, ``NAME`` or
    ``NAME:PORT``. A page at an additional name and port may also send requests if a proxy changes the ``Host`` header.
    """

    def __init__(self, address: str, names: Sequence[str] = ()) -> None:
        self._any_address = address in ANY_ADDRESS
        given = [_split(name) for name in names]
        for name, parts in zip(names, given):
            if parts is None:
                raise ValueError(f'{name!r} is not a host name: use NAME or NAME:PORT')
        self._names = {*LOOPBACK, *(name for name, _ in given)}
        if not self._any_address:
            self._names.add(_normal(address))
        self._origins = set(given)

    def called(self, headers: Headers, server: Sequence | None) -> str | None:
        """Return the known host name that a request to an address and port uses, with its port if it has one, or None.

        If a proxy reports the original name (``X-Forwarded-Host``), that one is used, but it must be known as well.
        """
        called = headers.get('host', '')
        if not self._is_known(called, server):
            return None
        forwarded = headers.get('x-forwarded-host', '').split(',')[0].strip()
        if forwarded:
            return forwarded if self._is_known(forwarded, server) else None
        return called

    def is_own_page(self, origin: str, called: str) -> bool:
        """Return True if the page of an ``Origin`` header belongs to this server, whose name is from :meth:`called`."""
        match = _ORIGIN.fullmatch(origin)
        page, host = match and _split(match[2]), _split(called)
        if page is None or host is None:  # also 'null': a page without an origin, or one that hides it
            return False
        port = _DEFAULT_PORTS[match[1]]  # a proxy may use https outside and http here
        name, own = (page[0], page[1] or port), (host[0], host[1] or port)
        return name == own or (page[0], None if page[1] == port else page[1]) in self._origins

    def _is_known(self, host: str, server: Sequence | None) -> bool:
        parts = _split(host)
        if parts is None:
            return False
        return parts[0] in self._names or bool(self._any_address and server and parts[0] == _normal(server[0]))


def refuses_site(scope: Scope, headers: Headers) -> bool:
    """Return True if a browser reports that a request comes from another site, and not from following a link."""
    site = headers.get('sec-fetch-site', 'none')
    followed = scope['method'] == 'GET' and headers.get('sec-fetch-mode') == 'navigate'
    return site not in ('same-origin', 'none') and not followed


def _split(host: str) -> tuple[str, int | None] | None:
    """Split ``NAME:PORT`` into name and port; None if it has another form."""
    match = _HOST.fullmatch(host.lower())
    if match is None or (match[2] and not 0 < int(match[2]) < 2**16):
        return None
    return _normal(match[1].strip('[]')), match[2] and int(match[2])


def _normal(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name.partition('%')[0]))
    except ValueError:
        return name.lower().rstrip('.')
