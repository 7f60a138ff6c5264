"""Which address a request comes from, seen through the proxies we trust and no others."""

import ipaddress
from collections.abc import Sequence

from aiohttp import web

from gembackend.config import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def client_address(request: web.Request, trusted: Sequence[Network]) -> str:
    """The client's network: an IPv4 address, or the /64 of an IPv6 one, which is what one customer has.

    `X-Forwarded-For` is read from the right, as far as the addresses are trusted proxies: what stands further to
    the left was written by the client itself.
    """
    address = _parse(request.remote or "")
    hops = [hop.strip() for line in request.headers.getall("X-Forwarded-For", []) for hop in line.split(",")]
    while address is not None and hops and any(address in network for network in trusted):
        earlier = _parse(hops.pop())
        if earlier is None:
            break
        address = earlier
    if address is None:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _parse(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
