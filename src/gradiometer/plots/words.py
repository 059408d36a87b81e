"""Names from elsewhere, as figures draw them: as they are, never as mathematics, and not too long.

A layer's name is whatever its owner calls it: `$x$`, `_hidden`, a line break, a hundred letters.
"""

from __future__ import annotations

import unicodedata

MOST_LETTERS = 32
# control characters, invisible marks (they may turn the order of letters), halves of pairs, breaks
UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def plain(text: str) -> str:
    r"""Give a name as the text of a label: matplotlib draws it as it is.

    >>> print(plain("$x$"))
    \$x\$
    """
    return escaped(shortened(printable(text)))


def printable(text: str) -> str:
    r"""Give a text in which what cannot be seen is written as Python writes it.

    >>> print(printable("a\nb"))
    a\nb
    """
    return "".join(
        letter.encode("unicode_escape").decode()
        if unicodedata.category(letter) in UNPRINTABLE
        else letter
        for letter in text
    )


def shortened(text: str, most: int = MOST_LETTERS) -> str:
    """Give the beginning and the end of a long text; the end of a layer's name tells most."""
    if len(text) <= most:
        return text
    head = most // 3
    return f"{text[:head]}…{text[head + 1 - most :]}"


def escaped(text: str) -> str:
    """Give a text in which $ begins no formula, and _ does not keep a label out of a legend."""
    return ("" if not text.startswith("_") else " ") + text.replace("$", r"\$")
