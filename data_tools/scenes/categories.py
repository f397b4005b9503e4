"""What can appear in a scene: COCO categories with an emoji each, and contexts with co-occurrences.

Names, ids and supercategories are COCO's own (instances_val2014.json), so that COCO-format code,
CHAIR's synonym list and POPE's builder run on the embedded world unchanged. COCO categories
without a faithful emoji in all four sets are left out rather than faked (a surfer is not a
surfboard).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Category:
    """One COCO category and the emoji that stand for it."""

    id: int
    name: str
    supercategory: str
    emoji: tuple[str, ...]
    """Unicode code points in lower-case hex, without variation selectors."""
    plural: str


@dataclass(frozen=True)
class Context:
    """A kind of place: which objects are typical for it, and what its background looks like."""

    name: str
    phrases: tuple[str, ...]
    """How captions call it, e.g. ``a kitchen scene``."""
    weights: dict[str, float]
    """Category name -> relative frequency; everything else appears with `STRAY_SHARE` only."""
    upper: tuple[tuple[int, int, int], ...]
    """RGB candidates for sky or wall."""
    lower: tuple[tuple[int, int, int], ...]
    """RGB candidates for ground or floor."""


STRAY_SHARE = 0.08
"""Share of objects drawn from all categories instead of the context's own."""

_TABLE = """
1|person|person|1f9cd 1f6b6 1f468 1f469|people
2|bicycle|vehicle|1f6b2|bicycles
3|car|vehicle|1f697 1f699|cars
4|motorcycle|vehicle|1f3cd 1f6f5|motorcycles
5|airplane|vehicle|2708|airplanes
6|bus|vehicle|1f68c|buses
7|train|vehicle|1f686 1f682|trains
8|truck|vehicle|1f69a|trucks
9|boat|vehicle|26f5 1f6a4|boats
10|traffic light|outdoor|1f6a6|traffic lights
13|stop sign|outdoor|1f6d1|stop signs
16|bird|animal|1f426 1f986|birds
17|cat|animal|1f408|cats
18|dog|animal|1f415|dogs
19|horse|animal|1f40e|horses
20|sheep|animal|1f411|sheep
21|cow|animal|1f404|cows
22|elephant|animal|1f418|elephants
23|bear|animal|1f43b|bears
24|zebra|animal|1f993|zebras
25|giraffe|animal|1f992|giraffes
27|backpack|accessory|1f392|backpacks
28|umbrella|accessory|2602 2614|umbrellas
31|handbag|accessory|1f45c|handbags
32|tie|accessory|1f454|ties
33|suitcase|accessory|1f9f3|suitcases
34|frisbee|sports|1f94f|frisbees
35|skis|sports|1f3bf|pairs of skis
37|sports ball|sports|26bd 1f3c0 1f3d0|sports balls
38|kite|sports|1fa81|kites
41|skateboard|sports|1f6f9|skateboards
43|tennis racket|sports|1f3f8|tennis rackets
44|bottle|kitchen|1f37e 1f37c|bottles
46|wine glass|kitchen|1f377|wine glasses
47|cup|kitchen|2615|cups
49|knife|kitchen|1f52a|knives
50|spoon|kitchen|1f944|spoons
51|bowl|kitchen|1f963 1f35c|bowls
52|banana|food|1f34c|bananas
53|apple|food|1f34e 1f34f|apples
54|sandwich|food|1f96a|sandwiches
55|orange|food|1f34a|oranges
56|broccoli|food|1f966|heads of broccoli
57|carrot|food|1f955|carrots
58|hot dog|food|1f32d|hot dogs
59|pizza|food|1f355|pizzas
60|donut|food|1f369|donuts
61|cake|food|1f370 1f382|cakes
62|chair|furniture|1fa91|chairs
63|couch|furniture|1f6cb|couches
64|potted plant|furniture|1fab4|potted plants
65|bed|furniture|1f6cf|beds
70|toilet|furniture|1f6bd|toilets
72|tv|electronic|1f4fa|tvs
73|laptop|electronic|1f4bb|laptops
74|mouse|electronic|1f5b1|mice
76|keyboard|electronic|2328|keyboards
77|cell phone|electronic|1f4f1|cell phones
84|book|indoor|1f4d5 1f4d7 1f4d8|books
85|clock|indoor|1f570 23f0|clocks
86|vase|indoor|1f3fa|vases
87|scissors|indoor|2702|pairs of scissors
88|teddy bear|indoor|1f9f8|teddy bears
90|toothbrush|indoor|1faa5|toothbrushes
"""


def _read_table() -> tuple[Category, ...]:
    rows = (line.split("|") for line in _TABLE.strip().splitlines())
    return tuple(Category(int(i), n, s, tuple(e.split()), p) for i, n, s, e, p in rows)


CATEGORIES: tuple[Category, ...] = _read_table()
BY_NAME: dict[str, Category] = {category.name: category for category in CATEGORIES}
BY_ID: dict[int, Category] = {category.id: category for category in CATEGORIES}

