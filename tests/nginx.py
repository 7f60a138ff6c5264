"""A real nginx in front of the service, with its defaults: HTTP/1.0 to us, buffered answers; a path below a host."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.processes import until
from tests.tools import on_path

CONFIG = """\
daemon off;
master_process off;
pid {home}/pid;
error_log {home}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    server {{
        listen 127.0.0.1:{strips};
        location /api/ {{
            proxy_pass http://{service}/;
        }}
    }}
    server {{
        listen 127.0.0.1:{keeps};
        location /api/ {{
            proxy_pass http://{service};
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
    server {{
        listen 127.0.0.1:{doubles};
        location /api {{
            proxy_pass http://{service}/;
        }}
    }}
}}
"""


def free_port() -> int:
    """A port that nobody listens on now."""
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass(frozen=True)
class Ports:
    """Of three servers that have the service below `/api`: one strips the path, one keeps it and tells the client's
    address, and one leaves a slash too many."""

    strips: int = field(default_factory=free_port)
    keeps: int = field(default_factory=free_port)
    doubles: int = field(default_factory=free_port)

    def urls(self) -> tuple[str, ...]:
        """Where browsers reach the service."""
        return tuple(f"http://127.0.0.1:{port}/api" for port in (self.strips, self.keeps, self.doubles))


@asynccontextmanager
async def nginx(ports: Ports, service: str, home: Path) -> AsyncIterator[None]:
    """Run it in front of a service (`host:port`), with its files in a directory, until the block ends."""
    config = home / "nginx.conf"
    config.write_text(CONFIG.format(home=home, service=service, **asdict(ports)))
    process = _spawn(config, home / "error.log")

    async def listens() -> bool:
        assert process.poll() is None, (home / "error.log").read_text()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", ports.doubles)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await until(listens, "nginx listening")
        yield
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


def _spawn(config: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start it in Python's own way, as tests.processes does."""
    return subprocess.Popen([on_path("nginx", "nginx"), "-e", str(log), "-c", str(config)])
