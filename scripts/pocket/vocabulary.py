"""More words for generic sentences, and their forms: plurals, -ing, -s, -ly, -er. Knows no sentence.

The lemmas of lexicon.py and these make the vocabulary that the model is taught to hear and to say.
"""

from __future__ import annotations

import lexicon as lex

VOWELS = "aeiou"
MORE_NOUNS = lex.split(
    "ability absence accent access accident account acid address adult advance advantage adventure advice affair "
    "agency agent agreement aid aim alarm album alley alphabet amount analysis angle animal ankle anniversary "
    "announcement anxiety apartment apology appeal appearance appetite application appointment approach apron arch "
    "area arena argument arrest arrival arrow article artist ash aspect assistant atmosphere attempt attention "
    "attitude attorney auction audience aunt author autumn average award axe backpack bacon badge balance ballet "
    "balloon ballot band banner barber bargain barrel barrier base basement basin basis basket basketball bat "
    "battery battle beard beast beauty beer beggar behavior bench benefit bet bicep bike biscuit blade blast blaze "
    "blizzard block blossom blouse board boot border boss bottleneck boundary bouquet bow brand brass bravery break "
    "breakdown breath breeze brick bride broom broth bubble bucket buckle bug builder bulb bull bulldozer bunch "
    "bundle bush butcher butler buyer cabbage cabin cabinet cable cactus cage calculator calendar calf camel camp "
    "campus canal cancer candle candy cannon canoe canvas cap capacity capital captive caravan carbon career cargo "
    "carpenter carriage cart cartoon cash cashier cast category cattle caution ceiling celebration cell cellar "
    "cement cemetery cereal ceremony chain chalk challenge chamber champion channel chapel character charity charm "
    "chart cherry chess chest chief chimney chin chip chocolate choir cigar cinema circus citadel claim clan clay "
    "clerk client cliff climate climb clinic cloak closet cloth clothing clown club clue coach coal cocktail coconut "
    "code collar collection colony column comedy comfort command comment commission committee companion comparison "
    "competition complaint compound compromise concept concern concert conclusion condition conference confidence "
    "conflict confusion connection conscience consequence contact contest context contract contrast contribution "
    "conversation cookie copper cord corpse corridor costume cottage couch council counter county couple courtyard "
    "cousin coverage cowboy crab crack craft crane crash crayon creature credit creek crew cricket crime crisis "
    "critic crop crossing crow crown crystal cube cucumber culprit cupboard cure curb curiosity currency curve "
    "cushion custom customer cycle dairy damage dancer dark darkness dash data date daughter dawn deadline deal dean "
    "debate debt decision deck decline decoration deer degree delay delight delivery demand democracy dentist "
    "department departure dependence depth deputy description designer desire destination detail detective device "
    "devil dialogue diamond diary diet difference difficulty dignity dime dinosaur diploma direction director dirt "
    "disaster discipline discovery discussion disease dish disk display distance district ditch diver division "
    "divorce document dollar dolphin donkey donor dose dot dough dragon drama draft dragonfly driveway drop drought "
    "drug duke dust dwarf eagle earring earth earthquake ease echo economy edition editor education effect eggplant "
    "elbow election electricity element elevator embassy emergency emotion emperor empire employee employer "
    "enthusiasm entrance envelope environment envy equipment error escape essay estate evidence evil exam exchange "
    "excitement excuse exercise exhibition exit expense expert explanation explosion export expression extent "
    "eyebrow fabric facility failure fair fairy faith fame family fan fantasy fare farewell fashion fate fault favor "
    "feather feature fee feedback feeling ferry festival fever fiber fiction figure file film filter finance finding "
    "firefighter firm fist flag flame flash flashlight flavor fleet flesh flight flock flood flour flow fluid flute "
    "foam fog fold folder folk food fool football footprint forecast forehead fortress fortune foundation fountain "
    "fraction fragment frame fraud freight frequency friendship fright fringe frost fuel function fund funeral fur "
    "furniture future galaxy gallery gamble gang gap garage garbage garment gasp gear gem gene general generosity "
    "genius gentleman gesture ghost gift giraffe glance globe glory glue goal goat goddess gorilla gossip governor "
    "grace grade grain grandfather grandmother grandson graph gratitude grave gravity gravy greeting grief grip "
    "grocery ground growth guarantee guest guidance guilt gum gun gymnasium habit hail hallway halt hammock handful "
    "handle harbor hardware harm harmony harvest hawk headache headline health heap heat heaven hedge heel height "
    "helicopter helmet herb herd hero hint hip hobby hole home honor hook horizon horn horror hostel hour household "
    "housing hug humor hurricane hurry husband hut ice identity illness image impact impulse incident income "
    "independence index infant influence information injury ink inn innocence input insect inspection inspector "
    "instinct instruction instrument insult insurance intention interview introduction invention inventory "
    "investment invitation island item ivory jail jar jaw jelly jewel joke journal journalist joystick judgment jug "
    "junction jury kettle keyboard kid kidney kilometer kingdom kiosk kiss kit kitten knight knob knot knowledge "
    "label labor laboratory lace ladder lady landlord landscape lane lap laptop laser laundry lawn layer leadership "
    "league lecture legend leisure length lens letter level liar library license lid lifetime lighter lightning lily "
    "limb line link lip liquid list literature load loaf loan lobster location lock log logic look loop loss lot "
    "luck lump lung luxury machinery maid mail mailbox maintenance majority maker mall manner mansion manual "
    "marble margin marriage marsh mask mass mast mat mate material mathematics mattress mayor maze meadow meaning "
    "measurement mechanic medal medicine melody melon member membership menu merchant mercy merit message messenger "
    "metaphor microphone microwave midnight mile mill miner mineral minister minority miracle mirror misery missile "
    "mist mixture mob mode moisture monk monkey monster monument mood moral mosquito moss moth motion motive motor "
    "motorcycle mud mug mule muscle mushroom musician mustard myth napkin narrator nation navy neck needle neglect "
    "nephew nerve nest net network news nickel niece nightmare nonsense noodle noon notebook notion novel nut oak "
    "oar oath object obligation observation obstacle occasion occupation odor offense offer onion opera operation "
    "operator opponent opportunity opposite option orchard orchestra organ organization origin orphan outcome outfit "
    "outlet outline output oven owl owner oxygen pace pack package pad paint painter painting pair pal pan pancake "
    "panel panic pants parade paradise paragraph parcel parent parrot parking partner passage passenger passion "
    "password past pasta paste pastry patch patience patient pause payment pea peak peanut pearl pebble pen penalty "
    "pencil peninsula penny percentage performance perfume permission personality perspective pet phase philosophy "
    "photo photograph phrase pickle picnic pie pile pill pilot pin pine pint pioneer pipe pirate pistol pit pitch "
    "pity pizza planet planning plant platform pleasure plot plum plumber plus poem poet poetry poison pole police "
    "politician politics pond pony population porch porridge port portion portrait possession possibility post "
    "postcard poster pot pottery poultry powder practice praise prayer precision preference presence present "
    "presentation pride priest prince princess principle printer priority prison prisoner privacy privilege problem "
    "procedure producer product production profession professor profile profit promotion pronunciation property "
    "proposal protection protest proverb psychology pudding pump pumpkin pupil puppet puppy purse puzzle pyramid "
    "quantity quarrel quarter quest queue quilt quota rabbit rack radar raft rage rail railway rainbow ranch range "
    "rat rate ratio ray razor reaction reader reality realm rear receiver recipe recognition recommendation reform "
    "refrigerator refugee region regret regulation relative relief religion reminder remark remedy rent repair "
    "replacement reporter representative reputation request rescue research reservation resident resistance resort "
    "resource response responsibility restaurant reunion revenue revolution reward rhythm ribbon riddle rider rifle "
    "rival river roast robber robe rocket rod romance rooster rose route routine row royalty rubber rug ruin ruler "
    "rumor runner sack sadness safety sail sailor salad salary sale salmon sample sand sandal sandwich satellite "
    "satisfaction sauce sausage saw scale scandal scarecrow scenery schedule scheme scholar scholarship scientist "
    "scissors scooter score screen screw script sculpture seal seat secretary section sector security seed selection "
    "senator sentence series sermon servant session setting settlement shade shadow shampoo shame shed sheet shelter "
    "shepherd sheriff shield shift shirt shock shopping shortage shower shrimp sidewalk signal signature silence sin "
    "sink siren site size sketch skirt skull slave sled sleep sleeve slice slipper slope smell smile snack sneaker "
    "soap soccer sock soda sofa software soil soldier solution son soul source souvenir spark sparrow speaker "
    "specialist species speed spell sphere spice spinach spine sponge spot spray spy squad squirrel stable stadium "
    "stain staircase stamp standard staple statement statue status steak steam steel stem stick sticker stock stomach "
    "stool storage strain stranger strategy straw strawberry stream stress stretch strike string strip stripe stroke "
    "studio stuff style subway success sunflower sunlight sunrise sunset superior supper surgeon surgery surprise "
    "survey survival suspect swamp swan sweat swing switch sword syllable sympathy symptom syrup tail tailor tale "
    "talent tank tap tape target taste taxi teaspoon technique technology teenager telegram telescope temper "
    "temperature tenant tendency tennis tent terminal territory text textbook theme therapy thief thing thirst thorn "
    "throat throne thumb thunder tide tie tile timber timetable tin tip tire tissue title toast tobacco toe toilet "
    "tone tongue tooth topic torch tornado total tourist tournament toy track traffic tragedy trailer trainer "
    "transfer transport trap trash traveler treasure treat tree tribe trick trip troop trophy tube tune turkey turn "
    "turtle twig twin twist type umbrella union universe update upgrade user vacation vaccine vacuum van variety "
    "vase vegetable vehicle veil vein venue verb verse version vessel vest veteran victim video vine vinegar virtue "
    "virus vision vitamin vocabulary volcano volleyball volume voter voyage wage wagon waist wallet walnut wardrobe "
    "warehouse warning warrior wasp waterfall weakness web website weed welfare whale wheat wheel whip widow width "
    "wife wildlife will winner wing wire wisdom wish wolf workshop worm worry worship wound wreck wrist writing yarn "
    "year yogurt zebra zipper zoo"
)
MORE_ADJECTIVES = lex.split(
    "able absent absolute academic active actual additional advanced amazing annual anxious apparent available "
    "average bare basic bold boring brief brilliant calm capable casual charming civil classic coastal colorful "
    "comfortable complex constant cool correct crazy creative criminal critical crucial cultural current cute daily "
    "dear decent delicate delicious digital direct domestic double dramatic dull eager electric elegant emotional "
    "enormous entire essential exact excellent exciting extra extreme faint faithful familiar favorite female fierce "
    "firm fit flexible fluffy fond formal fortunate frequent friendly frightened fun funny generous genuine global "
    "glorious grand grateful grave gray greedy handsome harmless harsh helpful helpless historic hollow holy "
    "horrible huge humble ideal immediate impressive independent industrial initial inner innocent intense internal "
    "joyful junior keen lame large lasting latter liberal likely linear literary lively logical lonely loyal lucky "
    "magic male married massive maximum mean medium mental mere merry mild minor missing mobile moderate modest "
    "moist mutual mysterious narrow nasty native naughty neat negative neutral noble noisy normal novel numerous "
    "obvious odd official online opposite ordinary original outer outstanding overall painful pale parallel partial "
    "particular passive patient permanent pleasant positive potential powerful practical precious precise pregnant "
    "previous primary prime primitive principal professional profound prominent proper pure radical random rapid "
    "rare raw reasonable regional regular related relevant reliable religious remote responsible rigid ripe romantic "
    "rotten rude rural sacred scared secondary secure selfish senior sensible sensitive separate severe shallow shy "
    "silly similar sincere skinny sleepy slight slim smart sober solar solid sorry spare specific splendid square "
    "stable standard steady steep sticky stiff straight strict stubborn stupid subtle successful sudden sufficient "
    "suitable sunny superb sure surprised swift sympathetic technical temporary tender thirsty thorough tidy tough "
    "toxic traditional tragic tropical typical ultimate unfair unhappy unique universal unusual upper upset urban "
    "urgent useful useless vague valid valuable various vast verbal vertical vicious violent virtual visible visual "
    "vital vivid wealthy weird western wicked worried worth worthy wrong youthful"
)
# Regular verbs: their forms follow from rules.
REGULAR_VERBS = lex.split(
    "absorb achieve acquire adapt adjust adopt advise afford aim alter amuse analyze announce annoy appear apply "
    "appoint approach approve argue arrange arrest arrive assemble assert assign assist assume assure attach attend "
    "attract awake bake balance bark bathe behave blend bless blink boast boil book bother bounce bow breathe browse "
    "brush bury call calm cancel care cause challenge chase chat cheat cheer chew claim clap climb comb combine "
    "comfort command comment commit compete complain concentrate concern conclude conduct confess confirm confuse "
    "connect convince correct cough crash crawl criticize cure curl cycle damage dance dare decide declare decorate "
    "decrease delay delight demand deny depend deserve design detect develop dine dip disagree disappoint dislike "
    "dismiss display disturb dive download drain drift drip dry dust earn echo educate elect embrace employ empty "
    "enable encounter encourage engage ensure entertain escape establish estimate evaluate exchange excite exclude "
    "excuse exercise export expose express extend face fade fasten fetch file film finish fix flash float flood flow "
    "focus fold form found frame frighten fry gain gaze glance glow glue grab grade greet grin grip guarantee hammer "
    "hand handle harm haunt heat hesitate highlight hug hurry identify ignore import impress inform inject injure "
    "insist inspect inspire install insult intend interest interrupt introduce invent investigate involve irritate "
    "itch jog joke juggle kiss knit knock label land last launch lay lean lick link list load locate lock long love "
    "maintain manage march mark marry match matter measure melt mend mix move multiply nod note number object "
    "observe obtain occur operate organize overlook pack pat pause peel perform permit phone pick place plant plug "
    "point polish pop possess post pour practice praise pray preach press pretend prevent print proceed program "
    "promote pronounce propose pump punch purchase puzzle question race realize recall recognize recommend recover "
    "reflect regret reject relax release rely remain remark remind remove rent request require rescue research "
    "reserve resign resist restore retire reveal review reward rob rock roll rub ruin rush sail satisfy scare scold "
    "scratch scream seal select separate settle shave shelter shock shop shout sigh sign signal ski skip slip slow "
    "smell smoke sneeze soak solve sort sound spare spell spill spoil spot spray squeeze stain stamp stare state "
    "steer step stir store strengthen stretch struggle stuff subtract succeed suffer suggest suit supervise surprise "
    "surround survive suspect switch tap taste tease telephone tempt test tie tickle time tip touch tour trace "
    "transfer translate transport trap treat tremble trick trip tumble twist type unlock unpack update upgrade urge "
    "value vanish vary wag wander warm warn weigh whisper widen wipe witness worry wrap yawn yell zoom"
)
MORE_ADVERBS = lex.split(
    "absolutely accidentally accurately actually afterwards altogether angrily anxiously approximately automatically "
    "awkwardly barely basically beforehand beautifully bitterly blindly boldly briefly brightly calmly cheaply "
    "cheerfully comfortably commonly completely constantly correctly currently daily definitely deliberately "
    "directly eagerly easily entirely equally especially essentially eventually evidently extremely fairly fiercely "
    "fluently formally fortunately frankly freely frequently fully generally generously gradually greatly hastily "
    "heavily highly honestly hopefully immediately increasingly initially jointly kindly largely lately lazily "
    "legally lightly likewise literally mainly meanwhile merely mildly naturally neatly necessarily nervously "
    "nevertheless newly nicely nonetheless normally notably obviously occasionally oddly officially openly "
    "originally painfully partly patiently perfectly permanently personally physically plainly politely poorly "
    "possibly potentially precisely previously primarily privately probably promptly properly publicly purely "
    "randomly rapidly rarely readily recently regularly relatively repeatedly roughly rudely safely scarcely "
    "secretly seldom separately seriously severely sharply shortly significantly silently similarly smoothly solely "
    "specifically steadily straight strictly strongly successfully surely surprisingly swiftly temporarily "
    "thereafter therefore thoroughly tightly totally tremendously typically ultimately undoubtedly unexpectedly "
    "unfortunately usefully utterly vaguely warmly weakly weekly widely wildly willingly wisely"
)
# Words of front desks and hot lines that stand in no list above, and those of mail addresses and web sites.
TRADE = lex.split(
    "email inbox router modem cable outage refund voucher coupon loyalty upgrade downgrade subscription renewal "
    "billing technician warranty serial model tracking courier shipment parcel pickup doorstep signature checkout "
    "basket username login logout reset verification account settings browser screen tablet printer scanner speaker "
    "headphones earphones microwave dishwasher fridge freezer oven toaster kettle vacuum heater thermostat remote "
    "battery cartridge lightbulb sunscreen sunglasses backpack sleeping sneakers jeans hoodie pajamas cardigan "
    "blender mattress bookshelf wardrobe armchair doorbell hairdryer keyboard monitor webcam tripod suitcase dot "
    "slash dash underscore com org net info www ok bye hi hey um uh hmm ah wow sir madam mister miss missus ma'am "
    "don't can't won't isn't aren't doesn't didn't i'm i'll i'd i've you're it's that's what's let's we're they're "
    "o'clock checkup dentist physio massage haircut manicure vaccination inspection plumbing electrician locksmith "
    "gardener babysitter interpreter lawyer notary barber podcast playlist chat bot selfie smartphone app software "
    "spreadsheet folder backup download upload wireless bluetooth pharmacy bakery butcher florist hardware bookstore"
)
IRREGULAR_PLURALS = {
    "man": "men", "woman": "women", "child": "children", "foot": "feet", "tooth": "teeth", "mouse": "mice",
    "goose": "geese", "person": "people", "sheep": "sheep", "fish": "fish", "deer": "deer", "knife": "knives",
    "leaf": "leaves", "wolf": "wolves", "shelf": "shelves", "half": "halves", "life": "lives", "wife": "wives",
    "loaf": "loaves", "thief": "thieves", "gentleman": "gentlemen", "cowboy": "cowboys", "potato": "potatoes",
    "tomato": "tomatoes", "hero": "heroes", "echo": "echoes", "volcano": "volcanoes", "calf": "calves",
    "mosquito": "mosquitoes", "tornado": "tornadoes", "buffalo": "buffaloes", "ox": "oxen", "self": "selves",
    "belief": "beliefs", "chef": "chefs", "roof": "roofs",
}  # fmt: skip
NO_PLURAL = frozenset(
    lex.split(
        "music people news police information furniture luggage advice homework mathematics cattle clothing equipment "
        "electricity evidence gold silver bread butter rice salt sugar milk water oxygen weather hardware software "
        "machinery jewelry pants scissors series species politics wildlife poetry laundry data staff dirt dust mud "
        "fame luck moisture nonsense parking shopping housing traffic tennis volleyball soccer basketball football "
        "gratitude generosity sadness safety knowledge welfare sunlight lightning thunder wisdom peace wealth courage "
        "liberty justice anger blood health humor harm honor leisure maintenance patience privacy survival royalty "
        "sympathy enthusiasm excitement guidance independence curiosity bravery innocence gravity harmony cotton wool "
        "silk leather wood meat beef pork ham corn wheat garlic honey grass mankind snow rain fog frost ice air "
        "army freedom youth hope gas coal iron rock pepper cream nature history poverty tyranny liberty"
    )
)
# Last letter doubled before -ing and -ed, beside one-syllable words of the form consonant, vowel, consonant.
DOUBLED = frozenset(
    ("prefer", "admit", "commit", "permit", "occur", "forget", "begin", "refer", "control", "regret")
)
NOT_DOUBLED = frozenset(
    ("fix", "mix", "show", "draw", "play", "stay", "pay", "buy", "enjoy", "sew", "tax", "obey")
)


