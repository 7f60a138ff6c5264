"""What the database says of itself and of what its role may do."""

from dataclasses import dataclass

from gembackend.plumbing.postgres import Connection


@dataclass(frozen=True, slots=True)
class Facts:
    """The server, the database and the role of one connection. `connections` is how many the role may have at most.

    `ledger` is the schema where the table of migrations is found by its bare name, `hidden` one that has the
    service's tables and is not looked into, `closed` whether that is because the role has no right to.
    """

    version: str
    number: int
    standby: bool
    read_only: bool
    encoding: str
    role: str
    connections: int
    ledger: str | None
    hidden: str | None
    closed: bool | None


async def facts(connection: Connection) -> Facts:
    """One look at the settings and the catalog."""
    row = await connection.fetchrow(
        """
        SELECT current_setting('server_version') AS version,
               current_setting('server_version_num')::integer AS number,
               pg_is_in_recovery() AS standby,
               current_setting('transaction_read_only')::boolean AS read_only,
               current_setting('server_encoding') AS encoding,
               current_user::text AS role,
               (SELECT min(most)
                FROM (VALUES (current_setting('max_connections')::integer
                              - current_setting('superuser_reserved_connections')::integer
                              - coalesce(current_setting('reserved_connections', true)::integer, 0)),
                             ((SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user)),
                             ((SELECT datconnlimit FROM pg_database WHERE datname = current_database()))) v (most)
                WHERE most >= 0) AS connections,
               (SELECT relnamespace::regnamespace::text FROM pg_class
                WHERE oid = to_regclass('schema_migrations')) AS ledger,
               hidden.nspname::text AS hidden,
               NOT has_schema_privilege(hidden.oid, 'USAGE') AS closed
        FROM (SELECT) AS one
        LEFT JOIN LATERAL (
            SELECT n.oid, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relname = 'chatrooms_metadata' AND c.relkind = 'r' ORDER BY n.nspname = 'public' DESC LIMIT 1
        ) AS hidden ON to_regclass('schema_migrations') IS NULL
        """
    )
    assert row is not None
    return Facts(**row)


async def lacking(connection: Connection) -> list[tuple[str, str]]:
    """What the role may not do, as pairs of a right and the table, sequence or function that it is lacking on.

    All that is in the schema and belongs to the owner of its ledger is the service's, so that no list is to be kept;
    what other programs keep beside it is not, nor what an extension brought, nor the sequence behind an identity
    column, which needs no right. Of the ledger the service reads alone.
    """
    rows = await connection.fetch(
        """
        WITH ledger AS (SELECT oid, relnamespace, relowner FROM pg_class WHERE oid = to_regclass('schema_migrations'))
        SELECT wanted, c.relname::text AS name
        FROM ledger
        JOIN pg_class c USING (relnamespace, relowner)
        CROSS JOIN LATERAL unnest(CASE WHEN c.oid = ledger.oid THEN '{SELECT}'
                                       WHEN c.relkind = 'S' THEN '{USAGE}'
                                       ELSE '{SELECT,INSERT,UPDATE,DELETE}' END::text[]) AS wanted
        WHERE c.relkind IN ('r', 'p', 'S')
          AND NOT EXISTS (SELECT FROM pg_depend d
                          WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('e', 'i'))
          AND NOT CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, wanted)
                       ELSE has_table_privilege(c.oid, wanted) END
        UNION ALL
        SELECT DISTINCT 'EXECUTE', f.proname::text
        FROM ledger
        JOIN pg_proc f ON f.pronamespace = relnamespace AND f.proowner = relowner
        WHERE f.prorettype <> 'trigger'::regtype
          AND NOT has_function_privilege(f.oid, 'EXECUTE')
          AND NOT EXISTS (SELECT FROM pg_depend d
                          WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.deptype = 'e')
        ORDER BY 2, 1
        """
    )
    return [(row["wanted"], row["name"]) for row in rows]
