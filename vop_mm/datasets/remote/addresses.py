"""Addresses with a scheme, and their display without passwords and signatures."""
import re
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from vop_mm.utils.cli import printable
from vop_mm.utils.paths import path_below

_ADDRESS = re.compile(r'([A-Za-z][A-Za-z0-9+.-]*)://(?!.*::)[^\x00-\x1f\x7f]+')
_HTTP = ('http', 'https')
# names of parameters that grant access, in signed URLs of S3, Google, Azure and others
_SECRET = re.compile(r'(?i)^(sig|se|sp|sv)$|sign|token|key|cred|auth|passw|secret|x-amz|x-goog|expires|session')
_USER = re.compile(r'(?<=://)[^/?#\s\'"]+@')
_PARAMETER = re.compile(r'(?<=[?&])([^=&#\s]+)=([^&#\s\'"]*)')


def is_address(text: str) -> bool:
    """Return True if a text is an address with a scheme rather than a path."""
    return '://' in text


def scheme_of(address: str) -> str:
    """Return the scheme of an address in lower case.

    Raises:
        ValueError: The text is not an address.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or not _is_sound(address):
        raise ValueError(f'not an address: {printable(without_secrets(address))}')
    return found[1].lower()


def add_name(address: str, name: str) -> str:
    """Return the address of a file below another address.

    Args:
        address (str): Address of a folder; its query (after ``?``) is kept.
        name (str): Relative name with ``/`` between its parts, unescaped.

    Returns:
        str: The address.

    Raises:
        ValueError: The name is empty or absolute, leads out of the folder, contains a NUL, or is itself an address.
    """
    path_below(public_address(address), name)
    if is_address(name) or '::' in name:
        raise ValueError(f'{name!r} is an address, not a name below {public_address(address)}')
    if scheme_of(address) not in _HTTP:  # a `?` in an object name is an ordinary character
        return f'{address.rstrip("/")}/{name}'
    parts = urlsplit(address)
    return urlunsplit(parts._replace(path=f'{parts.path.rstrip("/")}/{quote(name)}', fragment=''))


def split_user(address: str) -> tuple[str, str | None]:
    """Split an address into the address without user info, and ``user:password`` (None if there is none)."""
    parts = urlsplit(address)
    user, at, host = parts.netloc.rpartition('@')
    return urlunsplit(parts._replace(netloc=host)), unquote(user) if at else None


def public_address(address: str) -> str:
    """Return an address that may be shown and stored.

    User, password and the values of parameters that grant access are removed. Two files at different addresses keep
    different ones, unless only the access differs.
    """
    return _PARAMETER.sub(lambda found: f'{found[1]}=' if _SECRET.search(found[1]) else found[0],
                          _USER.sub('', address))


def without_secrets(text: str) -> str:
    """Return a library's message with the secrets removed from all addresses in it."""
    return public_address(text)


def _is_sound(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return bool(parts.netloc) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