def plural(noun: str) -> str:
    """ "boxes", "ladies", "men"."""
    if noun in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[noun]
    return noun if noun in NO_PLURAL else third_person(noun)


def third_person(verb: str) -> str:
    """ "watches", "carries", "runs"."""
    if verb.endswith(("s", "x", "z", "ch", "sh")) or verb in ("go", "do"):
        return verb + "es"
    if verb.endswith("y") and verb[-2] not in VOWELS:
        return verb[:-1] + "ies"
    return verb + "s"


def _doubles(verb: str) -> bool:
    if verb in DOUBLED:
        return True
    short = sum(letter in VOWELS for letter in verb) == 1 and len(verb) <= 5
    return (
        short
        and verb not in NOT_DOUBLED
        and len(verb) >= 3
        and verb[-1] not in VOWELS + "wxy"
        and verb[-2] in VOWELS
    )


def ing(verb: str) -> str:
    """ "making", "running", "lying"."""
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "ye", "oe")):
        return verb[:-1] + "ing"
    return verb + (verb[-1] if _doubles(verb) else "") + "ing"


def past(verb: str) -> str:
    """Of a regular verb: "stopped", "carried", "moved"."""
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in VOWELS:
        return verb[:-1] + "ied"
    return verb + (verb[-1] if _doubles(verb) else "") + "ed"


