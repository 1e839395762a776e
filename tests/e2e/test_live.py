"""What a running ComfyUI tells a page of runs and of the second process."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request

import aiohttp
import pytest
from processes import wait_until

from hybrid_core.telling.kinds import is_short
from hybrid_core.telling.live import GAP_SECONDS

from .graphs import custom, graph
from .runs import until_shared


class Page:
    """A client of the server's WebSocket, as a browser's page is one."""

    def __init__(self, server):
        self.server, self.messages = server, []
        self._open = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._listen(),)
        )

    def __enter__(self):
        self._thread.start()
        assert self._open.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)

    async def _listen(self):
        self._task = asyncio.current_task()
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"{self.server.address}/ws?clientId=page") as socket,
            ):
                async for message in socket:
                    if message.type != aiohttp.WSMsgType.TEXT:
                        continue
                    told = json.loads(message.data)
                    self.messages.append((time.monotonic(), told["type"], told["data"]))
                    self._open.set()
        except asyncio.CancelledError:
            pass

    def of(self, kind):
        return [data for _, name, data in self.messages if name == kind]

    def queue(self, prompt):
        return self.server.post("/prompt", prompt_of_page(prompt))["prompt_id"]

    def run(self, prompt):
        """Queue as this page and wait; what was told of the prompt's runs."""
        prompt_id = self.queue(prompt)
        self.server.finished(prompt_id)
        wait_until(lambda: self._ended(prompt_id))
        return self.runs(prompt_id)

    def runs(self, prompt_id):
        return [m for m in self.of("hybrid_ksampler.run") if m["prompt_id"] == prompt_id]

    def _ended(self, prompt_id):
        ends = ("execution_success", "execution_interrupted", "execution_error")
        over = any(m["prompt_id"] == prompt_id for end in ends for m in self.of(end))
        runs = self.runs(prompt_id)
        return over and (not runs or runs[-1]["status"] != "running")


def prompt_of_page(prompt, workflow="workflow-1"):
    extra = {"extra_pnginfo": {"workflow": {"id": workflow}}}
    return {"prompt": prompt, "client_id": "page", "extra_data": extra}


@pytest.fixture
def page(server):
    with Page(server) as opened:
        yield opened


def rebuilt(messages):
    rows = []
    for message in messages:
        assert message["start"] <= len(rows), "a gap"
        rows = rows[: message["start"]] + message["rows"]
    return rows


def kinds(rows):
    return [row["kind"] for row in rows]


def test_a_run_arrives_in_pieces_while_it_goes_on(server, page):
    until_shared(server)
    told = page.run(graph(steps=40, seed=21, mode="exact"))
    rows = rebuilt(told)
    assert len(told) > 2, "more than the beginning and the end"
    assert len({message["run"] for message in told}) == 1
    assert kinds(rows) == ["exact"] * 40 and [row["step"] for row in rows] == list(range(40))
    assert all(0 < row["discrepancy"] < 2 for row in rows), "rel-MAE of every step"
    for row in rows:
        assert row["own_ms"] > 0 and row["worker_ms"] > 0 and row["waited_ms"] >= 0
        assert row["ms"] >= row["own_ms"]
    last = told[-1]
    assert (last["node"], last["workflow_id"]) == ("sampler", "workflow-1")
    assert last["status"] == "done" and last["total"] == 40 and last["mode"] == "exact"
    assert last["ideal"] == 2.0 and last["ratio"] > 1 and last["tolerance"] is None
    (snapshot,) = [
        s
        for s in server.get("/hybrid_ksampler/runs?workflow_id=workflow-1")["runs"]
        if s["run"] == last["run"]
    ]
    assert snapshot["rows"] == rows and snapshot["start"] == 0


def test_messages_keep_their_pace(server, page):
    until_shared(server)
    page.run(graph(steps=60, seed=22))
    stamps = [stamp for stamp, name, _ in page.messages if name == "hybrid_ksampler.run"]
    took = stamps[-1] - stamps[0]
    assert len(stamps) <= took / GAP_SECONDS + 2


def test_adaptive_shows_its_drift_and_its_tolerance(server, page):
    until_shared(server)
    told = page.run(graph(steps=16, mode="adaptive", tolerance=1.0, seed=23))
    rows = rebuilt(told)
    short = [row for row in rows if is_short(row["kind"])]
    assert short and told[-1]["tolerance"] == 1.0
    assert all(row["drift"] <= 1.0 for row in short)
    assert all(row["discrepancy"] is None for row in short)
    assert told[-1]["ideal"] > 2


def test_cached_run_is_shown_again(server, page):
    until_shared(server)
    prompt = graph(steps=5, seed=24)
    told = page.run(prompt)
    before = len(page.of("executed"))
    assert page.run(prompt) == [], "nothing ran"
    (replayed,) = [m for m in page.of("executed")[before:] if m["node"] == "sampler"]
    (run,) = replayed["output"]["hybrid_run"]
    assert run["run"] == told[-1]["run"] and run["rows"] == rebuilt(told)


