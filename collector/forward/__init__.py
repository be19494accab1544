"""Forwarding stored packets to syslog servers: formats, framing, transports, and how far each target is.

Everything but the targets themselves loads DuckDB, so it is not imported here.
"""

from collector.forward.target import FORMATS, PARAMETERS, Target, Tls, parse_target

__all__ = ["FORMATS", "PARAMETERS", "Target", "Tls", "parse_target"]
