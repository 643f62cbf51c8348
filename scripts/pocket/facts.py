"""Facts that a developer's instructions can set: how they are stated, what callers ask, and the answer to it.

Every fact has a value of its own in every call. It knows no prompt as a whole (houses.py) and no conversation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import lexicon as lex
import values as val
from values import Value

UNKNOWN = "i am sorry, i do not know that."


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that a caller may want to know.

    Attributes:
        asks: the caller's phrasings.
        reply: the agent's answer, with {value}.
        states: phrasings of an instruction, with {value} as written.
        line: the label of a line "Label: value".
        make: a fresh value.
        default: the value at Harbor House; "" = not known there.
        again: phrasings that refer back from another fact ("and the pool?").
    """

    asks: str
    reply: str
    states: str
    line: str
    make: Callable[[Random], Value]
    default: str
    again: str = ""


def count(noun: str, low: int, high: int) -> Callable[[Random], Value]:
    """A number of something."""

    def make(rng: Random) -> Value:
        number = rng.randint(low, high)
        said = lex.plural(number, noun)
        return Value(said, (said, f"{number} {noun}" + ("" if number == 1 else "s")))

    return make


def one_of(*said: str) -> Callable[[Random], Value]:
    """One of a few wordings, written as it is said."""
    return lambda rng: (lambda text: Value(text, (text,)))(rng.choice(said))


def span(first: tuple[int, int], last: tuple[int, int]) -> Callable[[Random], Value]:
    """ "from seven to ten", between hours of the day."""

    def make(rng: Random) -> Value:
        start, end = val.hour(rng, first=first[0], last=first[1]), val.hour(rng, first=last[0], last=last[1])
        written = tuple(
            f"from {a} {joint} {b}"
            for a, b, joint in zip(
                start.written, end.written, ("to", "until", "to", "till", "to"), strict=True
            )
        )
        return Value(f"from {start.said} to {end.said}", (*written, f"{start.written[2]} - {end.written[2]}"))

    return make


def at_hour(low: int, high: int) -> Callable[[Random], Value]:
    return lambda rng: val.hour(rng, first=low, last=high)


def money(high: int) -> Callable[[Random], Value]:
    return lambda rng: val.dollars(rng, high)


def manager(rng: Random) -> Value:
    said = val.full_name(rng)
    return Value(said, (said.title(), f"{rng.choice(('Mr.', 'Ms.'))} {said.title()}"))


def year(rng: Random) -> Value:
    """1960 to 2019 as people say it."""
    number = rng.randint(1960, 2019)
    if number < 2000:
        said = f"nineteen {lex.number_words(number % 100)}"
    elif number < 2010:
        said = "two thousand" + (f" {lex.number_words(number % 100)}" if number % 100 else "")
    else:
        said = f"twenty {lex.number_words(number % 100)}"
    return Value(said, (str(number), str(number), said))


def floor(rng: Random) -> Value:
    at = rng.randint(0, 8)
    said = val.ORDINALS[at]
    return Value(said, (said, f"{at + 1}{('st', 'nd', 'rd')[at] if at < 3 else 'th'}"))


def day(rng: Random) -> Value:
    said = rng.choice(lex.DAYS)
    return Value(said, (said.title(),))


def special(rng: Random) -> Value:
    first = rng.choice(
        ("grilled", "baked", "fried", "roasted", "spicy", "cold", "warm", "sweet", "fresh", "creamy")
    )
    dish = rng.choice(
        ("salmon", "chicken", "lamb", "tomato soup", "onion soup", "pasta", "potato pie", "fish", "rice", "beans",
         "mushrooms", "apple cake", "lemon cake", "cheese bread", "duck", "pork", "shrimp", "vegetables")
    )  # fmt: skip
    return Value(f"{first} {dish}", (f"{first} {dish}", f"{first} {dish}".title()))


