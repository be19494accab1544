"""The configuration: one TOML file whose keys are the flags of the commands, and a variable for each of them.

Rule: flag > variable > file > default, for every key of every command. The top of the file holds what all commands
share (`GLOBAL`), each table what the command of its name has; a key that no command has is an error that names the
line and the nearest key there is, and so is a value of the wrong type, before anything runs.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import click

DEFAULT_FILE = "/etc/denylog/denylog.toml"
VARIABLE = "DENYLOG_CONFIG"
GLOBAL = ("store", "log-format", "log-level")
"""Keys that stand at the top of the file, for every command that has such a flag."""
LARGEST = 1_000_000
"""Bytes: what is longer is no file of settings, and /dev/zero has no end."""
Table = tuple[str, ...]
BORROWS: dict[Table, Table] = {("doctor",): ("collect",)}
"""Who takes from another's table what its own does not say: the doctor looks at what the collector is to do."""
APART = ("config", "completion")
"""Commands that have no settings."""


class ConfigError(click.ClickException):
    """The configuration will not do: `where` (file and line), `what` is wrong, and what to `do`."""

    exit_code = 2

    def __init__(self, where: str, what: str, do: str = "") -> None:
        super().__init__(f"{where}: {what}" + (f"; {do}" if do else ""))
        self.where, self.what, self.do = where, what, do


class Listed(click.types.StringParamType):
    """One of several texts; a variable holds them separated by commas, since log prefixes have blanks in them."""

    envvar_list_splitter = ","


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its table (`()` is the top of the file), its name, and the option that it stands for."""

    table: Table
    name: str
    parameter: click.Parameter

    @property
    def variables(self) -> list[str]:
        """The variables that set it, the first that is set wins."""
        found = self.parameter.envvar
        return [found] if isinstance(found, str) else list(found or ())


class Known:
    """Every key that there is, by table. A command is loaded when its table is asked for, all of them by `tables`."""

    def __init__(self, root: click.Command) -> None:
        self._root = root
        self._found: dict[Table, Mapping[str, Key]] = {}

    @cached_property
    def tables(self) -> Mapping[Table, Mapping[str, Key]]:
        """The tables that have keys, the top of the file first."""
        paths = [(), *(path for path, _ in leaves(self._root))]
        return {path: keys for path in paths if (keys := self.table(path)) or not path}

    def table(self, table: Table) -> Mapping[str, Key]:
        """The keys of a table, those of the top of the file included where its command has them."""
        if table not in self._found:
            self._found[table] = self._keys(table) if table else self._shared()
        return self._found[table]

    def leads_on(self, table: Table) -> bool:
        """True where there are keys in this table, or in one below it."""
        found = command_at(self._root, table)
        return found is not None and any(self.table(path) for path, _ in leaves(found, table))

    def _keys(self, table: Table) -> Mapping[str, Key]:
        found = command_at(self._root, table)
        if found is None or isinstance(found, click.Group):
            return {}
        named = ((key_name(parameter), parameter) for parameter in found.params)
        return {name: Key(table, name, parameter) for name, parameter in named if name is not None}

    def _shared(self) -> Mapping[str, Key]:
        """The keys of all commands, as the first command that has them knows them."""
        shared: dict[str, Key] = {}
        for path, _ in leaves(self._root):
            shared = {name: key for name, key in self.table(path).items() if name in GLOBAL} | shared
            if len(shared) == len(GLOBAL):
                break
        return shared


@dataclass(frozen=True, slots=True)
class Config:
    """What a file says: values by table and key, and the line of each."""

    file: str = ""
    values: Mapping[Table, Mapping[str, Any]] = field(default_factory=dict)
    lines: Mapping[tuple[Table, str], int] = field(default_factory=dict)

    def defaults(self, table: Table, known: Known) -> dict[str, Any]:
        """What stands in the place of the defaults of a command, by the names of its parameters."""
        found: dict[str, Any] = {}
        for source in ((), BORROWS.get(table, ()), table):
            for name, value in self.values.get(source, {}).items():
                if key := known.table(table).get(name):
                    found[str(key.parameter.name)] = value
        return found

    def place(self, table: Table, name: str) -> str:
        """File and line that give a key of a command its value, "" where the file does not."""
        for source in (table, BORROWS.get(table, table), ()):
            if name in self.values.get(source, {}):
                return f"{self.file}:{self.lines[source, name]}"
        return ""


def leaves(command: click.Command, path: Table = ()) -> Iterator[tuple[Table, click.Command]]:
    """The commands that do something, with the words that lead to them; each is loaded when it is its turn."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    ctx = click.Context(command)
    for name in command.list_commands(ctx):
        if path or name not in APART:
            child = command.get_command(ctx, name)
            yield from leaves(child, (*path, name)) if child is not None else ()


