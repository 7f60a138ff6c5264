"""DATABASE_URL and DB_*: what PostgreSQL's clients take works, or is refused in a sentence that quotes nothing."""

from pathlib import Path

import pytest

from gembackend import config
from gembackend.config import ConfigError
from gembackend.plumbing.database_url import Host, Target, read

SECRET = "zebra"


def hosts(url: str) -> list[tuple[str | None, int | None]]:
    return [(host.name, host.port) for host in read(url).hosts]


def load(**environ: str) -> config.Settings:
    return config.load(environ, "store")


def fault(**environ: str) -> str:
    """The one fault of these variables."""
    with pytest.raises(ConfigError) as refused:
        load(**environ)
    [told] = refused.value.faults
    return told


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://db/chat", [("db", None)]),
        ("postgres://u:p@db:5433/chat", [("db", 5433)]),
        ("postgresql://u@[::1]:5433/chat", [("::1", 5433)]),
        ("postgresql://u@[fe80::1%25eth0]/chat", [("fe80::1%eth0", None)]),
        ("postgresql://u@one:1,two,three:3/chat", [("one", 1), ("two", None), ("three", 3)]),
        ("postgresql://u@one,two/chat?port=7", [("one", 7), ("two", 7)]),
        ("postgresql:///chat?host=one,two&port=7,", [("one", 7), ("two", None)]),
        ("postgresql://u@elsewhere/chat?host=/var/run/postgresql", [("/var/run/postgresql", None)]),
        ("postgresql://u@%2Fvar%2Frun%2Fpostgresql/chat", [("/var/run/postgresql", None)]),
        ("postgresql:///chat?host=::1", [("::1", None)]),
        ("postgresql:///chat?host=%2Fmy%20files%2Fme%40home%5B1%5D", [("/my files/me@home[1]", None)]),
        ("postgresql:///chat?hostaddr=10.0.0.1", [("10.0.0.1", None)]),
        ("postgresql:///chat", [(None, None)]),
        ("postgresql://u@db?sslmode=require", [("db", None)]),
    ],
)
def test_hosts_are_found_wherever_psql_finds_them(url: str, expected: list[tuple[str | None, int | None]]) -> None:
    assert hosts(url) == expected


@pytest.mark.parametrize(
    ("url", "user", "password", "database"),
    [
        ("postgresql://me%40tenant:p%40s%2Fs%3F%23%25@db/a%20b", "me@tenant", "p@s/s?#%", "a b"),
        ("postgresql://me:p:q?r#s@db/chat", "me", "p:q?r#s", "chat"),
        ("postgresql://db/chat?user=me@tenant&password=a%26b+c", "me@tenant", "a&b+c", "chat"),
        ("postgresql://u:p@db/chat?dbname=other&user=v&password=q", "v", "q", "other"),
        ("postgresql://me@db", "me", None, None),
    ],
)
def test_names_and_passwords_are_what_psql_makes_of_them(
    url: str, user: str | None, password: str | None, database: str | None
) -> None:
    target = read(url)
    assert (target.user, target.password, target.database) == (user, password, database)


def test_parameters_do_what_they_say() -> None:
    target = read(
        "postgresql://db/chat?application_name=mine&options=-csearch_path%3Dapp&connect_timeout=7&keepalives_idle=9"
        "&tcp_user_timeout=3000&sslmode=require&ssl_min_protocol_version=TLSv1.3&target_session_attrs=primary"
        "&channel_binding=prefer&gssencmode=disable&client_encoding=UTF8&fallback_application_name=other&sslcompression=0"
    )
    assert target.server_settings == {"application_name": "mine", "options": "-csearch_path=app"}
    assert target.connect_seconds == 7
    assert target.keepalive == {"keepalives_idle": 9, "tcp_user_timeout": 3000}
    assert target.tls == {"sslmode": "require", "ssl_min_protocol_version": "TLSv1.3"}
    assert target.session == "primary"


def test_of_several_hosts_the_one_that_takes_writes_is_meant() -> None:
    assert read("postgresql://one/chat").session == "any"
    assert read("postgresql://one,two/chat").session == "read-write"
    assert read("postgresql://one,two/chat?target_session_attrs=any").session == "any"


