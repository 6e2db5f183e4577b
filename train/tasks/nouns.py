"""Countable things by kind, with plurals; what is a fruit must be learnt: broad lists."""

_FRUITS_TEXT = """
apple apricot avocado banana blackberry blackcurrant blueberry cantaloupe cherry clementine coconut
cranberry currant date elderberry fig gooseberry grape grapefruit guava honeydew kiwi kumquat lemon
lime lychee mandarin mango melon mulberry nectarine olive orange papaya passionfruit peach pear
persimmon pineapple plantain plum pomegranate prune quince raisin raspberry satsuma strawberry
tangerine watermelon
"""
FRUITS = _FRUITS_TEXT.split()
_VEGETABLES_TEXT = """
artichoke asparagus aubergine beet beetroot cabbage carrot cauliflower celeriac chard
chili cucumber eggplant endive fennel garlic kale leek lettuce okra onion parsnip pea
pepper potato pumpkin radish rutabaga scallion shallot spinach sprout squash turnip
yam zucchini
"""
VEGETABLES = _VEGETABLES_TEXT.split()
_ANIMALS_TEXT = """
alligator ant ape badger bat bear beaver bee beetle bird bison buffalo butterfly camel cat cheetah
chicken chimpanzee cow coyote crab crocodile crow deer dog dolphin donkey dove duck eagle
elephant elk falcon ferret fish fly fox frog gazelle gerbil giraffe goat goose gorilla hamster hare
hawk hedgehog hen heron hippo horse hyena iguana jackal jaguar kangaroo kitten koala lamb leopard
lion lizard llama lobster lynx mole monkey moose mouse mule octopus ostrich otter owl ox oyster
panda panther parrot peacock pelican penguin pig pigeon pony porcupine puppy quail rabbit raccoon
rat raven reindeer rhino robin rooster salmon seal shark sheep shrimp skunk sloth snail snake
sparrow spider squid squirrel stork swan tiger toad trout turkey turtle vulture walrus wasp weasel
whale wolf wombat worm yak zebra
"""
ANIMALS = _ANIMALS_TEXT.split()
_INSTRUMENTS_TEXT = """
accordion bagpipe banjo bassoon bell bongo bugle castanet cello clarinet clavichord concertina
cornet cowbell cymbal drum dulcimer euphonium fiddle flugelhorn flute glockenspiel gong guitar
harmonica harp harpsichord horn kazoo keyboard lute lyre mandolin maraca marimba oboe ocarina organ
piano piccolo recorder saxophone sitar sousaphone synthesizer tambourine timpani triangle trombone
trumpet tuba ukulele viola violin vuvuzela whistle xylophone zither
"""
INSTRUMENTS = _INSTRUMENTS_TEXT.split()
_HOUSEHOLD_TEXT = """
armchair basket bath bathtub bed bench blanket blender bookcase bookshelf bowl broom bucket cabinet
candle car carpet chair clock computer cooker couch counter cup cupboard curtain cushion desk
dishwasher door drawer dresser dryer fan faucet fork freezer fridge grill hammer heater
hoover iron jar jug kettle knife ladder lamp lightbulb mattress microwave mirror mop mug
oven pan pillow plate pot printer quilt radiator radio refrigerator rug saucepan scale shelf
shower sink sofa spoon stool stove table teapot telephone television toaster toilet towel tray
vacuum vase wardrobe washer window
"""
HOUSEHOLD = _HOUSEHOLD_TEXT.split()

MEASURED = {
    "head": ("broccoli", "cauliflower", "lettuce", "cabbage"),
    "stalk": ("celery", "asparagus", "rhubarb"),
    "bulb": ("garlic", "fennel"),
    "clove": ("garlic",),
    "bunch": ("kale", "spinach", "parsley"),
}
"""Vegetables that are counted by a part: "two heads of broccoli", "two lettuce heads"."""

_IRREGULAR = {
    "mouse": "mice", "goose": "geese", "ox": "oxen", "sheep": "sheep", "deer": "deer",
    "fish": "fish", "moose": "moose", "squid": "squid", "salmon": "salmon", "trout": "trout",
    "shrimp": "shrimp", "bison": "bison", "reindeer": "reindeer", "wolf": "wolves",
    "knife": "knives", "shelf": "shelves", "bookshelf": "bookshelves", "potato": "potatoes",
    "mango": "mangoes", "buffalo": "buffaloes",
}  # fmt: skip


def plural(noun: str) -> str:
    """The plural of a thing of the lists (its last word is the one that changes)."""
    *front, last = noun.split(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "es" if last.endswith(("s", "x", "ch", "sh")) else "s"
    return " ".join([*front, last])


def article(noun: str) -> str:
    """Which of "a" and "an", by sound as far as the lists need it."""
    return "an" if noun[0] in "aeiou" and not noun.startswith(("uk", "eu")) else "a"


def _measured() -> dict[str, str]:
    forms: dict[str, str] = {}
    for part, plants in MEASURED.items():
        for plant in plants:
            forms[f"{part} of {plant}"] = f"{plural(part)} of {plant}"
            forms[f"{plant} {part}"] = f"{plant} {plural(part)}"
    return forms


KINDS: dict[str, dict[str, str]] = {
    "fruits": {noun: plural(noun) for noun in FRUITS},
    "vegetables": {noun: plural(noun) for noun in VEGETABLES} | _measured(),
    "animals": {noun: plural(noun) for noun in ANIMALS},
    "musical instruments": {noun: plural(noun) for noun in INSTRUMENTS},
    "objects": {noun: plural(noun) for noun in HOUSEHOLD},
}
"""Kind as a question names it -> thing -> its plural. Household things are "objects"."""