def test_cancelled_run_is_called_so(server, page):
    until_shared(server)
    prompt_id = page.queue(graph(steps=3000, seed=25, mode="exact"))
    wait_until(lambda: [r for r in page.runs(prompt_id) if r["rows"]])
    server.post("/interrupt", {})
    server.finished(prompt_id)
    wait_until(lambda: page.runs(prompt_id)[-1]["status"] != "running")
    assert page.runs(prompt_id)[-1]["status"] == "interrupted"


def test_mode_off_is_shown_as_off(server, page):
    told = page.run(graph(steps=3, seed=27, mode="off"))
    assert told[-1]["mode"] == "off" and told[-1]["status"] == "done" and not told[-1]["rows"]


def monitored(source, mode="exact", seed=5):
    prompt = custom("monitor", mode, seed)
    prompt["monitor"] = {"class_type": "Hybrid_Monitor", "inputs": {"model": [source, 0]}}
    return prompt


def test_monitor_watches_an_attached_model(server, page):
    until_shared(server)
    told = page.run(monitored("attach"))
    assert {message["node"] for message in told} == {"monitor"}
    assert kinds(rebuilt(told)) == ["exact"] * 5
    again = monitored("attach", seed=6)
    second = page.run(again)  # the monitor itself is cached
    assert second[-1]["run"] != told[-1]["run"]
    assert second[-1]["prompt_id"] != told[-1]["prompt_id"] and len(rebuilt(second)) == 5
    before = len(page.of("executed"))
    assert page.run(again) == []
    (replayed,) = [m for m in page.of("executed")[before:] if m["node"] == "monitor"]
    (run,) = replayed["output"]["hybrid_run"]
    assert run["run"] == second[-1]["run"] and len(run["rows"]) == 5


@pytest.mark.parametrize("source", ["attach", "model"])
def test_monitor_on_a_model_that_is_not_attached_says_so(server, page, source):
    told = page.run(monitored(source, mode="off"))
    assert told[-1]["mode"] == "off" and "nothing attached" in told[-1]["reasons"][0]


