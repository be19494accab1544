"""What the commands about Log policies and verdicts do: from sources to text and an exit code.

Rule: a source that cannot be read ends the command, since a proof or a verdict about the rest would mislead. Nothing is
printed here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from policies.actions import Exit, Result
from policies.allow import Proposal, allow
from policies.emit import log_object
from policies.errors import PolicyError, Problem
from policies.evaluate import Ruleset, Verdict, evaluate
from policies.explain import as_data, as_dot, as_text
from policies.felix import advise
from policies.flow import Directory, Flow, flow_to, parse_target
from policies.generate import Options, Plan, generate
from policies.load import Live, Source, load, read_text, selector_problem
from policies.model import Inventory, Place
from policies.output import as_json, as_yaml
from policies.pairing import identity
from policies.reach import Change, read_flows, what_if, who_can
from policies.verify import verify


def inventory_of(sources: Iterable[Source]) -> Inventory:
    """Everything the sources hold. Raises PolicyError with every problem where something cannot be read."""
    loaded = load(sources)
    problems = loaded.problems or tuple(filter(None, map(selector_problem, loaded.inventory.policies)))
    if problems:
        raise PolicyError(problems)
    return loaded.inventory


def _with_policies(sources: Sequence[Source]) -> Inventory:
    inventory = inventory_of(sources)
    if not inventory.policies:
        place = Place(", ".join(map(str, sources)))
        raise PolicyError([Problem("no-policies", place, "", "no network policy here", "name files that hold some")])
    return inventory


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, their columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _told(plan: Plan) -> tuple[str, ...]:
    rows = [("LOG POLICY", "LOGS WHAT THESE DENY", "HOW")]
    for made in plan.made:
        where = f"{made.policy.namespace}/" if made.policy.namespace else ""
        names = ", ".join(map(str, made.sources[:3])) + (
            f" and {len(made.sources) - 3} more" if made.sources[3:] else ""
        )
        rows.append((f"{where}{made.policy.name}", names, made.how))
    lines = table(rows) if plan.made else ["no policy denies anything: no Log policy is needed"]
    return (*lines, *(f"note: {note}" for note in plan.notes), str(plan.proof))


EBPF = (
    "the eBPF data plane writes Log actions to the trace pipe of the kernel, in another format and not to its "
    "log; read them with 'bpftool prog tracelog', or use the iptables or nftables data plane"
)


def _dataplane(sources: Iterable[Source]) -> str:
    """What the cluster says, where one is asked; files do not tell."""
    live = [source for source in sources if not isinstance(source, str)]
    return live[0].calico().dataplane if live else "iptables"


def generate_sources(sources: Sequence[Source], output: str, options: Options, dataplane: str | None) -> Result:
    """Log policies with a table of what each is for; nothing but the reasons where they cannot be exact."""
    if (dataplane or _dataplane(sources)) == "ebpf":
        return Result("", (f"refused: {EBPF}",), Exit.FINDINGS)
    plan = generate(_with_policies(sources), options)
    if plan.refusals:
        return Result("", (*(f"refused: {reason}" for reason in plan.refusals), *plan.notes), Exit.FINDINGS)
    write = as_json if output == "json" else as_yaml
    return Result(write(map(log_object, plan.made)), _told(plan))


def verify_sources(sources: Sequence[Source], generated: str) -> Result:
    """The proof, or counterexamples."""
    proof = verify(_with_policies(sources), inventory_of([generated]).policies, most=3)
    return Result(f"{proof}\n", (), Exit.OK if proof.holds else Exit.FINDINGS)


def _flow(directory: Directory, source: str, target: str) -> Flow:
    wanted = parse_target(target)
    return flow_to(*directory.of_one_family(directory.find(source), directory.find(wanted.who)), wanted)


def _as_json(verdict: Verdict) -> str:
    return json.dumps(as_data(verdict), indent=2) + "\n"


_SPELLINGS = {"text": as_text, "dot": as_dot, "json": _as_json}


def explain_sources(sources: Sequence[Source], source: str, target: str, output: str) -> Result:
    """The walk of one flow."""
    inventory = inventory_of(sources)
    verdict = evaluate(_flow(Directory(inventory), source, target), Ruleset.of(inventory))
    return Result(_SPELLINGS[output](verdict))


def _reach_row(verdict: Verdict) -> tuple[str, str, str, str]:
    flow = verdict.flow
    answer = "allowed" if verdict.allowed else "denied"
    return (answer, flow.source.name, f"{flow.destination.name} {flow.service}", verdict.why)


def who_can_sources(sources: Sequence[Source], target: str, output: str) -> Result:
    """Every pod and kind of outside address, with whether it can reach the target."""
    verdicts = who_can(inventory_of(sources), parse_target(target))
    rows = sorted(map(_reach_row, verdicts))
    if output == "json":
        names = ("verdict", "source", "destination", "why")
        return Result(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2) + "\n")
    return Result("\n".join(table([("VERDICT", "FROM", "TO", "WHY"), *rows])) + "\n")


def _flows_text(flows: str, sources: Sequence[Source]) -> str:
    if flows == "-" and "-" in sources:
        sentence = "standard input cannot hold the policies and the flows"
        raise PolicyError([Problem("stdin", Place("-"), "", sentence, "name a file for one of them")])
    return read_text(flows)


def _change_row(change: Change, beside: str) -> tuple[str, str, str]:
    return (change.kind + beside, flow_text(change), change.after.why)


def flow_text(change: Change) -> str:
    """The flow of a change, and how many others it stands for."""
    return f"{change.after.flow}" + (f" (and {change.alike:,} alike)" if change.alike else "")


def what_if_sources(
    sources: Sequence[Source], current: Sequence[Source], flows: str, output: str = "text", *, over: bool = False
) -> Result:
    """What a changed set of policies would do to flows, and what else it opens or closes.

    The sources are all policies as they would be; with `over`, only those that would be applied over the current ones.
    """
    after, before = inventory_of(sources), inventory_of(current)
    after = applied(after, before) if over else after
    merged = pods_of_both(before, after)
    given = read_flows(_flows_text(flows, (*sources, *current)), Directory(merged))
    changes, beside = what_if(given, before, merged)
    if output == "json":
        found = {"flows": [*map(change_data, changes)], "beside": [*map(change_data, beside.changes)]}
        return Result(json.dumps(found, indent=2) + "\n", unseen_notes(beside.unseen))
    rows = [_change_row(change, "") for change in changes]
    rows += sorted(_change_row(change, " beside") for change in beside.changes)
    return Result("\n".join(table([("CHANGE", "FLOW", "WHY"), *rows])) + "\n", unseen_notes(beside.unseen))


def unseen_notes(unseen: int) -> tuple[str, ...]:
    """What to say where more flows lie beside than were looked at."""
    return (f"{unseen:,} more kinds of flows beside were not looked at: choose fewer flows",) if unseen else ()


def change_data(change: Change) -> dict[str, Any]:
    """A change as plain data; `alike` counts the flows that it stands for besides its own."""
    flow, verdict = change.after.flow, change.after
    return {
        "change": change.kind,
        "source": flow.source.name,
        "destination": flow.destination.name,
        "service": flow.service,
        "alike": change.alike,
        "denied_by": [str(policy) for policy in verdict.denied_by],
        "why": verdict.why,
    }


def applied(new: Inventory, old: Inventory) -> Inventory:
    """The new policies and tiers, and those of the old ones that none of them replaces."""
    replaced = {identity(policy) for policy in new.policies}
    kept = tuple(policy for policy in old.policies if identity(policy) not in replaced)
    names = {tier.name for tier in new.tiers}
    tiers = tuple(tier for tier in old.tiers if tier.name not in names)
    return replace(new, policies=(*kept, *new.policies), tiers=(*tiers, *new.tiers))


def pods_of_both(before: Inventory, after: Inventory) -> Inventory:
    """The changed policies over every object that either side knows; a changed set need not repeat the pods."""
    kinds = ("pods", "host_endpoints", "network_sets", "namespaces", "service_accounts", "services", "tiers")
    both = {kind: tuple(dict.fromkeys((*getattr(after, kind), *getattr(before, kind)))) for kind in kinds}
    return replace(after, **both)


def _proposal_notes(proposal: Proposal) -> list[str]:
    notes = [f"{change.kind}: {change.after.flow}" for change in proposal.changes]
    notes += [f"{change.kind} beside: {flow_text(change)} (same labels as a chosen pod)" for change in proposal.beside]
    notes += unseen_notes(proposal.unseen)
    return [*notes, *(f"refused: {refused}" for refused in proposal.refused)]


def allow_sources(
    sources: Sequence[Source], ends: tuple[str, str] | None, flows: str, *, calico: bool, output: str
) -> Result:
    """Policies that would allow the flows, with the difference that they make."""
    inventory = inventory_of(sources)
    directory = Directory(inventory)
    given = [_flow(directory, *ends)] if ends else read_flows(_flows_text(flows, sources), directory)
    return proposal_result(allow(given, inventory, calico=calico), output)


def proposal_result(proposal: Proposal, output: str) -> Result:
    """The objects of a proposal, and on standard error what it changes."""
    write = as_json if output == "json" else as_yaml
    text = write(proposal.objects) if proposal.objects else ""
    return Result(text, tuple(_proposal_notes(proposal)), Exit.FINDINGS if proposal.refused else Exit.OK)


def felix_patch(version: str | None, rate: str | None, cluster: Live | None = None) -> Result:
    """The FelixConfiguration patch for a release, or for the one that a cluster runs."""
    found = cluster.calico() if cluster else None
    if found and found.dataplane == "ebpf":
        return Result("", (f"refused: {EBPF}",), Exit.FINDINGS)
    advice = advise((found.version if found else version) or "", rate)
    told = (f"the cluster runs Calico {found.version} with {found.dataplane}",) if found else ()
    return Result(json.dumps(advice.patch) + "\n", (*told, *advice.notes))
