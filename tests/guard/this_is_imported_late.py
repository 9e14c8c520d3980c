from pathlib import Path

READ = Path(__file__).read_text(encoding="utf-8")
