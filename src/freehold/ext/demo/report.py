"""The verdict on a run, and the table that a person reads."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from freehold.ext.demo.index import Statistics
from freehold.ext.demo.plain import PlainIndex
from freehold.ext.demo.program import Outcome
from freehold.ext.demo.tree import Tree


def verdict(outcome: Outcome, plain: PlainIndex, nodes: int = 1) -> list[str]:
    """Return what is wrong with a run, in sentences; nothing if it is as it must be."""
    faults = []
    expected = plain.statistics()
    if outcome.statistics != expected or outcome.tokens != expected.tokens:
        faults.append("the statistics differ from those of the plain computation")
    if outcome.digest != plain.digest():
        faults.append("the index differs from that of the plain computation")
    wrong = sum(plain.search(words) != hits for words, hits in outcome.answers.items())
    if wrong:
        faults.append(f"{wrong} of {len(outcome.answers)} queries had a wrong answer")
    if expected.distinct and not outcome.answers:
        faults.append("no query was answered")
    if not outcome.killed:
        faults.append("no worker was killed")
    if nodes > 1 and not outcome.loss:
        faults.append("no node was killed")
    elif nodes > 1 and not outcome.redone:
        faults.append("nothing was made again, although values were lost")
    if outcome.objects:
        faults.append(f"{outcome.objects} objects were left in shared memory")
    if outcome.references:
        faults.append(f"{outcome.references} references were left")
    if outcome.processes:
        faults.append(f"processes were left after shutdown: {outcome.processes}")
    return faults


def show(console: Console, tree: Tree, outcome: Outcome, plain_s: float) -> None:
    """Print what the index says, and what building it took."""
    if outcome.statistics is not None:
        console.print(identifier_table(outcome.statistics))
    console.print(escape(example(outcome)))
    console.print(run_table(tree, outcome, plain_s))


def identifier_table(statistics: Statistics) -> Table:
    """Return the identifiers' statistics as a table."""
    table = Table(title="Identifiers", title_justify="left", show_header=False)
    distinct = max(1, statistics.distinct)
    styles = sorted(statistics.styles.items(), key=lambda item: -item[1])
    table.add_row("different", f"{statistics.distinct:,}, {statistics.once:,} of them used once")
    table.add_row("styles", ", ".join(f"{name} {n / distinct:.0%}" for name, n in styles))
    table.add_row("most frequent", ", ".join(f"{word} {n:,}" for word, n in statistics.top[:6]))
    table.add_row("longest", shortened(statistics.longest, 64))
    return table


def example(outcome: Outcome) -> str:
    """Return one of the queries with its answer, as a sentence."""
    answered = [(words, hits) for words, hits in outcome.answers.items() if len(hits) > 1]
    if not answered:
        return "No query found more than one file."
    words, hits = answered[len(answered) // 2]
    files = ", ".join(f"{name} ({count})" for name, count in hits[:3])
    return f"Which files have {' and '.join(words)}?  {files}"


def run_table(tree: Tree, outcome: Outcome, plain_s: float) -> Table:
    """Return what the run did and took as a table."""
    traffic = outcome.traffic
    queries = len(outcome.answers)
    table = Table(title="The run", title_justify="left", show_header=False)
    table.add_row("files", f"{len(tree.names):,}, {mb(tree.nbytes)}")
    table.add_row("tokens", f"{outcome.tokens:,}")
    table.add_row("built in", f"{outcome.build_s:.2f} s (one plain process: {plain_s:.2f} s)")
    table.add_row("tasks", f"{outcome.tasks:,}, {outcome.tasks / outcome.build_s:,.0f}/s")
    table.add_row("queries", f"{queries:,}, {queries / max(outcome.query_s, 1e-6):,.0f}/s")
    table.add_row(
        "bytes moved",
        f"{mb(traffic.shared)} written once to shared memory, {mb(traffic.inline)} sent inline",
    )
    if outcome.ground:
        table.add_row("nodes on", escape(outcome.ground))
    if outcome.loss:
        table.add_row("between nodes", f"{mb(outcome.moved)} moved")
    table.add_row("by value, RPC would copy", mb(traffic.by_value))
    table.add_row("peak shared memory", mb(outcome.peak_bytes))
    table.add_row("objects left", f"{outcome.objects}")
    table.add_row("lost and redone", lost(outcome))
    return table


def lost(outcome: Outcome) -> str:
    """Return what the kill cost, as a sentence."""
    tasks = "1 task" if outcome.redone == 1 else f"{outcome.redone} tasks"
    if outcome.loss is None:
        return f"worker {outcome.killed} (SIGKILL); {tasks} run again, no object lost"
    loss = outcome.loss
    return (
        f"node {loss.name} (SIGKILL), its {loss.processes} processes and {loss.objects} objects "
        f"({mb(loss.nbytes)}); owner {outcome.killed} (SIGKILL); {tasks} run again"
    )


def mb(size: int) -> str:
    """Return a number of bytes in megabytes, 10^6."""
    return f"{size / 1e6:,.1f} MB"


def shortened(text: str, columns: int) -> str:
    """Return the text cut to a width."""
    return text if len(text) <= columns else text[: columns - 1] + "…"
