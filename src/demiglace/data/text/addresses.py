"""Addresses of object stores and web servers: read only where the user allows it, and never from a link-local host.

A cloud's machines get their credentials at link-local addresses (169.254.169.254). An address in a list of sources from
elsewhere must not read them.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from demiglace.errors import ConfigError, DataError

_METADATA = {"metadata", "metadata.google.internal", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200"}
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_WEB = ("http", "https")


def is_address(source: str) -> bool:
    """Return whether a source is an address and no path."""
    return "://" in source


def check_addresses(sources: Iterable[str], remote: bool) -> None:
    """Raise `ConfigError` for an address on the network without `--remote`, `DataError` for one of a link-local host.

    Addresses of files (file://) and paths are allowed.
    """
    for source in sources:
        if not is_address(source) or source.startswith("file://"):
            continue
        if not remote:
            raise ConfigError(
                f"{source} is an address on the network, which is read only with --remote. With it, the credentials of "
                "this machine are looked up for object stores; or download the files and give their paths."
            )
        _check_host(source)


def _check_host(address: str) -> None:
    """Raise `DataError` for an address whose host is link-local, or is not plain enough to tell."""
    try:
        host = (urlsplit(address).hostname or "").rstrip(".")
    except ValueError as error:
        raise DataError(f"{address} is no address: {error}.") from error
    if re.search(r"[\\\s\x00-\x1f]", address) or not _HOST.fullmatch(host):
        raise DataError(f"{address} has no plain host or bucket; expected letters, digits, dots and hyphens.")
    hosts = [host, *(_resolved(host) if address.lower().startswith(_WEB) else ())]
    if any(map(_is_link_local, hosts)):
        raise DataError(
            f"{address} is an address of this machine's own network (link-local, where clouds keep credentials), which "
            "is never read; give the address of a server or a bucket."
        )


def _is_link_local(host: str) -> bool:
    ip = _ip_of(host)
    return host in _METADATA or (ip is not None and (ip.is_link_local or str(ip) in _METADATA))


def _ip_of(host: str) -> "ipaddress.IPv4Address | ipaddress.IPv6Address | None":
    """Return the IP address that a host is, also one written as a single number or in hexadecimal."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip


def _resolved(host: str) -> list[str]:
    """Return the IP addresses of a host's name; none where it has none, which reading it reports."""
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, None)]
    except OSError:
        return []
