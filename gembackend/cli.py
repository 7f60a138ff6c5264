"""The command `gembackend`: arguments in, exit status out."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from gembackend import __version__, config, environment
from gembackend.config import ConfigError, Settings
from gembackend.plumbing import logs

EXIT_FAILED = 1
EXIT_USAGE = 2


def main() -> int:
    """Run the command that the arguments name and return its exit status."""
    arguments = _parser().parse_args()
    environment.quiet_libraries()
    status: int = arguments.run(arguments)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gembackend", description="A chat service of your own, answered by Google Gemini."
    )
    parser.add_argument("--version", action="version", version=f"gembackend {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run the service, configured by the environment")
    serve.set_defaults(run=_serve)
    dev = commands.add_parser("dev", help="run it with its own PostgreSQL, Redis and stand-ins; needs no configuration")
    dev.set_defaults(run=_dev)
    check = commands.add_parser("check", help="check the configuration and reach everything it names")
    check.set_defaults(run=_check)
    letters = commands.add_parser("dead-letters", help="what gave up and why, and putting it back")
    actions = letters.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser(
        "list", help="show prompts that failed for good and Stripe events that had no effect, newest first"
    )
    listing.add_argument("--limit", type=_positive, default=100, help="show at most so many of each (default 100)")
    listing.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    listing.set_defaults(run=_dead_letters_list)
    replay = actions.add_parser(
        "replay", help="queue failed prompts again, at the tail of their chatrooms, and take Stripe events up again"
    )
    which = replay.add_mutually_exclusive_group(required=True)
    which.add_argument("ids", nargs="*", default=[], metavar="ID", help="prompts and events to replay")
    which.add_argument("--all", action="store_true", help="replay every one")
    replay.add_argument("--json", action="store_true", help="one JSON object a line instead of a sentence")
    replay.set_defaults(run=_dead_letters_replay)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _serve(_arguments: argparse.Namespace) -> int:
    return _with_settings("serve", lambda settings: _lifecycle().serve(settings))


def _dev(_arguments: argparse.Namespace) -> int:
    return _with_settings("dev", lambda settings: _lifecycle().dev(settings, _say))


def _check(_arguments: argparse.Namespace) -> int:
    from gembackend.check import check  # imports the Gemini SDK, which is slow

    return _with_settings("serve", lambda settings: check(settings, print))


def _dead_letters_list(arguments: argparse.Namespace) -> int:
    from gembackend import dead_letters

    return _with_settings(
        "store", lambda settings: dead_letters.show(settings, arguments.limit, as_json=arguments.json, say=print)
    )


def _dead_letters_replay(arguments: argparse.Namespace) -> int:
    from gembackend import dead_letters

    wanted = None if arguments.all else arguments.ids
    return _with_settings(
        "store", lambda settings: dead_letters.replay(settings, wanted, as_json=arguments.json, say=print)
    )


def _lifecycle() -> Any:
    from gembackend import lifecycle

    return lifecycle


def _with_settings(mode: config.Mode, work: Callable[[Settings], Coroutine[Any, Any, int]]) -> int:
    """Read the settings, set up logging and run; a person gets sentences, never a traceback."""
    try:
        settings = config.load(environment.read(), mode)
    except ConfigError as error:
        for fault in error.faults:
            print(f"gembackend: {fault}", file=sys.stderr)
        return EXIT_USAGE
    logs.configure(settings.log_level, settings.log_format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work(settings))


def _say(text: str) -> None:
    print(text, flush=True)
