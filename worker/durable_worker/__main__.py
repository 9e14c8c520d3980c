"""`python -m durable_worker MODULE...`: see main.py."""

from durable_worker.main import main

if __name__ == "__main__":
    main()
