"""The closed classes of English words that tell a noun phrase's number, definiteness and colour."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COUNTED = """
one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty
"""
NUMBERS: dict[str, int] = {"a": 1, "an": 1, "single": 1, "another": 1} | {
    word: number for number, word in enumerate(_COUNTED.split(), start=1)
}
"""Words that say a number. `1` is no article to a counter: `a`, `an` and `one` say the same."""

VAGUE = _words("some several many multiple various numerous few countless any enough plenty lots")
"""Words before a plural that say `at least two`, before a mass noun (`some broccoli`) one."""

DEFINITE = _words("""
the this that these those its his her their our your my each every all both which whose
""")
"""Words that point at something known: not a new instance where one was named before."""

NEGATIVE = frozenset(("no", "without", "zero", "neither", "nor"))
NOT = frozenset(("not", "never", "cannot"))

GROUPS = _words("""
group groups herd herds flock flocks crowd crowds bunch bunches number variety row rows line lines stack
stacks pile piles set sets collection pack packs team array assortment handful cluster clusters series range
family fleet swarm bouquet dozens hundreds thousands tens scores mix selection lot lots plenty couples
""")
"""Words before `of` that say `at least two` of a plural."""

PORTIONS = _words("""
head heads piece pieces slice slices stalk stalks floret florets loaf loaves serving servings portion
portions
""")
"""Words before `of` that count a mass noun: `two heads of broccoli` are two."""

PAIR = frozenset(("pair", "pairs"))
PAIRED = frozenset(("skis", "scissors"))
"""Categories whose single thing English calls a pair."""

_COLOUR_NAMES = "red orange yellow green blue purple pink brown black white gray beige golden silver"
COLOURS: dict[str, str] = {name: name for name in _COLOUR_NAMES.split()} | {
    "grey": "gray",
    "violet": "purple",
    "tan": "beige",
    "gold": "golden",
}
"""Colour word -> its name: Berlin and Kay's eleven, with beige and two metals."""

SHADES = _words("bright dark light deep pale vivid very mostly all")

ADJECTIVES = _words("""
small little big large tiny huge young old tall short long new wooden other cute beautiful
""")
"""Adjectives that may stand between a number and a participle: `a small sleeping dog`."""

STOPS = _words("""
of in on at by to with without near next beside behind under over above below between beneath around inside
outside from for into onto through across along against among amid toward towards during after before and or
but nor while as than then there here is are was were be been being am has have had having can could will
would may might shall should must do does did it he she they we you i who what where when if also just only
not
""")
"""Words that no noun phrase of one object crosses."""

PLURALS = _words("people children men women cattle oxen geese mice knives calves")
"""Plurals without the ending -s; words that contain one at their end (`policemen`) are plural too."""

UNCHANGED = frozenset(("sheep", "buffalo", "bison", "aircraft", "skis", "scissors", "cattle"))
"""Nouns with one form, or whose form says nothing of the number."""
