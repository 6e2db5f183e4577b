"""Adjectives by class, in the order in which English puts them; broad, since it must be learnt."""

_OPINION_TEXT = """
adorable amazing annoying attractive awful awesome bad beautiful boring brave brilliant calm
charming cheerful clever comfortable cruel cute dangerous delicious delightful disgusting dreadful
dull elegant evil excellent expensive fabulous famous fancy fantastic favorite fine foolish
fragile friendly funny gentle glorious good gorgeous graceful great handsome happy helpful
horrible hideous important impressive interesting kind lazy lonely lousy lovely lucky magnificent
marvelous messy mysterious nasty neat nice noisy obnoxious odd outstanding peaceful perfect
pleasant pretty proud quaint quiet remarkable repulsive rich ridiculous rude sad scary silly
splendid strange stunning stupid superb sweet terrible terrific ugly unpleasant unusual useful
useless valuable weird wicked wise wonderful worthless
"""
OPINION = _OPINION_TEXT.split()
_SIZE_TEXT = """
big broad bulky colossal deep enormous gigantic giant grand great-big heavy high huge immense
jumbo large little long low mammoth massive medium medium-size medium-sized microscopic middle-size
midsize miniature minuscule minute monstrous narrow normal-size oversized petite pocket-size puny
short slender slim small tall teeny thick thin tiny towering undersized vast wide
"""
SIZE = _SIZE_TEXT.split()
_AGE_TEXT = """
aged ageless ancient antique archaic brand-new centuries-old contemporary current eighteenth-century
elderly fresh futuristic latest mature medieval modern new newborn obsolete old old-fashioned
older prehistoric primeval recent teenage timeless traditional vintage young youthful
"""
AGE = _AGE_TEXT.split()
_SHAPE_TEXT = """
angular bent blocky circular conical crooked cubic curved curvy cylindrical egg-shaped flat
heart-shaped hexagonal hollow jagged octagonal oblong oval pear-shaped pentagonal pointed
pointy prismlike pyramidal rectangular round rounded semicircular sphere-shaped spherical spiral
square star-shaped straight tapered triangular twisted wavy
"""
SHAPE = _SHAPE_TEXT.split()
_COLOR_TEXT = """
amber aqua azure beige black blue bronze brown burgundy charcoal cobalt copper coral cream crimson
cyan emerald fuchsia gold golden gray green grey indigo ivory khaki lavender lilac lime magenta
maroon mauve navy ochre olive orange peach pink plum purple red rose ruby russet salmon sapphire
scarlet silver tan teal turquoise vermilion violet white yellow
"""
COLOR = _COLOR_TEXT.split()
_ORIGIN_TEXT = """
African Algerian American Argentine Armenian Asian Australian Austrian Bangladeshi Belgian Bolivian
Brazilian British Bulgarian Canadian Chilean Chinese Colombian Congolese Cuban Czech Danish Dutch
Ecuadorian Egyptian English Estonian Ethiopian European Filipino Finnish French Georgian German
Ghanaian Greek Hawaiian Hungarian Icelandic Indian Indonesian Iranian Iraqi Irish Israeli Italian
Jamaican Japanese Jordanian Kenyan Korean Kuwaiti Latvian Lebanese Libyan Lithuanian Malaysian
Mexican Mongolian Moroccan Nepalese Nigerian Norwegian Pakistani Panamanian Persian Peruvian Polish
Portuguese Roman Romanian Russian Saudi Scottish Senegalese Serbian Slovak Somali Spanish Sudanese
Swedish Swiss Syrian Taiwanese Thai Tunisian Turkish Ugandan Ukrainian Uruguayan Venezuelan
Vietnamese Welsh
"""
ORIGIN = _ORIGIN_TEXT.split()
_MATERIAL_TEXT = """
aluminum bamboo brass brick canvas cardboard cashmere cement ceramic chrome clay cloth concrete
cork cotton crystal denim felt fiberglass fur glass granite iron lace lead leather limestone linen
marble metal mud nylon paper plaster plastic platinum polyester porcelain pottery rubber sandstone
satin silicone silk slate steel stone straw suede tin titanium tweed velvet vinyl wax wicker wire
wood wooden wool woolen
"""
MATERIAL = _MATERIAL_TEXT.split()
_PURPOSE_TEXT = """
baking bathing boating boxing building camping carving chopping cleaning climbing cooking cutting
cycling dancing digging diving dining drawing dressing drilling drinking driving eating exercise
farming fighting filing filming fishing flying gambling gaming gardening grinding hiking hunting
ironing jogging jumping kissing knitting landing learning lifting listening measuring mixing
packing painting parking playing polishing printing racing reading recording riding rowing running
sailing sanding serving sewing shaving shipping shooting shopping singing skating skiing sleeping
smoking snorkeling soldering spinning sporting stalking surfing swimming swinging talking teaching
throwing touring training travel typing walking wandering washing watering wedding weeding welding
whittling working wrapping writing
"""
PURPOSE = _PURPOSE_TEXT.split()

CLASSES = (OPINION, SIZE, AGE, SHAPE, COLOR, ORIGIN, MATERIAL, PURPOSE)
RANK = {word: rank for rank, words in enumerate(CLASSES, start=1) for word in words}
"""Adjective -> 1 (opinion) to 8 (purpose): the order from left to right."""
