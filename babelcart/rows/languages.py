"""Language codes.

Inside Babelcart, a language is a lower-case ISO 639-1 code. Files and settings may use other codes, such as ``pt-BR``, ``deu``, ``vn`` for
Vietnamese (the competition's files) and ``iw`` for Hebrew (Google, old versions of Java). `iso_code` maps them, for rows, settings and
translation memories alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from babelcart.rows.text import normalise

# ISO 639-1, and Filipino (fil), a language of shops without a two-letter code. nb and nn are Norwegian in its two written forms; no is
# Norwegian without stating which. The three stay distinct, because systems differ in the one that they use.
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
    "mo": "ro",
    "sh": "sr",
    "cmn": "zh",
}  # fmt: skip

# ISO 639-2: three-letter code and ISO 639-1 code. Some languages have a second, bibliographic code (ger, fre, chi).
_THREE_LETTERS = dict(
    pair.split(":")
    for pair in """
    aar:aa abk:ab ave:ae afr:af aka:ak amh:am arg:an ara:ar asm:as ava:av aym:ay aze:az bak:ba bel:be bul:bg bih:bh bis:bi bam:bm ben:bn
    bod:bo tib:bo bre:br bos:bs cat:ca che:ce cha:ch cos:co cre:cr ces:cs cze:cs chu:cu chv:cv cym:cy wel:cy dan:da deu:de ger:de div:dv
    dzo:dz ewe:ee ell:el gre:el eng:en epo:eo spa:es est:et eus:eu baq:eu fas:fa per:fa ful:ff fin:fi tgl:fil fij:fj fao:fo fra:fr fre:fr
    fry:fy gle:ga gla:gd glg:gl grn:gn guj:gu glv:gv hau:ha heb:he hin:hi hmo:ho hrv:hr hat:ht hun:hu hye:hy arm:hy her:hz ina:ia ind:id
    ile:ie ibo:ig iii:ii ipk:ik ido:io isl:is ice:is ita:it iku:iu jpn:ja jav:jv kat:ka geo:ka kon:kg kik:ki kua:kj kaz:kk kal:kl khm:km
    kan:kn kor:ko kau:kr kas:ks kur:ku kom:kv cor:kw kir:ky lat:la ltz:lb lug:lg lim:li lin:ln lao:lo lit:lt lub:lu lav:lv mlg:mg mah:mh
    mri:mi mao:mi mkd:mk mac:mk mal:ml mon:mn mar:mr msa:ms may:ms mlt:mt mya:my bur:my nau:na nob:nb nde:nd nep:ne ndo:ng nld:nl dut:nl
    nno:nn nor:no nbl:nr nav:nv nya:ny oci:oc oji:oj orm:om ori:or oss:os pan:pa pli:pi pol:pl pus:ps por:pt que:qu roh:rm run:rn ron:ro
    rum:ro rus:ru kin:rw san:sa srd:sc snd:sd sme:se sag:sg sin:si slk:sk slo:sk slv:sl smo:sm sna:sn som:so sqi:sq alb:sq srp:sr ssw:ss
    sot:st sun:su swe:sv swa:sw tam:ta tel:te tgk:tg tha:th tir:ti tuk:tk tsn:tn ton:to tur:tr tso:ts tat:tt twi:tw tah:ty uig:ug ukr:uk
    urd:ur uzb:uz ven:ve vie:vi vol:vo wln:wa wol:wo xho:xh yid:yi yor:yo zha:za zho:zh chi:zh zul:zu
    """.split()  # noqa: SIM905
)
ACCEPTED = "ISO 639 codes, such as en, deu or pt-BR, and the aliases in babelcart/rows/languages.py"


def iso_code(code: str) -> str | None:
    """Return the ISO 639-1 code of a language tag, or None if the tag is unknown.

    Parameters
    ----------
    code : str
        A code of ISO 639-1 or 639-2 or an alias such as ``vn``, in any case, optionally with script, region or encoding after ``-``,
        ``_`` or ``.``, such as ``zh-Hant-TW`` and ``en_US.UTF-8``.

    Examples
    --------
    >>> iso_code("vn"), iso_code("pt_BR"), iso_code("DEU"), iso_code("klingon")
    ('vi', 'pt', 'de', None)
    """
    primary = re.split("[-_.@]", normalise(code))[0]
    primary = _THREE_LETTERS.get(primary, primary)
    primary = ALIASES.get(primary, primary)
    return primary if primary in CODES else None


def codes(values: Iterable[str], setting: str) -> tuple[str, ...]:
    """Return the ISO 639-1 codes of the languages that a setting lists, each once.

    Parameters
    ----------
    values : iterable of str
        Tags that `iso_code` accepts.
    setting : str
        Name of the setting, for the message.

    Raises
    ------
    ValueError
        If a value is not a language.
    """
    return tuple(dict.fromkeys(code(value, setting) for value in values))


def direction(value: str, setting: str) -> str:
    """Return a direction of translation such as ``en-pt``, with ISO 639-1 codes.

    Parameters
    ----------
    value : str
        Two tags that `iso_code` accepts, separated by ``-``; a region needs ``_``, as in ``en-pt_BR``.
    setting : str
        Name of the setting, for the message.

    Raises
    ------
    ValueError
        If the value is not a pair of languages.
    """
    tags = value.split("-")
    if len(tags) != 2:
        raise ValueError(f"{setting}: {value[:100]!r} is not a direction; accepted: a pair of languages, such as en-pt or en-pt_BR")
    return "-".join(code(tag, setting) for tag in tags)


def code(value: str, setting: str) -> str:
    """Return the ISO 639-1 code of a setting that names one language; raises ValueError if it is not a language."""
    language = iso_code(value)
    if language is None:
        raise ValueError(f"{setting}: {value[:100]!r} is not a language; accepted: {ACCEPTED}")
    return language
