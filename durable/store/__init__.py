"""The only psycopg imports and the only SQL."""

try:
    import psycopg as psycopg
except ImportError as error:
    _msg = (
        "durable reaches PostgreSQL through libpq, and there is none here. Install it with "
        "pip install 'durable[binary]' (or 'durable[c]' to compile against the system's libpq)"
    )
    raise ImportError(_msg) from error
