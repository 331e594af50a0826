"""A name written "Given Family", in the parts that reference managers sort by."""

from __future__ import annotations

SUFFIXES = {"jr", "sr", "ii", "iii", "iv"}


def parts(name: str) -> dict[str, str]:
    """CSL's parts of a name, split where BibTeX splits it: words in small letters before the family name are a particle.

    Example:
        >>> parts("Joost van de Weijer")
        {'family': 'Weijer', 'given': 'Joost', 'non-dropping-particle': 'van de'}
        >>> parts("Salt and Pepper Group")
        {'literal': 'Salt and Pepper Group'}
    """
    words = name.split()
    if len(words) < 2 or "," in name or {"and", "others"} & set(name.lower().split()):
        return {"literal": name}
    suffix = [words.pop()] if len(words) > 2 and words[-1].rstrip(".").lower() in SUFFIXES else []
    small = [number for number, word in enumerate(words[:-1]) if word[0].islower()]
    start, end = (small[0], small[-1] + 1) if small else (len(words) - 1, len(words) - 1)
    found = {
        "family": words[end:],
        "given": words[:start],
        "non-dropping-particle": words[start:end],
        "suffix": suffix,
    }
    return {key: " ".join(value) for key, value in found.items() if value}


def inverted(name: str) -> str:
    """ "Weijer, Joost" with the particle before the family name; a name that is kept whole stays as it is.

    Example:
        >>> inverted("Joost van de Weijer")
        'van de Weijer, Joost'
    """
    found = parts(name)
    if "literal" in found:
        return name
    family = " ".join(found[key] for key in ("non-dropping-particle", "family") if key in found)
    return ", ".join([family, *(found[key] for key in ("given", "suffix") if key in found)])