def post(server, path, body):
    request = urllib.request.Request(
        f"{server.address}{path}", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_panel_shows_both_processes_and_its_buttons_work(server, page):
    until_shared(server)
    seen = server.get("/hybrid_ksampler/worker")
    own, worker = seen["parent"], seen["worker"]
    assert seen["obstacle"] is None and worker["state"] == "ready"
    assert own["pid"] == server.process.pid and own["model"] and own["device"] == "cpu"
    assert worker["pid"] != own["pid"] and worker["device"] == "cpu:1"
    assert worker["model"] == own["model"].split(", ")[0] == "mmdit" and worker["age_seconds"] > 0
    for side in (own, worker):
        assert side["memory_used"] > 50e6 and side["memory_free"] > 0
    freed = post(server, "/hybrid_ksampler/worker/free", b"")["worker"]
    assert (freed["state"], freed["pid"], freed["model"]) == ("none", None, None)
    wait_until(lambda: page.of("hybrid_ksampler.worker")[-1:])
    started = post(server, "/hybrid_ksampler/worker/start", b"")["worker"]
    assert started["state"] == "starting" and started["pid"] not in (None, worker["pid"])
    wait_until(lambda: server.get("/hybrid_ksampler/worker")["worker"]["state"] == "ready", 60)
    wait_until(lambda: page.of("hybrid_ksampler.worker")[-1]["worker"]["state"] == "ready")
    again = post(server, "/hybrid_ksampler/worker/restart", b"")["worker"]
    assert again["pid"] not in (None, started["pid"])
    until_shared(server)


@pytest.mark.parametrize("seed", range(40, 44))
def test_restarting_the_worker_in_a_run_holds_nothing_up(server, page, seed):
    until_shared(server)
    prompt_id = page.queue(graph(steps=80, seed=seed, mode="exact"))
    wait_until(lambda: [r for r in page.runs(prompt_id) if r["rows"]])
    pid = post(server, "/hybrid_ksampler/worker/restart", b"")["worker"]["pid"]
    entry = server.finished(prompt_id, 40)  # a step's time-out is 60 s
    assert entry["status"]["status_str"] == "success"
    wait_until(lambda: page.runs(prompt_id)[-1]["status"] == "done")
    assert "stopped" in page.runs(prompt_id)[-1]["reasons"][0]
    wait_until(lambda: server.get("/hybrid_ksampler/worker")["worker"]["state"] == "ready", 60)
    told = server.get("/hybrid_ksampler/worker")["worker"]
    assert (told["pid"], told["model"], told["last_error"]) == (pid, None, None)


def test_freeing_the_worker_while_it_starts_lasts_for_the_run(server, page):
    post(server, "/hybrid_ksampler/worker/free", b"")
    prompt_id = page.queue(graph(steps=200, seed=50, mode="exact"))
    wait_until(lambda: [r for r in page.runs(prompt_id) if len(r["rows"])])
    post(server, "/hybrid_ksampler/worker/free", b"")
    server.finished(prompt_id)
    assert server.get("/hybrid_ksampler/worker")["worker"]["state"] == "none"
    until_shared(server)


def test_freeing_the_worker_in_a_run_does_not_cost_the_image(server, page):
    until_shared(server)
    prompt_id = page.queue(graph(steps=60, seed=28, mode="exact"))
    wait_until(lambda: [r for r in page.runs(prompt_id) if r["rows"]])
    post(server, "/hybrid_ksampler/worker/free", b"")
    assert server.finished(prompt_id)["status"]["status_str"] == "success"
    wait_until(lambda: page.runs(prompt_id)[-1]["status"] == "done")
    told = page.runs(prompt_id)
    assert kinds(rebuilt(told))[-1] == "local" and "stopped" in told[-1]["reasons"][0]
    until_shared(server)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "not JSON"),
        (b"[]", "idle_seconds"),
        (b'{"idle_seconds": "long"}', "idle_seconds"),
        (b'{"idle_seconds": true}', "idle_seconds"),
        (b'{"idle_seconds": -5}', "more than 0"),
        (b'{"idle_seconds": NaN}', "a number"),
        (b'{"idle_seconds": Infinity}', "a number"),
        (b'{"idle_seconds": ' + b"9" * 400 + b"}", "a number"),
        (b"[" * 100_000, "too deep"),
        (b"[" * 900 + b"]" * 900, "idle_seconds"),
    ],
)
def test_bad_settings_are_refused_with_a_reason(server, body, why):
    before = server.get("/hybrid_ksampler/worker")["idle_seconds"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(server, "/hybrid_ksampler/settings", body)
    assert refused.value.code == 400 and why in json.load(refused.value)["error"]
    assert server.get("/hybrid_ksampler/worker")["idle_seconds"] == before


@pytest.mark.parametrize(
    ("kind", "told", "why"),
    [
        ("text/plain", {"address": "", "weights": False}, "this page alone"),
        ("application/json", {"address": "http://there", "weights": False}, "192.168.1.5:6379"),
        ("application/json", "192.168.1.5:6379", "an 'address'"),
        ("application/json", {"address": "", "weights": False}, None),
    ],
)
def test_other_computers_are_named_by_the_page_alone(server, kind, told, why):
    said, body = {"Content-Type": kind}, json.dumps({"ray": told}).encode()
    asked = urllib.request.Request(server.address + "/hybrid_ksampler/settings", body, said)
    if why is None:
        with urllib.request.urlopen(asked) as answer:
            assert json.load(answer)["ray"] == told
        return
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked)
    assert refused.value.code == 400 and why in json.load(refused.value)["error"]


def test_settings_in_an_unknown_charset_are_refused_with_a_reason(server):
    said = {"Content-Type": "application/json; charset=bogus"}
    asked = urllib.request.Request(
        server.address + "/hybrid_ksampler/settings", b'{"idle_seconds": 600}', said
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked)
    assert refused.value.code == 400 and "charset" in json.load(refused.value)["error"]


@pytest.mark.parametrize(
    "told",
    [
        "text", [], 5, {"workflow": "an id"}, {"workflow": [1]}, {"workflow": 5},
        {"workflow": {"id": {"a": 1}}}, {"workflow": {"id": 5}},
    ],
    ids=str,
)  # fmt: skip
def test_extra_pnginfo_of_any_shape_costs_no_image(server, told):
    body = {"prompt": graph(seed=time.monotonic_ns()), "extra_data": {"extra_pnginfo": told}}
    answer = post(server, "/prompt", json.dumps(body).encode())
    status = server.finished(answer["prompt_id"])["status"]
    failed = [data["node_type"] for name, data in status["messages"] if name == "execution_error"]
    assert failed in ([], ["SaveLatent"]), "the core's node takes an object or a list only"
    assert not failed or not isinstance(told, dict | list)


@pytest.mark.parametrize("options", ["text", 5])
def test_options_of_a_wrong_type_are_refused_in_a_sentence(server, options):
    entry = server.finished(server.queue(graph(options=options, seed=time.monotonic_ns())))
    (said,) = [d for name, d in entry["status"]["messages"] if name == "execution_error"]
    assert "expected the output of Hybrid Options" in said["exception_message"]


def test_an_unused_worker_goes_after_the_time_that_was_set(server):
    until_shared(server)
    assert post(server, "/hybrid_ksampler/settings", b'{"idle_seconds": 1}')["idle_seconds"] == 1
    try:
        wait_until(lambda: server.get("/hybrid_ksampler/worker")["worker"]["state"] == "none")
    finally:
        post(server, "/hybrid_ksampler/settings", b'{"idle_seconds": 600}')
    until_shared(server)
