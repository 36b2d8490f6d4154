"""`autodl cancel`, `clear`, `retry`, `priority`, `max-tasks`: what changes the course of tasks."""

from __future__ import annotations

from support.daemon import SETTLED, Daemon, MakeDaemon, Task
from support.nginx import Nginx
from support.waiting import wait_until


def test_cancel_in_mid_download_leaves_nothing_behind(daemon: Daemon, nginx: Nginx) -> None:
    task_id = daemon.add_one(nginx.file("steer/cancel.bin", 3_000_000).slow_url)
    daemon.await_bytes(task_id)
    daemon.ok("cancel", str(task_id))
    assert daemon.status(task_id)["state"] == "cancelled"
    assert daemon.names() == []


def test_cancel_of_a_paused_task_removes_its_part(daemon: Daemon, nginx: Nginx) -> None:
    task_id = daemon.add_one(nginx.file("steer/paused.bin", 3_000_000).slow_url)
    daemon.await_bytes(task_id)
    daemon.ok("pause", "--id", str(task_id))
    assert daemon.hidden_files() != []
    daemon.ok("cancel", str(task_id))
    assert daemon.status(task_id)["state"] == "cancelled"
    # Its part is removed by a worker, of which only the file system tells.
    wait_until(lambda: daemon.names() == [], "the part file goes", seen=daemon.names)


def test_cancel_of_a_waiting_task_fetches_nothing(daemon: Daemon, nginx: Nginx) -> None:
    daemon.ok("pause")
    task_id = daemon.add_one(nginx.file("steer/waiting.bin", 10).url)
    daemon.ok("cancel", str(task_id))
    daemon.ok("resume")
    daemon.await_state(daemon.add_one(nginx.file("steer/next", 10).url), "finished")
    assert daemon.status(task_id)["state"] == "cancelled"
    assert nginx.fetches("waiting.bin", at_least=0) == []


def test_a_cancelled_task_can_be_retried_from_the_beginning(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("steer/cancelled-then-retried.bin", 1_600_000, rate="400k")
    task_id = daemon.add_one(served.slow_url)
    daemon.await_bytes(task_id)
    daemon.ok("cancel", str(task_id))
    daemon.ok("retry", str(task_id))
    daemon.await_state(task_id, "finished")
    assert (daemon.files / "cancelled-then-retried.bin").read_bytes() == served.data
    assert daemon.names() == ["cancelled-then-retried.bin"]
    assert [fetch.asked_range for fetch in nginx.fetches("cancelled-then-retried.bin", at_least=2)] == [None, None]


def test_a_finished_task_can_not_be_cancelled(daemon: Daemon, nginx: Nginx) -> None:
    task_id = daemon.add_one(nginx.file("steer/done", 10).url)
    daemon.await_state(task_id, "finished")
    done = daemon.autodl("cancel", str(task_id))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"autodl: task {task_id} is finished")
    assert daemon.names() == ["done"]


def test_clear_drops_what_waits_and_lets_the_rest_be(daemon: Daemon, nginx: Nginx) -> None:
    running = daemon.add_one(nginx.file("steer/clear.bin", 1_000_000, rate="500k").slow_url)
    daemon.await_bytes(running)
    daemon.ok("pause")
    small = nginx.file("steer/clear-small", 10).url
    waiting = daemon.add(small, small, small)
    paused = daemon.add_one(small, "--paused")
    assert daemon.json("clear") == {"cleared": 3}
    assert {daemon.status(task_id)["state"] for task_id in waiting} == {"cleared"}
    assert daemon.status(paused)["state"] == "paused"
    daemon.ok("resume")
    daemon.await_state(running, "finished")
    assert daemon.names() == ["clear.bin"]


def test_clear_drops_a_task_that_waits_for_its_next_try(make_daemon: MakeDaemon, nginx: Nginx) -> None:
    daemon = make_daemon(config="[retry]\nfirst_delay_s = 3600\nmax_delay_s = 3600\n").start()
    task_id = daemon.add_one(f"{nginx.base}/status/503")
    daemon.await_state(task_id, "retrying")
    assert daemon.json("clear") == {"cleared": 1}
    assert daemon.status(task_id)["state"] == "cleared"