CONTEXTS: tuple[Context, ...] = (
    Context(
        "street",
        ("a street scene", "a city street", "a busy street"),
        {"person": 3, "car": 3, "bus": 1.5, "truck": 1.5, "bicycle": 1.5, "motorcycle": 1.5,
         "traffic light": 2, "stop sign": 1.5, "train": 1, "airplane": 0.7, "boat": 0.5,
         "handbag": 0.8, "umbrella": 1, "suitcase": 0.7, "backpack": 0.7, "dog": 0.7},
        ((176, 205, 230), (198, 212, 222), (154, 190, 224)),
        ((128, 130, 134), (110, 114, 122), (148, 146, 142)),
    ),
    Context(
        "kitchen",
        ("a kitchen scene", "a kitchen", "a small kitchen"),
        {"person": 1.2, "bottle": 1.5, "wine glass": 1.3, "cup": 2, "knife": 1.5, "spoon": 1.3,
         "bowl": 1.8, "banana": 1.2, "apple": 1.2, "sandwich": 1, "orange": 1, "broccoli": 1,
         "carrot": 1, "hot dog": 0.8, "pizza": 1.2, "donut": 0.8, "cake": 1, "chair": 0.7},
        ((245, 236, 214), (238, 226, 196), (250, 242, 228)),
        ((196, 160, 116), (180, 146, 108), (212, 178, 132)),
    ),
    Context(
        "farm",
        ("a farm scene", "a farm", "a farm field"),
        {"person": 1.5, "horse": 2, "sheep": 2.2, "cow": 2.2, "dog": 1.5, "cat": 1, "bird": 1.5,
         "truck": 1.2, "apple": 0.8, "carrot": 0.7, "bicycle": 0.5, "kite": 0.4},
        ((160, 208, 240), (186, 220, 238), (206, 226, 232)),
        ((128, 176, 84), (146, 186, 96), (176, 170, 92)),
    ),
    Context(
        "zoo",
        ("a zoo scene", "a zoo", "a zoo enclosure"),
        {"person": 1.8, "elephant": 2, "bear": 1.6, "zebra": 2, "giraffe": 2, "bird": 1.8,
         "backpack": 0.8, "umbrella": 0.7, "banana": 0.7, "potted plant": 0.6, "hot dog": 0.4},
        ((178, 216, 200), (196, 222, 190), (170, 206, 218)),
        ((206, 184, 132), (190, 170, 122), (166, 164, 104)),
    ),
    Context(
        "living room",
        ("a living room scene", "a living room", "a cozy living room"),
        {"person": 1.5, "couch": 2.2, "tv": 2, "chair": 1.5, "potted plant": 1.5, "book": 1.2,
         "clock": 1.2, "vase": 1.3, "teddy bear": 1, "cat": 1.3, "dog": 1, "bed": 0.8,
         "cell phone": 0.6, "cup": 0.7, "wine glass": 0.5},
        ((222, 204, 214), (214, 196, 220), (228, 210, 200)),
        ((156, 112, 100), (142, 104, 112), (170, 122, 104)),
    ),
    Context(
        "office",
        ("an office scene", "an office", "a quiet office"),
        {"person": 2, "laptop": 2.2, "mouse": 1.8, "keyboard": 1.8, "cell phone": 1.5, "book": 1.5,
         "clock": 1.2, "chair": 1.5, "cup": 1.3, "scissors": 1.2, "tie": 1.2, "backpack": 0.7,
         "potted plant": 0.8, "suitcase": 0.5, "donut": 0.4},
        ((226, 230, 234), (212, 222, 230), (236, 236, 230)),
        ((150, 160, 172), (166, 172, 180), (134, 146, 164)),
    ),
    Context(
        "sport",
        ("a sports scene", "a sports field", "a sports park"),
        {"person": 3, "sports ball": 2.2, "frisbee": 1.6, "kite": 1.4, "skateboard": 1.6,
         "tennis racket": 1.8, "skis": 1.4, "bicycle": 1.2, "bottle": 1, "backpack": 0.9,
         "dog": 0.8, "bird": 0.5, "banana": 0.4},
        ((196, 232, 246), (178, 226, 232), (214, 238, 240)),
        ((92, 168, 104), (108, 182, 128), (222, 140, 96)),
    ),
    Context(
        "bathroom",
        ("a bathroom scene", "a bathroom", "a small bathroom"),
        {"person": 1.3, "toilet": 2.4, "toothbrush": 2.4, "cup": 1.2, "bottle": 1.5, "vase": 1,
         "scissors": 1.2, "potted plant": 1, "clock": 0.7, "cell phone": 0.6, "book": 0.6,
         "cat": 0.5, "handbag": 0.5},
        ((204, 232, 236), (220, 238, 242), (196, 224, 228)),
        ((176, 206, 214), (204, 214, 220), (150, 190, 204)),
    ),
)  # fmt: skip
CONTEXT_BY_NAME: dict[str, Context] = {context.name: context for context in CONTEXTS}


@cache
def typical_objects(context_name: str) -> tuple[str, ...]:
    """Names of the categories typical for a context, most typical first."""
    weights = CONTEXT_BY_NAME[context_name].weights
    return tuple(sorted(weights, key=lambda name: (-weights[name], name)))