def command_at(command: click.Command, path: Table) -> click.Command | None:
    """The command that these words lead to, None where there is none that has settings."""
    found: click.Command | None = command if path[:1] not in [(name,) for name in APART] else None
    for name in path:
        found = found.get_command(click.Context(found), name) if isinstance(found, click.Group) else None
    return found


def key_name(parameter: click.Parameter) -> str | None:
    """The key of a parameter: its long flag; an argument has one where it may be left out. None for the others."""
    if isinstance(parameter, click.Option):
        flags = [flag[2:] for flag in parameter.opts if flag.startswith("--")]
        return flags[0] if flags and flags[0] not in ("help", "version", "config") else None
    return parameter.name if parameter.nargs == -1 and not parameter.required else None


def variable_of(table: Table, name: str) -> str:
    """The variable of a key: DENYLOG_STORE, DENYLOG_COLLECT_LOG_PREFIX."""
    words = ("denylog", *(() if name in GLOBAL else table), name)
    return "_".join(words).replace("-", "_").upper()


def read(path: str, known: Known) -> Config:
    """The file's settings; raises ConfigError for the first thing that is wrong."""
    config, problems = examine(path, known)
    if problems:
        raise problems[0]
    return config


def examine(path: str, known: Known) -> tuple[Config, list[ConfigError]]:
    """The file's settings and everything that is wrong with them, in the order of the lines.

    Raises ConfigError where the file cannot be read or is no TOML.
    """
    try:
        with open(path, "rb") as file:
            _trust(path, os.fstat(file.fileno()))
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ConfigError(path, "is larger than 1 MB", "name a file of settings")
        text = data.decode("utf-8-sig")  # editors of Windows begin a file with a byte order mark
        tree = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(path, error.strerror or str(error), "name another file with --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError(path, f"is not in UTF-8 (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, f"is no TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError(path, "is no TOML: lists within lists without end") from error
    return _Examiner(path, text, known).examine(tree)


def _trust(path: str, facts: os.stat_result) -> None:
    """Raise ConfigError where root would follow what any user may write: where the store is, what goes to whom."""
    if os.geteuid() != 0 or not stat.S_ISREG(facts.st_mode):
        return
    folder = os.path.dirname(os.path.realpath(path))
    for place, mode in ((path, facts.st_mode), (folder, os.stat(folder).st_mode)):
        if mode & stat.S_IWOTH and not (place == folder and mode & stat.S_ISVTX):
            raise ConfigError(place, "may be changed by every user, so root does not follow it", f"chmod o-w {place}")


class _Examiner:
    """Compares a file with what is known."""

    def __init__(self, path: str, text: str, known: Known) -> None:
        self._path, self._text, self._known = path, text, known
        self._values: dict[Table, dict[str, Any]] = {}
        self._lines: dict[tuple[Table, str], int] = {}
        self._problems: list[tuple[int, ConfigError]] = []

    def examine(self, tree: Mapping[str, Any]) -> tuple[Config, list[ConfigError]]:
        self._table((), tree)
        problems = [problem for _, problem in sorted(self._problems, key=lambda pair: pair[0])]
        return Config(self._path, self._values, self._lines), problems

    def _table(self, table: Table, tree: Mapping[str, Any]) -> None:
        for given, value in tree.items():
            name = given.replace("_", "-") if given.replace("_", "-") in self._known.table(table) else given
            deeper = (*table, given)
            if key := self._known.table(table).get(name):
                self._key(key, table, given, value)
            elif self._known.leads_on(deeper):
                self._deeper(deeper, value)
            else:
                self._unknown(table, given)

    def _deeper(self, table: Table, value: object) -> None:
        if isinstance(value, Mapping):
            self._table(table, value)
        else:
            self._fault(
                table[:-1], table[-1], f"{table[-1]!r} is a command", f"write its keys under [{_dotted(table)}]"
            )

    def _key(self, key: Key, table: Table, given: str, value: object) -> None:
        if problem := fault(key.parameter, value):
            self._fault(table, given, f"{_quoted(table, given)}: {problem}")
            return
        self._values.setdefault(table, {})[key.name] = plain(key.parameter, value)
        self._lines[table, key.name] = line_of(self._text, (*table, given))

    def _unknown(self, table: Table, given: str) -> None:
        others = [path for path, keys in self._known.tables.items() if path and given.replace("_", "-") in keys]
        below = {
            path[len(table)] for path in self._known.tables if path[: len(table)] == table and len(path) > len(table)
        }
        nearest = difflib.get_close_matches(given, [*self._known.table(table), *below], n=1, cutoff=0.0)
        do = f"did you mean {nearest[0]!r}?" if nearest else ""
        if others and (not nearest or difflib.SequenceMatcher(None, given, nearest[0]).ratio() < _ALIKE):
            do = f"it belongs under [{_dotted(others[0])}]"
        self._fault(table, given, f"{_quoted(table, given)} is no key", do)

    def _fault(self, table: Table, given: str, what: str, do: str = "") -> None:
        line = line_of(self._text, (*table, given))
        self._problems.append((line, ConfigError(f"{self._path}:{line}", what, do)))


_ALIKE = 0.8


def _dotted(table: Table) -> str:
    return ".".join(table)


def _quoted(table: Table, name: str) -> str:
    return f"{name!r} in [{_dotted(table)}]" if table else repr(name)


def fault(parameter: click.Parameter, value: object) -> str:
    """What is wrong with a value from the file, "" where nothing is."""
    several = parameter.nargs == -1 or getattr(parameter, "multiple", False)
    if several != isinstance(value, list):
        return (
            f'expected a list, for example ["{value}"]' if several else f"expected {_expected(parameter)}, not a list"
        )
    for item in value if isinstance(value, list) else [value]:
        if not _fits(parameter, item):
            return f"expected {_expected(parameter)}, not {item!r}"
        try:
            parameter.type.convert(plain(parameter, item), parameter, None)
        except click.BadParameter as error:
            return error.message
    return ""


def _fits(parameter: click.Parameter, value: object) -> bool:
    if isinstance(value, bool):
        return _is_switch(parameter) or _has_bare_form(parameter)
    if _is_switch(parameter):
        return False
    match parameter.type:
        case click.types.IntParamType():
            return isinstance(value, int)
        case click.types.FloatParamType():
            return isinstance(value, int | float)
    return isinstance(value, str)


def _expected(parameter: click.Parameter) -> str:
    if _is_switch(parameter):
        return "true or false"
    match parameter.type:
        case click.types.IntParamType():
            return "a whole number"
        case click.types.FloatParamType():
            return "a number"
    return "a text in quotes"


def _is_switch(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and parameter.is_flag


def _has_bare_form(parameter: click.Parameter) -> bool:
    """True for `--journal [FOLDER]`, which may stand alone: the file says `journal = true`."""
    return isinstance(parameter, click.Option) and not parameter.is_flag and isinstance(parameter.flag_value, str)


def plain(parameter: click.Parameter, value: Any) -> Any:
    """The value as the command line would have it."""
    if isinstance(value, bool) and _has_bare_form(parameter) and isinstance(parameter, click.Option):
        return parameter.flag_value if value else None
    return value


_HEADER = re.compile(r"\s*\[{1,2}([^\]]+)\]{1,2}\s*(?:#.*)?")
_ASSIGNED = re.compile(r"\s*((?:[\w.\s-]|\"[^\"]*\"|'[^']*')+?)\s*=")


def line_of(text: str, path: Sequence[str]) -> int:
    """The line of the file in which a key or a table is named; tomllib does not tell."""
    wanted, best = tuple(path), (0, 1)
    here: Table = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            here = found = _parts(header[1])
        elif assigned := _ASSIGNED.match(line):
            found = (*here, *_parts(assigned[1]))
        else:
            continue
        common = min(len(found), len(wanted))
        if found[:common] == wanted[:common] and common > best[0]:
            best = common, number
    return best[1]


def _parts(dotted: str) -> Table:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def strange_variables(known: Known, environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """A sentence for each DENYLOG_ variable that nothing reads, save those that Kubernetes makes of Services."""
    ours = {name for keys in known.tables.values() for key in keys.values() for name in key.variables} | {VARIABLE}
    for name in sorted(environment):
        if name.startswith("DENYLOG_") and name not in ours and not _SERVICE.search(name):
            nearest = difflib.get_close_matches(name, sorted(ours), n=1, cutoff=0.0)[0]
            yield f"{name}: nothing reads this variable; did you mean {nearest}?"


def wrong_variables(known: Known, environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """A sentence for each variable whose value will not do."""
    read_by = {name: key.parameter for keys in known.tables.values() for key in keys.values() for name in key.variables}
    for name, parameter in sorted(read_by.items()):
        if not (text := environment.get(name)):
            continue
        several = parameter.nargs == -1 or getattr(parameter, "multiple", False)
        try:
            for item in parameter.type.split_envvar_value(text) if several else [text]:
                parameter.type.convert(item, parameter, None)
        except click.BadParameter as error:
            yield f"{name}: {error.message}"


_SERVICE = re.compile(r"_SERVICE_(?:HOST|PORT)(?:_|$)|_PORT(?:$|_\d+_(?:TCP|UDP|SCTP))")
