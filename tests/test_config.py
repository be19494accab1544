"""The configuration: flag before variable before file before default, and what is wrong is named with its line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import cli
from collector import config
from collector.config import ConfigError, Known, examine, line_of, variable_of
from collector.forward import PARAMETERS

ROOT = Path(__file__).parent.parent
KNOWN = Known(cli.cli)


def run(*words: str, **variables: str) -> Result:
    """The command in this process, with only these DENYLOG_ variables."""
    ours = {name: None for name in os.environ if name.startswith("DENYLOG_") or name == "NODE_NAME"}
    return CliRunner().invoke(cli.cli, words, env={**ours, "DENYLOG_CONFIG": "/dev/null", **variables})


def shown(*words: str, **variables: str) -> dict[str, tuple[object, str]]:
    """Value and origin of each key of [collect] that `config show` prints."""
    found = run("config", "show", "-o", "json", *words, **variables)
    assert found.exit_code == 0, found.output
    rows = json.loads(found.stdout)
    return {row["key"]: (row["value"], row["from"]) for row in rows if row["table"] in ("", "collect")}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration."""
    path = tmp_path / "denylog.toml"
    path.write_text(
        'store = "/from/file"\n\n[collect]\nfiles = ["/var/log/a", "/var/log/b"]\nkeep = "30d"\nkmsg = true\n'
    )
    return path


def params(*words: str, **variables: str) -> dict[str, object]:
    """What `collect` is called with."""
    found: dict[str, object] = {}

    def note(**given: object) -> None:
        found.update(given)

    command = cli.cli.get_command(click.Context(cli.cli), "collect")
    assert command is not None
    before, command.callback = command.callback, click.decorators.pass_context(lambda ctx, /, **given: note(**given))
    try:
        result = run(*words, **variables)
    finally:
        command.callback = before
    assert result.exit_code == 0, result.output
    return found


def test_precedence(file: Path) -> None:
    """Flag > variable > file > default, for texts, lists and switches alike."""
    assert params("collect", "/x")["store"] == "/var/lib/denylog"
    named = ("collect", "--config", str(file))
    found = params(*named)
    assert (found["store"], found["files"], found["kmsg"]) == ("/from/file", ("/var/log/a", "/var/log/b"), True)
    found = params(*named, DENYLOG_STORE="/from/variable", DENYLOG_COLLECT_FILES="/c,/d e", DENYLOG_COLLECT_KMSG="0")
    assert (found["store"], found["files"], found["kmsg"]) == ("/from/variable", ("/c", "/d e"), False)
    found = params(*named, "--store", "/from/flag", "/f", DENYLOG_STORE="/from/variable", DENYLOG_COLLECT_FILES="/c")
    assert (found["store"], found["files"]) == ("/from/flag", ("/f",))


def test_prefixes_have_blanks_in_variables(file: Path) -> None:
    """A variable holds several log prefixes separated by commas, since a prefix may have blanks in it."""
    found = params("collect", "/x", DENYLOG_COLLECT_LOG_PREFIX="calico-packet %k %p,x")
    assert found["log_prefix"] == ("calico-packet %k %p", "x")


def test_old_variables_hold(file: Path) -> None:
    """NODE_NAME, which manifests set, still names the node; the command's own variable comes first."""
    assert params("collect", "/x", NODE_NAME="a")["node"] == "a"
    assert params("collect", "/x", NODE_NAME="a", DENYLOG_COLLECT_NODE="b")["node"] == "b"


def test_where_the_file_is_named(file: Path) -> None:
    """--config before or after the command, else DENYLOG_CONFIG; the flag wins."""
    assert params("--config", str(file), "collect")["store"] == "/from/file"
    assert params("collect", DENYLOG_CONFIG=str(file))["store"] == "/from/file"
    other = file.with_name("other.toml")
    other.write_text('store = "/other"\n[collect]\nfiles = ["x"]\n')
    assert params("collect", "--config", str(other), DENYLOG_CONFIG=str(file))["store"] == "/other"


def test_show_says_where_each_value_comes_from(file: Path) -> None:
    """`config show` names the line of the file, the variable, or the default."""
    found = shown("--config", str(file), DENYLOG_COLLECT_KEEP="7d")
    assert found["store"] == ("/from/file", f"{file}:1")
    assert found["files"] == (["/var/log/a", "/var/log/b"], f"{file}:4")
    assert found["keep"] == ("7d", "DENYLOG_COLLECT_KEEP")
    assert found["interface-prefix"] == ("cali", "default")
    assert found["node"] == (None, "default")


