"""Slots, as tables: intervals, calendars, exclusions, and what happens when the clock on the wall jumps."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import islice, pairwise, takewhile
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable.core import schedule_times
from durable.core.schedule_times import Calendar, Times, jitter_us, slots
from durable.errors import InvalidOption
from durable.schedules import checked_times, in_words

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def us(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def utc(times: Times, after: str, count: int) -> list[str]:
    """The next slots in UTC, as day and time."""
    found = islice(slots(times, us(after)), count)
    return [f"{EPOCH + timedelta(microseconds=each):%m-%d %H:%M}" for each in found]


def described(**given: Any) -> Times:
    return checked_times(**given)


# -- daylight saving time: the gap and the fold ------------------------------------------------------------------------
# Each row: zone, expression, a moment before the jump (UTC), the slots that follow (UTC).

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
JUMPS = [
    # Berlin, 29 March 2026: 02:00 +1 becomes 03:00 +2 at 01:00 UTC
    (BERLIN, "30 1 * * *", "2026-03-28T12:00", ["03-29 00:30", "03-29 23:30"]),
    (BERLIN, "0 2 * * *", "2026-03-28T12:00", ["03-29 01:00", "03-30 00:00"]),
    (BERLIN, "30 2 * * *", "2026-03-28T12:00", ["03-29 01:00", "03-30 00:30"]),
    (BERLIN, "0,30 2,3 * * *", "2026-03-28T12:00", ["03-29 01:00", "03-29 01:30", "03-30 00:00"]),
    (BERLIN, "0 3 * * *", "2026-03-28T12:00", ["03-29 01:00", "03-30 01:00"]),
    (BERLIN, "*/30 * * * *", "2026-03-29T00:00", ["03-29 00:30", "03-29 01:00", "03-29 01:30"]),
    (BERLIN, "*/30 2 * * *", "2026-03-28T12:00", ["03-30 00:00", "03-30 00:30"]),
    # Berlin, 25 October 2026: 03:00 +2 becomes 02:00 +1 at 01:00 UTC
    (BERLIN, "30 2 * * *", "2026-10-24T12:00", ["10-25 00:30", "10-26 01:30"]),
    (BERLIN, "0 3 * * *", "2026-10-24T12:00", ["10-25 02:00", "10-26 02:00"]),
    (BERLIN, "30 * * * *", "2026-10-24T23:45", ["10-25 00:30", "10-25 01:30", "10-25 02:30"]),
    (BERLIN, "*/30 2 * * *", "2026-10-24T12:00", ["10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30", "10-26 01:00"]),
    # New York, 8 March 2026: 02:00 -5 becomes 03:00 -4 at 07:00 UTC; 1 November: 02:00 -4 becomes 01:00 -5 at 06:00 UTC
    (NEW_YORK, "30 2 * * *", "2026-03-07T12:00", ["03-08 07:00", "03-09 06:30"]),
    (NEW_YORK, "30 1 * * *", "2026-10-31T12:00", ["11-01 05:30", "11-02 06:30"]),
    (NEW_YORK, "0 * * * *", "2026-11-01T04:30", ["11-01 05:00", "11-01 06:00", "11-01 07:00"]),
    # Lord Howe, half an hour. 4 October 2026: 02:00 +10:30 becomes 02:30 +11 at 15:30 UTC of the day before
    (LORD_HOWE, "15 2 * * *", "2026-10-03T10:00", ["10-03 15:30", "10-04 15:15"]),
    (LORD_HOWE, "30 2 * * *", "2026-10-03T10:00", ["10-03 15:30", "10-04 15:30"]),
    (LORD_HOWE, "0 * * * *", "2026-10-03T14:00", ["10-03 14:30", "10-03 16:00", "10-03 17:00"]),
    # Lord Howe, 5 April 2026: 02:00 +11 becomes 01:30 +10:30 at 15:00 UTC of the day before
    (LORD_HOWE, "45 1 * * *", "2026-04-04T10:00", ["04-04 14:45", "04-05 15:15"]),
    (LORD_HOWE, "45 * * * *", "2026-04-04T14:00", ["04-04 14:45", "04-04 15:15", "04-04 16:15"]),
]  # fmt: skip


@pytest.mark.parametrize(("timezone", "cron", "after", "expected"), JUMPS)
def test_gaps_and_folds(timezone: str, cron: str, after: str, expected: list[str]) -> None:
    assert utc(described(cron=cron, timezone=timezone), after, len(expected)) == expected


@pytest.mark.parametrize(
    "timezone",
    [BERLIN, NEW_YORK, LORD_HOWE, "UTC", "Asia/Kathmandu", "Pacific/Apia", "Africa/Casablanca"],
)
@pytest.mark.parametrize("time", ["02:30", "01:45", "00:00", "23:59"])
def test_a_daily_time_comes_once_each_day_of_three_years(timezone: str, time: str) -> None:
    """Also where the clock jumps four times a year."""
    hour, minute = time.split(":")
    times = described(cron=f"{minute} {hour} * * *", timezone=timezone)
    found = [
        EPOCH + timedelta(microseconds=each)
        for each in islice(slots(times, us("2020-01-01")), 1095)
    ]
    days = [each.astimezone(ZoneInfo(timezone)).date() for each in found]
    assert days == [days[0] + timedelta(days=n) for n in range(1095)]


@pytest.mark.parametrize("timezone", [BERLIN, LORD_HOWE, "Africa/Casablanca"])
def test_an_hourly_schedule_never_waits_for_two_hours(timezone: str) -> None:
    found = list(
        islice(slots(described(cron="17 * * * *", timezone=timezone), us("2026-01-01")), 9000)
    )
    gaps = {(later - earlier) // 60_000_000 for earlier, later in pairwise(found)}
    assert gaps <= {60, 30, 90}  # Lord Howe's half hour
    assert found == sorted(set(found))


# -- any split of time into passes -------------------------------------------------------------------------------------

TIMES = st.sampled_from(
    [
        described(cron="*/7 * * * *", timezone=BERLIN),
        described(cron=["30 2 * * *", "0 3 * * *", "17 * * * *"], timezone=BERLIN),
        described(cron="45 1 * * *", timezone=LORD_HOWE),
        described(every=timedelta(minutes=13), offset=7),
        described(every=timedelta(hours=5), cron="0 */5 * * *"),
        described(calendar=[Calendar(weekday="mon-fri", hour=(2, 9), minute=30)], timezone=NEW_YORK),
        described(cron="0 * * * *", exclude=[Calendar(hour=range(8, 12)), date(2026, 3, 29)], timezone=BERLIN),
    ]
)  # fmt: skip


BEGIN, END = us("2026-03-24"), us("2026-04-02")


def between(times: Times, first: int, last: int) -> list[int]:
    return list(takewhile(lambda each: each <= last, slots(times, first)))


@cache
def in_one_pass(times: Times) -> list[int]:
    return between(times, BEGIN, END)


@given(TIMES, st.lists(st.integers(0, 9 * 24 * 3600), max_size=12))
@settings(max_examples=60, deadline=None)
def test_slots_do_not_depend_on_when_they_are_asked_for(times: Times, seconds: list[int]) -> None:
    cuts = sorted({BEGIN + each * 1_000_000 for each in seconds})
    whole = in_one_pass(times)
    passes = zip([BEGIN, *cuts], [*cuts, END], strict=True)
    pieces = [each for first, last in passes for each in between(times, first, last)]
    assert pieces == whole == sorted(set(whole))


@given(st.integers(0, 10**16), st.integers(1, 10**12), st.integers(0, 10**12))
def test_jitter_is_bounded_and_the_same_for_everybody(slot: int, gap: int, jitter: int) -> None:
    times = Times(every_us=gap, jitter_us=jitter)
    late = jitter_us(times, "key", slot, slot + gap)
    assert 0 <= late <= min(jitter, gap)
    assert late == jitter_us(times, "key", slot, slot + gap)


def test_jitter_differs_from_schedule_to_schedule() -> None:
    times = Times(every_us=10**9, jitter_us=10**8)
    assert len({jitter_us(times, f"s{n}", 0, 10**9) for n in range(50)}) > 40


# -- the parts ---------------------------------------------------------------------------------------------------------


def test_intervals_count_from_the_epoch_with_a_phase() -> None:
    times = described(every=timedelta(hours=6), offset=timedelta(hours=1, minutes=30))
    assert utc(times, "2026-01-01T00:00", 3) == ["01-01 01:30", "01-01 07:30", "01-01 13:30"]


def test_calendars_and_listed_times() -> None:
    times = described(
        calendar=[
            Calendar(month=range(1, 13, 3), day=1, hour=9),
            datetime(2026, 5, 2, 8),  # noqa: DTZ001 - a time in the zone
            datetime(2026, 2, 1, 8, tzinfo=UTC),
        ],
        timezone=BERLIN,
    )
    assert utc(times, "2025-12-31", 4) == [
        "01-01 08:00",
        "02-01 08:00",
        "04-01 07:00",
        "05-02 06:00",
    ]


def test_weekdays_are_named() -> None:
    times = described(calendar=Calendar(weekday="sat-sun,wed", hour=7))
    assert utc(times, "2026-11-16", 4) == [
        "11-18 07:00",
        "11-21 07:00",
        "11-22 07:00",
        "11-25 07:00",
    ]
    assert Calendar(weekday="fri-mon").weekday == (0, 4, 5, 6)


def test_exclusions_cover_days_moments_and_calendars() -> None:
    times = described(
        cron="0 9,15 * * *",
        exclude=[
            date(2026, 12, 25),
            datetime(2026, 12, 26, 9),  # noqa: DTZ001 - a time in the zone
            Calendar(month=12, day=27, hour=15),
        ],
        timezone=BERLIN,
    )
    assert utc(times, "2026-12-24T12:00", 4) == [
        "12-24 14:00",
        "12-26 14:00",
        "12-27 08:00",
        "12-28 08:00",
    ]


def test_start_and_end_are_included() -> None:
    times = described(
        cron="0 * * * *",
        start=datetime(2026, 1, 1, 3, tzinfo=UTC),
        end=datetime(2026, 1, 1, 5, tzinfo=UTC),
    )
    assert utc(times, "2025-01-01", 9) == ["01-01 03:00", "01-01 04:00", "01-01 05:00"]


def test_parts_that_meet_are_one_slot() -> None:
    times = described(cron=["0 * * * *", "0 */2 * * *"], every=3600)
    assert utc(times, "2026-01-01T00:30", 2) == ["01-01 01:00", "01-01 02:00"]


def test_cron_s_own_rules() -> None:
    """The day fields are joined by "or" unless one begins with `*`; names, steps, the last day, nicknames, seconds."""
    assert utc(described(cron="0 0 13 * FRI"), "2026-11-01", 3) == [
        "11-06 00:00",
        "11-13 00:00",
        "11-20 00:00",
    ]
    assert utc(described(cron="0 0 * * FRI"), "2026-11-01", 2) == ["11-06 00:00", "11-13 00:00"]
    assert utc(described(cron="0 0 L * *"), "2026-02-01", 2) == ["02-28 00:00", "03-31 00:00"]
    assert utc(described(cron="@daily"), "2026-02-01", 1) == ["02-02 00:00"]
    found = list(islice(slots(described(cron="*/20 * * * * *"), us("2026-01-01")), 3))
    assert [each - us("2026-01-01") for each in found] == [20_000_000, 40_000_000, 60_000_000]


def test_a_description_survives_the_database() -> None:
    times = described(
        cron="0 9 * * *", every=7200, calendar=[Calendar(day=1), datetime(2030, 1, 1, tzinfo=UTC)],
        exclude=[date(2026, 12, 25)], timezone=BERLIN, start=datetime(2026, 1, 1, tzinfo=UTC), jitter=30,
    )  # fmt: skip
    assert Times.from_body(times.to_body()) == times
    assert "cron 0 9 * * *" in in_words(times)


@pytest.mark.parametrize(
    ("given_options", "word"),
    [
        ({}, "no times"),
        ({"cron": "61 * * * *"}, "minute"),
        ({"cron": "* * *"}, "number of fields"),
        ({"cron": "0 0 31 2 *"}, "day-of-month"),
        ({"cron": "0 " * 150}, "characters"),
        ({"cron": "0 9 * * *", "timezone": "Mars/Olympus"}, "IANA"),
        ({"cron": "0 9 * * *", "timezone": "/etc/passwd"}, "IANA"),
        ({"cron": "0 9 * * *", "timezone": "Europe"}, "IANA"),
        ({"every": 0.2}, "at least a second"),
        ({"every": -5}, "at least a second"),
        ({"every": float("nan")}, "every"),
        ({"every": 60, "jitter": -1}, "jitter"),
        ({"calendar": Calendar(month=2, day=30)}, "never due"),
        ({"cron": "* * * * *", "exclude": Calendar()}, "never due"),
        ({"cron": "0 9 * * *", "calendar": ["2030-01-01"]}, "calendar"),
        ({"cron": "0 9 * * *", "exclude": ["friday"]}, "exclude"),
        ({"cron": "0 9 * * *", "start": "today"}, "datetime"),
        ({"cron": ["0 9 * * *"] * 1001}, "at most"),
    ],
)
def test_nonsense_is_refused(
    given_options: dict[str, Any], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule_times, "MOST_EXCLUDED", 2_000)  # or one of them takes seconds
    with pytest.raises(InvalidOption, match=word):
        described(**given_options)


@pytest.mark.parametrize(
    "fields",
    [
        {"month": 13},
        {"day": 0},
        {"weekday": "funday"},
        {"hour": "nine"},
        {"minute": [True]},
        {"day": []},
    ],
)
def test_a_calendar_s_fields_are_checked(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(fields))):
        Calendar(**fields)
