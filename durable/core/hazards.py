"""What workflow code may not do, by qualified name, and what to write instead (C13). A table, and how to read it.

A *hazard* stops the decoration. A *suspicion* is for `durable lint` only: it is wrong often enough to be asked about and seldom enough to be shown.
Names end in `()` where the hazard is a method of what a call returns: `pathlib.Path().read_text`.
"""

from __future__ import annotations

from typing import NamedTuple

UNGUARDED = "durable.unguarded"

_CLOCK = "reads the clock"
_ENTROPY = "draws random numbers"
_BLOCKS = "blocks the thread that all runs share"
_IO = "does I/O"
_THREAD = "starts or waits for a thread or process"
_LEAVES = "leaves the run's event loop"

ACTIVITY = "an activity"
_SLEEP = "durable.sleep(...)"
_TIME = "durable.time(), which stands still until the workflow waits"
_UNPREDICTABLE = "an activity (durable.random() is no secret: its seed is the run's id)"


class Hazard(NamedTuple):
    """`does` completes a sentence, `instead` completes "Use ...". `bare`: only when called without arguments."""

    does: str
    instead: str
    bare: bool = False
    suspicion: bool = False


def _each(owner: str, names: str, hazard: Hazard) -> dict[str, Hazard]:
    return {f"{owner}.{name}": hazard for name in names.split()}


def _clock() -> dict[str, Hazard]:
    return {
        **_each("time", "time time_ns", Hazard(_CLOCK, _TIME)),
        **_each(
            "time",
            "monotonic monotonic_ns perf_counter perf_counter_ns process_time process_time_ns thread_time thread_time_ns",
            Hazard(_CLOCK, _TIME),
        ),
        **_each(
            "time", "localtime gmtime ctime asctime", Hazard(_CLOCK, "durable.now()", bare=True)
        ),
        **_each("datetime.datetime", "now utcnow today", Hazard(_CLOCK, "durable.now()")),
        "datetime.date.today": Hazard(_CLOCK, "durable.now().date()"),
    }


def _entropy() -> dict[str, Hazard]:
    drawing = (
        "betavariate binomialvariate choice choices expovariate gammavariate gauss getrandbits getstate lognormvariate"
        " normalvariate paretovariate randbytes randint random randrange sample seed setstate shuffle triangular uniform"
        " vonmisesvariate weibullvariate"
    )
    numpy = "choice integers normal permutation rand randint randn random random_sample seed shuffle standard_normal uniform"
    return {
        **{
            f"random.{name}": Hazard(_ENTROPY, f"durable.random().{name}")
            for name in drawing.split()
        },
        "random.Random": Hazard(_ENTROPY, "durable.random()", bare=True),
        "random.SystemRandom": Hazard(_ENTROPY, "durable.random()"),
        **_each("uuid", "uuid1 uuid4 uuid6 uuid7 getnode", Hazard(_ENTROPY, "durable.uuid4()")),
        **_each("os", "urandom getrandom", Hazard(_ENTROPY, "durable.random().randbytes(n)")),
        **_each(
            "secrets",
            "choice randbelow randbits token_bytes token_hex token_urlsafe SystemRandom",
            Hazard(_ENTROPY, _UNPREDICTABLE),
        ),
        **_each(
            "numpy.random",
            numpy,
            Hazard(_ENTROPY, "durable.random(), or a generator seeded from it"),
        ),
        "numpy.random.default_rng": Hazard(
            _ENTROPY, "numpy.random.default_rng(durable.random().getrandbits(64))", bare=True
        ),
    }


def _blocking() -> dict[str, Hazard]:
    return {
        "time.sleep": Hazard(_BLOCKS, _SLEEP),
        "threading.Timer": Hazard(_THREAD, _SLEEP),
        "threading.Thread": Hazard(_THREAD, "asyncio.create_task(...), or an activity"),
        **_each(
            "threading",
            "Barrier BoundedSemaphore Condition Event Lock RLock Semaphore",
            Hazard(_BLOCKS, "its namesake in asyncio"),
        ),
        **_each(
            "queue", "LifoQueue PriorityQueue Queue SimpleQueue", Hazard(_BLOCKS, "asyncio.Queue")
        ),
        **_each(
            "concurrent.futures",
            "ThreadPoolExecutor ProcessPoolExecutor",
            Hazard(_THREAD, ACTIVITY),
        ),
        **_each("multiprocessing", "Manager Pool Process Queue", Hazard(_THREAD, ACTIVITY)),
        **_each("_thread", "start_new_thread", Hazard(_THREAD, ACTIVITY)),
        **_each(
            "signal", "alarm pause setitimer signal sigwait", Hazard(_BLOCKS, "a durable Signal")
        ),
        **_each("select", "epoll poll select", Hazard(_BLOCKS, ACTIVITY)),
    }


