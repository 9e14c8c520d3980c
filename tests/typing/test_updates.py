"""What type checkers say about queries and updates. Nothing here runs: mypy and pyright check this file with the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import durable

if TYPE_CHECKING:
    from typing import assert_type

    from durable import UpdateRequest
    from durable.client_async import AsyncClient
    from durable.client_sync import Client
    from durable.conversation_async import AsyncUpdateHandle
    from durable.conversation_sync import UpdateHandle
    from durable.handles_async import AsyncHandle
    from durable.handles_sync import Handle

    def add(item: str) -> int: ...

    async def close(why: str) -> bool: ...

    async def handlers_keep_their_types() -> None:
        @durable.query
        def status(verbose: bool) -> str:
            return "ok"

        @durable.query(name="other")
        def named() -> int:
            return 1

        @durable.update
        async def put(item: str) -> int:
            return 1

        @durable.update(name="other")
        def take(item: str) -> bool:
            return True

        @put.validator
        def check(item: str) -> None: ...

        assert_type(status(True), str)
        assert_type(named(), int)
        assert_type(await put("x"), int)
        assert_type(take("x"), bool)
        await put(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

        @put.validator  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        def wrong(item: int) -> None: ...

    def answers_have_the_type_that_is_named(handle: Handle[None]) -> None:
        assert_type(handle.query("status", returns=str), str)
        assert_type(handle.query("status"), Any)
        assert_type(handle.query(add, "tea"), int)
        assert_type(handle.update("add", "tea", returns=int), int)
        assert_type(handle.update("add", "tea", returns=list[int]), list[int])
        assert_type(handle.update("add", "tea"), Any)
        assert_type(handle.update(add, "tea", timeout=5), int)
        assert_type(handle.update(close, "why"), bool)
        assert_type(handle.start_update("add", "tea", returns=int), UpdateHandle[int])
        assert_type(handle.start_update(close, "why"), UpdateHandle[bool])
        assert_type(handle.start_update(add, "tea").result(), int)
        assert_type(handle.update_handle("u-1", returns=int), UpdateHandle[int])
        assert_type(handle.update_handle("u-1"), UpdateHandle[Any])

    def requests_have_theirs(client: Client, handle: Handle[None]) -> None:
        request = UpdateRequest("add", "tea", returns=int)
        assert_type(request, UpdateRequest[int])
        assert_type(UpdateRequest(close, "why"), UpdateRequest[bool])
        assert_type(UpdateRequest("add", "tea"), UpdateRequest[Any])
        assert_type(handle.update_handle(request), UpdateHandle[int])
        assert_type(handle.start_update(request), UpdateHandle[int])
        assert_type(client.start("cart", {}, with_update=request), Handle[Any])

    async def so_have_asynchronous_ones(client: AsyncClient, handle: AsyncHandle[None]) -> None:
        assert_type(await handle.query("status", returns=str), str)
        assert_type(await handle.update(close, "why"), bool)
        assert_type(await handle.start_update("add", "tea", returns=int), AsyncUpdateHandle[int])
