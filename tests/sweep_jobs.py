"""What test_sweeps runs, in a module that workers can import; and sweeps that others kill."""

import functools
import json
import os
import pathlib
import random
import signal
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from nalu_np.sweeps import read_results, sweep


def echo(config):
    return config


def square(config):
    return {"square": config["x"] ** 2}


def other(config):
    return config["x"]


def picky(config):
    """Fails for odd numbers, with traces of where it does."""
    if config["x"] % 2:
        raise ValueError(f"{config['x']} is odd")
    return config["x"] // 2


def fixable(config):
    """Fails until a file is there."""
    if not pathlib.Path(config["file"]).exists():
        raise RuntimeError("no file yet")
    return "done"


def numbers(config):
    """Enough arithmetic for BLAS to show how many threads it has, and every kind of result."""
    rng = np.random.default_rng(config["seed"])
    a = rng.normal(size=(40, 300)).astype("float32")
    product = a @ a.T
    return {
        "sum": product.sum(),
        "row": product[0],
        "finite": bool(np.isfinite(product).all()),
        "loss": [float("nan"), float("inf"), -float("inf")][config["seed"] % 3],
        "shape": product.shape,
        "name": "größe\x1b\ud800",
    }


def strange(config):
    """Results that are not JSON, or only nearly."""
    deep = circular = []
    for _ in range(config if isinstance(config, int) else 0):
        deep = [deep]
    circular = [1]
    circular.append(circular)
    results = {
        "set": {1},
        "complex": 1j,
        "object": [{"a": object()}],
        "keys": {"a": {1: 2}},
        "reserved": {"$float": 1},
        "long double": np.longdouble(1),
        "dates": np.array(["2020-01-01"], "datetime64[D]"),
        "objects": np.array([None]),
        "circular": circular,
        "integer": 10**5000,
    }
    return results[config] if isinstance(config, str) else deep


class OddError(Exception):
    def __str__(self):
        raise RuntimeError("no")


def mute(config):
    raise OddError


def spoil(config):
    """Changes what it is given."""
    config["x"].append(1)
    return len(config["x"])


def exits(config):
    sys.exit(3)


def interrupts(config):
    raise KeyboardInterrupt


def recurse(config):
    return recurse(config)


def dies(config):
    """Ends its process as the system does when memory is out, but only once for each file."""
    mark = config.get("once")
    if mark is not None and not pathlib.Path(mark).exists():
        pathlib.Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(config.get("sleep", 0))
    return config["x"]


def where(config):
    return {"pid": os.getpid(), "limits": limits()}


def limits():
    """How many threads each BLAS of this process has."""
    from threadpoolctl import threadpool_info

    return [info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"]


def slow(config):
    """Writes down who computes."""
    if "pids" in config:
        with open(config["pids"], "a") as file:
            file.write(f"{os.getpid()}\n")
    time.sleep(config["sleep"])
    return config["x"]


def large(config):
    """A line that takes the system a while to write; some fail."""
    if config["x"] % 7 == 3:
        raise ValueError("x" * 1000)
    return f"{config['x']} " * 100_000


@functools.wraps(square)
def decorated(config):
    return square(config)


unnamed = lambda config: config  # noqa: E731
partly = functools.partial(square)
renamed = square


class Model:
    def run(self, config):
        return config

    def __call__(self, config):
        return config

    @staticmethod
    def static(config):
        return config


def make_closure(n):
    def closure(config):
        return n

    return closure


# --- sweeps that are killed -------------------------------------------------------------------------------------


def aside_from_timings(records):
    rest = [{name: value for name, value in record.items() if name != "seconds"} for record in records]
    return sorted(map(json.dumps, rest))


def kill_at_random(folder, kills, seed):
    """Kill this many sweeps at random moments, each time start again, and print what was seen."""
    warnings.simplefilter("ignore")
    folder, draw = pathlib.Path(folder), random.Random(seed)
    configs = [{"x": x} for x in range(30)]
    begun = time.perf_counter()
    sweep(large, configs, out=folder / "whole.jsonl")
    duration = time.perf_counter() - begun
    whole = aside_from_timings(read_results(folder / "whole.jsonl"))
    seen = {"kills": 0, "torn": 0, "within": 0, "sweeps": 0}
    while (seen["kills"] < kills or seen["within"] < kills // 4) and seen["kills"] < 20 * kills:
        path = folder / f"{seen['sweeps']}.jsonl"
        seen["sweeps"] += 1
        ended = False
        while not ended and seen["kills"] < kills:
            child = os.fork()
            if not child:
                try:
                    sweep(large, configs, out=path)
                finally:
                    os._exit(sys.exc_info()[0] is not None)
            time.sleep(draw.uniform(0, duration / 2))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            ended = os.WIFEXITED(status)
            assert not ended or os.WEXITSTATUS(status) == 0, "a sweep that was not killed must end well"
            if not ended:
                content = path.read_bytes() if path.exists() else b""
                seen["kills"] += 1
                seen["torn"] += not content.endswith(b"\n") and content != b""
                seen["within"] += 1 < content.count(b"\n") < 31
        sweep(large, configs, out=path)
        assert aside_from_timings(read_results(path)) == whole
        assert b"\n\n" not in path.read_bytes()
        path.unlink()
    print(json.dumps(seen))


def sweep_in_processes(out, pids, method, runs, sleep):
    """A sweep for another process to kill."""
    configs = [{"x": x, "sleep": sleep, "pids": pids} for x in range(runs)]
    with ProcessPoolExecutor(2, get_context(method)) as executor:
        print(json.dumps(sweep(slow, configs, executor=executor, out=out)))


if __name__ == "__main__":
    import sweep_jobs  # by the name that workers know

    name, *arguments = json.loads(sys.argv[1])
    getattr(sweep_jobs, name)(*arguments)
