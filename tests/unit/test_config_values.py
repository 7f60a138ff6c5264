"""Values as people set them: in quotes, in another encoding, with a line break, in the digits of another script."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gembackend import config, environment
from gembackend.config import ConfigError
from tests.unit.test_config import PRODUCTION, faults

STRIPE = {
    "STRIPE_SECRET_KEY": "sk_test_1",
    "PRO_PRICE_ID": "price_1",
    "STRIPE_WEBHOOK_SIGNING_SECRET": "whsec_1",
}
WORDS = ("GEMINI_API_KEY", "GEMINI_MODEL", "GEMINI_FALLBACK_MODEL", *STRIPE)
"""What travels in headers and URLs."""
KEYS = ("JWT_SECRET_KEY", "JWT_PREVIOUS_KEYS", "OTP_WEBHOOK_SECRET")
"""What signs."""
SECRET = "Hush7rX7bLw4ZpVt0NcYmUe8sHj3KdGa6"


def only_fault(name: str, value: str) -> str:
    """What is said of this one variable, and that it is all that is said, and that it does not quote the value."""
    [fault] = faults({**PRODUCTION, **STRIPE, name: value})
    assert fault.startswith(f"{name} must "), fault
    assert not any(part in fault for part in (SECRET, "Hush", "KdGa6"))
    return fault


@pytest.mark.parametrize("name", [*WORDS, *KEYS])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (f'"{SECRET}"', "quotes"),
        (f"'{SECRET}'", "quotes"),
        (f'"{SECRET}', "quote"),
        (f"{SECRET}\n{SECRET}", "line break"),
        (f"{SECRET}\r{SECRET}", "line break"),
        (f"{SECRET}\x00", "control character"),
        (f"{SECRET}\x7f{SECRET}", "control character"),
        (f"\ufeff{SECRET}", "ASCII"),
        (f"“{SECRET}”", "ASCII"),
        (f"{SECRET}\u200b", "ASCII"),
        (f"{SECRET}ü", "ASCII"),
        (f"{SECRET}\udcfc", "UTF-8"),
    ],
)
def test_a_key_that_was_copied_badly_is_a_sentence(name: str, value: str, said: str) -> None:
    assert said in only_fault(name, value)


@pytest.mark.parametrize("name", WORDS)
def test_what_travels_in_a_header_has_no_space_in_it(name: str) -> None:
    assert "space" in only_fault(name, f"{SECRET} # from the console")
    assert "quote" in only_fault(name, f"{SECRET}'KdGa6")


@pytest.mark.parametrize("name", [*WORDS, *KEYS])
def test_space_and_line_breaks_around_a_value_do_no_harm(name: str) -> None:
    for value in (f"  {SECRET}\t", f"{SECRET}\r\n"):
        assert SECRET in repr(config.load({**PRODUCTION, **STRIPE, name: value}, "serve"))


@pytest.mark.parametrize("name", ["STRIPE_WEBHOOK_SIGNING_SECRET", "PRO_PRICE_ID", "JWT_PREVIOUS_KEYS"])
def test_one_bad_member_of_a_list_is_enough(name: str) -> None:
    assert "ASCII" in only_fault(name, f"{SECRET},{SECRET}é")


def test_a_signing_key_that_could_never_be_replaced_is_refused() -> None:
    assert "JWT_PREVIOUS_KEYS" in only_fault("JWT_SECRET_KEY", f"{SECRET},{SECRET}")
    assert "JWT_PREVIOUS_KEYS" in only_fault("JWT_SECRET_KEY", "a,b")
    dev = {"JWT_SECRET_KEY": f"{SECRET},{SECRET}"}
    assert [fault.split()[0] for fault in faults(dev, "dev")] == ["JWT_SECRET_KEY"]


@pytest.mark.parametrize("value", ["1_000", "１２", "٣", "nan", "inf", "1e1", "0x10", "+5", "5 0", "1.5", "9" * 5000])
@pytest.mark.parametrize("name", ["PROMPT_WORKERS", "SERVER_PORT", "BASIC_DAILY_PROMPTS"])
def test_a_whole_number_is_decimal_digits(name: str, value: str) -> None:
    assert "a whole number from" in only_fault(name, value)


@pytest.mark.parametrize("value", ["1_0", "１２", "nan", "inf", "-inf", "1e1", "+5", "5s", ".", "-1", "9" * 400])
@pytest.mark.parametrize("name", ["PROMPT_LEASE_SECONDS", "SHUTDOWN_GRACE_SECONDS"])
def test_seconds_are_decimal_digits(name: str, value: str) -> None:
    assert "a number of seconds from" in only_fault(name, value)
    assert config.load({**PRODUCTION, name: "2.5"}, "serve")


def test_a_rate_is_decimal_digits() -> None:
    assert "requests/seconds" in only_fault("AUTH_RATE_LIMIT", "３0/300")


@pytest.mark.parametrize("name", ["OTP_WEBHOOK_URL", "STRIPE_API_BASE", "PUBLIC_BASE_URL", "GEMINI_ENDPOINT"])
@pytest.mark.parametrize("rest", ["", ":8080/Hush", "host:Hush", "host:99999", "[::1", "a..b:1/", "ho st:1/Hush"])
def test_a_url_names_a_host(name: str, rest: str) -> None:
    scheme = "grpc" if name == "GEMINI_ENDPOINT" else "https"
    assert "URL" in only_fault(name, f"{scheme}://{rest}")


@pytest.mark.parametrize("rest", ["host", "host:1/path", "host:1?x=Hush", "Hush@host:1"])
def test_geminis_endpoint_is_a_host_and_a_port(rest: str) -> None:
    assert "grpc://host:port" in only_fault("GEMINI_ENDPOINT", f"grpc://{rest}")
    assert config.load({"GEMINI_ENDPOINT": "grpcs://[::1]:443/"}, "dev").gemini_endpoint == "grpcs://[::1]:443"


def test_a_variable_in_quotes_is_refused_whatever_it_is_for() -> None:
    for name in ("REDIS_URL", "OTP_WEBHOOK_URL", "OTP_DELIVERY", "PROMPT_WORKERS", "TRUSTED_PROXIES", "LOG_LEVEL"):
        assert "quotes" in only_fault(name, f'"{PRODUCTION.get(name, "10")}"')


def test_the_directory_of_dev_can_be_one(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for value in (str(tmp_path / "circle"), "~nobody-of-that-name/data"):
        assert [fault.split()[0] for fault in faults({"GEMBACKEND_DATA_DIR": value}, "dev")] == ["GEMBACKEND_DATA_DIR"]


def test_a_misspelt_variable_is_named_beside_what_is_missing() -> None:
    told = faults({**PRODUCTION, "GEMINI_API_KEY": "", "GEMINI_APIKEY": SECRET, "redis_url": "redis://other"})
    assert told[1:] == ["GEMINI_APIKEY is no variable of gembackend: is GEMINI_API_KEY meant?"]
    warned = config.load({**PRODUCTION, "PROMPT_WORKER": "7", "PATH": "/bin", "HOME": "/"}, "serve").warnings
    assert warned == ("PROMPT_WORKER is no variable of gembackend: is PROMPT_WORKERS meant?",)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("GEMINI_APIKEY", "GEMINI_API_KEY"),
        ("GEMINI_KEY", "GEMINI_API_KEY"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("redis_url", "REDIS_URL"),
        ("JWT_SECRET", "JWT_SECRET_KEY"),
        ("STRIPE_WEBHOOK_SECRET", "STRIPE_WEBHOOK_SIGNING_SECRET"),
        ("PRO_PRICE_IDS", "PRO_PRICE_ID"),
        ("DB_PASSWORD", "DB_PASS"),
        ("DB_USERNAME", "DB_USER"),
    ],
)
def test_names_that_people_take_for_ours(name: str, meant: str) -> None:
    environ = {"DB_HOST": "db"} if name.startswith("DB_") else {}
    assert config.load({**environ, name: SECRET}, "dev").warnings == (
        f"{name} is no variable of gembackend: is {meant} meant?",
    )


def test_variables_of_others_are_nobodys_business() -> None:
    others = {
        "DATABASE_HOST": "db",
        "REDIS_PORT": "tcp://10.0.0.1:6379",
        "REDIS_PORT_6379_TCP": "tcp://10.0.0.1:6379",
        "DB_PORT_5432_TCP_PORT": "5432",
        "SERVER": "x",
        "OTP": "x",
        "LOG": "x",
        "TERM_PROGRAM": "x",
        "SSH_AUTH_SOCK": "x",
        "GEMBACKEND_SERVICE_HOST": "10.0.0.1",
        "SERVER_SOFTWARE": "x",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector/x",
        "PYTHONPATH": "/x",
    }
    assert config.load({**PRODUCTION, **others}, "serve").warnings == ()


def test_codes_in_replies_are_warned_of_in_production() -> None:
    [warned] = config.load({**PRODUCTION, "OTP_DELIVERY": "response"}, "serve").warnings
    assert warned.startswith("OTP_DELIVERY=response ")


ENV = "# for the service\nGEMINI_API_KEY=abc\nGEMINI_MODEL='gemini-ü'\n"


@pytest.mark.parametrize(
    "raw",
    [
        ENV.encode(),
        ENV.encode("utf-8-sig"),
        b"\xef\xbb\xbf" + ENV.split("\n", 1)[1].encode(),
        ENV.replace("\n", "\r\n").encode(),
        ENV.replace("\n", "\r").encode(),
        b'\n\nexport GEMINI_API_KEY = abc   \nGEMINI_MODEL="gemini-\xc3\xbc" # mine\nSOMETHING',
    ],
    ids=["plain", "with a mark", "a mark before a name", "of Windows", "of an old Mac", "of a shell"],
)
def test_an_env_file_of_any_editor_is_read(raw: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    (tmp_path / ".env").write_bytes(raw)
    given = environment.read(tmp_path)
    assert (given["GEMINI_API_KEY"], given["GEMINI_MODEL"]) == ("abc", "gemini-ü")
    assert "SOMETHING" not in given


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (ENV.encode("utf-16"), "UTF-16"),
        (ENV.encode("utf-16-le"), "NUL"),
        (ENV.encode("utf-16-be"), "NUL"),
        (b"OTEL_SERVICE_NAME=a\0b", "NUL"),
        (ENV.encode("latin-1"), "line 3"),
        (b"A=1\nGEMINI_API_KEY='Hush\n", "line 2"),
        (b"A=1\n\n=Hush\n", "line"),
        (b'A="Hush" Hush\n', "line 1"),
    ],
)
def test_an_env_file_that_cannot_be_read_is_a_sentence(raw: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(raw)
    with pytest.raises(ConfigError) as refused:
        environment.read(tmp_path)
    [fault] = refused.value.faults
    assert fault.startswith(".env ") and said in fault
    assert "Hush" not in fault


def test_what_is_no_env_file_is_a_sentence_too(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    for make, said in (
        (lambda: path.symlink_to(tmp_path / "nothing"), "link"),
        (lambda: path.symlink_to(path), "cannot be read"),
        (path.mkdir, "directory"),
    ):
        make()
        with pytest.raises(ConfigError, match=rf"^\.env .*{said}"):
            environment.read(tmp_path)
        path.rmdir() if path.is_dir() else path.unlink()
    (path / "bin").mkdir(parents=True)
    (path / "pyvenv.cfg").touch()
    assert environment.read(tmp_path) == dict(os.environ), "a virtual environment is often called .env"


def test_the_command_says_it_in_sentences(tmp_path: Path) -> None:
    def run(raw: bytes, **variables: bytes) -> subprocess.CompletedProcess[str]:
        (tmp_path / ".env").write_bytes(raw)
        given = {os.fsencode(name): value for name, value in variables.items()} | {b"PATH": b"/usr/bin:/bin"}
        command = [sys.executable, "-m", "gembackend", "serve"]
        given[b"PYTHONPATH"] = os.fsencode(Path(__file__).resolve().parents[2])
        return subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)

    done = run(ENV.encode("latin-1"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gembackend: .env is not UTF-8, from line 3 on: save it as UTF-8\n"
    done = run(b"", JWT_SECRET_KEY="clé-clé-clé-clé-clé-clé-clé-clé-clé".encode("latin-1"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "gembackend: JWT_SECRET_KEY must be UTF-8\n" in done.stderr
    assert "Traceback" not in done.stderr