def test_jdbc_and_the_systems_roots_are_understood() -> None:
    assert read("postgresql://db/chat?ssl=true").tls == {"sslmode": "require"}
    assert read("postgresql://db/chat?sslrootcert=system").tls["sslmode"] == "verify-full"


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("channel_binding=require", "channel_binding"),
        ("target_session_attrs=standby", "target_session_attrs"),
        ("target_session_attrs=zebra", "target_session_attrs"),
        ("sslmode=zebra", "sslmode"),
        ("sslnegotiation=direct", "sslnegotiation"),
        ("sslrootcert=system&sslmode=require", "sslrootcert"),
        ("sslrootcert=/zebra/root.crt&sslmode=verify-full", "sslrootcert"),
        ("sslcert=/zebra.crt&sslkey=/zebra.key&sslmode=require", "sslcert"),
        ("sslcert=/zebra.crt", "sslkey"),
        ("sslcrl=/zebra.crl&sslmode=require", "sslcrl"),
        ("ssl_min_protocol_version=SSLv3", "ssl_min_protocol_version"),
        ("connect_timeout=zebra", "connect_timeout"),
        ("keepalives=yes", "keepalives"),
        ("keepalives_idle=-1", "keepalives_idle"),
        ("client_encoding=latin1", "client_encoding"),
        ("load_balance_hosts=random", "load_balance_hosts"),
        ("require_auth=scram-sha-256", "require_auth"),
        ("replication=database", "replication"),
        ("gssencmode=require", "gssencmode"),
        ("service=zebra", "service"),
        ("statement_timeout=100", "statement_timeout"),
        ("connection_limit=1", "connection_limit"),
        ("hostaddr=10.0.0.1", "hostaddr"),
        ("port=0", "port"),
        ("port=1,2", "ports"),
        ("zebra", "name=value"),
        ("options=-csearch_path=zebra", "name=value"),
        ("application_name=%zebra", "%25"),
        ("application_name=%00", "%25"),
        ("application_name=%ff", "UTF-8"),
        ("host=one,", "empty host"),
        ("host=ze%20bra", "host"),
    ],
)
def test_what_cannot_be_had_is_named(query: str, word: str) -> None:
    told = fault(DATABASE_URL=f"postgresql://u:{SECRET}@db/chat?{query}")
    assert told.startswith("DATABASE_URL ")
    assert word in told
    assert SECRET not in told


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}@{SECRET}@db/chat",
        f"postgresql://u:{SECRET}/{SECRET}@db/chat",
        f"postgresql://u:12/{SECRET}@db/chat",
        f"postgresql://u:12/x?{SECRET}=y@db/chat",
        f"postgresql://u:%{SECRET}@db/chat",
        f"postgresql://u:{SECRET} {SECRET}@db/chat",
        f"postgresql://u:{SECRET}\n{SECRET}@db/chat",
        f"postgresql://u:{SECRET}\udcff@db/chat",
        f"postgresql://u:{SECRET}@::1/chat",
        f"postgresql://u:{SECRET}@db:{SECRET}/chat",
        f"postgresql+asyncpg://u:{SECRET}@db/chat",
        f"host=db password={SECRET}",
        "postgresql://",
    ],
)
def test_a_url_that_is_none_is_refused_without_a_word_of_it(url: str) -> None:
    told = fault(DATABASE_URL=url)
    assert told.startswith("DATABASE_URL ")
    assert SECRET not in told


def test_a_password_is_not_shown_with_what_was_read() -> None:
    target: Target = read(f"postgresql://u:{SECRET}@db/chat?sslpassword={SECRET}")
    assert SECRET not in repr(target) + target.where


def test_where_names_host_port_and_database() -> None:
    assert read("postgresql://u@[::1],db:7/chat").where == "[::1]:5432, db:7, database chat"
    assert str(Host("/run/postgresql", None)) == "/run/postgresql:5432"


def test_certificates_are_looked_at_when_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    told = fault(DATABASE_URL="postgresql://db/chat?sslmode=verify-full")
    assert "sslrootcert" in told
    (tmp_path / "root.crt").write_text("no certificate")
    told = fault(DATABASE_URL=f"postgresql://db/chat?sslmode=verify-ca&sslrootcert={tmp_path}/root.crt")
    assert "sslrootcert" in told and str(tmp_path) not in told
    assert load(DATABASE_URL="postgresql://db/chat?sslrootcert=system").database_url
    told = fault(DATABASE_URL="postgresql://db/chat?sslmode=verify-ca", PGSSLROOTCERT=f"{tmp_path}/root.crt")
    assert "sslrootcert" in told


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("::1", [("::1", 5433)]),
        ("[::1]", [("::1", 5433)]),
        ("fe80::1%eth0", [("fe80::1%eth0", 5433)]),
        ("/var/run/postgresql", [("/var/run/postgresql", 5433)]),
        ("/my files/run", [("/my files/run", 5433)]),
        ("one, two", [("one", 5433), ("two", 5433)]),
        ("db.example.org", [("db.example.org", 5433)]),
    ],
)
def test_db_host_may_be_an_address_a_socket_directory_or_several(
    host: str, expected: list[tuple[str | None, int | None]]
) -> None:
    url = load(DB_HOST=host, DB_PORT="5433", DB_USER="me", DB_PASS="p@:/", DB_NAME="chat").database_url
    assert url is not None
    target = read(url)
    assert hosts(url) == expected
    assert (target.user, target.password, target.database) == ("me", "p@:/", "chat")


@pytest.mark.parametrize("host", ["db:5433", "postgresql://db/chat", "my host", "one,,two", "u@db"])
def test_a_db_host_that_is_none_is_named(host: str) -> None:
    told = fault(DB_HOST=host)
    assert told.startswith("DB_HOST ") and host not in told


@pytest.mark.parametrize("name", ["DB_USER", "DB_PASS", "DB_NAME"])
def test_no_line_break_gets_into_the_url_by_its_parts(name: str) -> None:
    told = fault(DB_HOST="db", **{name: f"{SECRET}\n{SECRET}"})
    assert told.startswith(f"{name} ") and SECRET not in told


def test_the_bound_of_connecting_is_the_variables_or_the_urls() -> None:
    url = "postgresql://db/chat"
    assert load(DATABASE_URL=url).database_connect_seconds == 5
    assert load(DATABASE_URL=f"{url}?connect_timeout=9").database_connect_seconds == 9
    assert load(DATABASE_URL=f"{url}?connect_timeout=0").database_connect_seconds == 5
    assert load(DATABASE_URL=f"{url}?connect_timeout=9", DATABASE_CONNECT_SECONDS="2").database_connect_seconds == 2
    assert fault(DATABASE_URL=url, DATABASE_CONNECT_SECONDS="0").startswith("DATABASE_CONNECT_SECONDS ")
