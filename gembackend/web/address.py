"""Which address a request comes from, seen through the proxies we trust and no others."""

import ipaddress
import re
from collections.abc import Sequence

from aiohttp import web

from gembackend.config import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""How a NAT64 shows IPv4 addresses to a machine that has IPv6 alone (RFC 6052)."""
# What proxies write: an address, alone or with a port behind it; IPv6 then has brackets, which may be there anyway.
_HOP = re.compile(r"\[([^\[\]]+)\](?::\d{1,5})?|([\d.]+)(?::\d{1,5})?|([0-9a-f:.]+(?:%.+)?)", re.ASCII | re.IGNORECASE)


def client_address(request: web.Request, trusted: Sequence[Network]) -> str:
    """The client's network: an IPv4 address, or the /64 of an IPv6 one, which is what one customer has.

    `X-Forwarded-For` is read from the right, as far as the addresses are trusted proxies: what stands further to
    the left was written by the client itself. A proxy that did not know, or wrote what is no address, ends the way:
    the limit is then its own. `Forwarded` (RFC 7239) is not read: a proxy that writes only one of the two headers
    lets clients write the other.
    """
    address = _parse(request.remote or "")
    listed = (hop.strip() for line in request.headers.getall("X-Forwarded-For", []) for hop in line.split(","))
    hops = [hop for hop in listed if hop]
    while address is not None and hops and any(address in network for network in trusted):
        earlier = _parse(hops.pop())
        if earlier is None:
            break
        address = earlier
    if address is None:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(address), 64), strict=False))
    return str(address)


def _parse(text: str) -> Address | None:
    """The address that a hop names, an IPv4 one in its own form; None when it names none."""
    match = _HOP.fullmatch(text[1:-1].strip() if text[:1] == text[-1:] == '"' else text)
    if match is None:
        return None
    try:
        address = ipaddress.ip_address(match[1] or match[2] or match[3])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address
