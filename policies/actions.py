"""What the commands of `denylog policies` do: from sources to text and an exit code.

Rule: the text for standard output and the narration for standard error are kept apart, nothing is printed here, and a
bad object never keeps the good ones from being written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from policies import build, convert
from policies.errors import PolicyError, Problem
from policies.lint import lint
from policies.load import Found, Source, find, is_kubernetes, read_text
from policies.model import Labels, Place, Policy
from policies.output import as_json, as_yaml, problem_data
from policies.render import policy_object
from policies.selector import canonical, compiled, parse
from policies.validate import validate
from policies.written import Written, items


class Exit(IntEnum):
    """Exit codes of the commands."""

    OK = 0
    FINDINGS = 1
    BAD_INPUT = 2
    TRY_AGAIN = 3


@dataclass(frozen=True, slots=True)
class Result:
    """Text for standard output, lines for standard error, and the exit code."""

    text: str
    notes: tuple[str, ...] = ()
    exit: Exit = Exit.OK


def convert_sources(sources: Iterable[Source], output: str, *, served: bool) -> Result:
    """Policies as Calico objects; rules that could not be converted are named in the notes."""
    found = _something(find(sources))
    notes, converted = [str(problem) for problem in found.problems], []
    worst = Exit.BAD_INPUT if notes else Exit.OK
    for written in found.objects:
        if "NetworkPolicy" not in written.kind.name:
            continue
        try:
            policy = _converted(written, served)
        except PolicyError as error:
            notes.append(str(error))
            worst = Exit.BAD_INPUT
            continue
        warnings = _warnings(written, policy, served)
        worst = max(worst, Exit.FINDINGS) if policy is None or policy.errors else worst
        notes += warnings
        converted += [policy_object(policy)] if policy else []
    write = as_yaml if output == "yaml" else as_json
    text = "" if worst is Exit.BAD_INPUT and not converted else write(converted)
    return Result(text, (*notes, *_passed_over(found)), worst)


def _converted(written: Written, served: bool) -> Policy | None:
    if not is_kubernetes(written):
        return build.policy(written)
    try:
        return convert.served(written) if served else convert.to_calico(written)
    except ValueError as error:
        raise PolicyError([written.problem("uid", ("metadata", "uid"), str(error))]) from error


def _warnings(written: Written, policy: Policy | None, served: bool) -> list[str]:
    if policy is None:
        return [f"{written.source.place}: {written.kind.name} {written.name}: no such tier or no subject; left out"]
    error = convert.error_text(policy)
    warnings = [f"{written.source.place}: {error.rstrip()}"] if error else []
    if is_kubernetes(written) and not served and _types_differ(written):
        warnings.append(
            f"{written.source.place}: {written.kind.name} {written.name} has egress rules but no policyTypes: the API"
            " server would add Egress, Calico's converter does not; --as-served does"
        )
    return warnings


def _types_differ(written: Written) -> bool:
    spec = written.spec
    return written.kind.group == "networking.k8s.io" and not items(spec, "policyTypes") and bool(items(spec, "egress"))


def _passed_over(found: Found) -> list[str]:
    others = sum(found.skipped.values())
    listed = ", ".join(f"{count} {kind}" for kind, count in found.skipped.items())
    return [f"{others} objects of other kinds passed over: {listed}"] if others else []


def validate_sources(sources: Iterable[Source], output: str) -> Result:
    """Whether Calico and the API server would accept every object; JSON also says what cannot be read at all."""
    try:
        found = _something(find(sources))
    except PolicyError as unusable:
        if output != "json":
            raise
        return Result(_validity(unusable.problems), (), Exit.BAD_INPUT)
    errors = validate(found)
    text = "".join(f"{error}\n" for error in errors) or f"valid: {len(found.objects)} objects\n"
    result = Exit.FINDINGS if errors else Exit.OK
    return Result(_validity(errors) if output == "json" else text, tuple(_passed_over(found)), result)


def _validity(errors: Sequence[Problem]) -> str:
    return json.dumps({"valid": not errors, "errors": list(map(str, errors))}, indent=2, ensure_ascii=False) + "\n"


def lint_sources(sources: Iterable[Source], output: str) -> Result:
    """What the policies would do other than they seem to."""
    found = _something(find(sources))
    findings = lint(found)
    if output == "json":
        text = json.dumps([problem_data(each) for each in findings], indent=2, ensure_ascii=False) + "\n"
    else:
        text = "".join(f"{each}  [{each.code}]\n" for each in findings) or "no findings\n"
    return Result(text, tuple(_passed_over(found)), Exit.FINDINGS if findings else Exit.OK)


def _something(found: Found) -> Found:
    if not found.objects and not found.problems:
        advice = "give files, folders or '-' that hold policies"
        raise PolicyError([Problem("nothing", Place("input"), "", "no policy or other known object in it", advice)])
    return found


def selector_match(selector: str) -> Result:
    """For each label map of a JSON list on standard input, whether the selector picks it."""
    test = compiled(parse(selector))
    return Result(json.dumps([test(labels) for labels in _label_maps(read_text("-"))]) + "\n")


def selector_canonical(selector: str) -> Result:
    """The selector in the one spelling that Calico compares."""
    return Result(canonical(parse(selector)) + "\n")


def _label_maps(text: str) -> list[Labels]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad_labels(f"not JSON: {error}") from error
    if not isinstance(found, list) or not all(map(_is_labels, found)):
        raise _bad_labels("a list of label maps is needed")
    return found


def _is_labels(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(each, str) for each in value.values())


def _bad_labels(sentence: str) -> PolicyError:
    return PolicyError([Problem("labels", Place("-"), "", sentence, """write for example [{"app": "web"}, {}]""")])
