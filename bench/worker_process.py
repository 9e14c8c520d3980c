"""The worker under test, as `durable-worker` runs it, which also tells how it batches when asked."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import time

from bench import flows
from bench.processes import say
from durable_worker.main import run, serve
from durable_worker.worker import Worker


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--role", choices=("both", "workflows", "activities"), default="both")
    parser.add_argument("--slots", type=int, default=1024)
    parser.add_argument("--cache", type=int, default=20_000)
    parser.add_argument("--lease", type=float, default=15.0)
    options = parser.parse_args()
    logging.basicConfig(level="WARNING", format=f"[{options.role}] %(levelname)s %(message)s")
    run(_serve(options))


async def _serve(options: argparse.Namespace) -> None:
    worker = Worker(
        options.url,
        modules=[flows],
        name=f"bench-{options.role}",
        queues={"default": options.slots},
        max_cached_runs=options.cache,
        lease_s=options.lease,
        run_workflows=options.role != "activities",
        run_activities=options.role != "workflows",
    )
    threading.Thread(target=_answer, args=(worker,), daemon=True).start()
    await serve(worker)


def _answer(worker: Worker) -> None:
    for _ in sys.stdin:
        while not hasattr(worker, "committer"):  # it is still starting
            time.sleep(0.01)
        committer = worker.committer
        say(turns=committer.turns, commits=committer.commits, held=len(worker.runs))


if __name__ == "__main__":
    main()
