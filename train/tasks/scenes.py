"""Places, pastimes, titles and other scenery: chains only name it by letter or by time."""

from random import Random

from falcon_h1r.train.tasks.names import made_up_name
from falcon_h1r.train.tasks.words import WORDS

_PLACE_TEXT = """
airport, amusement park, aquarium, art gallery, art show, bakery, bank, bar, barber shop,
basketball court, beach, bike path, bookstore, bowling alley, bus stop, cafe, car wash, castle,
cathedral, cinema, circus, classroom, clinic, coffee shop, concert hall, construction site,
dentist, doctor, farm, fire station, football field, forest, furniture store, garage, garden,
grocery store, gym, harbor, hardware store, hospital, hotel, ice rink, jazz club, lake, laundry,
library, lighthouse, mall, market, monument, mountain, movies, museum, music shop, office, opera,
orchestra hall, park, pet shop, pharmacy, physics classroom, playground, police station, pool,
post office, public library, restaurant, river, school, shoe shop, skate park, soccer field,
stadium, station, street market, supermarket, swimming pool, temple, tennis court, theater,
train station, university, village square, warehouse, water park, yoga studio, zoo
"""
PLACES = [" ".join(place.split()) for place in _PLACE_TEXT.split(",")]

_PASTIME_TEXT = """
buying {w} at the {p}, buying a {w} at the {p}, buying clothes at the {p}, buying lunch at the {p},
driving to the {p}, fixing their {w} at the {p}, getting a {w} at the {p}, painting a {w} at the
{p}, playing {w} at the {p}, reading a {w} at the {p}, reading at the {p}, sitting on a {w} at the
{p}, sleeping near the {p}, stretching at the {p}, studying at the {p}, taking photos near the {p},
talking about a {w} at the {p}, waiting at the {p}, walking in the {p}, walking towards the {p},
walking towards the {n} {p}, watching a {w} at the {p}, working at the {p}, working out at the {p},
taking photos near the {n} Tower, walking towards the Statue of {n}, attending class at the {p},
looking for a {w} near the {p}, meeting {n} at the {p}
"""
_PASTIMES = [" ".join(pastime.split()) for pastime in _PASTIME_TEXT.split(",")]

_BALL_COLORS_TEXT = (
    "red orange yellow green blue purple pink brown black white gray violet golden silver"
)
BALL_COLORS = _BALL_COLORS_TEXT.split()

_POSITION_TEXT = """
goalkeeper, left back, right back, center back, sweeper, left midfielder, right midfielder,
center midfielder, defensive midfielder, left winger, right winger, striker, forward, fullback,
wingback, benchwarmer, cheerleader, captain, substitute, referee
"""
POSITIONS = [" ".join(position.split()) for position in _POSITION_TEXT.split(",")]


def activity(rng: Random) -> str:
    """What somebody was seen doing: "reading a map at the lighthouse"."""
    pastime, place = rng.choice(_PASTIMES), rng.choice(PLACES)
    word = rng.choice(WORDS) if "{w}" in pastime else ""
    name = made_up_name(rng) if "{n}" in pastime else ""
    return pastime.format(w=word, p=place, n=name)


def book_title(rng: Random) -> str:
    """A title nobody wrote: "The Lost Harbor", "Tolira", "Letters of the Wind"."""
    first, second = (rng.choice(WORDS).capitalize() for _ in range(2))
    name = made_up_name(rng)
    kinds = (
        name, f"The {first}", f"{first} {second}", f"The {first} {second}", f"{first}-{second}",
        f"{name} of the {first}", f"The {first} of the {second}", f"The {first} of {name}",
        f"{first}-{rng.randint(11, 99)}",
    )  # fmt: skip
    return rng.choice(kinds)
