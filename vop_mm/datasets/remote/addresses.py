"""Addresses with a scheme, and how they are shown: passwords and signatures never are."""
import re
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from vop_mm.utils.cli import printable
from vop_mm.utils.paths import path_below

_ADDRESS = re.compile(r'([A-Za-z][A-Za-z0-9+.-]*)://(?!.*::)[^\x00-\x1f\x7f]+')
_HTTP = ('http', 'https')
# names of parameters that grant access: of signed URLs of S3, Google and Azure, and of what others call them
_SECRET = re.compile(r'(?i)^(sig|se|sp|sv)$|sign|token|key|cred|auth|passw|secret|x-amz|x-goog|expires|session')
_USER = re.compile(r'(?<=://)[^/?#\s\'"]+@')
_PARAMETER = re.compile(r'(?<=[?&])([^=&#\s]+)=([^&#\s\'"]*)')


def is_address(text: str) -> bool:
    """Whether a text is an address with a scheme rather than a path."""
    return '://' in text


def scheme_of(address: str) -> str:
    """The scheme of an address, in lower case.

    Raises:
        ValueError: The text is no address.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or not _is_sound(address):
        raise ValueError(f'not an address: {printable(without_secrets(address))}')
    return found[1].lower()


def add_name(address: str, name: str) -> str:
    """The address of a file below another address.

    Args:
        address (str): Of a folder; what stands behind ``?`` stays there.
        name (str): Relative, with ``/`` between its parts, as it is (nothing in it is escaped).

    Returns:
        str: The address.

    Raises:
        ValueError: The name is empty or absolute, climbs out, holds a NUL, or is an address itself.
    """
    path_below(public_address(address), name)
    if is_address(name) or '::' in name:
        raise ValueError(f'{name!r} is an address, not a name below {public_address(address)}')
    if scheme_of(address) not in _HTTP:  # a `?` in the name of an object is a character like any other
        return f'{address.rstrip("/")}/{name}'
    parts = urlsplit(address)
    return urlunsplit(parts._replace(path=f'{parts.path.rstrip("/")}/{quote(name)}', fragment=''))


def split_user(address: str) -> tuple[str, str | None]:
    """An address without user and password, and the two as ``user:password``; None where there are none."""
    parts = urlsplit(address)
    user, at, host = parts.netloc.rpartition('@')
    return urlunsplit(parts._replace(netloc=host)), unquote(user) if at else None


def public_address(address: str) -> str:
    """An address as it may be shown and kept: without user and password, and without the values of parameters that
    grant access. Two files at different addresses keep different ones, unless only the access differs.
    """
    return _PARAMETER.sub(lambda found: f'{found[1]}=' if _SECRET.search(found[1]) else found[0],
                          _USER.sub('', address))


def without_secrets(text: str) -> str:
    """The message of a library with all addresses in it as they may be shown."""
    return public_address(text)


def _is_sound(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return bool(parts.netloc) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
