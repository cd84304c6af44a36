"""No call in the project can wait without an end, but for a short list of those that somebody else bounds.

An entry of the list that is no longer needed fails. `with lock:` is not looked for: what is done under a lock is short.
Nor is what this process prints: who reads that, reads it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = ("agent", "replay", "learner", "actors", "distributed", "configs", "benchmarks", "studies")

WITH_RAY = (
    "as long as Ray's control store stands still; Ray ends this process 60 s after it died (test_ray_itself.py), and "
    "`Guardian` the others"
)
ALLOWED = {
    ("learner/learner.py", "Learner.step", "get"): "not a queue's: `BatchSource.get` has learner.data_deadline itself",
    ("actors/video.py", "write_video", "write_frames"): (
        "in an evaluator's process, which the final evaluation bounds, or in a command with its user before it"
    ),
    ("distributed/metrics.py", "animation.read_all", "read_frames"): (
        "in a daemon thread, which `animation` waits for with a deadline"
    ),
    ("benchmarks/two_explorers.py", "main", "ProcessPoolExecutor"): "run by hand; --limit bounds each job",
    ("benchmarks/two_explorers.py", "main", "result"): "run by hand; --limit bounds each job",
    ("studies/montezuma.py", "main", "ProcessPoolExecutor"): "run by hand; --deadline bounds each job",
    ("studies/montezuma.py", "main", "result"): "run by hand; --deadline bounds each job",
    ("replay/sampler.py", "WindowSampler._run", "GetNextTrajectory"): (
        "in a NativeThread, a daemon; `get` waits for it with a deadline"
    ),
    ("replay/contents.py", "ContentsSaver.save.call", "Checkpoint"): (
        "in a NativeThread, a daemon, which `save` waits for with a deadline"
    ),
    ("replay/item_stream.py", "ItemStream.close", "Close"): (
        "sends nothing: it cancels the writer's own stream; test_watchdog.py closes one before a stopped server"
    ),
    ("replay/server_process.py", "_watch_parent.read_to_end", "readline"): (
        "in a daemon thread of the server's process, whose very purpose is to wait for the parent's end"
    ),
    ("replay/server_process.py", "main", "readline"): (
        "the parent writes its order at once and waits with replay.start_deadline, then ends this process; if the "
        "parent dies, the stream ends"
    ),
    ("replay/server_process.py", "_serve", "Stop"): (
        "while nothing is served yet; the parent waits with replay.start_deadline and ends this process"
    ),
    ("distributed/processes.py", "ParameterStoreProcess.__init__", "ray.put"): (
        "in the parameter store's process; learner and actors wait for its answers at most LOST_AFTER_SECONDS"
    ),
    ("distributed/exploration.py", "explore.end", "ray.kill"): "at once; for an actor not known yet, " + WITH_RAY,
    ("distributed/recording.py", "Crew._died", "ray.kill"): "at once; for an actor not known yet, " + WITH_RAY,
    ("distributed/fleet.py", "Fleet._kill", "ray.kill"): "at once; for an actor not known yet, " + WITH_RAY,
    ("distributed/store_supervisor.py", "StoreSupervisor.check", "ray.kill"): "at once",
    ("distributed/ray_state.py", "machines", "ray.nodes"): WITH_RAY,
    ("distributed/ray_state.py", "free_resources", "ray.available_resources"): WITH_RAY,
    ("distributed/ray_state.py", "actor_process", "ray._private.state.actors"): WITH_RAY,
    ("distributed/ray_state.py", "MachineWatch._run", "ray._private.state.state.get_draining_nodes"): (
        "in a daemon thread that nobody waits for"
    ),
    ("distributed/ray_cluster.py", "start_private", "ray.init"): (
        "Ray's own waits are of 30 s; after START_SECONDS the processes that it waits for are killed"
    ),
    ("distributed/ray_cluster.py", "connect", "ray.init"): (
        "the cluster answered _check_reachable a moment ago; should it stand still since, " + WITH_RAY
    ),
    ("distributed/ray_cluster.py", "leave", "ray.shutdown"): (
        "after SHUTDOWN_SECONDS the processes that it waits for are killed; of a cluster that was joined, " + WITH_RAY
    ),
    ("distributed/guardian.py", "Guardian.dismiss", "stdin.write"): "5 bytes, which an empty pipe holds",
    ("distributed/guardian.py", "main", "os.read"): "only after `select`",
    ("distributed/stop_request.py", "StopRequest._asked", "os.write"): "what this process prints, see above",
    ("replay/server.py", "_write_order", "os.write"): "only after `select`, and no more than a ready pipe takes",
    ("replay/server.py", "_read_answer", "os.read"): "only after `select`",
    ("benchmarks/actor_memory.py", "main", "load"): "its parent writes the order at once, and bounds its life",
}
"""(file, function, call) -> who bounds it."""


def test_no_call_waits_without_an_end() -> None:
    found: dict[tuple[str, str, str], int] = {}
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            for function, call, line in unbounded(path.read_text()):
                found[name, function, call] = line
    refused = [
        f"{file}:{line}: {call} in {function} waits without an end; give it a timeout"
        for (file, function, call), line in found.items()
        if (file, function, call) not in ALLOWED
    ]
    assert not refused, "\n".join(refused)
    assert not ALLOWED.keys() - found.keys(), "these are allowed and not there (any more): remove them from ALLOWED"


def unbounded(source: str) -> list[tuple[str, str, int]]:
    """Function, call and line of the calls in a module's source that can wait without an end."""
    tree = ast.parse(source)
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return list(_calls(tree, (), imported))