def _asyncio() -> dict[str, Hazard]:
    of_loop = (
        "add_reader add_signal_handler add_writer call_soon_threadsafe connect_read_pipe connect_write_pipe create_connection"
        " create_server create_datagram_endpoint getaddrinfo getnameinfo run_forever run_in_executor run_until_complete"
        " sock_accept sock_connect sock_recv sock_sendall subprocess_exec subprocess_shell"
    )
    away = "create_subprocess_exec create_subprocess_shell open_connection open_unix_connection start_server start_unix_server"
    return {
        **_each(
            "asyncio",
            "to_thread",
            Hazard(_THREAD, "an activity (a sync activity runs in a thread)"),
        ),
        **_each("asyncio", away, Hazard(_IO, ACTIVITY)),
        **_each("asyncio", "Runner new_event_loop run set_event_loop", Hazard(_LEAVES, "`await`")),
        **_each("asyncio", "run_coroutine_threadsafe", Hazard(_LEAVES, "asyncio.create_task(...)")),
        **_each("asyncio.get_running_loop()", of_loop, Hazard(_LEAVES, ACTIVITY)),
        **_each("asyncio.get_event_loop()", of_loop, Hazard(_LEAVES, ACTIVITY)),
    }


def _io() -> dict[str, Hazard]:
    io = Hazard(_IO, ACTIVITY)
    methods = (
        "chmod exists glob is_dir is_file iterdir lstat mkdir open read_bytes read_text rename replace resolve rglob rmdir stat"
        " symlink_to touch unlink write_bytes write_text"
    )
    files = (
        "chdir chmod chown getcwd link listdir lstat makedirs mkdir open popen posix_spawn remove removedirs rename renames"
        " replace rmdir scandir stat symlink system truncate unlink utime walk fork forkpty kill execv execve execvp spawnv"
    )
    web = "delete get head options patch post put request"
    return {
        **_each("builtins", "open", io),
        "builtins.input": Hazard(_IO, "a durable Signal"),
        **_each("io", "open open_code FileIO", io),
        **_each("os", files, io),
        **_each("os.path", "exists getmtime getsize isdir isfile islink", io),
        **_each("pathlib.Path()", methods, io),
        **_each("shutil", "copy copy2 copyfile copytree disk_usage move rmtree which", io),
        **_each("glob", "glob iglob", io),
        **_each(
            "tempfile", "NamedTemporaryFile TemporaryDirectory TemporaryFile mkdtemp mkstemp", io
        ),
        **_each(
            "subprocess", "Popen call check_call check_output getoutput getstatusoutput run", io
        ),
        **_each(
            "socket",
            "create_connection create_server getaddrinfo gethostbyname gethostname socket socketpair",
            io,
        ),
        **_each("urllib.request", "urlopen urlretrieve", io),
        **_each("http.client", "HTTPConnection HTTPSConnection", io),
        **_each("smtplib", "SMTP SMTP_SSL", io),
        **_each("ftplib", "FTP FTP_TLS", io),
        **_each("requests", f"{web} Session session", io),
        **_each("httpx", f"{web} stream AsyncClient Client", io),
        **_each("aiohttp", "ClientSession request", io),
        **_each("psycopg", "connect Connection.connect AsyncConnection.connect", io),
        **_each("psycopg2", "connect", io),
        **_each("asyncpg", "connect create_pool", io),
        **_each("sqlite3", "connect", io),
        **_each("boto3", "Session client resource", io),
        **_each("redis", "Redis from_url", io),
        **_each("durable", "AsyncClient Client client_async.AsyncClient client_sync.Client", io),
    }


def _suspicions() -> dict[str, Hazard]:
    environment = Hazard(
        "reads the environment, which another worker may have otherwise",
        "an argument or an activity",
        suspicion=True,
    )
    differs = "differs from process to process"
    return {
        **_each("os", "environ getenv getpid", environment),
        "builtins.hash": Hazard(f"{differs} for strings", "hashlib", suspicion=True),
        "builtins.id": Hazard(differs, "a name or a number of your own", suspicion=True),
    }


HAZARDS = {**_clock(), **_entropy(), **_blocking(), **_asyncio(), **_io(), **_suspicions()}

SET_ITERATION = Hazard(
    "in an order that differs from process to process (sets of strings have none)",
    "sorted(...), or a list",
    suspicion=True,
)


def _by_last_part() -> dict[str, list[str]]:
    index: dict[str, list[str]] = {}
    for name in (
        *HAZARDS,
        UNGUARDED,
        "builtins.set",
        "builtins.frozenset",
        "builtins.list",
        "builtins.tuple",
    ):
        parts = name.replace("()", "").split(".")
        for end in range(1, len(parts) + 1):
            known = index.setdefault(parts[end - 1], [])
            if (dotted := ".".join(parts[:end])) not in known:
                known.append(dotted)
    return index


CANDIDATES = _by_last_part()
"""Last part of a name -> the qualified names that end with it, or pass through it, in the table."""
