"""The same shop with Django: the view's `transaction.atomic()` holds the order and the job, and a worker runs in the ASGI process.

    export DURABLE_DATABASE_URL=postgresql://...
    durable migrate && uvicorn samples.web_django.app:application

    curl -X POST localhost:8000/orders -d '{"customer": "ann", "cents": 700}'

One file instead of a project, with settings in place; a real project needs three things of it: `connection=connection` in the view, the activity,
and the lifespan in `application` (or a `durable-worker` beside the web server).
"""

from __future__ import annotations

import json
import os
from typing import Any

import django
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

from durable import Client, activity
from durable_worker import Worker


def _database() -> dict[str, Any]:
    given = conninfo_to_dict(os.environ["DURABLE_DATABASE_URL"])
    names = {
        "dbname": "NAME",
        "user": "USER",
        "password": "PASSWORD",
        "host": "HOST",
        "port": "PORT",
    }
    return {
        "ENGINE": "django.db.backends.postgresql",
        **{name: given.get(key, "") for key, name in names.items()},
    }


settings.configure(
    DATABASES={"default": _database()},
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="a sample has no secrets",  # noqa: S106
    USE_TZ=True,
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402 - Django wants its settings first
from django.db import close_old_connections, connection, models, transaction  # noqa: E402
from django.http import HttpRequest, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402

client = Client()


class Order(models.Model):
    customer = models.TextField()
    cents = models.IntegerField()
    confirmation = models.TextField(null=True)  # noqa: DJ001 - not yet confirmed

    class Meta:
        app_label = "shop"
        db_table = "django_orders"

    def __str__(self) -> str:
        return f"order {self.pk} of {self.customer}"


@activity(queue="letters")
def confirm_django_order(order_id: int, customer: str) -> None:
    """A sync activity runs in a thread, with a connection of Django's own for that thread."""
    close_old_connections()
    try:
        Order.objects.filter(pk=order_id).update(confirmation=f"thank you, {customer}")
    finally:
        connection.close()


def create_order(request: HttpRequest) -> JsonResponse:
    given = json.loads(request.body)
    try:
        with transaction.atomic():
            order = Order.objects.create(customer=given["customer"], cents=given["cents"])
            client.enqueue(confirm_django_order, order.pk, order.customer, connection=connection)
            if (
                order.cents > 100_000
            ):  # too late a check, on purpose: the order and the job go together
                raise ValueError("we do not sell for that much")
    except ValueError as refusal:
        return JsonResponse({"error": str(refusal)}, status=409)
    return JsonResponse({"id": order.pk}, status=201)


def read_order(_request: HttpRequest, order_id: int) -> JsonResponse:
    order = Order.objects.filter(pk=order_id).first()
    if order is None:
        return JsonResponse({"error": "no such order"}, status=404)
    return JsonResponse({"customer": order.customer, "confirmation": order.confirmation})


urlpatterns = [path("orders", create_order), path("orders/<int:order_id>", read_order)]
pages = get_asgi_application()


def create_tables() -> None:
    """In place of Django's migrations, for one table."""
    with connection.cursor() as cursor:
        cursor.execute(
            "create table if not exists django_orders (id bigint generated always as identity primary key,"
            " customer text not null, cents integer not null, confirmation text)"
        )
    connection.close()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Django's ASGI application, and the worker for as long as the server lives."""
    if scope["type"] != "lifespan":
        await pages(scope, receive, send)
        return
    await receive()  # lifespan.startup
    async with Worker(activities=[confirm_django_order], queues={"letters": 10}):
        await send({"type": "lifespan.startup.complete"})
        await receive()  # lifespan.shutdown
    await send({"type": "lifespan.shutdown.complete"})
