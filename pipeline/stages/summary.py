"""Print a short summary of the last run, as ``make run`` does at its end.

    python -m pipeline summary

Run the stages first.
"""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline import evidence, params, paths, tables
from pipeline.registry import served
from pipeline.tracking import runs, store


def main() -> str:
    """Print the table; return the closing line."""
    card = tables.read_json(paths.DATASET)
    unit = evidence.unit(card)
    record = runs.read()
    runs.check_clips(record, card)
    figures = runs.figures(record)
    rows = served.rows(store.connect(), params.load())
    console = Console()
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_row(
        "dataset",
        f"{card['name']}: {card['clips']} clips, {len(card['labels'])} classes,"
        f" {len(card['folds'])} folds",
    )
    table.add_row(
        "test accuracy",
        f"[bold]{figures['accuracy']:.1%}[/bold]"
        f" ({figures['accuracy_low']:.1%} to {figures['accuracy_high']:.1%},"
        f" {evidence.tested(figures, unit)})",
    )
    table.add_row("by class", escape(evidence.by_class(figures)))
    if remarks := evidence.remarks(figures, tables.read(paths.PER_CLASS), unit=unit):
        table.add_row("note", escape(" ".join(remarks)))
    for title, text in rows:
        table.add_row(title, escape(text))
    table.add_row("see the runs", "make ui")
    table.add_row("another dataset", "dvc exp run -S dataset.name=esc10")
    if card["name"] != "folder":
        table.add_row("your own sounds", "put them into sounds/, then -S dataset.name=folder")
    console.print()
    console.print(table)
    console.print()
    return "`dvc metrics show` and `dvc plots show` have the details"
