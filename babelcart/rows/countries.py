"""Countries with shops: their codes, which the columns of languages of many files hold, and the languages of their shops.

Some codes are those of another language, too: ``kr`` is Kanuri, and not Korean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Country(NamedTuple):
    """The English name of a country, and the ISO 639-1 codes of the languages of its shops, the most frequent first."""

    name: str
    languages: tuple[str, ...]


def _table(text: str) -> dict[str, Country]:
    """Parse lines of a code, a name and languages."""
    countries = {}
    for line in text.strip().splitlines():
        code, name, languages = line.strip().split(" | ")
        countries[code] = Country(name, tuple(languages.split()))
    return countries


# ISO 3166-1 codes, in lower case; uk, eu; and LA and NA for Latin and North America.
COUNTRIES: Mapping[str, Country] = _table("""
    ae | the United Arab Emirates | ar en
    af | Afghanistan | fa ps
    al | Albania | sq
    am | Armenia | hy
    ao | Angola | pt
    ar | Argentina | es
    as | American Samoa | en
    at | Austria | de
    au | Australia | en
    az | Azerbaijan | az
    ba | Bosnia and Herzegovina | bs
    bd | Bangladesh | bn
    be | Belgium | nl fr
    bg | Bulgaria | bg
    bh | Bahrain | ar
    bi | Burundi | fr
    bm | Bermuda | en
    bn | Brunei | ms
    bo | Bolivia | es
    br | Brazil | pt
    bs | the Bahamas | en
    by | Belarus | ru be
    ca | Canada | en fr
    ch | Switzerland | de fr it
    cl | Chile | es
    cn | China | zh
    co | Colombia | es
    cr | Costa Rica | es
    cu | Cuba | es
    cv | Cape Verde | pt
    cy | Cyprus | el
    cz | Czechia | cs
    de | Germany | de
    dk | Denmark | da
    do | the Dominican Republic | es
    dz | Algeria | ar fr
    ec | Ecuador | es
    ee | Estonia | et
    eg | Egypt | ar
    es | Spain | es
    et | Ethiopia | am
    eu | the European Union | en
    fi | Finland | fi
    fr | France | fr
    ga | Gabon | fr
    gb | the United Kingdom | en
    gd | Grenada | en
    ge | Georgia | ka
    gh | Ghana | en
    gl | Greenland | da
    gn | Guinea | fr
    gr | Greece | el
    gt | Guatemala | es
    gu | Guam | en
    hk | Hong Kong | zh en
    hn | Honduras | es
    hr | Croatia | hr
    hu | Hungary | hu
    id | Indonesia | id
    ie | Ireland | en
    il | Israel | he
    in | India | en hi
    iq | Iraq | ar
    ir | Iran | fa
    is | Iceland | is
    it | Italy | it
    jo | Jordan | ar
    jp | Japan | ja
    ke | Kenya | en
    kg | Kyrgyzstan | ky
    kh | Cambodia | km
    ki | Kiribati | en
    km | the Comoros | fr
    kn | Saint Kitts and Nevis | en
    kr | South Korea | ko
    kw | Kuwait | ar
    ky | the Cayman Islands | en
    kz | Kazakhstan | ru kk
    la | Laos, or Latin America | lo es
    lb | Lebanon | ar
    li | Liechtenstein | de
    lk | Sri Lanka | si ta
    lt | Lithuania | lt
    lu | Luxembourg | fr de
    lv | Latvia | lv
    ma | Morocco | ar fr
    md | Moldova | ro
    mk | North Macedonia | mk
    ml | Mali | fr
    mm | Myanmar | my
    mo | Macau | zh
    mr | Mauritania | ar
    ms | Montserrat | en
    mx | Mexico | es
    my | Malaysia | ms en
    na | Namibia, or North America | en
    ne | Niger | fr
    ng | Nigeria | en
    ni | Nicaragua | es
    nl | the Netherlands | nl
    no | Norway | no nb
    np | Nepal | ne
    nr | Nauru | en
    nz | New Zealand | en
    om | Oman | ar
    pa | Panama | es
    pe | Peru | es
    ph | the Philippines | en fil
    pk | Pakistan | ur en
    pl | Poland | pl
    pr | Puerto Rico | es
    ps | Palestine | ar
    pt | Portugal | pt
    py | Paraguay | es
    qa | Qatar | ar
    ro | Romania | ro
    rs | Serbia | sr
    ru | Russia | ru
    sa | Saudi Arabia | ar
    sc | Seychelles | en
    sd | Sudan | ar
    se | Sweden | sv
    sg | Singapore | en zh
    si | Slovenia | sl
    sk | Slovakia | sk
    sl | Sierra Leone | en
    sm | San Marino | it
    sn | Senegal | fr
    sr | Suriname | nl
    ss | South Sudan | en
    st | Sao Tome and Principe | pt
    sv | El Salvador | es
    tg | Togo | fr
    th | Thailand | th
    tk | Tokelau | en
    tl | East Timor | pt
    tn | Tunisia | ar fr
    tr | Turkey | tr
    tt | Trinidad and Tobago | en
    tw | Taiwan | zh
    ua | Ukraine | uk
    ug | Uganda | en
    uk | the United Kingdom | en
    us | the United States | en es
    uy | Uruguay | es
    uz | Uzbekistan | uz
    ve | Venezuela | es
    vn | Vietnam | vi
    za | South Africa | en
""")
# Codes of three letters that are those of another language in ISO 639-2.
THREE_LETTERS: Mapping[str, Country] = {
    "arg": COUNTRIES["ar"], "bel": COUNTRIES["be"], "bih": COUNTRIES["ba"], "che": COUNTRIES["ch"], "cym": COUNTRIES["ky"],
    "ind": COUNTRIES["in"], "kir": COUNTRIES["ki"], "mac": COUNTRIES["mo"], "mar": COUNTRIES["ma"], "pan": COUNTRIES["pa"],
    "per": COUNTRIES["pe"], "ven": COUNTRIES["ve"],
}  # fmt: skip
# Codes of countries that are also codes of languages which few shops use.
RARE_AS_LANGUAGES = frozenset(
    """
    ae arg as bh bi bih bm br ch che co cr cu cv dz ee gd gn ie in kg ki kr kw la li lu mo na ng nr om ps sa sc se sg sm sn ss st tk tn tw
    ve ven za
    """.split()  # noqa: SIM905
)
