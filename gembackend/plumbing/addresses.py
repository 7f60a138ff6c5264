"""Networks, hosts to listen on and base URLs, as people write them. What is none of them is a ValueError."""

import ipaddress
import re
from urllib.parse import urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?")
_BASE_URL = re.compile(
    r"(https?://[^\s/?#@\\]+(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*)/*", re.ASCII | re.IGNORECASE
)


def networks(raw: str) -> tuple[Network, ...]:
    """A comma-separated list of CIDRs; an address alone is a network of one."""
    return tuple(_network(part.strip()) for part in raw.split(",") if part.strip())


def _network(text: str) -> Network:
    """A network; one of IPv4 that is written as IPv6 (`::ffff:10.0.0.0/104`) in its own form."""
    network = ipaddress.ip_network(text, strict=False)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.IPv4Network((int(mapped), network.prefixlen - 96))


def hosts(raw: str) -> tuple[str, ...]:
    """A comma-separated list of addresses and names to listen on, each once and without brackets."""
    listed = [part.strip() for part in raw.split(",") if part.strip()]
    listed = [host[1:-1] if host[:1] + host[-1:] == "[]" else host for host in listed]
    for host in listed:
        if ":" in host:
            ipaddress.IPv6Address(host)
        elif not _HOST.fullmatch(host):
            raise ValueError
    if not listed:
        raise ValueError
    return tuple(dict.fromkeys(listed))


def base_url(raw: str) -> str:
    """A URL that paths are put behind: without a slash at its end, a query, a fragment or a login."""
    match, parts = _BASE_URL.fullmatch(raw), urlsplit(raw)
    if match is None:
        raise ValueError
    (parts.hostname or "..").encode("idna")
    _ = parts.port
    return match[1]


def url_of(host: str, port: int) -> str:
    """Where this machine reaches a listener: one on every address is reached on the loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