def _calls(node: ast.AST, within: tuple[str, ...], imported: dict[str, str]) -> Iterator[tuple[str, str, int]]:
    for child in ast.iter_child_nodes(node):
        inside = within
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = (*within, child.name)
        if isinstance(child, ast.Call):
            for waits in (_by_full_name, _by_method):
                if shown := waits(_name(child, imported), child):
                    yield ".".join(within) or "<module>", shown, child.lineno
                    break
        elif isinstance(child, ast.With) and any(_is_popen(item.context_expr, imported) for item in child.items):
            yield ".".join(within) or "<module>", "with Popen", child.lineno
        elif isinstance(child, ast.For) and _last(ast.unparse(child.iter)) in PIPES:
            yield ".".join(within) or "<module>", f"for {_last(ast.unparse(child.iter))}", child.lineno
        yield from _calls(child, inside, imported)


def _name(call: ast.Call, imported: dict[str, str]) -> str:
    """Full name of what is called, through the module's imports."""
    first, dot, rest = ast.unparse(call.func).partition(".")
    return imported.get(first, first) + dot + rest


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _is_popen(node: ast.expr, imported: dict[str, str]) -> bool:
    """Leaving its `with` waits for the process."""
    return isinstance(node, ast.Call) and _last(_name(node, imported)) == "Popen"


def _given(call: ast.Call, position: int, *keywords: str) -> bool:
    """Whether an argument is given, by position or keyword, and is not None; ``**`` may give any."""
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg in keywords:
            return not _is(keyword.value, None)
    if len(call.args) > position:
        return not _is(call.args[position], None)
    return any(isinstance(argument, ast.Starred) for argument in call.args)


