"""How every command gets its configuration, and the commands `config check` and `config show`.

Rule: no command knows of it: `configure` gives each option its variable and each command `--config`, whose eager
callback puts the file's values into the place of the defaults. Only commands that the file speaks of are loaded.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from typing import Any

import click

from analytics.options import Exit
from collector import config, logs
from collector.config import Config, Key, Known, Listed, Table

_LOG = logging.getLogger(__name__)
_GIVEN = "denylog.config"


def configure(name: str, command: click.Command) -> None:
    """Give a command of the program, and every command below it, its variables and `--config`."""
    if name in config.APART:
        return
    for table, found in config.leaves(command, (name,)):
        for parameter in found.params:
            if (key := config.key_name(parameter)) is not None:
                _name_variable(parameter, config.variable_of(table, key))
        found.params.append(_option(_use))


def config_option() -> click.Option:
    """`--config` before the command, for the program itself and for `config`."""
    return _option(_keep)


def _option(callback: Any) -> click.Option:
    shown = f"Settings in TOML.  [env var: {config.VARIABLE}; default: {config.DEFAULT_FILE} if there]"
    return click.Option(
        ["--config"], metavar="FILE", is_eager=True, expose_value=False, callback=callback, help=shown
    )  # fmt: skip


def _name_variable(parameter: click.Parameter, name: str) -> None:
    before = parameter.envvar
    others = [before] if isinstance(before, str) else list(before or ())
    parameter.envvar = list(dict.fromkeys((name, *others)))
    several = parameter.nargs == -1 or getattr(parameter, "multiple", False)
    if several and isinstance(parameter.type, click.types.StringParamType) and not isinstance(parameter.type, Listed):
        parameter.type = Listed()


def _keep(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value:
        ctx.meta[_GIVEN] = value


def _use(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """Put the file's values into the place of the defaults of the command that is about to run."""
    _keep(ctx, parameter, value)
    path = file_of(ctx)
    if ctx.resilient_parsing or path is None:
        return
    root = ctx.find_root()
    known = Known(root.command)
    ctx.default_map = config.read(path, known).defaults(table_of(ctx), known)


def file_of(ctx: click.Context) -> str | None:
    """The file that is named by flag or variable, else the usual one where there is one."""
    named = ctx.meta.get(_GIVEN) or os.environ.get(config.VARIABLE)
    if named:
        return str(named)
    if not os.path.exists(config.DEFAULT_FILE):
        return None
    if not os.access(config.DEFAULT_FILE, os.R_OK):  # the collector's, and this is an analyst
        _LOG.warning("%s may not be read by you; defaults hold", config.DEFAULT_FILE)
        return None
    return config.DEFAULT_FILE


def table_of(ctx: click.Context) -> Table:
    """The words that lead to the command."""
    words: list[str] = []
    while ctx.parent is not None:
        words.insert(0, ctx.info_name or "")
        ctx = ctx.parent
    return tuple(words)


@click.group(name="config")
def config_group() -> None:
    """The settings: one TOML file, a variable for each key, and where each value comes from.

    \b
    [collect]
    files = ["/var/log/syslog"]
    keep = "30d"
    """


@config_group.command()
@click.pass_context
def check(ctx: click.Context, /) -> None:
    """Look for unknown keys and variables and for values that will not do; exit code 1 where there are any.

    \b
    denylog config check --config denylog.toml
    """
    known = Known(ctx.find_root().command)
    path = file_of(ctx)
    problems: list[str] = []
    if path is None:
        click.echo(f"there is no {config.DEFAULT_FILE}; everything has its default", err=True)
    else:
        found, errors = config.examine(path, known)
        problems += [error.format_message() for error in errors]
        click.echo(f"{path}: {sum(map(len, found.values.values()))} keys, {len(errors)} wrong", err=True)
    problems += [*config.strange_variables(known), *config.wrong_variables(known)]
    for problem in problems:
        click.echo(problem)
    if problems:
        raise SystemExit(Exit.FINDINGS)


@config_group.command()
@click.argument("tables", nargs=-1, metavar="[COMMAND]...")
@click.option("-o", "--output", type=click.Choice(["toml", "json"]), default="toml", show_default=True, help="Form.")
@click.pass_context
def show(ctx: click.Context, /, tables: tuple[str, ...], output: str) -> None:
    """What holds for every key and where it comes from: a variable, a line of the file, or the default.

    Without COMMAND the tables in which something is set, and [collect]. What is printed as TOML is a file that can be
    used; secrets are replaced.

    \b
    denylog config show
    denylog config show top packets
    """
    known = Known(ctx.find_root().command)
    path = file_of(ctx)
    found = config.read(path, known) if path else Config()
    wanted = [_table(name, known) for name in tables]
    rows = list(_rows(found, known, wanted))
    if output == "json":
        click.echo(json.dumps([{"table": ".".join(table), **row} for table, row in rows], indent=2))
    else:
        _print(rows)


def _table(name: str, known: Known) -> Table:
    table = tuple(name.split("."))
    if table not in known.tables:
        names = sorted(".".join(table) for table in known.tables if table)
        raise click.UsageError(f"there is no command {name!r}; there are {', '.join(names)}")
    return table


def _rows(found: Config, known: Known, wanted: list[Table]) -> Iterator[tuple[Table, dict[str, Any]]]:
    for table, keys in known.tables.items():
        rows = [_row(found, table, key) for name, key in keys.items() if not table or name not in config.GLOBAL
                or name in found.values.get(table, {})]  # fmt: skip
        if table in ((), ("collect",), *wanted) or any(row["from"] != "default" for row in rows if not wanted):
            yield from ((table, row) for row in rows)


def _row(found: Config, table: Table, key: Key) -> dict[str, Any]:
    value, origin = _value(found, table, key)
    if isinstance(value, str):
        value = logs.HIDDEN if logs.is_secret(key.name) and value else logs.redact(value)
    elif isinstance(value, list | tuple):
        value = [logs.redact(str(item)) for item in value]
    return {"key": key.name, "value": value, "from": origin}


def _value(found: Config, table: Table, key: Key) -> tuple[Any, str]:
    for variable in key.variables:
        if text := os.environ.get(variable):
            several = key.parameter.nargs == -1 or getattr(key.parameter, "multiple", False)
            return (key.parameter.type.split_envvar_value(text) if several else text), variable
    if place := found.place(table, key.name):
        source = next(
            held for held in (table, config.BORROWS.get(table, table), ()) if key.name in found.values.get(held, {})
        )
        return found.values[source][key.name], place
    default = key.parameter.to_info_dict()["default"]
    return default, "default"


def _print(rows: list[tuple[Table, dict[str, Any]]]) -> None:
    before: Table = ()
    for table, row in rows:
        if table != before:
            click.echo(f"\n[{'.'.join(table)}]")
            before = table
        empty = row["value"] is None or (row["value"] in ([], ()) and row["from"] == "default")
        line = f"# {row['key']} is not set" if empty else f"{row['key']} = {_toml(row['value'])}"
        click.echo(line if empty else f"{line:<50}  # {row['from']}")


def _toml(value: object) -> str:
    """A value as TOML writes it; JSON's strings, numbers, lists and booleans are TOML's, too."""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(str(value), ensure_ascii=False)


for _command in config_group.commands.values():
    _command.params.append(config_option())
