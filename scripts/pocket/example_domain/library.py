"""Three intents of a library, as a worked example of a domain of your own (README.md, "Your own domain").

    POCKET_DOMAIN=scripts/pocket/example_domain/library.py python3 scripts/pocket/corpus.py --show 3

Every entry is an errand (errands.py): what callers say, with {slots}; the answer; how the slots are drawn; and, where
it makes sense, how the talk goes on. Words are lower case without digits, as they are heard and said. Of three or more
wordings some are held out for the test, so give each list at least four.
"""

from __future__ import annotations

from random import Random

import lexicon as lex
import values as val
from errands import Errand, Slots

BOOKS = (
    "the old harbor", "a short history of rain", "the last garden", "birds of the north", "cooking for two",
    "the silver river", "how clocks work", "letters from the island", "the quiet forest", "a house by the sea",
)  # fmt: skip


def book(rng: Random) -> Slots:
    return {"title": rng.choice(BOOKS)}


def book_and_day(rng: Random) -> Slots:
    return book(rng) | {"day": rng.choice(lex.DAYS)}


def card(rng: Random) -> Slots:
    return {"card": " ".join(val.digits(rng, 4))}


ERRANDS: dict[str, Errand] = {
    "library_renew": Errand(
        "i want to renew {title}|please renew {title}|can i keep {title} longer|i need more time for {title}|"
        "renew my book {title}",
        "okay, you can keep {title} for two more weeks.", book,
        "i want to renew a book|can i keep my book longer|i need more time for a book|please renew a book",
        "which book is it?", "{title}|it is {title}|the book is {title}|um {title}", "title",
        recall=("which book did i renew|which one was it|what was the title|what book was that", "it was {title}."),
    ),
    "library_reserve": Errand(
        "please keep {title} for me until {day}|can i reserve {title} until {day}|i will pick up {title} on {day}|"
        "reserve {title} for {day}|i want to collect {title} on {day}",
        "okay, {title} will wait for you until {day}.", book_and_day, repair="day",
        follow=(("where do i find it|where will it be|at which desk|where do i go", "it will be at the front desk."),),
        recall=("until when|on which day|which day was it|what day did i say", "it will wait until {day}."),
    ),
    "library_card": Errand(
        "my library card is {card}|the number of my card is {card}|my card number is {card}|card {card}|"
        "i have the card {card}",
        "thank you, card {card} is valid.", card,
        "is my library card valid|please check my library card|can you check my card|does my card still work",
        "what is the number of your card?", "{card}|it is {card}|the number is {card}|um {card}", "card",
    ),
}  # fmt: skip