def _is(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


FULL_NAMES = {
    # By full name: position of the timeout, or None where there is none to give.
    "ray.get": 99,
    "ray.wait": 99,
    "ray.put": None,
    "ray.init": None,
    "ray.shutdown": None,
    "ray.kill": None,
    "ray.nodes": None,
    "ray.available_resources": None,
    "ray.cluster_resources": None,
    "ray._private.state.actors": None,
    "ray._private.state.state.get_draining_nodes": None,
    "subprocess.run": 99,
    "subprocess.call": 99,
    "subprocess.check_call": 99,
    "subprocess.check_output": 99,
    "os.waitpid": None,
    "os.wait": None,
    "os.system": None,
    "os.read": None,
    "os.write": None,
    "signal.pause": None,
    "input": None,
    "socket.create_connection": 1,
    "urllib.request.urlopen": 2,
    "urllib.request.urlretrieve": None,
    "select.select": 3,
    "psutil.wait_procs": 1,
    "concurrent.futures.wait": 1,
    "concurrent.futures.as_completed": 1,
    "asyncio.run": None,
    **{f"requests.{verb}": 99 for verb in ("get", "post", "put", "head", "delete", "request")},
}
METHODS = {
    # By the method's name, whatever it is called on: position of the timeout.
    "wait": 0,
    "wait_for": 1,
    "result": 0,
    "communicate": 1,
    "Flush": 1,
    "EndEpisode": 1,
    "ServerInfo": 0,
    "GetNextTrajectory": None,
    "Checkpoint": None,
    "Close": None,
    "Stop": None,
    "Wait": None,
    "Reset": None,
    "MutatePriorities": None,
    "readline": None,
    "read_frames": None,  # from a pipe of ffmpeg
    "write_frames": None,
    "recv": None,
    "accept": None,
    "recv_bytes": None,
}
PIPES = ("stdin", "stdout", "stderr")
PIPE_METHODS = ("read", "read1", "readlines", "write", "writelines", "flush")
"""Of a process's pipes; those of `METHODS` are found on them too."""
POOLS = ("ThreadPoolExecutor", "ProcessPoolExecutor", "Pool")
"""Leaving one's `with`, or `shutdown`, waits for all that it was given."""


def _by_full_name(name: str, call: ast.Call) -> str | None:
    if name not in FULL_NAMES:
        return None
    position = FULL_NAMES[name]
    return None if position is not None and _given(call, position, "timeout") else name


def _by_method(name: str, call: ast.Call) -> str | None:
    owner, _, method = name.rpartition(".")
    if method in POOLS:
        return method
    if name in FULL_NAMES or not owner:
        return None
    if method in METHODS:
        position = METHODS[method]
        return None if position is not None and _given(call, position, "timeout") else method
    if method in PIPE_METHODS and _last(owner) in PIPES and owner not in ("sys.stdout", "sys.stderr"):
        return f"{_last(owner)}.{method}"
    if method == "load" and any(_last(ast.unparse(argument)) in PIPES for argument in call.args):
        return method
    if method == "join":  # of a thread, process, pool or queue; that of a string or path has an argument
        return (
            method if all(_is(each, None) for each in [*call.args, *[word.value for word in call.keywords]]) else None
        )
    if method == "get":  # of a queue; that of a mapping has an argument
        positional = [each for each in call.args if not _is(each, True)]
        blocking = not positional and not any(_is(keyword.value, False) for keyword in call.keywords)
        return method if blocking and not _given(call, 1, "timeout") else None
    if method == "put" and not _given(call, 2, "timeout"):
        unblocked = len(call.args) > 1 and _is(call.args[1], False)
        return None if unblocked or any(k.arg == "block" and _is(k.value, False) for k in call.keywords) else method
    if method == "acquire" and not _given(call, 1, "timeout"):
        unblocked = any(_is(each, False) for each in [*call.args, *[keyword.value for keyword in call.keywords]])
        return None if unblocked else method
    if method in ("flock", "lockf") and "LOCK_NB" not in ast.unparse(call) and "LOCK_UN" not in ast.unparse(call):
        return method
    return None


@pytest.mark.parametrize(
    "call",
    [
        "ray.get(x)", "ray.get(x, timeout=None)", "ray.wait(xs, num_returns=2)", "ray.put(x)", "q.get()", "q.get(True)",
        "q.get(block=True)", "q.get(timeout=None)", "q.put(x)", "q.put(x, True)", "event.wait()", "event.wait(None)",
        "condition.wait_for(f)", "thread.join()", "thread.join(timeout=None)", "thread.join(None)", "process.wait()",
        "process.communicate()", "process.communicate(data)", "subprocess.run(words, check=True)",
        "subprocess.check_output(words)", "socket.create_connection(address)", "future.result()", "lock.acquire()",
        "concurrent.futures.wait(jobs)", "concurrent.futures.as_completed(jobs)", "select.select(a, b, c)",
        "writer.Flush(0)", "writer.EndEpisode(True)", "client.ServerInfo()", "sampler.GetNextTrajectory()",
        "client.Checkpoint()", "psutil.wait_procs(processes)", "requests.get(url)", "urllib.request.urlopen(url)",
        "fcntl.flock(file, fcntl.LOCK_EX)", "concurrent.futures.ThreadPoolExecutor(1)", "sys.stdin.readline()",
        "ray.init(address='local')", "ray.shutdown()", "ray.kill(actor)", "ray.nodes()", "ray.available_resources()",
        "process.stdin.write(data)", "self._process.stdin.flush()", "process.stdout.read()", "p.stderr.readlines()",
        "sys.stdin.read()", "json.load(sys.stdin)", "os.read(pipe, 5)", "os.write(pipe, data)",
    ],
)  # fmt: skip
def test_calls_that_wait_without_an_end_are_found(call: str) -> None:
    (found,) = unbounded(f"class A:\n    def f(self):\n        if x:\n            y = {call}\n")
    assert found[0] == "A.f" and found[2] == 4
    assert found[1].rpartition(".")[2] in call


def test_a_with_that_waits_for_a_process_and_a_loop_over_a_pipe_are_found() -> None:
    source = "from subprocess import Popen as P\ndef f():\n  with lock, P(words) as p:\n    for line in p.stdout: pass"
    assert unbounded(source) == [("f", "with Popen", 3), ("f", "for stdout", 4)]


def test_names_are_followed_through_imports() -> None:
    assert unbounded("from subprocess import run as go\nimport ray as r\ngo(words)\nr.get(x)\nr.get(x, timeout=1)") == [
        ("<module>", "subprocess.run", 3),
        ("<module>", "ray.get", 4),
    ]


@pytest.mark.parametrize(
    "call",
    [
        "ray.get(x, timeout=1)", "ray.wait(xs, timeout=0)", "mapping.get(key)", "mapping.get(key, None)",
        "q.get(timeout=1)",
        "q.get(True, 1.0)", "q.get_nowait()", "q.get(block=False)", "q.get(False)", "q.put(x, timeout=1)",
        "q.put(x, True, 1)", "q.put(x, block=False)", "event.wait(1)", "event.wait(timeout=t)",
        "condition.wait_for(f, 1)", "thread.join(1)", "', '.join(words)", "os.path.join(a, b)",
        "process.communicate(timeout=1)",
        "process.communicate(data, 1)", "subprocess.run(words, timeout=1)", "subprocess.run(words, **options)",
        "socket.create_connection(address, 1)", "future.result(0)", "lock.acquire(timeout=1)", "lock.acquire(False)",
        "select.select(a, b, c, 1)", "writer.Flush(0, 500)", "writer.EndEpisode(True, 1)", "client.ServerInfo(2)",
        "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", "psutil.wait_procs(processes, timeout=1)",
        "process.stdin.close()", "sys.stdout.flush()", "file.write(data)", "file.read()", "json.load(file)",
        "subprocess.Popen(words)",
    ],
)  # fmt: skip
def test_calls_with_a_deadline_pass(call: str) -> None:
    assert unbounded(f"y = {call}") == []
