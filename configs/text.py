"""Strangers' text, made harmless before a person sees it."""


def printable(text: str) -> str:
    """Return `text` without what could steer the terminal; lines and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "·" for c in text)


def clean(text: str) -> str:
    """Return `text` on one line and without control characters, so that it cannot steer the terminal."""
    return "".join(character if character.isprintable() else "·" for character in text)
