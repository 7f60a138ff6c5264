"""PostgreSQL: its version and settings, the schema, and what the role may do with it."""

from collections.abc import Iterator
from itertools import groupby, islice
from operator import itemgetter

from gembackend.checks.database_store import Facts, facts, lacking
from gembackend.checks.report import Report
from gembackend.plumbing.postgres import SCHEMA_VERSION, Connection, SchemaMismatch, check_schema

OLDEST = 15
MOST_NAMED = 4
"""How many tables and functions a line names."""


async def examine(connection: Connection, pool_size: int) -> Report:
    """Everything that can be told over one connection; `pool_size` is the setting."""
    known = await facts(connection)
    report = Report(f"version {known.version}, schema version {SCHEMA_VERSION}", faults=list(_faults(known)))
    if known.connections < pool_size:
        report.warnings.append(
            f"DATABASE_POOL_SIZE is {pool_size}, but {known.role} may have {known.connections} connections, those of "
            "all processes together (max_connections and what is reserved, or a limit of the role or the database)"
        )
    if known.ledger is None and known.hidden is not None:
        report.faults.append(_hidden(known, known.hidden))
        return report
    missing = await lacking(connection)
    if missing:
        report.faults.append(_lacking(known, missing))
    if ("SELECT", "schema_migrations") not in missing:
        try:
            await check_schema(connection)
        except SchemaMismatch as mismatch:
            report.faults.append(str(mismatch))
    return report


def _faults(known: Facts) -> Iterator[str]:
    """What is wrong with the server and the database, whatever is in it."""
    if known.number < OLDEST * 10_000:
        yield f"is version {known.version}: gembackend needs PostgreSQL {OLDEST} or newer"
    if known.encoding != "UTF8":
        yield f"keeps text as {known.encoding}: make the database with ENCODING 'UTF8', or some messages are refused"
    if known.standby:
        yield "is a read-only standby: DATABASE_URL must name the primary"
    elif known.read_only:
        yield "is read-only (default_transaction_read_only is on): nothing could be stored"


def _hidden(known: Facts, schema: str) -> str:
    if known.closed:
        return f"the schema {schema} is closed to {known.role}: GRANT USAGE ON SCHEMA {schema} TO {known.role}"
    return f"gembackend's tables are in the schema {schema}, which is not in the search_path of {known.role}"


def _lacking(known: Facts, missing: list[tuple[str, str]]) -> str:
    """One sentence for all of it, with a command where one will do."""
    named = [(name, [right for right, _ in rights]) for name, rights in groupby(missing, itemgetter(1))]
    told = [f"{', '.join(rights)} on {name}" for name, rights in islice(named, MOST_NAMED)]
    if len(named) > MOST_NAMED:
        told.append(f"more on {len(named) - MOST_NAMED} others")
    return (
        f"{known.role} lacks {'; '.join(told)}: GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES, and EXECUTE ON ALL "
        f"FUNCTIONS, IN SCHEMA {known.ledger} TO {known.role}"
    )
