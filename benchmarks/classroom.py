"""A class on one server: how fast pages open for N visitors at once, and what they cost in memory.

`python benchmarks/classroom.py --help`. Starts the app as its users do and opens every few seconds, in as many sessions
as there are visitors, a page by chance with a net by chance; pages that refresh themselves go on doing so. The visitors
share the machine with the server, as they would not in a class. Ends with an error where a visitor met one.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlencode

sys.path.pop(0)  # this folder: its profile.py would hide the standard module
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from websockets.exceptions import WebSocketException

from pages.ui import server
from resnet.devices import processor
from resnet.files import ROOT
from tests.support.visitors import FIRST, PAGES, App, Visit, Visitor, app, visitor

NETS = "ResNet-20,ResNet-56,ResNet-110,plain-56"
PAUSE_S = 2.0, 8.0  # of a visitor on a page
FAST_S = 0.5  # every page in less: the server is warm
TTL_S = 2  # after which --rounds has the server drop a session that was closed
SETTLED_S = server.COLLECT_S + 2  # in which memory that nobody needs any more is given back


class Log:
    """What the visitors met, and the most memory that the server had."""

    def __init__(self) -> None:
        self.visits: list[Visit] = []
        self.errors: list[str] = []
        self.peak = self.childrens_peak = 0.0

    def all_errors(self) -> list[str]:
        return self.errors + [f"{visit.page or FIRST}: {error}" for visit in self.visits for error in visit.errors]

    async def watch(self, visited: App) -> None:
        while True:
            self.peak = max(self.peak, visited.megabytes())
            self.childrens_peak = max(self.childrens_peak, visited.childrens_megabytes())
            await asyncio.sleep(0.5)


async def warm_up(visited: App, pages: list[str]) -> None:
    """Open every page until each is fast."""
    async with visitor(visited) as somebody:
        while max([(await somebody.open(page)).seconds for page in pages]) > FAST_S:
            pass


async def stay(somebody: Visitor, args: argparse.Namespace, chance: random.Random, log: Log) -> None:
    """Open a page by chance every few seconds."""
    end = asyncio.get_running_loop().time() + args.seconds
    while asyncio.get_running_loop().time() < end:
        page, query = chance.choice(args.pages), urlencode({"net": chance.choice(args.nets)})
        try:
            log.visits.append(await somebody.open(page, query))
        except TimeoutError:
            log.errors.append(f"{page or FIRST}: timeout")
        await asyncio.sleep(chance.uniform(*PAUSE_S))


async def attend(visited: App, number: int, args: argparse.Namespace, leave: asyncio.Event, log: Log) -> None:
    """What one visitor does; the tab stays open until all leave."""
    chance = random.Random(number)
    await asyncio.sleep(chance.uniform(0, min(args.seconds, PAUSE_S[1])))
    try:
        async with visitor(visited) as somebody:
            await stay(somebody, args, chance, log)
            await leave.wait()
    except* (OSError, WebSocketException) as lost:
        log.errors += map(repr, lost.exceptions)


async def lesson(visited: App, args: argparse.Namespace, log: Log) -> float:
    """The whole class at once; the server's MB at its end, with all tabs still open."""
    leave = asyncio.Event()
    watch = asyncio.create_task(log.watch(visited))
    class_ = [asyncio.create_task(attend(visited, number, args, leave, log)) for number in range(args.sessions)]
    await asyncio.wait(class_, timeout=PAUSE_S[1] + args.seconds)
    watch.cancel()
    await asyncio.sleep(args.settle)
    end = visited.megabytes()
    leave.set()
    await asyncio.gather(*class_)
    return end


async def come_and_go(visited: App, args: argparse.Namespace, log: Log) -> float:
    """Everybody opens three pages and closes the tab; the server's MB after it has dropped them all."""

    async def look_in(number: int) -> None:
        chance = random.Random(number)
        async with visitor(visited) as somebody:
            for page in chance.choices(args.pages, k=3):
                log.visits.append(await somebody.open(page, urlencode({"net": chance.choice(args.nets)})))

    await asyncio.gather(*map(look_in, range(args.sessions)))
    await asyncio.sleep(TTL_S + 1)
    await look_in(0)  # Streamlit drops sessions when another one is closed
    await asyncio.sleep(args.settle)
    return visited.megabytes()