def test_what_show_prints_is_a_configuration(file: Path, tmp_path: Path) -> None:
    """The output of `config show` says the same again when it is read."""
    text = run("config", "show", "--config", str(file)).stdout
    again = tmp_path / "again.toml"
    again.write_text(text)
    assert tomllib.loads(text)["collect"]["files"] == ["/var/log/a", "/var/log/b"]
    assert {key: value for key, (value, _) in shown("--config", str(again)).items()} == {
        key: value for key, (value, _) in shown("--config", str(file)).items()
    }


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    """A password in an address is replaced."""
    path = tmp_path / "denylog.toml"
    path.write_text('[collect]\nfiles = ["ftp://me:hunter2@siem/x"]\n')
    found = run("config", "show", "--config", str(path))
    assert "hunter2" not in found.output
    assert "***" in found.output


WRONG = {
    'stor = "/x"': "1: 'stor' is no key; did you mean 'store'?",
    'keep = "3d"': "1: 'keep' is no key; it belongs under [collect]",
    '[colect]\nkeep = "3d"': "1: 'colect' is no key; did you mean 'collect'?",
    '[collect]\n\n# keep\nkepe = "3d"': "4: 'kepe' in [collect] is no key; did you mean 'keep'?",
    "[collect]\nkeep = 3": "2: 'keep' in [collect]: expected a text in quotes, not 3",
    '[collect]\nkeep = "x"': "2: 'keep' in [collect]: 'x' is no length of time; expected 30s, 5m, 1h30m or 7d",
    '[collect]\nkmsg = "yes"': "2: 'kmsg' in [collect]: expected true or false, not 'yes'",
    '[collect]\nfiles = "/x"': "2: 'files' in [collect]: expected a list, for example [\"/x\"]",
    "[collect]\nfiles = [1]": "2: 'files' in [collect]: expected a text in quotes, not 1",
    '[collect]\nnode = ["a"]': "2: 'node' in [collect]: expected a text in quotes, not a list",
    '[collect]\nforward = ["relp://h", "tcp://h?x=1"]': "2: 'forward' in [collect]: 'tcp://h': unknown "
    + "setting 'x'; the settings are "
    + ", ".join(PARAMETERS),
    '[top]\nlimit = "5"': "2: 'limit' in [top]: expected a whole number, not '5'",
    "[top]\nlimit = true": "2: 'limit' in [top]: expected a whole number, not True",
    'collect.keeep = "3d"': "1: 'keeep' in [collect] is no key; did you mean 'keep'?",
    'collect = "x"': "1: 'collect' is a command; write its keys under [collect]",
    '[policies.generate]\noutptu = "x"': "2: 'outptu' in [policies.generate] is no key; did you mean 'output'?",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, text: str) -> None:
    """Unknown keys name the nearest, wrong types what is expected, each with file and line; any command refuses it."""
    path = tmp_path / "denylog.toml"
    path.write_text(text)
    expected = f"{path}:{WRONG[text]}"
    found = run("config", "check", "--config", str(path))
    assert (found.exit_code, found.stdout) == (1, f"{expected}\n")
    refused = run("top", "--config", str(path))
    assert (refused.exit_code, refused.stderr) == (2, f"Error: {expected}\n")


def test_check_names_everything_at_once(tmp_path: Path) -> None:
    """All mistakes are listed in the order of their lines, and those in names of variables with them."""
    path = tmp_path / "denylog.toml"
    path.write_text("a = 1\n[top]\nb = 2\n")
    found = run("config", "check", "--config", str(path), DENYLOG_TOP_LIMT="3", DENYLOG_PORT_80_TCP="tcp://10.0.0.1:80")
    assert [line.partition(" ")[0] for line in found.stdout.splitlines()] == [
        f"{path}:1:", f"{path}:3:", "DENYLOG_TOP_LIMT:",
    ]  # fmt: skip
    assert "did you mean DENYLOG_TOP_LIMIT?" in found.stdout
    assert found.exit_code == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a = [", "is no TOML"),
        (b"\xff", "is not in UTF-8"),
        (b"a = " + b"[" * 5000, "lists within lists"),
        (b"#" * 1_000_001, "larger than 1 MB"),
        (None, "No such"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes | None, says: str) -> None:
    """A file that is missing, no TOML or far too large is one sentence with exit code 2."""
    path = tmp_path / "denylog.toml"
    if content is not None:
        path.write_bytes(content)
    found = run("top", "--config", str(path))
    assert found.exit_code == 2
    assert says in found.stderr


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    """A file written by an editor of Windows is read like any other."""
    path = tmp_path / "denylog.toml"
    path.write_bytes(b'\xef\xbb\xbfstore = "/x"\r\n')
    assert shown("--config", str(path))["store"][0] == "/x"


def test_check_tries_what_variables_hold() -> None:
    """A variable whose value the command would refuse is named; an empty one is none."""
    found = run("config", "check", DENYLOG_FORWARD_RATE="fast", DENYLOG_COLLECT_FORWARD="relp://h,ftp://h",
                DENYLOG_TOP_LIMIT="", DENYLOG_COLLECT_KEEP="30d")  # fmt: skip
    assert found.exit_code == 1
    assert [line.partition(":")[0] for line in found.stdout.splitlines()] == [
        "DENYLOG_COLLECT_FORWARD", "DENYLOG_FORWARD_RATE",
    ]  # fmt: skip
    assert "'ftp://h': is no target" in found.stdout


def test_every_key_is_a_flag_and_a_variable() -> None:
    """Every option of every command has its key and its variable, and no two keys share a variable."""
    seen: dict[str, set[str]] = {}
    for table, command in config.leaves(cli.cli):
        for parameter in command.params:
            if isinstance(parameter, click.Option) and "--config" not in parameter.opts:
                name = config.key_name(parameter)
                assert name is not None
                assert f"--{name}" in parameter.opts
                assert variable_of(table, name) in KNOWN.table(table)[name].variables
                seen.setdefault(variable_of(table, name), set()).add(
                    "" if name in config.GLOBAL else ".".join((*table, name))
                )
    assert all(len(keys) == 1 for keys in seen.values()), seen


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1\n[b]\nc = 2\n", ("b", "c"), 3),
        ("[b]\nc = 2\n[d]\nc = 3\n", ("d", "c"), 4),
        ('[ "b" ]\n"c" = 2\n', ("b", "c"), 2),
        ("b.c = 1\n", ("b", "c"), 1),
        ("b = { c = 1 }\n", ("b", "c"), 1),
        ("[b.c]\nd = 1\n", ("b", "c", "d"), 2),
        ("a = 1\n[b.c]\nd = 1\n", ("b",), 2),
    ],
)
def test_lines_of_keys(text: str, path: tuple[str, ...], line: int) -> None:
    """The line of a key is found in all the ways in which TOML can write it."""
    tomllib.loads(text)
    assert line_of(text, path) == line


