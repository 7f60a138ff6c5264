"""The sockets that a listener listens on, of both families of addresses."""

import asyncio
import errno
import socket
from collections.abc import Iterable
from typing import Any

SEND_BYTES = 128 * 1024
"""What the kernel may hold of an answer for a client that does not read; Linux takes as much again for itself."""

_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


async def bind(hosts: Iterable[str], port: int) -> list[socket.socket]:
    """A socket for each address of the hosts, all on one port; 0 takes a free one. Raises OSError.

    `::` is every address of both families, unless an IPv4 address is named beside it. Of a name with several addresses
    those count that this machine has, such as the `::1` of `localhost`.
    """
    loop = asyncio.get_running_loop()
    found = [await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE) for host in hosts]
    both = all(family == socket.AF_INET6 for infos in found for family, *_ in infos)
    made: list[socket.socket] = []
    try:
        for infos in found:
            before, missing = len(made), None
            for address in dict.fromkeys((family, address) for family, _, _, _, address in infos):
                try:
                    made.append(_bound(*address, port=made[0].getsockname()[1] if made else port, both=both))
                except OSError as error:
                    if error.errno not in _NOT_HERE:
                        raise
                    missing = error
            if len(made) == before and missing is not None:
                raise missing
    except OSError:
        for each in made:
            each.close()
        raise
    return made


def _bound(family: int, address: Any, *, port: int, both: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)  # accepted sockets inherit it
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        made.bind((address[0], port, *address[2:]))
    except OSError:
        made.close()
        raise
    return made