@contextlib.contextmanager
def training(folder: Path) -> Iterator[None]:
    """ResNet-20 and its plain twin train on this machine, and the Train page shows them."""
    own = os.environ | {"RESNET_RUNS_DIR": str(folder / "runs")}
    command = [sys.executable, "-m", "resnet", "train", "--net", "ResNet-20", "--twin", "--data", "shapes"]
    with subprocess.Popen([*command, "--epochs", "1000"], cwd=ROOT, env=own, stdout=subprocess.DEVNULL) as trained:
        try:
            yield
        finally:
            trained.send_signal(signal.SIGINT)  # pauses the runs and waits for them


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def spread(values: list[float]) -> str:
    return f"median {statistics.median(values):.2f} s, p95 {percentile(values, 0.95):.2f} s, max {max(values):.2f} s"


def report(log: Log, args: argparse.Namespace) -> dict[str, float]:
    """Prints times and errors; the JSON's figures."""
    seconds = [visit.seconds for visit in log.visits]
    print(f"{len(seconds)} pages opened: {spread(seconds)}; first element: {spread([v.first for v in log.visits])}")
    for page in args.pages:
        if own := [visit.seconds for visit in log.visits if visit.page == page]:
            print(f"  {page or FIRST:10} {len(own):5} times: {spread(own)}")
    print(f"refreshes of parts of pages: {sum(len(visit.refreshes) for visit in log.visits)}")
    print(f"errors: {len(log.all_errors())}")
    for error, times in Counter(log.all_errors()).most_common(5):
        print(f"  {times} times: {error}")
    found = {"median_s": statistics.median(seconds), "p95_s": percentile(seconds, 0.95)}
    for name, goal in (("median_s", args.median), ("p95_s", args.p95)):
        print(f"goal of {goal} s, {name.removesuffix('_s')}: {'met' if found[name] <= goal else 'missed'}")
    return found | {"max_s": max(seconds), "pages": len(seconds)}


def memory(log: Log, warm: float, end: float, args: argparse.Namespace) -> dict[str, float]:
    """Prints what the server held; the JSON's figures."""
    each = "" if args.cold else f": {(end - warm) / args.sessions:+.1f} MB a session"  # cold: imports are to come
    print(
        f"memory of the server: {warm:.0f} MB before, {log.peak:.0f} MB at the peak, {end:.0f} MB at the end{each}; "
        f"its children {log.childrens_peak:.0f} MB at the peak"
    )
    return {"warm_MB": warm, "peak_MB": log.peak, "end_MB": end}


async def hold(visited: App, args: argparse.Namespace, log: Log) -> dict[str, float]:
    """The lesson, then the rounds."""
    if not args.cold:
        await warm_up(visited, args.pages)
        await asyncio.sleep(args.settle)
    warm = visited.megabytes()
    end = await lesson(visited, args, log)
    found = report(log, args) | memory(log, warm, end, args)
    for number in range(1, args.rounds + 1):
        found[f"round_{number}_MB"] = size = await come_and_go(visited, args, log)
        print(f"round {number}: {args.sessions} sessions opened and closed, then {size:.0f} MB", flush=True)
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sessions", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--nets", type=lambda text: text.split(","), default=NETS, help="with commas")
    parser.add_argument("--pages", type=lambda text: text.split(","), default=",".join(PAGES), help="with commas")
    parser.add_argument("--training", action="store_true", help="a pair trains on the same machine")
    parser.add_argument("--cold", action="store_true", help="begin as soon as the server answers")
    parser.add_argument("--rounds", type=int, default=0, help="afterwards all come and go so many times")
    parser.add_argument("--settle", type=float, default=SETTLED_S, help="seconds of rest before memory is read")
    parser.add_argument("--median", type=float, default=0.15, help="goal in seconds")
    parser.add_argument("--p95", type=float, default=1.0, help="goal in seconds")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no process is left
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it, also their children
    print(f"{processor()}, {os.cpu_count()} cores, {args.sessions} sessions for {args.seconds:.0f} s", flush=True)
    log = Log()
    with TemporaryDirectory() as name, app(Path(name), f"--server.disconnectedSessionTTL={TTL_S}") as visited:
        with training(Path(name)) if args.training else contextlib.nullcontext():
            found = asyncio.run(hold(visited, args, log))
        logged = [line for line in visited.log.read_text().splitlines() if "Traceback" in line or "Error" in line]
    print(f"lines on errors in the server's log: {len(logged)}", *logged[:5], sep="\n  ")
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))
    sys.exit(bool(log.all_errors()))


if __name__ == "__main__":
    main(arguments())