def test_a_failed_task_is_retried_when_its_file_has_come(daemon: Daemon, nginx: Nginx) -> None:
    nginx.remove("steer/later.bin")
    task_id = daemon.add_one(f"{nginx.base}/steer/later.bin")
    failed = daemon.await_state(task_id, "failed")
    assert failed["error"]["code"] == "remote_missing"
    served = nginx.file("steer/later.bin", 1000)
    daemon.ok("retry", str(task_id))
    task = daemon.await_task(task_id, "finished", lambda task: task["state"] == "finished")
    assert (task["error"], task["attempts"]) == (None, 2)
    assert (daemon.files / "later.bin").read_bytes() == served.data


def test_retry_lets_a_postponed_task_start_at_once(make_daemon: MakeDaemon, nginx: Nginx) -> None:
    daemon = make_daemon(config="[retry]\nfirst_delay_s = 3600\nmax_delay_s = 3600\n").start()
    task_id = daemon.add_one(f"{nginx.base}/status/503")
    daemon.await_state(task_id, "retrying")
    daemon.ok("retry", str(task_id))
    daemon.await_task(task_id, "tried again", lambda task: task["attempts"] == 2)


def test_a_higher_priority_starts_first_and_then_the_older_task(daemon: Daemon, nginx: Nginx) -> None:
    daemon.ok("max-tasks", "1")
    daemon.ok("pause")
    url = nginx.file("steer/priority", 10).url
    order = [daemon.add_one(url, "--priority", priority) for priority in ("0", "-5", "10", "0", "10")]
    late = daemon.add_one(url, "--priority", "-1000")
    daemon.ok("priority", str(late), "1000")
    daemon.ok("resume")
    settled = daemon.await_settled([*order, late])
    started = sorted(settled, key=lambda task_id: settled[task_id]["started_at"])
    assert started == [late, order[2], order[4], order[0], order[3], order[1]]


def test_never_more_tasks_run_than_max_tasks_says_and_a_change_counts_at_once(daemon: Daemon, nginx: Nginx) -> None:
    daemon.ok("max-tasks", "2")
    served = nginx.file("steer/max.bin", 600_000, rate="200k")
    ids = daemon.add(*[served.slow_url] * 10)
    running: set[int] = set()
    most_at_once = [2]
    seen: list[int] = []

    def follow(task: Task) -> None:
        (running.add if task["state"] == "downloading" else running.discard)(task["id"])
        seen.append(len(running))
        assert len(running) <= most_at_once[0]

    with daemon.connect() as wire, daemon.connect() as other:
        wire.call("watch", ids=ids, progress=False)
        tasks = wire.tasks()
        left = set(ids)
        raised = False
        for task in tasks:
            follow(task)
            # Each moment, by the daemon's own count, not only as the notifications show it.
            assert other.call("stats")["tasks"]["downloading"] <= most_at_once[0]
            if task["state"] in SETTLED:
                left.discard(task["id"])
            if len(running) == 2 and not raised:
                raised = True
                assert max(seen) == 2
                most_at_once[0] = 5
                assert daemon.json("max-tasks", "5") == {"max_tasks_num": 5}
            if not left:
                break
    assert max(seen) == 5


def test_a_lower_max_tasks_lets_running_tasks_go_on_and_starts_no_more(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("steer/lower.bin", 1_200_000, rate="300k")
    ids = daemon.add(*[served.slow_url] * 6)
    for task_id in ids:
        daemon.await_bytes(task_id)
    daemon.ok("max-tasks", "1")
    later = daemon.add(*[served.url] * 3)
    settled = daemon.await_settled([*ids, *later])
    assert {task["attempts"] for task in settled.values()} == {1}
    last_of_the_first = max(settled[task_id]["finished_at"] for task_id in ids)
    assert all(settled[task_id]["started_at"] >= last_of_the_first - 1 for task_id in later[1:])


def test_max_tasks_without_a_number_shows_it(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("7").start()
    assert daemon.ok("max-tasks") == "7\n"


def test_a_max_tasks_of_nothing_is_a_usage_error(daemon: Daemon) -> None:
    assert daemon.autodl("max-tasks", "0").returncode == 2
    assert daemon.ok("max-tasks") == "10\n"
