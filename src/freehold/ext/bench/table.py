"""The printed table."""

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from .results import Results, Spread, number, title_of
from .rows import FLOOR, FREEHOLD, RAY, Row

WIDE = 168  # columns that a table with a column for each peer needs
MARKS = {True: ("met", "green"), False: ("missed", "red"), None: ("–", "dim")}


def _cell(spread: Spread | None, style: str = "") -> Text:
    if spread is None:
        return Text("")
    text = Text(number(spread.median), style=style)
    if len(spread.samples) > 1:
        text.append(f" ±{100 * spread.half_width():.0f}%", style="dim")
    return text


def _times(ratio: float | None) -> Text:
    return Text("" if ratio is None else f"{number(ratio)}x")


def _best(results: Results, row: Row) -> Text:
    name = results.best_peer(row)
    if not name:
        return Text("")
    return Text.assemble(_cell(results.spread(name, row)), (f" {title_of(name)}", "dim"))


def _goal(results: Results, row: Row) -> tuple[Text, Text]:
    words = Text("\n".join(goal.text(row) for goal in row.goals))
    marks = Text("\n").join(Text(*MARKS[results.met(row, goal)]) for goal in row.goals)
    return words, marks


def _row(results: Results, row: Row, shown: list[str], *, wide: bool) -> list[RenderableType]:
    best = results.best_peer(row)
    cells: list[RenderableType] = [Text(row.label), Text(row.unit, style="dim")]
    cells += [_cell(results.spread(n, row), "bold" if n == FREEHOLD else "") for n in shown]
    if not wide:
        cells.append(_best(results, row))
    cells += [
        _times(results.ratio(row, RAY)),
        _times(results.ratio(row, best) if best else None),
        _times(results.ratio(row, FLOOR)),
        *_goal(results, row),
    ]
    return cells


def build(results: Results, *, wide: bool) -> Table:
    """The table; a wide one has a column for every system."""
    present = results.systems()
    shown = present if wide else [n for n in present if n in (FREEHOLD, RAY, FLOOR)]
    heading = f"freehold and its peers: medians of {results.repetitions}, ± half the spread"
    table = Table(title=heading, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name in shown:
        table.add_column(title_of(name), justify="right", no_wrap=True)
    if not wide:
        table.add_column("best peer", justify="right", no_wrap=True)
    for heading in ("x Ray", "x best", "x floor"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("goal", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in results.rows():
        table.add_row(*_row(results, row, shown, wide=wide))
    return table


def _closing(results: Results, console: Console) -> None:
    for what, reason in results.skipped.items():
        console.print(Text(f"left out: {what}: {reason}", style="yellow"))
    known = [results.met(row, goal) for row in results.rows() for goal in row.goals]
    met, missed = known.count(True), known.count(False)
    unknown = len(known) - met - missed
    console.print(
        f"goals: {met} met, {missed} missed, {unknown} that this run cannot tell; "
        f"{results.seconds:.0f} s in all"
    )


def show(results: Results, console: Console) -> None:
    """Print the table, what was left out, and how many goals are met."""
    if not console.is_terminal and console.width < WIDE:
        console.width = WIDE
    console.print(build(results, wide=console.width >= WIDE))
    _closing(results, console)
