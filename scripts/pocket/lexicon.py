"""The words and small tables of the pocket domain, a front desk. Knows nothing of phrasing or audio."""

from __future__ import annotations


def split(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


ONES = split(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
TENS = split("zero ten twenty thirty forty fifty sixty seventy eighty ninety")


def number_words(value: int) -> str:
    """Spell an integer of -999..9999 in words, without "and" or hyphens."""
    if value < 0:
        return "minus " + number_words(-value)
    if value < 20:
        return ONES[value]
    if value < 100:
        return TENS[value // 10] + (f" {ONES[value % 10]}" if value % 10 else "")
    unit, name = (1000, "thousand") if value >= 1000 else (100, "hundred")
    rest = value % unit
    return f"{number_words(value // unit)} {name}" + (f" {number_words(rest)}" if rest else "")


def plural(count: int, noun: str) -> str:
    """ "one dollar", "two dollars"."""
    return f"{number_words(count)} {noun}" + ("" if count == 1 else "s")


DAYS = split("monday tuesday wednesday thursday friday saturday sunday")
OPENING = {
    "monday": ("nine", "five"),
    "tuesday": ("nine", "six"),
    "wednesday": ("eight", "five"),
    "thursday": ("nine", "eight"),
    "friday": ("ten", "nine"),
    "saturday": ("ten", "four"),
}
NAMES = split(
    "anna ben carla david emma frank grace henry irene jack karen leo maria nick olivia peter rachel sam tina "
    "victor wendy alice bob clara daniel eva george helen ivan julia kevin laura martin nora oscar paul rosa "
    "simon thomas linda james john robert michael william mary susan sarah lisa nancy sandra ashley emily kim "
    "donna michelle carol amanda melissa mark steven andrew joshua brian edward ronald jason ryan eric adam "
    "jonathan justin scott samuel gregory jordan walter kyle sofia lucas ella hannah lily max felix oliver "
    "amy diana philip charles"
)
CITIES = split(
    "paris london berlin madrid rome tokyo boston chicago dublin vienna oslo lisbon athens cairo delhi moscow "
    "sydney toronto seattle denver miami dallas prague warsaw zurich new_york los_angeles san_francisco "
    "amsterdam brussels stockholm helsinki copenhagen budapest istanbul beijing shanghai mumbai bangkok "
    "singapore mexico_city montreal barcelona munich hamburg milan venice geneva edinburgh manchester"
)
CITIES = [city.replace("_", " ") for city in CITIES]
WEATHER = split("sunny cloudy rainy windy foggy snowy stormy warm cold clear hot freezing")
PRICES = {
    "pizza": 12,
    "pasta": 11,
    "salad": 8,
    "soup": 6,
    "burger": 10,
    "sandwich": 7,
    "coffee": 3,
    "tea": 2,
    "orange juice": 4,
    "chocolate cake": 5,
    "steak": 24,
    "fish": 18,
    "rice": 4,
    "bread": 2,
    "water": 1,
    "wine": 9,
    "beer": 5,
    "cheese plate": 13,
    "ice cream": 6,
    "apple pie": 7,
    "chicken": 15,
    "lobster": 38,
    "breakfast": 14,
    "umbrella": 20,
    "postcard": 2,
    "map": 3,
    "towel": 16,
    "t shirt": 25,
    "toothbrush": 4,
    "hat": 19,
}
ROOMS = {"single": 80, "double": 120, "twin": 110, "family": 160, "sea view": 150, "garden": 130}
ORDER_STATUS = {
    "zero": "was shipped today",
    "one": "arrives tomorrow",
    "two": "is ready for pickup",
    "three": "is still being packed",
    "four": "arrives on friday",
    "five": "was delivered yesterday",
    "six": "is delayed by two days",
    "seven": "is in the kitchen",
    "eight": "is on the way",
    "nine": "was canceled",
}
SPELLABLE = split(
    "cat dog house apple table river green water music paper light world happy chair bread money night plant "
    "smile train horse beach cloud stone tiger lemon piano robot sugar zebra queen mouse snake sheep fruit "
    "glass heart juice knife mango ocean party radio storm truck uncle voice wheel youth bird fish milk moon "
    "star tree rain snow book door hand king lamp nose road ship wind wolf yard hotel room bag key box fox jam"
)

# Words of the generic sentences. They make the ear and the mouth general, and serve as speech that is out of domain.
DETERMINERS = split("the the the a a my your his her our their this that every another some no each")
PRONOUNS = split("i you he she we they")
THIRD = split("he she it nobody everyone someone")
OBJECTS = split("me you him her it us them")
AUXILIARIES = split("can will should must could would might may shall")
PREPOSITIONS = split(
    "in on under near behind above below beside with without for from into over through across around after "
    "before during against between toward inside beyond among along past upon within"
)
CONJUNCTIONS = split("because when while although if but and so since until unless though whenever where")
ADVERBS = split(
    "slowly quickly quietly happily sadly carefully often always never sometimes usually today tomorrow again "
    "together alone outside inside upstairs downstairs already almost really suddenly finally early late "
    "yesterday forever maybe perhaps soon later once twice everywhere nowhere somewhere gladly badly deeply "
    "exactly nearly hardly mostly truly simply clearly proudly bravely gently loudly softly ahead apart away "
    "back forward abroad indeed instead otherwise rather quite very too enough still yet ever just only even"
)
ADJECTIVES = split(
    "big small old new red blue green black white little long short happy sad good bad warm cold quiet loud "
    "clean dirty fast slow heavy light young strong empty full early late rich poor bright dark soft hard "
    "sweet fresh strange simple famous gentle narrow wide broken golden silver wooden modern ancient lovely "
    "hungry tired angry brave clever lazy nervous polite proud serious wild yellow orange purple brown pink "
    "free equal human national public private special general local social military political economic "
    "foreign american common possible important different difficult easy early certain single whole final "
    "main major recent true false deep high low round flat sharp thick thin tight loose wet dry rough smooth "
    "bitter sour salty plain fancy cheap expensive perfect terrible wonderful awful beautiful ugly pretty nice "
    "kind cruel honest fair equal wise foolish safe dangerous quick sudden silent hidden open closed frozen "
    "royal northern southern eastern western distant nearby central personal natural physical medical legal "
    "curious careful busy ready afraid alive awake asleep alone sick healthy weak mighty tiny huge giant tall"
)
NOUNS = split(
    "man woman boy girl child dog cat bird horse house car train bus street city village river lake mountain "
    "forest garden tree flower table chair door window room kitchen book letter paper phone computer picture "
    "story song movie game ball shirt shoe hat coat bag box bottle cup plate knife spoon bread cheese apple "
    "orange banana cake coffee tea water milk sugar salt rice soup doctor teacher student friend brother "
    "sister mother father uncle baby farmer driver writer singer player leader king queen soldier officer "
    "lawyer nurse baker school office hospital station airport market shop bank hotel church museum park beach "
    "island bridge road corner wall floor roof bed lamp clock key coin ticket map ship boat plane bicycle "
    "truck engine machine tool hammer nail rope fire smoke cloud rain snow wind storm sun moon star sky "
    "morning evening night summer winter spring week month year hour minute moment question answer problem "
    "reason idea plan dream secret promise mistake lesson number word name voice sound noise color shape size "
    "price money job meeting party holiday journey birthday wedding dinner lunch breakfast supper meal "
    "country nation world war peace freedom power law court president citizen people fellow enemy neighbor "
    "family government state church army science history art music nature culture language society community "
    "company business market industry bank factory worker trade tax budget cost value energy oil gas coal iron "
    "gold stone wood glass metal plastic leather cotton wool silk hand foot head heart eye ear nose mouth arm "
    "leg finger shoulder knee face hair skin bone blood brain body life death birth age youth hope faith love "
    "hate fear joy anger pain pleasure courage strength truth lie fact theory system method model form force "
    "field line point circle square center edge side top bottom front end beginning middle part piece half "
    "group team class crowd pair set list page chapter title subject object report news paper magazine radio "
    "television camera film stage actor dance drum guitar piano violin bell whistle ocean sea wave coast shore "
    "valley hill desert jungle cave field farm barn fence gate yard path trail tunnel tower castle palace "
    "temple library theater college university student degree test score prize race match goal record sport "
    "bear wolf fox lion tiger elephant monkey rabbit mouse snake frog fish shark whale duck goose chicken cow "
    "pig sheep goat bee ant spider fly butterfly leaf root branch seed grass corn wheat bean potato tomato "
    "onion carrot pepper garlic lemon grape peach pear berry nut honey butter cream egg meat beef pork ham "
    "chair desk shelf drawer mirror carpet curtain pillow blanket towel soap brush comb needle thread button "
    "pocket belt boot glove scarf jacket dress skirt sweater suit uniform ring watch necklace umbrella wallet "
    "action effect choice chance change duty danger defense effort event example experience generation group "
    "interest issue matter measure memory mind mission opinion order pattern period policy position pressure "
    "process program progress project purpose quality record relation respect result right role rule scene "
    "season sense service sign situation skill space speech spirit step structure study success summit supply "
    "support surface symbol task term thought threat touch tradition treaty trial trouble trust unit victory "
    "view visit vote wealth weapon weight wish witness wonder zone liberty justice burden ally tyranny poverty"
)
VERBS = split(
    "see like find take bring buy sell open close clean paint break fix build move carry hold drop throw catch "
    "kick push pull cut cook eat drink want need love know remember forget follow lead help call visit watch "
    "hear read write draw sing play win lose keep hide show give send get make use try start stop leave enter "
    "cross pass change choose count check cover fill feed ask tell answer accept add admire agree allow attack "
    "avoid beat begin believe blame borrow burn celebrate collect compare complete consider continue control "
    "copy create defend deliver describe destroy discover discuss divide earn enjoy examine expect explain "
    "explore face fear fight forgive gather guard guess guide hate hire hunt imagine improve include increase "
    "invite join judge learn lend lift limit measure meet mention miss notice obey offer order own pay plan "
    "prefer prepare produce promise protect prove punish raise reach receive record reduce refuse repair "
    "repeat replace reply report respect return save search serve share support teach thank touch trade train "
    "travel trust understand wash waste wear welcome wish wonder"
)
PAST = split(
    "saw liked found took brought bought sold opened closed cleaned painted broke fixed built moved carried "
    "held dropped threw caught kicked pushed pulled cut cooked ate drank wanted needed loved knew remembered "
    "forgot followed led helped called visited watched heard read wrote drew sang played won lost kept hid "
    "showed gave sent got made used tried started stopped left entered crossed passed changed chose counted "
    "checked covered filled fed asked told answered accepted added admired attacked avoided began believed "
    "blamed borrowed burned celebrated collected compared completed considered controlled copied created "
    "defended delivered described destroyed discovered discussed divided earned enjoyed examined expected "
    "explained explored faced fought forgave gathered guarded guessed guided hated hired hunted imagined "
    "improved invited joined judged learned lent lifted measured met mentioned missed noticed obeyed offered "
    "paid planned prepared produced protected proved punished raised reached received recorded reduced refused "
    "repaired replaced reported saved searched served shared supported taught thanked touched traded trusted "
    "understood washed wasted wore welcomed"
)
INTRANSITIVE = split(
    "sleeps runs walks jumps swims flies laughs cries smiles works waits sits stands talks listens dances "
    "travels arrives returns falls grows shines burns freezes melts rests comes goes happens lives dies rises "
    "shakes speaks thinks dreams hopes fails breathes disappears moves turns stays begins ends matters exists"
)
EXTRA = split(
    "not what why how who whom whose which whether than then there here these those any all both either "
    "neither nor such own same other others more most less least few many much several first second third "
    "last next hello yes please thanks sorry okay well oh cannot do does did done doing has had have having is "
    "are was were been being am be let us went gone come came said says say think thought feel felt become "
    "became seem look looked got going getting making taking giving looking trying working living "
    "million billion hundred thousand dozen percent degree inch mile pound dollar cent euro meter "
    "january february march april may june july august september october november december "
    "monday tuesday wednesday thursday friday saturday sunday noon midnight tonight weekend century decade "
    "north south east west left right up down off out about as at by of to against despite except toward "
    "europe africa asia america china france germany italy spain england russia india japan canada brazil "
    "english french german spanish chinese italian russian japanese european african asian "
    "itself himself herself myself yourself ourselves themselves anyone anything something nothing everything "
    "shall ought used able unable likely willing known given made built born written spoken broken chosen "
    "bath shower elevator lobby reception suite floor stairs balcony terrace pool gym spa sauna laundry luggage "
    "suitcase passport receipt bill invoice deposit discount refund guest visitor staff waiter chef manager "
    "cleaner porter menu dessert starter vegetarian gluten allergy spicy grilled fried baked roasted boiled "
    "bottle napkin fork bowl tray taxi shuttle airport ferry harbor dock sailor anchor captain lighthouse wifi "
    "password charger adapter heater fan pillow crib stroller wheelchair blanket iron hanger safe socket"
)
LETTERS = list("abcdefghijklmnopqrstuvwxyz")


def vocabulary() -> list[str]:
    """Every generic word once, in a stable order."""
    pools = (ADVERBS, ADJECTIVES, NOUNS, VERBS, PAST, INTRANSITIVE, EXTRA, PREPOSITIONS, CONJUNCTIONS, NAMES)
    words = [word for pool in pools for word in pool]
    words += [part for city in CITIES for part in city.split()] + ONES + TENS + SPELLABLE + WEATHER
    return list(dict.fromkeys(words))