FACTS: dict[str, Fact] = {
    "address": Fact(
        "where are you|what is your address|where can i find you|how do i get there|what street are you on|"
        "can you give me your address|where exactly are you|tell me your address|i need your address|"
        "where is your office|what is the address",
        "we are at {value}.",
        "You are at {value}.|The address is {value}.|We are located at {value}.|You find us at {value}.",
        "Address", val.street, "ten river street", "and the address|what about your address|and where are you",
    ),
    "telephone": Fact(
        "what is your phone number|can i have your phone number|which number can i call|give me your number|"
        "what number do i call|how can i reach you by phone|do you have a phone number|tell me your telephone number",
        "our phone number is {value}.",
        "The phone number is {value}.|Our phone number: {value}.|Callers can ring {value}.|"
        "You can be called at {value}.",
        "Phone", val.phone, "five five five zero one four two", "and the phone number|what about a phone number",
    ),
    "email": Fact(
        "what is your email address|can i have your email|where can i send an email|how can i write to you|"
        "which email can i write to|do you have an email address|give me your email address",
        "our email address is {value}.",
        "The email address is {value}.|Our email is {value}.|Customers can write to {value}.",
        "Email", val.email, "info at harbor dot com", "and the email|and your email address|what about email",
    ),
    "wifi": Fact(
        "what is the wifi password|do you have wifi|how do i connect to the wifi|is there internet|"
        "can i get the wifi password|what is the password of the wifi|tell me the wifi password|is there wifi here|"
        "i need the internet password",
        "the wifi password is {value}.",
        "The wifi password is {value}.|The password of the wifi is {value}.|Guests use the wifi password {value}.|"
        "Wifi is free, password {value}.",
        "Wifi password", val.two_words, "blue harbor", "and the wifi|what about wifi|and the wifi password",
    ),
    "parking": Fact(
        "do you have parking|can i park my car|is there parking|where can i park|how much is parking|"
        "is parking free|can i leave my car there|what about a parking place|what does parking cost",
        "parking is {value}.",
        "Parking is {value}.|Cars: parking is {value}.|About parking: it is {value}.",
        "Parking",
        one_of("free for our guests", "not possible here", "five dollars a day", "ten dollars a day",
               "behind the house",
               "free after six", "two dollars an hour", "only for members",
               "under the building", "across the street",
               "free on weekends", "twelve dollars a night", "next to the station"),
        "free for our guests", "and parking|what about parking",
    ),
    "breakfast": Fact(
        "when is breakfast|what time is breakfast|until when is breakfast|do you serve breakfast|"
        "when can i have breakfast|at what time do you serve breakfast|tell me when breakfast is",
        "breakfast is {value}.",
        "Breakfast is {value}.|We serve breakfast {value}.|Breakfast is served {value}.",
        "Breakfast", span((6, 8), (9, 11)), "from seven to ten", "and breakfast|what about breakfast",
    ),
    "check_in": Fact(
        "when is check in|what time is check in|when can i check in|how early can i check in|"
        "from when can i have my room|at what time can i check in|when is my room ready",
        "check in is from {value}.",
        "Check-in is from {value}.|Guests can check in from {value}.|Check-in starts at {value}.",
        "Check-in from", at_hour(12, 17), "three", "and check in|what about check in",
    ),
    "check_out": Fact(
        "when is check out|what time is check out|when do i have to check out|when do i have to leave|"
        "until when can i stay in my room|how late can i check out|at what time do i have to leave the room",
        "check out is until {value}.",
        "Check-out is until {value}.|Guests must check out by {value}.|Check-out ends at {value}.",
        "Check-out until", at_hour(9, 13), "eleven", "and check out|what about check out",
    ),
    "pets": Fact(
        "can i bring my dog|are pets allowed|do you allow dogs|can my cat come with me|do you take pets|"
        "what about pets|i have a small dog is that okay|are animals allowed",
        "{value}.",
        "About pets: {value}.|Pets: {value}.|Note: {value}.",
        "Pets",
        one_of("small pets are welcome", "pets are not allowed", "only dogs are allowed",
               "pets cost ten dollars a night",
               "only cats are allowed", "all pets are welcome", "pets must stay outside", "guide dogs are allowed",
               "pets cost five dollars a day"),
        "small pets are welcome", "and pets|what about my dog",
    ),
    "pool": Fact(
        "do you have a pool|is there a swimming pool|when is the pool open|can i swim in the hotel|"
        "until when is the pool open|where can i swim|what are the hours of the pool",
        "the pool is open {value}.",
        "The pool is open {value}.|Swimming pool: open {value}.|Our pool is open {value}.",
        "Pool", span((6, 10), (17, 22)), "from eight to eight", "and the pool|what about the pool",
    ),
    "payment": Fact(
        "how can i pay|can i pay by card|do you take credit cards|do you accept cash|which cards do you take|"
        "can i pay in cash|how do i pay",
        "we take {value}.",
        "We take {value}.|Accepted payment: {value}.|Guests can pay with {value}; nothing else.",
        "Payment",
        one_of("cash and all cards", "only cash", "only cards", "cards and bank transfers", "cash and checks",
               "credit cards only", "cards and phones", "only bank transfers", "cash and debit cards"),
        "cash and all cards", "and payment|what about payment",
    ),
    "returns": Fact(
        "how long can i return something|until when can i return it|what is your return policy|can i send it back|"
        "how many days do i have to return it|can i return my order|how long can i give it back",
        "you can return it within {value}.",
        "Goods can be returned within {value}.|The return policy is {value}.|Customers may return goods for {value}.|"
        "Returns are accepted within {value}.",
        "Returns within", count("day", 5, 90), "thirty days", "and returns|what about returns",
    ),
    "refunds": Fact(
        "how long does a refund take|when do i get my money back|how fast are refunds|"
        "how many days does a refund take|when will i get my refund|how long do i wait for my money",
        "a refund takes {value}.",
        "A refund takes {value}.|Refunds take {value}.|Money is paid back after {value}.",
        "Refund time", count("day", 2, 21), "five days", "and refunds|what about refunds|and a refund",
    ),
    "delivery_time": Fact(
        "how long does delivery take|how fast do you deliver|when will it be delivered|how long is the delivery|"
        "how many days does the delivery take|how long does shipping take|how quickly do you ship",
        "delivery takes {value}.",
        "Delivery takes {value}.|We deliver within {value}.|Shipping takes {value}.",
        "Delivery time", count("day", 1, 14), "three days", "and delivery|what about delivery|how about delivery",
    ),
    "delivery_fee": Fact(
        "how much is delivery|what does delivery cost|what is the delivery fee|how much do you charge for delivery|"
        "what does shipping cost|is delivery free|how much is shipping",
        "delivery costs {value}.",
        "Delivery costs {value}.|The delivery fee is {value}.|We charge {value} for delivery.",
        "Delivery fee", money(25), "four dollars", "and what does delivery cost|and how much is delivery",
    ),
    "cancellation": Fact(
        "until when can i cancel|can i cancel for free|what is your cancellation policy|how late can i cancel|"
        "how long before can i cancel|what if i have to cancel",
        "you can cancel for free until {value} before.",
        "Guests can cancel for free until {value} before.|Free cancellation up to {value} before.|"
        "Cancellation is free until {value} before.",
        "Free cancellation", count("hour", 2, 72), "twenty four hours", "and canceling|what about canceling",
    ),
    "warranty": Fact(
        "how long is the warranty|is there a warranty|what warranty do i get|for how long is it under warranty|"
        "how many years of warranty do i have|does it have a guarantee",
        "the warranty is {value}.",
        "The warranty is {value}.|Every product has a warranty of {value}.|We give {value} of warranty.",
        "Warranty", count("year", 1, 10), "two years", "and the warranty|what about the warranty",
    ),
    "manager": Fact(
        "who is the manager|what is the name of the manager|who is your boss|who is in charge|"
        "what is the manager called|who runs this place|tell me the name of your manager",
        "the manager is {value}.",
        "The manager is {value}.|The manager's name is {value}.|{value} is the manager.|Your boss is {value}.",
        "Manager", manager, "clara wright", "and the manager|and who is the manager",
    ),
    "gym": Fact(
        "where is the gym|do you have a gym|is there a gym|on which floor is the gym|where can i work out|"
        "how do i find the gym",
        "the gym is on the {value} floor.",
        "The gym is on the {value} floor.|There is a gym on the {value} floor.|"
        "You find the gym on the {value} floor.",
        "Gym floor", floor, "second", "and the gym|what about a gym",
    ),
    "special": Fact(
        "what is the special today|what do you recommend|what is the dish of the day|do you have a special|"
        "what is good today|what should i eat|what is on the menu today",
        "the special today is {value}.",
        "The special today is {value}.|Today's special is {value}.|Recommend the {value} today.|"
        "The dish of the day is {value}.",
        "Special of the day", special, "tomato soup", "and the special|and what is the special",
    ),
    "shuttle": Fact(
        "how often does the bus go to the airport|is there a bus to the airport|when does the shuttle leave|"
        "how do i get to the airport|do you have a shuttle|how often does the shuttle run",
        "the bus to the airport leaves every {value}.",
        "The bus to the airport leaves every {value}.|A shuttle goes to the airport every {value}.|"
        "The airport bus runs every {value}.",
        "Airport bus every", count("minute", 5, 60), "thirty minutes", "and the shuttle|what about the bus",
    ),
    "discount": Fact(
        "what is the discount code|do you have a discount code|is there a code for a discount|"
        "can i have a discount|which code do i enter|tell me the discount code",
        "the discount code is {value}.",
        "The discount code is {value}.|Callers may use the discount code {value}.|"
        "The code for a discount is {value}.",
        "Discount code", val.two_words, "", "and the discount code|and is there a discount",
    ),
    "founded": Fact(
        "when did you open|how old is this place|since when do you exist|when were you founded|"
        "in which year did you start|how long have you been there",
        "we opened in {value}.",
        "We opened in {value}.|The house was founded in {value}.|We have been here since {value}.",
        "Founded", year, "nineteen ninety", "and when did you open",
    ),
    "rooms_count": Fact(
        "how many rooms do you have|how big is the hotel|how many rooms are there|what is the number of rooms|"
        "tell me how many rooms you have",
        "we have {value}.",
        "We have {value}.|There are {value} here.|The house has {value}.",
        "Size", count("room", 5, 99), "forty rooms", "and how many rooms are there",
    ),
    "today": Fact(
        "what day is it|what day is it today|which day is today|tell me what day it is|do you know what day it is",
        "today is {value}.",
        "Today is {value}.|It is {value} today.|The day today is {value}.",
        "Today", day, "", "and what day is it",
    ),
    "kitchen": Fact(
        "until when can i eat|how late is the kitchen open|when does the kitchen close|until when is room service|"
        "how late can i order food|can i still get something to eat late",
        "the kitchen is open until {value}.",
        "The kitchen is open until {value}.|The kitchen closes at {value}.|Food is served until {value}.",
        "Kitchen until", at_hour(18, 23), "ten", "and the kitchen|what about food",
    ),
    "deposit": Fact(
        "how much is the deposit|do i have to pay a deposit|is there a deposit|what deposit do you take|"
        "how much do i pay in advance",
        "the deposit is {value}.",
        "The deposit is {value}.|We take a deposit of {value}.|Guests pay {value} as a deposit.",
        "Deposit", money(90), "fifty dollars", "and the deposit|what about a deposit",
    ),
    "age": Fact(
        "how old do i have to be|is there a minimum age|what is the minimum age|can children come|"
        "from which age can i come",
        "the minimum age is {value}.",
        "The minimum age is {value}.|Guests must be at least {value} old.|Nobody under {value} may come in.",
        "Minimum age", count("year", 6, 25), "", "and the minimum age",
    ),
}  # fmt: skip
