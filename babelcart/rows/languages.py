"""Language codes.

Inside Babelcart, a language is a lower-case ISO 639-1 code. Other systems use other codes, such as ``vn`` for Vietnamese (the
competition's files) and ``iw`` for Hebrew (Google, old versions of Java); `iso_code` maps them.
"""

from __future__ import annotations

# ISO 639-1, and Filipino (fil), a language of shops without a two-letter code.
CODES = frozenset(
    """
    aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el
    en eo es et eu fa ff fi fil fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is
    it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt
    my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm
    sn so sq sr ss st su sv sw ta te tg th ti tk tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
    """.split()  # noqa: SIM905
)

# Codes of other systems. Codes that mean another language in ISO 639-1 (kr: Kanuri, se: Sami) are not mapped.
ALIASES = {
    "vn": "vi",
    "iw": "he",
    "in": "id",
    "ji": "yi",
    "jw": "jv",
    "jp": "ja",
    "cn": "zh",
    "cz": "cs",
    "gr": "el",
    "ua": "uk",
    "tl": "fil",
    "zh-hans": "zh",
    "zh-hant": "zh",
}  # fmt: skip


def iso_code(code: str) -> str | None:
    """The ISO 639-1 code of a language tag, or None if the tag is unknown.

    Parameters
    ----------
    code : str
        In any case, optionally with a region after ``_`` or ``-``; may be an alias such as ``vn``.

    Examples
    --------
    >>> iso_code("vn"), iso_code("pt_BR"), iso_code("klingon")
    ('vi', 'pt', None)
    """
    tag = code.strip().lower().replace("_", "-")
    tag = ALIASES.get(tag, tag)
    primary = tag.split("-")[0]
    primary = ALIASES.get(primary, primary)
    return primary if primary in CODES else None
