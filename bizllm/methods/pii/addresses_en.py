"""Addresses in Latin script: a number with a street's name, flats, post boxes, codes, and what a lead-in announces."""

from __future__ import annotations

import re

from bizllm.methods.pii.rules import Rule, words

_WORD = r"[A-ZÀ-ÖØ-ÞŁŚŻČĎŘŠŤŽĐ](?:[a-z]{0,2}\.|[\w'’\-]{0,30})"
_WORDS = rf"{_WORD}(?: (?:de|da|do|del|della|di|du|la|le|of|the|und|van|der|{_WORD})){{0,4}}"
# A street's word after its name (Main Street), glued to its end (Hauptstrasse), or before its name (Rua, ulica).
_AFTER = (
    "Street|St|Avenue|Ave|Road|Rd|Drive|Dr|Lane|Ln|Court|Ct|Courts|Boulevard|Blvd|Way|Place|Pl|Square|Sq|Squares|Terrace|"
    "Ter|Crescent|Cres|Close|Parkway|Pkwy|Highway|Hwy|Circle|Cir|Trail|Row|Hill|Gardens|Grove|Mews|Walk|Alley|Plaza|Pass|"
    "Extension|Extensions|Streets|Quay|Esplanade|utca|u|út|kapu|tér|Straat|Weg|Allee|Platz|Gasse"
)
_GLUED = (
    r"[\w'’\-]{2,30}(?:stra(?:ss|ß)e|str|strasse|gasse|weg|platz|allee|damm|ufer|brücke|straat|laan|gracht|plein|kade|"
    r"katu|tie|kuja|polku|vej|vænget|gade|gata|gatan|vägen|veien|vegen|gaten|toften|parken|stræde|ová|ská|ského|cká)"
)
_BEFORE = (
    "Rua|Avenida|Av|Travessa|Rue|Avenue|Boulevard|Place|Via|Viale|Piazza|Corso|Strada Provinciale|Strada|Calle|C/|"
    "Plaza|Paseo|Carretera|ulica|ul|Aleja|al|trg|náměstí|Langgasse|Chemin|Quai"
)
_UNIT = r"(?:Apt|Apartment|Suite|Ste|Unit|Flat|Room|Floor|Fl|Bldg|Building)\b\.? ?#? ?[A-Z]?\d{1,5}[A-Z]?"
_TAIL = rf"(?:,? ?\n? *{_UNIT})?"
_STATES = (
    "AL|AK|AZ|AR|CA|CO|CT|DE|FL|GA|HI|ID|IL|IN|IA|KS|KY|LA|ME|MD|MA|MI|MN|MS|MO|MT|NE|NV|NH|NJ|NM|NY|NC|ND|OH|OK|OR|PA|"
    "RI|SC|SD|TN|TX|UT|VT|VA|WA|WV|WI|WY|DC|PR"
)
_LEADS = (
    r"(?:(?<!ip )(?<!mail )(?<!web )address(?:es)?(?: is| was| to| of [\w.' ]{1,40} is)?(?: the same)?|lives? (?:at|in)"
    r"|lived (?:at|in)|living (?:at|in)|located at|office is at|sent? to|deliver(?:ed|y)? to|ship(?:ped)? to|moved to"
    r"|arrived at|meet me at)"
)
# What stands behind "sent to" as well, and has a rule of its own.
_OTHER = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}|[0-9a-f]{1,4}:[0-9a-f]{0,4}:|https?:|www\.|[\w.+\-]{1,64}@", re.I)

