"""The Dockerfile's steps, carried out without an engine: in roots of their own, in namespaces of their own.

What stands in for the base image is this machine's /usr, read-only, and its Python in an empty virtual environment at
/usr/local; everything else is what the steps put there. The network is this machine's. Needs root and Linux.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import psutil
import pytest

from tests.dockerfile import Ignored, instructions
from tests.processes import Process
from tests.tools import on_path

NETWORK = re.compile(r"(?i)(https?|no)_proxy|PIP_(CERT|INDEX_URL|TRUSTED_HOST|DEFAULT_TIMEOUT)|SSL_CERT_FILE")
"""Variables of this machine without which its package index may be out of reach."""
ENTER = r"""
set -eu
root=$1 local=$2 python=$3 cache=$4 mode=$5 user=$6 directory=$7
shift 7
mount --bind "$root" "$root"
mount --rbind /usr "$root/usr"
mount -o remount,bind,ro "$root/usr"
mount --bind "$local" "$root/usr/local"
case $python in
    /usr | /usr/*) ;;
    *) mount --bind "$python" "$root$python"; mount -o remount,bind,ro "$root$python" ;;
esac
for device in null zero full random urandom; do mount --bind "/dev/$device" "$root/dev/$device"; done
mount -t proc proc "$root/proc"
if [ "$mode" = building ]; then
    mount --bind "$cache" "$root/root/.cache/pip"
    exec chroot "$root" /usr/bin/env -C "$directory" -i "$@"
fi
mount -o remount,bind,ro "$root/usr/local"
mount -o remount,bind,ro "$root"
exec chroot "$root" /usr/bin/setpriv --reuid="${user%:*}" --regid="${user#*:}" --clear-groups --no-new-privs \
    --inh-caps=-all --bounding-set=-all --pdeathsig=KILL /usr/bin/env -C "$directory" -i "$@"
"""


@dataclass(frozen=True, slots=True)
class Image:
    """What a stage has come to: two directories, and how a container of it is run."""

    root: Path
    local: Path
    environment: Mapping[str, str] = field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin"})
    directory: str = "/"
    user: str = "0:0"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()
    stop_signal: str = "SIGTERM"

    def entered(self, *command: str, environment: Mapping[str, str], building: bool = False) -> list[str]:
        """The command line that runs a command in here as process 1; read-only and as the user unless building."""
        unshare = _tool("unshare"), "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--ipc"
        where = str(self.root), str(self.local), sys.base_prefix, str(_cache()), "building" if building else "running"
        variables = [f"{name}={value}" for name, value in (self.environment | environment).items()]
        return [*unshare, "/bin/sh", "-c", ENTER, "enter", *where, self.user, self.directory, *variables, *command]

    def run(self, *command: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end as a container of its own."""
        line = self.entered(*command, environment=environment)
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


class Container(Process):
    """An image at work: its entry point and command as process 1."""

    def __init__(self, image: Image, environment: Mapping[str, str]) -> None:
        super().__init__({})
        self._image = image
        self._own = environment

    @property
    def first(self) -> psutil.Process:
        """Its process 1, as this machine sees it."""
        (first,) = psutil.Process(self.pid).children()
        return first

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the running container, as `docker exec` and health checks do."""
        uid, gid = self._image.user.split(":")
        enter = _tool("nsenter"), f"--target={self.first.pid}", "--mount", "--pid", "--root", "--wd"
        become = "/usr/bin/setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"
        variables = [f"{name}={value}" for name, value in (self._image.environment | self._own).items()]
        line = [*enter, *become, "/usr/bin/env", "-i", *variables, *command]
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)

    def _command(self) -> list[str]:
        return self._image.entered(*self._image.entrypoint, *self._image.command, environment=self._own)


def build(dockerfile: Path, place: Path) -> Image:
    """Carry out every step of a Dockerfile, with its directory as the context; the image of the last stage.

    Stages share files that none of them changes again. Skips the test where this cannot be done at all; a step that is
    not understood is an error.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("the Dockerfile's steps need mounts and namespaces, which here only root on Linux may make")
    refused = subprocess.run([_tool("unshare"), "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    if refused.returncode != 0:
        pytest.skip(f"this machine makes no namespaces: {refused.stderr.decode().strip()}")
    stages: dict[str, Image] = {}
    image = _base(place / "base")
    for instruction, text in instructions(dockerfile.read_text()):
        match instruction:
            case "ARG":
                pass  # which base image: what stands in for it is always the same
            case "FROM":
                _, _, name = text.partition(" AS ")
                image = stages[name] = _copy(_base(place / "base"), place / f"stage-{len(stages)}")
            case "COPY":
                _copy_step(image, text, dockerfile.parent, stages)
            case "RUN":
                _run_step(image, text)
            case _:
                image = _noted(image, instruction, text)
    return image


def _noted(image: Image, instruction: str, text: str) -> Image:
    """The image after a step that changes no file."""
    match instruction:
        case "ENV":
            given = dict(pair.split("=", 1) for pair in shlex.split(text))
            expanded = {name: value.replace("$PATH", image.environment["PATH"]) for name, value in given.items()}
            return replace(image, environment={**image.environment, **expanded})
        case "WORKDIR":
            (image.root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
            return replace(image, directory=text)
        case "USER":
            return replace(image, user=text)
        case "STOPSIGNAL":
            return replace(image, stop_signal=text)
        case "ENTRYPOINT":
            return replace(image, entrypoint=tuple(json.loads(text)))
        case "CMD":
            return replace(image, command=tuple(json.loads(text)))
        case "HEALTHCHECK":
            return replace(image, healthcheck=tuple(json.loads(text.partition("CMD")[2])))
        case "EXPOSE" | "LABEL":
            return image
    raise NotImplementedError(f"{instruction} {text}")


def _run_step(image: Image, text: str) -> None:
    """Run a step as root, with a cache for pip's downloads, in which nothing is compiled or changed."""
    network = {name: value for name, value in os.environ.items() if NETWORK.fullmatch(name)}
    kept = {name: value for name, value in image.environment.items() if name != "PIP_NO_CACHE_DIR"}
    line = replace(image, environment=kept).entered("/bin/sh", "-c", text, environment=network, building=True)
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"RUN {text}\n{done.stdout[-3000:]}"


def _copy_step(image: Image, text: str, context: Path, stages: Mapping[str, Image]) -> None:
    """Copy from the context, without what .dockerignore keeps out, or from another stage."""
    options, paths = [], shlex.split(text)
    while paths[0].startswith("--"):
        options.append(paths.pop(0))
    *sources, target = paths
    source_root = stages[options[0].removeprefix("--from=")].root if options else context
    wanted = (lambda _: True) if options else Ignored((context / ".dockerignore").read_text()).sends
    place = image.root / str(Path(image.directory) / target).lstrip("/")
    for each in sources:
        source = source_root / each.lstrip("/")
        if source.is_file():
            assert wanted(each), f"COPY {text}: .dockerignore keeps {each} out"
            into = place / source.name if target.endswith("/") else place
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, into)
            continue
        assert source.is_dir(), f"COPY {text}: there is no {each}"
        shutil.copytree(
            source,
            place,
            symlinks=True,
            dirs_exist_ok=True,
            copy_function=os.link if options else shutil.copy2,
            ignore=lambda directory, names: [
                name for name in names if not wanted(str((Path(directory) / name).relative_to(source_root)))
            ],
        )


def _base(place: Path) -> Image:
    """What stands in for the base image, made the first time: directories, some of /etc, Python at /usr/local."""
    image = Image(place / "root", place / "local")
    if place.exists():
        return image
    image.local.mkdir(parents=True)
    for name in ("usr", "etc", "proc", "dev", "tmp", "root/.cache/pip", sys.base_prefix.lstrip("/")):
        (image.root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            (image.root / name).symlink_to(os.readlink(f"/{name}"))
    for name in ("null", "zero", "full", "random", "urandom"):
        (image.root / "dev" / name).touch()
    for name in ("passwd", "group", "hosts", "resolv.conf", "nsswitch.conf", "ld.so.cache"):
        if Path("/etc", name).exists():
            shutil.copy(f"/etc/{name}", image.root / "etc")
    for name in ("ssl", "alternatives"):
        if Path("/etc", name).exists():
            shutil.copytree(f"/etc/{name}", image.root / "etc" / name, symlinks=True, ignore=lambda *_: ["private"])
    python = str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}")
    line = image.entered(python, "-m", "venv", "--without-pip", "/usr/local", environment={}, building=True)
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout
    own = Path(sysconfig.get_path("purelib"))
    for each in (own / "pip", *own.glob("pip-*.dist-info")):
        shutil.copytree(each, image.local / own.relative_to(sys.prefix) / each.name)
    pip = image.local / "bin/pip"
    pip.write_text("#!/usr/local/bin/python\nimport sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n")
    pip.chmod(0o755)
    return image


def _copy(image: Image, place: Path) -> Image:
    shutil.copytree(image.root.parent, place, symlinks=True, copy_function=os.link)
    return replace(image, root=place / "root", local=place / "local")


@cache
def _cache() -> Path:
    """pip's cache on this machine, which setting up the tests has filled."""
    told = subprocess.run([sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=False)
    directory = Path(told.stdout.strip() or "/tmp/pip-cache")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _tool(name: str) -> str:
    return on_path(name, "util-linux")
