"""``python docs/write_record.py`` writes the table of warnings into ``record.md``."""

from __future__ import annotations

from pathlib import Path

from tables import table, with_tables

from palrp_onnx.warning_codes import WARNINGS

PAGE = Path(__file__).with_name("record.md")


def written(page: str) -> str:
    """The page with its table as it is now."""
    rows = ((f"`{code}`", meaning) for code, meaning in WARNINGS.items())
    return with_tables(page, "write_record.py", {"warnings": table("code", "", rows=rows)})


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
