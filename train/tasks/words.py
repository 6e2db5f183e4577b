"""Common English and school-mathematics words: material for copying and for the vocabulary."""

from random import Random

_TEXT = """
able about above accept across action add after again against age ago agree air all allow almost
alone along already also although always among amount angle animal another any apple area argue
arm army around arrive art ask assume away baby back bad ball bank base basket be bear beautiful
because become bed been before begin behind being believe below best better between big bird black
blood blue boat body book both bottle bottom box boy branch bread break bridge bright bring
brother brown build burn bus business buy cake call camera can car card care carry case cat catch
cause center chair chance change check cheese child choose circle city claim class clean clear
clock close cloth cloud coat coin cold color come common compare complete condition consider
contain continue control cook copy corn corner correct cost could count country course cover cross
cup cut dance dark data day deal deep define degree depend describe desk detail different
difference digit direct distance divide do doctor does dog dollar done door double down draw dream
dress drink drive drop dry during each ear early earth east easy eat edge egg eight either element
else empty end enough enter entire equal equation even evening event ever every exact example
except expect explain express eye face fact factor fall false family far farm fast father fear
feel few field fill final find fine finger finish fire first fish five floor flower fly follow
food foot for force forest form forward four fraction free fresh friend from front fruit full
function game garden gate general get gift girl give glass go goal gold good grass gray great
green ground group grow had half hand happen happy hard has hat have he head hear heart heavy
height help her here high hill him his hold hole home hope horse hour house how hundred idea if
imagine important in inch increase inside instead integer into iron is island it join just keep
key kind king kitchen know lamp land large last late laugh law lay lead leaf learn least leave
left leg length less let letter level life light like line list listen little live long look lose
lot love low machine made main make man many map mark market match mathematics matter may mean
measure meet member middle might mile milk mind minute mirror model moment money month moon more
morning most mother mountain move much multiply must name near need negative never new next night
nine no north not note nothing notice now number object ocean odd of off often old on once one
only open or orange order other our out over own page paint pair paper parallel part pass path pay
pencil people percent perhaps person picture piece place plan plane plant plate play point poor
positive possible power prime probability problem product proof proper prove pull purple push put
quarter question quick quite radius rain reach read ready real reason rectangle red remain
remember remove repeat rest result return rich ride right ring river road rock room root round row
rule run safe said sail salt same sand save say scale school science sea second see seem sell send
sentence sequence set seven several shape share she ship shoe shop short should show side sign
silver simple since sing sister sit six size sky sleep slow small smile snow so soft soil solution
solve some son song soon sort sound south space speak special speed spend spring square stand star
start state station stay step still stone stop store story street string strong student study
subtract such sugar sum summer sun suppose sure surface sweet swim system table take talk tall
teach tell ten test than that the their them then theorem there therefore these they thick thin
thing think third this those though thousand three through thus time to today together too top
total touch toward town train travel tree triangle true truth try turn twelve twenty two type
under unit until up us use usual value variable very view village visit voice volume wait walk
wall want warm was wash watch water wave way we wear weather week weight well went were west what
wheel when where whether which while white who whole whose why wide wild will wind window winter
wish with without woman wonder wood word work world would write wrong yard year yellow yes yet you
young your zero
"""
WORDS = _TEXT.split()

_PREFIXES_TEXT = (
    "un re dis over under out in im pre sub inter trans mis non de en ex con com per pro anti semi "
    "super up fore counter tele micro photo hydro bi tri mono auto"
)
_PREFIXES = _PREFIXES_TEXT.split()
_SUFFIXES_TEXT = (
    "s ed ing ly er est ness ment able ful less ship ish ism ist ity ive ous al age ance ence ion "
    "ation hood dom ward wise some let like y en ery worthy man land burn berg ton ville stone"
)
_SUFFIXES = _SUFFIXES_TEXT.split()
_STARTS_TEXT = (
    "b bl br c ch chl cl cr cy d dr dw e ec ed eg el em en ep eq er es eu ev ex f fl fr g gh gl gn "
    "gr gy h hy i ic id il im in ir is j k kn l m my n o ob oc od of ol om on op or os ot ou ow "
    "oz p ph pl pn pr ps py q qu r rh s sc sch scr sh sk sl sm sn sp sph spl spr squ st str sw sy "
    "t th thr tr tw ty u ul um un up ur us ut v w wh wr x y z a ab ac ad ae af ag al am an ap aq "
    "ar as at au av aw ax"
)
_STARTS = _STARTS_TEXT.split()
_MIDDLES_TEXT = "a e i o u y ai ea ee ie io oa oo ou ua ue a e i o u a e i o"
_MIDDLES = _MIDDLES_TEXT.split()
_ENDS_TEXT = (
    "b ck d ff ft g l ld lf lk ll lm lt m mp n nce nch nd ng nk nt p r rb rd rf rk rl rm rn rp rt "
    "s sh sk ss st t tch th v w x ze gue que sm dle ble tle gle der ter ner mer nic tic cal gen phy"
)
_ENDS = _ENDS_TEXT.split()


def english_like(rng: Random) -> str:
    """A lower-case word: a common one, one built on it, or a pronounceable one."""
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(WORDS)
    if kind < 0.6:
        word = rng.choice(WORDS)
        if rng.random() < 0.4:
            word = rng.choice(_PREFIXES) + word
        return word + rng.choice(_SUFFIXES) if rng.random() < 0.8 else word
    word = rng.choice(_STARTS)
    for _ in range(rng.choices((1, 2, 3), (4, 5, 2))[0]):
        vowel = rng.choice(_MIDDLES)
        word += vowel if word[-1] not in "aeiou" else rng.choice("lnrstmdvc") + vowel
        if rng.random() < 0.4:
            word += rng.choice("lnrsmtdcpg")
    return word + (rng.choice(_ENDS) if rng.random() < 0.7 else rng.choice(_SUFFIXES))