RULES = [
    Rule(
        "ADDRESS",
        re.compile(
            rf"(?<![\w.$€£#])\d{{1,6}}[A-Za-z]?,? (?:\d{{1,5}} )?{_WORDS} (?:{_AFTER})\b\.?"
            rf"(?: {_WORD}){{0,2}}(?: \d{{1,5}})?{_TAIL}"
        ),
        0.7,
    ),
    Rule(
        "ADDRESS",
        re.compile(rf"(?<![\w.$€£#])(?:\d{{1,6}} )?(?:{_GLUED}) \d{{1,5}}[A-Za-z]?\b{_TAIL}", re.I),
        0.65,
    ),
    Rule(
        "ADDRESS",
        re.compile(rf"(?<![\w.$€£#])(?:\d{{1,6}},? )?(?:{_BEFORE})\.? {_WORDS}(?:,? \d{{1,5}}){{1,3}}\b{_TAIL}"),
        0.65,
    ),
    Rule(
        "ADDRESS",
        re.compile(rf"(?<![\w.$€£#])(?:Rua|Rue|Via|Calle|ulica|ul\.|Avenida|Piazza|Plaza) {_WORDS}"),
        0.15,
        context=words("address|live|lives|lived|office|street|corner"),
        needs=True,
    ),
    # A house number on either side of a name, with a flat behind it: no street's word is needed then.
    Rule(
        "ADDRESS",
        re.compile(
            rf"(?<![\w.$€£#])\d{{1,6}} (?:\d{{1,5}} )?[^\W\d_][\w'’.\- ]{{1,40}}(?: \d{{1,5}})?,?\s{{1,3}}{_UNIT}", re.I
        ),
        0.75,
    ),
    Rule("ADDRESS", re.compile(rf"(?<![\w]){_UNIT}(?!\w)", re.I), 0.5),
    Rule(
        "ADDRESS",
        re.compile(
            r"(?<!\w)(?:P\.? ?O\.? ?Box|PSC|Unit|CMR) ?\d{1,6}(?:,? Box \d{1,6})?(?:\s{1,3}[AFD]PO [A-Z]{2} \d{5})?",
            re.I,
        ),
        0.75,
    ),
    Rule("ADDRESS", re.compile(rf"(?<![\w])(?:{_STATES}),? \d{{5}}(?:-\d{{4}})?(?![\w\-])"), 0.6),
    Rule(
        "ADDRESS",
        re.compile(
            r"(?<![A-Za-z0-9])[A-PR-UWYZ](?:\d{1,2}|[A-HK-Y]\d{1,2}|\d[A-HJKS-UW]|[A-HK-Y]\d[ABEHMNPRV-Y])"
            r" ?\d[ABD-HJLNP-UW-Z]{2}(?![A-Za-z0-9])"
        ),
        0.55,
    ),
    Rule(
        "ADDRESS",
        re.compile(r"(?<![\w.\-])\d{3,6}(?:-\d{3,4})?(?![\w]|[.,\-]\d)"),
        0.1,
        context=words("zip|zip code|zipcode|postcode|postal code|post code"),
        needs=True,
    ),
    # Lines under a flat's number or a street, down to one that ends with a postal code.
    Rule(
        "ADDRESS",
        re.compile(
            rf"(?:{_UNIT}|\b[\w'’.\-]{{3,30}} \d{{1,4}}\.?)"
            r"(?:\s?,?\s?\n{1,2}[ \t>,]{0,6}[^\n\d]{0,40}){1,4} ?\d{2,3}[ \-]?\d{1,3}(?!\d)",
            re.I,
        ),
        0.6,
    ),
    # The corner of one street and another, and whatever stands behind "my address is" and has a number in it.
    Rule(
        "ADDRESS",
        re.compile(r"(?<!\w)the corner of [^\n?!]{3,60}? and [\w'’.\-]{2,30}(?: [\w'’\-]{1,30}){0,3}", re.I),
        0.6,
    ),
    Rule(
        "ADDRESS",
        re.compile(
            rf"(?<!\w){_LEADS}(?: ?[:\-]|,)?\s{{1,6}}(?P<at>(?=[^?!\n]{{0,40}}\d)\w"
            r"(?:[^?!;\n.]|\.(?=[ \w])(?! [a-z]\w+ )|\n(?! *\n)){4,110})",
            re.I,
        ),
        0.6,
        lambda text: not _OTHER.match(text),
    ),
    # A number, a name, a number: the way of streets in much of Europe. Only a hint without more.
    Rule(
        "ADDRESS",
        re.compile(rf"(?<![\w.$€£#\-])(?:\d{{1,6}} )?{_WORDS} \d{{1,5}}(?=[\s,.]|$)(?:,? {_WORDS})?"),
        0.1,
        context=words("address|lives|live|lived|office|ship|deliver|street|mailing|billing|home"),
        needs=True,
    ),
]
