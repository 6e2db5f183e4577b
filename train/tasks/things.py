"""Nouns of everyday things, living things and colours, and made-up ones: an open vocabulary."""

from collections.abc import Sequence
from random import Random

from falcon_h1r.train.tasks.names import made_up_name

_THINGS_TEXT = """
anchor apron axe badge bag balloon band basin basket battery bead bell belt blanket block board
bolt bottle bowl bracket brick broom brush bucket button cable candle cane cap cape carpet chain
chalk charm chest clip clock cloth coaster coin comb compass cork crate crown cushion die dish
doll drum eraser fan feather figurine flag flask flute folder fork frame funnel glove goblet
hammer handbag hat helmet hinge hook horn jar kettle kite knife ladder lamp lantern lens lid lock
magnet map marble marker mask medal mirror mitten nail napkin needle nut opener oven paddle pan
paperclip pedal phone pillow pin pipe pitcher pot pouch purse racket rag razor remote ribbon ring
rope ruler sack saw scarf scissor screw shell shirt shoe shovel sock soap spade spoon sponge stamp
stapler stick stool straw string sweater tablet tag tape teapot tent thimble ticket tile torch
towel toy tray trowel tube umbrella vase wallet watch whistle wig wire wrench zipper earring
toothbrush postcard backpack sketchbook tennis_ball paper_bag hair_clip water_bottle key_ring
soup_spoon alarm_clock tea_towel glue_stick rubber_duck picture_frame paint_brush door_handle
game_card bath_mat light_bulb
"""
_LIVING_TEXT = """
ant badger bat bear beaver bee beetle bison bittern buzzard camel cat cheetah chicken cobra condor
coot cormorant cow crab crane cricket cuckoo curlew deer dog dolphin donkey dove duck eagle egret
emu ferret finch flamingo fox frog gannet gecko goat goose grebe grouse gull hare hedgehog hen
heron horse hyena ibis jackal jackdaw jay kestrel kite koala lark lemur leopard linnet lion lizard
llama lynx magpie martin mole moose moth mouse newt nightingale osprey otter ox panda parrot
partridge peacock pelican pheasant pig pigeon pipit plover puffin puma rabbit rail rat rook seal
shark sheep shrike skunk sloth snail sparrow spider squirrel starling stork swallow swan swift
tern thrush tiger toad toucan turkey turtle vulture warbler wasp weasel whale wolf woodpecker wren
yak zebra snow_goose song_thrush barn_swallow sea_eagle wood_pigeon gray_wolf fruit_bat
house_mouse
"""
_EDIBLE_TEXT = """
almonds apricots avocados bananas beans beets berries blackberries blueberries carrots cashews
cherries chestnuts chilies clementines coconuts cranberries cucumbers currants dates eggplants
figs gooseberries grapefruits grapes guavas hazelnuts leeks lemons lentils limes lychees mandarins
melons mulberries nectarines olives onions papayas parsnips passion_fruits pecans peppers
persimmons pineapples plantains pomegranates potatoes prunes pumpkins quinces radishes raisins
raspberries satsumas strawberries tangerines tomatoes turnips walnuts yams dragon_fruits
blood_oranges
"""
_MACHINES_TEXT = """
ambulance bicycle bulldozer buggy cab camper car carriage coupe crane excavator ferry forklift
glider hearse jeep kart lorry moped mower pickup plow roadster rocket scooter sleigh steamer taxi
tram trailer tricycle trolley van wagon yacht fire_engine dump_truck race_car police_car
milk_float road_roller hot_rod mail_van sports_car tank rickshaw snowmobile
"""
_COLORS_TEXT = """
amber beige black blue bronze brown burgundy coral crimson cream cyan fuchsia gold gray green grey
indigo ivory khaki lavender lilac lime magenta maroon mauve mint navy olive orange peach pink plum
purple red rose ruby rust salmon scarlet silver tan teal turquoise violet white yellow
"""


def _words(text: str) -> list[str]:
    """The words of a text; an underscore joins the two parts of one."""
    return [word.replace("_", " ") for word in text.split()]


THINGS = _words(_THINGS_TEXT)
LIVING = _words(_LIVING_TEXT)
EDIBLE = _words(_EDIBLE_TEXT)
MACHINES = _words(_MACHINES_TEXT)
COLORS = _words(_COLORS_TEXT)


def made_up_noun(rng: Random) -> str:
    """A pronounceable word in lower case; sometimes of two parts."""
    word = made_up_name(rng).lower()
    return f"{rng.choice(COLORS)} {word}" if rng.random() < 0.08 else word


def draw_nouns(rng: Random, words: Sequence[str], count: int, made_up: float = 0.35) -> list[str]:
    """Different nouns from a list, a share of them made up."""
    nouns: list[str] = []
    while len(nouns) < count:
        noun = made_up_noun(rng) if rng.random() < made_up else rng.choice(words)
        if noun not in nouns:
            nouns.append(noun)
    return nouns
