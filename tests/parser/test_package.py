"""The package as a whole: what importing it costs."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_parser_does_not_load_pyparsing() -> None:
    """The reference grammar is built when the first line needs it, so that a command starts at once."""
    code = "import sys, parser.line; assert 'pyparsing' not in sys.modules, 'pyparsing is loaded'"
    subprocess.run([sys.executable, "-c", code], check=True)