def _once(*lists: list[str]) -> list[str]:
    return list(dict.fromkeys(word for words in lists for word in words))


NOUNS = _once(lex.NOUNS, MORE_NOUNS)
PLURALS = _once([plural(noun) for noun in NOUNS if noun not in NO_PLURAL])
ADJECTIVES = _once(lex.ADJECTIVES, MORE_ADJECTIVES)
VERBS = _once(lex.VERBS, REGULAR_VERBS)
PAST = _once(lex.PAST, [past(verb) for verb in REGULAR_VERBS])
DOING = _once([ing(verb) for verb in VERBS])
THIRD_PERSON = _once([third_person(verb) for verb in VERBS])
ADVERBS = _once(lex.ADVERBS, MORE_ADVERBS)
COUNTED = [noun for noun in NOUNS if plural(noun) in frozenset(PLURALS[:350])]
"""Nouns that the generic sentences use in the plural; the verbs below, in their other forms."""
CONTINUED, REPEATED = VERBS[:260], VERBS[:90]


def vocabulary() -> list[str]:
    """Every generic word once, in a stable order: those that are spoken round in turn."""
    return _once(
        lex.vocabulary(),
        NOUNS,
        ADJECTIVES,
        VERBS,
        PAST,
        ADVERBS,
        TRADE,
        PLURALS[:350],
        DOING[: len(CONTINUED)],
        THIRD_PERSON[: len(REPEATED)],
    )
