"""Values that callers and instructions name: how they are said, and how a developer writes them. Knows no sentence."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import lexicon as lex
import vocabulary as voc

DIGITS = lex.ONES[:10]
ORDINALS = lex.split(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth twenty|first twenty|second twenty|third twenty|fourth "
    "twenty|fifth twenty|sixth twenty|seventh twenty|eighth twenty|ninth thirtieth thirty|first"
)
ORDINALS = [word.replace("|", " ") for word in ORDINALS]
MONTHS = lex.split("january february march april may june july august september october november december")
LAST_NAMES = lex.split(
    "smith jones miller brown taylor wilson clark lewis walker hall young king wright hill green baker carter turner "
    "parker cook morgan bell cooper ward cox gray price wood ross fisher foster hunter mason stone fox lane marsh "
    "meier garcia lopez rossi novak jensen larsen olsen weber fischer wagner becker schmidt dubois martin bernard "
    "moreau kowalski ivanov petrov tanaka suzuki chen wang patel singh khan cohen murphy kelly ryan walsh byrne "
    "campbell stewart murray reid hughes evans davies roberts harris shaw ellis dixon palmer webb holmes black "
    "rivera torres flores santos silva costa pereira romano ricci conti bauer keller vogel lang winter sommer"
)
MAIL_HOSTS = lex.split("mail post home office web box fast star river north blue city line cloud")
MAIL_ENDS = ("com", "com", "com", "org", "net")
PLACE_FIRST = lex.split(
    "copper blue silver golden green red old grand little happy quiet sunny royal north south wild lucky white black "
    "crystal marble garden river ocean mountain forest maple cedar willow amber ivory coral velvet stone iron "
    "bright hidden gentle merry central urban modern ancient family lakeside corner bridge castle orchard meadow"
)
PLACE_SECOND = lex.split(
    "lantern fox anchor crown oak lion swan bell star moon harbor tower garden gate wheel feather owl rose elm ship "
    "rabbit bear falcon dolphin spoon kettle lamp bridge mill barn table window door pepper lemon cherry olive apple "
    "sparrow whale turtle pearl stone leaf wave sail compass candle ribbon button pillow basket ladder rocket"
)
STREETS = lex.split(
    "river mill park church station king queen garden lake hill bridge market school forest ocean spring maple cedar "
    "oak pine elm willow rose victoria castle harbor mountain valley meadow sunset north south east west main high "
    "bakery tower silver golden apple cherry orchard windmill college museum palace temple"
)
STREET_ENDS = ("street", "street", "street", "road", "road", "avenue", "lane", "square")
COLORS = lex.split("red blue green black white yellow orange purple brown pink gray silver golden")


@dataclass(frozen=True, slots=True)
class Value:
    """Something that is said one way and written in several."""

    said: str
    written: tuple[str, ...]


def digits(rng: Random, count: int) -> list[str]:
    return [rng.choice(DIGITS) for _ in range(count)]


def number_text(words: list[str]) -> str:
    """ "four two" -> "42"."""
    return "".join(str(DIGITS.index(word)) for word in words)


def phone(rng: Random) -> Value:
    """Six or seven digits."""
    said = digits(rng, rng.choice((6, 7)))
    text = number_text(said)
    return Value(" ".join(said), (text, f"{text[:3]}-{text[3:]}", f"{text[:3]} {text[3:]}", " ".join(said)))


def dollars(rng: Random, high: int = 60) -> Value:
    """A price in whole dollars."""
    count = rng.randint(1, high)
    said = lex.plural(count, "dollar")
    return Value(said, (f"${count}", f"{count} dollars" if count != 1 else "1 dollar", said, f"{count} USD"))


def clock(rng: Random, *, low: int = 1, high: int = 12) -> str:
    """How a caller names a time of day."""
    hour = lex.ONES[rng.randint(low, high)]
    if rng.random() < 0.12:
        return rng.choice(("half past", "quarter past", "quarter to")) + " " + hour
    return hour + rng.choice(("", "", "", " thirty", " thirty", " fifteen", " forty five", " o'clock"))


def hour(rng: Random, *, first: int, last: int) -> Value:
    """A time of opening or closing, `first` to `last` of 24 hours; half hours now and then."""
    at, half = rng.randint(first, last), rng.random() < 0.25
    short = (at - 1) % 12 + 1
    part = "am" if at < 12 else "pm"
    minutes = "30" if half else "00"
    said = lex.ONES[short] + (" thirty" if half else "")
    bare = f"{short}:30" if half else f"{short}"
    return Value(said, (f"{bare} {part}", f"{bare}{part}", f"{at}:{minutes}", f"{at:02d}:{minutes}", said))


def street(rng: Random) -> Value:
    """A house number and a street."""
    number = rng.randint(1, 99)
    name = f"{rng.choice(STREETS)} {rng.choice(STREET_ENDS)}"
    said = f"{lex.number_words(number)} {name}"
    return Value(said, (f"{number} {name.title()}", f"{number} {name.title()}", said.title(), said))


def person(rng: Random) -> str:
    return rng.choice(lex.NAMES)


def full_name(rng: Random) -> str:
    return f"{rng.choice(lex.NAMES)} {rng.choice(LAST_NAMES)}"


def email(rng: Random) -> Value:
    """An address as it is said ("anna dot smith at mail dot com") and written."""
    local = [rng.choice(lex.NAMES)]
    if rng.random() < 0.5:
        local = [local[0], "dot", rng.choice(LAST_NAMES)]
    elif rng.random() < 0.4:
        local += digits(rng, 2)
    host, end = rng.choice(MAIL_HOSTS), rng.choice(MAIL_ENDS)
    text = "".join("." if w == "dot" else str(DIGITS.index(w)) if w in DIGITS else w for w in local)
    return Value(f"{' '.join(local)} at {host} dot {end}", (f"{text}@{host}.{end}",))


def two_words(rng: Random) -> Value:
    """Such as a password."""
    said = f"{rng.choice(PLACE_FIRST)} {rng.choice(PLACE_SECOND)}"
    joined = said.replace(" ", rng.choice((" ", " ", "-", "_")))
    return Value(said, (joined, f'"{said}"', said))


def date(rng: Random) -> str:
    """ "march the fifth"."""
    return f"{rng.choice(MONTHS)} {rng.choice(('', 'the '))}{rng.choice(ORDINALS[:28])}"


def day_phrase(rng: Random) -> str:
    if rng.random() < 0.15:
        return rng.choice(("tomorrow", "today", "tonight"))
    return f"on {rng.choice(lex.DAYS)}"


def spelled(word: str) -> str:
    """ "m e i e r"."""
    return " ".join(word)


def thing(rng: Random) -> str:
    """Something that can be sold, lost or broken."""
    return rng.choice(GOODS)


GOODS = lex.split(
    "lamp chair table jacket shirt dress sweater suitcase backpack phone laptop camera printer monitor keyboard radio "
    "clock watch mirror carpet blanket pillow mattress kettle toaster microwave oven fridge freezer dishwasher vacuum "
    "bicycle helmet tent scooter guitar piano violin drum book puzzle doll ball umbrella wallet scarf belt coat hat "
    "glove boot sandal ring necklace bracelet vase candle curtain sofa shelf drawer desk bench ladder hammer drill "
    "router speaker headset tablet charger cable battery heater fan blender mixer pan pot knife bottle basket toy"
)
DEVICES = (
    "router", "modem", "phone", "tablet", "laptop", "printer", "screen", "camera", "heater", "oven",
    "washing machine",
    "television", "thermostat", "coffee machine", "speaker", "doorbell", "alarm", "remote",
)  # fmt: skip
DEPARTMENTS = (
    "billing", "sales", "technical support", "customer service", "returns", "reservations", "the kitchen",
    "the manager", "accounting", "the front desk", "housekeeping", "the warehouse", "security", "human resources",
    "repairs",
)  # fmt: skip
PLANS = ("basic", "standard", "family", "premium", "student", "business", "light", "gold", "silver", "plus")
SIZES = ("small", "medium", "large", "extra large")
PLURAL_GOODS = {good: voc.plural(good) for good in GOODS}
