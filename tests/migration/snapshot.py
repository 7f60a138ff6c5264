"""The schema as text, and the file that keeps it: `python -m tests.migration.snapshot` writes sql/schema.sql."""

import asyncio
import subprocess
import tempfile
from pathlib import Path

from gembackend.embedded.postgres import MIGRATE, EmbeddedPostgres, binaries, migrate

SNAPSHOT = MIGRATE.with_name("schema.sql")
HEADER = "-- What sql/migrate.sql makes, to be read. Written by: python -m tests.migration.snapshot\n"
NOISE = ("--", "SET ", "SELECT pg_catalog.set_config", "\\restrict", "\\unrestrict")


def dump(url: str) -> str:
    """The schema of a database as pg_dump tells it, without what changes from dump to dump."""
    command = [str(binaries() / "pg_dump"), "--schema-only", "--no-owner", "--no-privileges", url]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [line for line in told.splitlines() if not line.startswith(NOISE)]
    kept = [line for number, line in enumerate(lines) if line or (number and lines[number - 1])]
    return HEADER + "\n" + "\n".join(kept).strip() + "\n"


async def write() -> None:
    """Write the snapshot from a database of its own."""
    with tempfile.TemporaryDirectory() as directory:
        postgres = EmbeddedPostgres(Path(directory))
        url = await postgres.start()
        try:
            await migrate(url)
            SNAPSHOT.write_text(await asyncio.to_thread(dump, url))
        finally:
            await postgres.stop()


if __name__ == "__main__":
    asyncio.run(write())
