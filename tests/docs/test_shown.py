"""What a page says that `symm` prints is what it prints."""

from __future__ import annotations

import pytest

from docs import shown

LAYOUTS, KERNELS = shown.PAGES


def blocks(page: str) -> int:
    return sum(part["command"] is not None for part in shown.PART.finditer(page))


def test_the_layouts_of_the_page_are_as_symm_shows_them() -> None:
    page = LAYOUTS.read_text()
    assert blocks(page) == 8
    assert shown.filled(page) == page


@pytest.mark.timeout(1200)  # it shrinks to the end, which takes a minute of a processor
def test_the_kernel_of_the_page_is_found_wrong_and_put_right_as_shown() -> None:
    page = KERNELS.read_text()
    assert blocks(page) == page.count("$ symm ") == 5
    assert shown.timeless(shown.filled(page)) == shown.timeless(page)


def test_a_page_that_is_behind_is_seen() -> None:
    page = "```\n$ symm show qwen3-32b-tp2\nother words\n```\n"
    assert shown.filled(page) != page
    assert "qwen3-32b-tp2: 2 ranks (sglang)" in shown.filled(page)


WRITES = """Put this into an empty `mine.py`:

```python
if True:
    raise ValueError("first")
```

In `mine.py`, this line goes before `raise`:

```python
raise SystemExit("second")
```

```
$ symm check mine:Mine
```
"""


def test_the_commands_of_a_page_see_the_files_that_it_says_to_write() -> None:
    with pytest.raises(shown.subprocess.CalledProcessError) as raised:
        shown.filled(WRITES)
    assert "second" in raised.value.stderr


def test_a_block_that_another_time_breaks_elsewhere_is_the_same() -> None:
    one, other = "9 draws in 9.0 s (1.0/s): 3 of\n8 calls", "9 draws in 19.7 s (11.3/s): 3\nof 8 calls"
    assert shown.timeless(one) == shown.timeless(other)
    assert shown.timeless(one) != shown.timeless(other.replace("3", "4"))
