import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { Follower } from "../../web/lib/run/follow.mjs";
import { RunStore } from "../../web/lib/run/store.mjs";
import { event, run } from "./runs.mjs";

const settled = () => new Promise((done) => setImmediate(done));

/** A follower on a clock of its own; server.runs is what the route would answer. */
function page({ seen = true } = {}) {
  const clock = { ms: 0 };
  const server = { runs: [], asked: 0, broken: false };
  const store = new RunStore();
  const follower = new Follower(store, {
    watching: () => seen,
    now: () => clock.ms,
    async fetchRuns() {
      server.asked++;
      if (server.broken) throw new Error("no network");
      return { workflow: "w", runs: server.runs };
    },
  });
  async function pass(seconds) {
    for (let i = 0; i < seconds * 10; i++) {
      clock.ms += 100;
      mock.timers.tick(100);
      await settled();
    }
  }
  return { clock, server, store, follower, pass };
}

const clocked = (name, body) =>
  test(name, async () => {
    mock.timers.enable({ apis: ["setTimeout"] });
    try {
      await body();
    } finally {
      mock.timers.reset();
    }
  });

clocked("an_idle_page_asks_nothing", async () => {
  const { server, pass } = page();
  await pass(60);
  assert.equal(server.asked, 0);
});

clocked("a_second_tab_polls_while_the_queue_runs_and_stops_after_it", async () => {
  const { server, store, follower, pass } = page();
  follower.queue(1);
  server.runs = [run("EE")];
  await pass(5);
  assert.equal(store.running().length, 1);
  assert.ok(server.asked >= 3 && server.asked <= 6, `${server.asked}`);
  server.runs = [run("EEEE", { seq: 3, status: "done" })];
  follower.queue(0);
  await pass(2);
  assert.equal(store.running().length, 0);
  const { asked } = server;
  await pass(60);
  assert.equal(server.asked, asked);
});

clocked("the_tab_that_gets_events_does_not_poll", async () => {
  const { server, store, follower, pass } = page();
  follower.own(true);
  follower.queue(1);
  follower.event(store.receive(run("E")));
  await pass(60);
  assert.equal(server.asked, 0);
});

clocked("a_reloaded_tab_polls_until_events_come", async () => {
  const { server, store, follower, pass } = page();
  follower.queue(1);
  await pass(3);
  assert.ok(server.asked > 0);
  const { asked } = server;
  follower.event(store.receive(run("E")));
  await pass(30);
  assert.equal(server.asked, asked);
});

clocked("a_run_between_two_polls_of_a_second_tab_is_not_missed", async () => {
  const { server, store, follower, pass } = page();
  await pass(1);
  follower.queue(1);
  await pass(0.3);
  server.runs = [run("EE", { status: "done" })];
  follower.queue(0);
  await pass(1);
  assert.equal(store.slots("w")[0].current.status, "done");
  assert.equal(server.asked, 1);
});

clocked("the_tab_that_heard_of_its_run_asks_nothing_at_its_end", async () => {
  const { server, store, follower, pass } = page();
  await pass(1);
  follower.queue(1);
  follower.own(true);
  follower.event(store.receive(run("EE", { status: "done" })));
  follower.own(false);
  follower.queue(0);
  await pass(5);
  assert.equal(server.asked, 0);
});

clocked("a_page_without_plots_does_not_poll", async () => {
  const { server, follower, pass } = page({ seen: false });
  follower.queue(1);
  await pass(30);
  assert.equal(server.asked, 0);
});

clocked("a_gap_is_filled_from_a_snapshot", async () => {
  const { server, store, follower, pass } = page();
  const whole = run("EEEEEE", { seq: 7 });
  server.runs = [whole];
  follower.event(store.receive(event(whole, 7, 4, 6)));
  await pass(1);
  assert.equal(store.slots("w")[0].current.rows.length, 6);
  assert.equal(server.asked, 1);
});

clocked("many_gaps_at_once_are_two_requests_and_no_more_than_four_a_second", async () => {
  const { clock, server, follower, pass } = page();
  clock.ms = 1000;
  for (let i = 0; i < 10; i++) follower.request();
  await pass(1);
  assert.equal(server.asked, 2);
  for (let i = 0; i < 10; i++) {
    follower.request();
    await pass(0.1);
  }
  assert.ok(server.asked <= 7, `${server.asked}`);
});

clocked("a_restarted_server_ends_the_runs_it_does_not_know", async () => {
  const { store, follower, pass } = page();
  store.receive(run("EE"));
  follower.request();
  await pass(1);
  assert.equal(store.slots("w")[0].current.status, "interrupted");
});

clocked("a_server_that_does_not_answer_is_not_the_end", async () => {
  const { server, store, follower, pass } = page();
  server.broken = true;
  store.receive(run("EE"));
  follower.queue(1);
  await pass(5);
  assert.equal(store.running().length, 1);
  server.broken = false;
  server.runs = [run("EEE", { seq: 2 })];
  await pass(3);
  assert.equal(store.slots("w")[0].current.rows.length, 3);
});