def test_doctor_borrows_from_collect(file: Path) -> None:
    """The doctor looks at the files that the collector is to follow, unless it is told otherwise."""
    found, problems = examine(str(file), KNOWN)
    assert problems == []
    assert found.defaults(("doctor",), KNOWN)["files"] == ["/var/log/a", "/var/log/b"]
    assert "keep" not in found.defaults(("doctor",), KNOWN)


def test_the_example_in_the_documentation_holds(tmp_path: Path) -> None:
    """The configuration that docs/operations.md shows has nothing wrong in it."""
    path = tmp_path / "denylog.toml"
    path.write_text((ROOT / "docs" / "operations.md").read_text().partition("```toml\n")[2].partition("```")[0])
    found, problems = examine(str(path), KNOWN)
    assert problems == []
    assert found.values[("collect",)]["files"] == ["/var/log/syslog"]


def test_error_has_its_parts(tmp_path: Path) -> None:
    """An error of the configuration carries place, problem and remedy."""
    path = tmp_path / "denylog.toml"
    path.write_text('stor = "x"')
    with pytest.raises(ConfigError) as caught:
        config.read(str(path), KNOWN)
    assert (caught.value.where, caught.value.do) == (f"{path}:1", "did you mean 'store'?")


@pytest.mark.parametrize(("file_mode", "folder_mode", "refused"), [
    (0o644, 0o755, ""), (0o664, 0o775, ""), (0o644, 0o1777, ""), (0o646, 0o755, "denylog.toml"), (0o644, 0o777, "etc"),
])  # fmt: skip
def test_root_follows_no_file_that_everybody_may_change(
    tmp_path: Path, file_mode: int, folder_mode: int, refused: str
) -> None:
    """What every user could write, or replace, is refused in one sentence that tells the remedy; others may use it."""
    path = tmp_path / "etc" / "denylog.toml"
    path.parent.mkdir()
    path.write_text('store = "/from/file"\n')
    path.chmod(file_mode)
    path.parent.chmod(folder_mode)
    found = run("config", "show", "--config", str(path))
    if refused and os.geteuid() == 0:
        assert found.exit_code == 2
        assert re.fullmatch(
            rf"Error: \S+{refused}: may be changed by every user.*; chmod o-w \S+{refused}\n", found.stderr
        )
    else:
        assert found.exit_code == 0
        assert "/from/file" in found.stdout


def test_the_default_file_is_read_where_it_is_there(tmp_path: Path) -> None:
    """Without flag and variable the usual file is read; shown in a mount namespace of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    (tmp_path / "denylog.toml").write_text('store = "/from/etc"\n')
    script = (
        f"mount -t tmpfs none /mnt && mkdir -p /mnt/up /mnt/work && mount -t overlay overlay "
        f"-o lowerdir=/etc,upperdir=/mnt/up,workdir=/mnt/work /etc && mkdir -p /etc/denylog && "
        f"cp {tmp_path}/denylog.toml /etc/denylog/ && {sys.executable} {ROOT}/cli.py config show"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DENYLOG_")}
    found = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False, env=environment
    )
    if "mount" in found.stderr:
        pytest.skip(f"cannot mount here: {found.stderr.strip()}")
    assert 'store = "/from/etc"' in found.stdout
    assert "/etc/denylog/denylog.toml:1" in found.stdout
