"""Samples whose runs are talked to: signals, queries, updates."""

from __future__ import annotations

import os
import threading
from typing import Any

import psycopg
import pytest

from durable import Client, UpdateRejected, UpdateRequest, WorkflowCancelled
from samples import cart, cluster, mailbox, resource_pool
from samples.cluster import Cluster
from tests.samples.conftest import Working
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]


def advance(sql: Sql, by: str) -> None:
    sql.execute("select durable.advance_clock(%s::interval)", (by,))


def test_letters_are_sorted_until_closing_time(client: Client, working: Working) -> None:
    handle = client.start(mailbox.sort_mail, id="mailbox")
    handle.signal(mailbox.letter, "early")  # before anybody runs it
    with working("samples.mailbox"):
        handle.signal(mailbox.letter, "second")
        eventually(lambda: handle.query("sorted_so_far", returns=list[str]) == ["EARLY", "SECOND"])
        handle.signal(mailbox.letter, "last")
        handle.signal(mailbox.closing_time)
        assert handle.result(timeout=30) == ["EARLY", "SECOND", "LAST"]
        assert handle.query("sorted_so_far") == ["EARLY", "SECOND", "LAST"]  # also afterwards


def test_the_first_thing_makes_the_cart(client: Client, working: Working) -> None:
    first = UpdateRequest("add", "tea", 2, returns=int)
    with working("samples.cart"):
        handle = client.start(cart.fill_cart, id="cart-1", with_update=first)
        assert handle.update_handle(first).result(timeout=30) == 800
        assert handle.update("add", "cup", returns=int, timeout=30) == 1_700
        with pytest.raises(UpdateRejected, match="no such thing"):
            handle.update("add", "unicorn", timeout=30)
        assert handle.query("total") == 1_700
        handle.signal(cart.check_out)
        receipt = handle.result(timeout=30)
    assert receipt == cart.Receipt(items={"tea": 2, "cup": 1}, cents=1_700)
    assert not any("unicorn" in str(event) for event in handle.history())


def test_a_cart_that_nobody_pays_for_is_abandoned(
    client: Client, working: Working, sql: Sql
) -> None:
    with working("samples.cart"):
        handle = client.start(cart.fill_cart, id="cart-2")
        handle.update("add", "tea", timeout=30)
        advance(sql, "3 days")
        assert handle.result(timeout=30).abandoned


def test_assignments_at_the_same_time_share_no_node(client: Client, working: Working) -> None:
    with working("samples.cluster"):
        handle = client.start(cluster.manage_cluster, Cluster(), 4, id="cluster")
        assigned = [
            handle.start_update("assign", f"task-{n}", 5, returns=list[str]) for n in range(5)
        ]
        nodes = [node for update in assigned for node in update.result(timeout=30)]
        assert len(set(nodes)) == 25
        with pytest.raises(UpdateRejected, match="0 nodes are free"):
            handle.update("assign", "one too many", 1, timeout=30)
        assert handle.update("unassign", "task-3", returns=int, timeout=30) == 5
        current = client.handle("cluster")
        eventually(lambda: len(current.query("nodes")) == 20)
        current.signal(cluster.shut_down)
        ended = handle.result(timeout=30)
    assert ended.rounds >= 1  # it continued as new in between, and lost nothing
    assert len(ended.nodes) == 20


def test_a_cancelled_cluster_gives_its_nodes_back(client: Client, working: Working) -> None:
    with working("samples.cluster"):
        handle = client.start(cluster.manage_cluster, Cluster(), id="cluster")
        handle.update("assign", "task", 3, timeout=30)
        handle.cancel("too expensive")
        with pytest.raises(WorkflowCancelled):
            handle.result(timeout=30)
    released = [e for e in handle.history() if e.body.get("name") == "release"]
    assert len(released) == 1


def test_licences_are_lent_to_one_at_a_time(
    client: Client, database_url: str, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DURABLE_DATABASE_URL", database_url)
    assert os.environ["DURABLE_DATABASE_URL"] == database_url
    with working("samples.resource_pool"):
        pool = client.start(resource_pool.licence_pool, ["A", "B"], id=resource_pool.POOL_ID)
        users = [client.start(resource_pool.use_licence, f"turbine {n}") for n in range(6)]
        used = [user.result(timeout=60) for user in users]
        assert {it[-1] for it in used} <= {"A", "B"}
        eventually(lambda: pool.query("borrowers") == {})
        pool.signal(resource_pool.close_pool)
        assert pool.result(timeout=30) == 6


def test_two_who_add_at_once_both_get_their_answer(client: Client, working: Working) -> None:
    answers: list[int] = []
    with working("samples.cart"):
        handle = client.start(cart.fill_cart, id="cart-3")

        def add() -> None:
            answers.append(client.handle("cart-3").update("add", "tea", returns=int, timeout=30))

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [400, 800, 1_200, 1_600]
        handle.signal(cart.check_out)
        assert handle.result(timeout=30).cents == 1_600
