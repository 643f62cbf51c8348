"""What callers ask a hot line for: refunds, deliveries, accounts, appointments, trouble. Only words and answers.

A domain of your own: a file with entries like those of ERRANDS, named in POCKET_DOMAIN (example_domain/). One is an
intent with everything that goes around it (errands.Errand): the caller asks in the wordings of `full`, or in those of
`opening` and then answers the agent's `question`; corrects the slot `repair`; asks on (`follow`), or for what was said
before (`recall`). Slots are drawn afresh by `make`. From the third wording of a list on, some are held out for the
test. `corpus.py --show 3` shows what comes of it.
"""

from __future__ import annotations

from random import Random

import domains
import lexicon as lex
import values as val
from errands import Errand, Slots


def order_number(rng: Random) -> Slots:
    return {"number": " ".join(val.digits(rng, 4))}


def order_and_day(rng: Random) -> Slots:
    return order_number(rng) | {"day": rng.choice(lex.DAYS)}


def order_and_thing(rng: Random) -> Slots:
    return order_number(rng) | {"thing": val.thing(rng)}


def thing(rng: Random) -> Slots:
    return {"thing": val.thing(rng)}


def thing_and_size(rng: Random) -> Slots:
    return {"thing": rng.choice(CLOTHES), "size": rng.choice(val.SIZES)}


def thing_and_color(rng: Random) -> Slots:
    return {"thing": val.thing(rng), "color": rng.choice(val.COLORS)}


def plan(rng: Random) -> Slots:
    return {"plan": rng.choice(val.PLANS)}


def mail(rng: Random) -> Slots:
    return {"email": val.email(rng).said}


def month(rng: Random) -> Slots:
    return {"month": rng.choice(val.MONTHS)}


def visit(rng: Random) -> Slots:
    return {"day": rng.choice(lex.DAYS), "time": val.clock(rng), "whom": rng.choice(VISITS)}


def department(rng: Random) -> Slots:
    return {"whom": rng.choice(val.DEPARTMENTS)}


def device(rng: Random) -> Slots:
    return {"device": rng.choice(val.DEVICES)}


def phone(rng: Random) -> Slots:
    return {"phone": val.phone(rng).said}


def phone_and_time(rng: Random) -> Slots:
    return phone(rng) | {"time": val.clock(rng)}


def street(rng: Random) -> Slots:
    return {"address": val.street(rng).said}


def spelled_name(rng: Random) -> Slots:
    name = rng.choice([each for each in val.LAST_NAMES if len(each) <= 7])
    return {"name": name, "letters": val.spelled(name), "apart": ", ".join(name)}


def name(rng: Random) -> Slots:
    return {"name": val.full_name(rng)}


def clock(rng: Random) -> Slots:
    return {"time": val.clock(rng)}


def amount(rng: Random) -> Slots:
    return {"amount": val.dollars(rng, 90).said}


def room_and_thing(rng: Random) -> Slots:
    return {"room": " ".join(val.digits(rng, 3)), "thing": rng.choice(("towels", "pillows", "soap", "blankets", "water",
            "a key", "an iron", "a fan", "toilet paper", "a blanket", "glasses", "an umbrella"))}  # fmt: skip


def taxi(rng: Random) -> Slots:
    where = rng.choice(("the airport", "the station", "the city center", "the harbor", "the museum", "the hospital",
                        "the theater", "the beach", "the market", "the university"))  # fmt: skip
    return {"place": where, "time": val.clock(rng)}


def card(rng: Random) -> Slots:
    return {"last": " ".join(val.digits(rng, 4))}


CLOTHES = lex.split("jacket shirt dress sweater coat hat skirt belt scarf glove boot sandal hoodie cardigan")
VISITS = (
    "the dentist", "the doctor", "the technician", "the plumber", "the electrician", "the lawyer", "the hairdresser",
    "the manager", "the nurse", "the teacher", "the mechanic", "the adviser", "the gardener", "the painter",
)  # fmt: skip
NUMBER = "{number}|it is {number}|number {number}|the number is {number}|order {number}|um {number}"

ERRANDS: dict[str, Errand] = {
    "refund": Errand(
        "i want a refund for order {number}|please refund order {number}|i want my money back for order {number}|"
        "can i get a refund for order {number}|refund my order {number}|give me my money back for order {number}|"
        "i would like to have order {number} refunded",
        "okay, i will refund order {number}.", order_number,
        "i want a refund|i want my money back|can i get a refund|i need a refund|"
        "how do i get my money back for an order",
        "which order should i refund?", NUMBER, "number",
        (("will i get an email|do you send me a message|will you write to me", "yes, you will get an email."),),
        ("which order was it|what was the order number|can you repeat the order number", "it was order {number}."),
    ),
    "return_item": Errand(
        "i want to return the {thing} from order {number}|i want to send back the {thing} of order {number}|"
        "can i return the {thing} from order {number}|the {thing} from order {number} should go back|"
        "i would like to give back the {thing} from order {number}|how do i return a {thing} from order {number}",
        "okay, you can return the {thing} from order {number}.", order_and_thing,
        follow=(("do i need the box|do i have to keep the box|is the box important", "yes, please use the same box."),
                ("who pays for it|do i have to pay for that|is that free", "the return is free.")),
        recall=("what do i send back|which thing was it|"
        "what was it again", "it was the {thing} from order {number}."),
    ),
    "delivery_day": Errand(
        "deliver order {number} on {day}|can you bring order {number} on {day}|please send order {number} on {day}|"
        "i want order {number} delivered on {day}|can order {number} come on {day}|"
        "change the delivery of order {number} to {day}|move order {number} to {day}",
        "okay, order {number} will come on {day}.", order_and_day, repair="day",
        follow=(("in the morning or in the evening|at what time|when will it come", "it will come before noon."),
                ("do i have to be at home|must i be there|what if i am not there", "a neighbor can take it, too.")),
        recall=("on which day|when does it come|which day was it", "order {number} will come on {day}."),
    ),
    "delivery_address": Errand(
        "send it to {address}|my new address is {address}|change my address to {address}|i moved to {address}|"
        "please deliver to {address}|the delivery should go to {address}|i live at {address} now|"
        "bring the parcel to {address}",
        "okay, your address is {address}.", street,
        "i want to change my address|i moved|my address has changed|i have a new address|can i change my address",
        "what is your new address?", "{address}|it is {address}|i live at {address}|um {address}", "address",
        recall=("what is my address|which address do you have|what address did i say", "your address is {address}."),
    ),
    "missing_parcel": Errand(
        "my parcel with order {number} is lost|i never got order {number}|order {number} did not arrive|"
        "order {number} is missing|i am still waiting for order {number}|somebody stole order {number}|"
        "i can not find the parcel of order {number}",
        "i am sorry. i will send order {number} again.", order_number,
        follow=(("how much is that|what does that cost|do i have to pay again", "you do not pay anything."),),
        recall=("which order was that|which order do you send", "it is order {number}."),
    ),
    "wrong_item": Errand(
        "i got a {thing} but i did not order it|you sent me the wrong {thing}|the {thing} is the wrong one|"
        "this is not my {thing}|i ordered another {thing}|there was a {thing} in the box that is not mine",
        "i am sorry about the {thing}. i will send the right one.", thing, repair="thing",
        follow=(("what about the wrong one|should i send it back|"
        "what do i do with it", "please send it back to us."),),
    ),
    "broken_item": Errand(
        "my {thing} is broken|the {thing} does not work|the {thing} came broken|i got a broken {thing}|"
        "there is something wrong with the {thing}|the new {thing} has a crack|the {thing} stopped working",
        "i am sorry. we will repair or replace the {thing}.", thing, repair="thing",
        follow=(("how long does that take|when is it ready|how fast is that", "it takes about a week."),
                ("i want a new one|replace it please|i would like a new one", "okay, you will get a new {thing}."),
                ("i want it repaired|please repair it|repair it please", "okay, we will repair the {thing}.")),
    ),
    "stock": Errand(
        "do you have the {thing} in {color}|is there a {color} {thing}|do you sell the {thing} in {color}|"
        "i am looking for a {color} {thing}|can i get the {thing} in {color}|"
        "do you also have {color} for the {thing}",
        "yes, we have the {thing} in {color}.", thing_and_color, repair="color",
        follow=(("put it aside for me|can you keep it for me|please keep one for me", "okay, i keep one for you."),),
        recall=("which color did i say|what color was it", "it was {color}."),
    ),
    "exchange_size": Errand(
        "i need the {thing} in {size}|can i exchange the {thing} for size {size}|"
        "the {thing} does not fit i need {size}|"
        "please change my {thing} to {size}|i want the {thing} in size {size}|swap the {thing} for {size}",
        "okay, you will get the {thing} in {size}.", thing_and_size, repair="size",
        recall=("which size did i say|what size was that", "it was {size}."),
    ),
    "cancel_subscription": Errand(
        "cancel my {plan} plan|i want to cancel my {plan} subscription|please end my {plan} plan|"
        "stop the {plan} plan|"
        "i do not want the {plan} plan any more|end my subscription to the {plan} plan",
        "okay, your {plan} plan ends this month.", plan,
        "cancel my subscription|i want to cancel my subscription|i want to end my contract|how do i cancel my plan",
        "which plan do you have?", "the {plan} plan|{plan}|it is the {plan} plan|i have the {plan} plan", "plan",
        (("can i come back later|what if i change my mind", "yes, you can come back any time."),),
    ),
    "change_plan": Errand(
        "i want to change to the {plan} plan|move me to the {plan} plan|can i have the {plan} plan|"
        "upgrade me to the {plan} plan|switch my subscription to {plan}|i would like the {plan} plan|"
        "put me on the {plan} plan",
        "okay, you have the {plan} plan from today.", plan,
        "i want to change my plan|can i change my subscription|i need another plan|i want another plan",
        "which plan would you like?", "the {plan} plan|{plan}|{plan} please|i take the {plan} plan", "plan",
        (("which plans are there|what plans do you have", "we have basic, family, and premium."),),
        ("which plan do i have now|what did i choose|which plan is it", "you have the {plan} plan."),
    ),
    "invoice": Errand(
        "send me the invoice for {month}|i need the invoice for {month}|can i have the bill for {month}|"
        "i did not get the invoice for {month}|please send the {month} invoice again|where is my bill for {month}",
        "okay, i will send the invoice for {month}.", month,
        "i need an invoice|can you send me an invoice|i need a bill|i lost my invoice|send me my bill",
        "for which month?", "for {month}|{month}|{month} please|the one for {month}|it was {month}", "month",
        (("how do i get it|will it come by mail|how do you send it", "you will get it by email."),),
        ("for which month was that|which month did i say", "it is the invoice for {month}."),
    ),
    "wrong_bill": Errand(
        "my bill is wrong it says {amount}|you charged me {amount} too much|why did i pay {amount}|"
        "there is a mistake of {amount} on my bill|i was charged {amount} twice|i paid {amount} by mistake",
        "i am sorry. you will get {amount} back.", amount, repair="amount",
        follow=(("are you sure|really|is that certain", "yes, i am sure."),),
        recall=("how much do i get back|how much was it", "you will get {amount} back."),
    ),
    "pay_bill": Errand(
        "i want to pay {amount}|can i pay {amount} now|i would like to pay my bill of {amount}|"
        "take {amount} from my card|"
        "please charge {amount} to my card|i have to pay {amount}",
        "okay, i take {amount} from your card.", amount, repair="amount",
        recall=("how much did i pay|how much was that", "you paid {amount}."),
    ),
    "password": Errand(
        "reset the password for {email}|i forgot my password my email is {email}|send a new password to {email}|"
        "i can not log in my email is {email}|my account is {email} and i forgot the password|"
        "i need a new password for {email}",
        "okay, i will send a link to {email}.", mail,
        "i forgot my password|i need a new password|reset my password|i can not log in|how do i reset my password|"
        "my password does not work",
        "what is your email address?", "{email}|it is {email}|my email is {email}|um {email}", "email",
        (("i did not get the email|there is no email|nothing came", "please look in your spam folder."),),
        ("which email did i say|can you repeat the email|what email do you have", "it is {email}."),
    ),
    "change_email": Errand(
        "my new email is {email}|change my email to {email}|please write to {email} from now on|"
        "i have a new email {email}|"
        "use {email} instead|update my email address to {email}",
        "okay, your email address is {email}.", mail, repair="email",
        recall=("which email do you have|what is my email|what is my email address", "it is {email}."),
    ),
    "change_phone": Errand(
        "my new phone number is {phone}|change my number to {phone}|you can reach me at {phone}|my number is {phone}|"
        "write down my number it is {phone}|i have a new number {phone}",
        "okay, your number is {phone}.", phone,
        "i have a new phone number|i want to change my phone number|my phone number is wrong",
        "what is your new number?", "{phone}|it is {phone}|the number is {phone}|um {phone}", "phone",
        recall=("what is my number|which number do you have|repeat my number please", "your number is {phone}."),
    ),
    "callback": Errand(
        "please call me back at {time} my number is {phone}|can you call me at {time} on {phone}|"
        "call {phone} at {time}|i would like a call at {time} at {phone}|call me back on {phone} at {time}",
        "okay, we will call {phone} at {time}.", phone_and_time, repair="time",
        recall=("when do you call|at what time|when will you call me", "we will call you at {time}."),
    ),
    "appointment": Errand(
        "i need an appointment with {whom} on {day} at {time}|can i see {whom} on {day} at {time}|"
        "make an appointment with {whom} for {day} at {time}|is {whom} free on {day} at {time}|"
        "book {whom} for {day} at {time}|send {whom} on {day} at {time}|"
        "i would like to meet {whom} on {day} at {time}",
        "okay, you meet {whom} on {day} at {time}.", visit,
        "i need an appointment|can i make an appointment|i would like an appointment|i want to make an appointment",
        "with whom, on which day, and at what time?",
        "with {whom} on {day} at {time}|{whom} on {day} at {time}|on {day} at {time} with {whom}", "day",
        (("how long does it take|how long will it be", "it takes half an hour."),
         ("what do i have to bring|do i need anything|should i bring something", "please bring your card.")),
        ("when is my appointment|when was that again|when do i come", "you meet {whom} on {day} at {time}."),
    ),
    "transfer": Errand(
        "connect me to {whom}|i want to talk to {whom}|can i speak to {whom}|put me through to {whom}|"
        "transfer me to {whom}|"
        "give me {whom}|i need somebody from {whom}|i have to talk to {whom}|is {whom} there",
        "okay, i will connect you to {whom}.", department,
        "can you transfer me|you are the wrong department|please put me through|i need another department",
        "to whom should i connect you?", "{whom}|to {whom}|{whom} please|i need {whom}", "whom",
    ),
    "trouble": Errand(
        "my {device} does not work|the {device} is not working|i have a problem with my {device}|"
        "the {device} is broken|"
        "can you help me with my {device}|my {device} will not start|the {device} does nothing|"
        "there is no light on my {device}",
        "please turn the {device} off, wait, and turn it on again.", device,
        "i have a technical problem|something does not work|i need technical help|can you fix something for me",
        "which device does not work?", "my {device}|the {device}|it is the {device}|um the {device}", "device",
        (("it still does not work|that did not help|no change|i did that already", "okay, i will send a technician."),
         ("it works now|that helped|now it works|it is working again", "great, i am glad it works."),
         ("how long should i wait|how long", "please wait for ten seconds.")),
    ),
    "slow_internet": Errand(
        "my internet is slow since {day}|the internet does not work since {day}|i have no internet since {day}|"
        "since {day} there is no connection|the connection is bad since {day}|we are offline since {day}",
        "i am sorry. a technician will check the line from {day}.", lambda rng: {"day": rng.choice(lex.DAYS)},
        follow=(("when will it work again|when is it fixed|"
        "how long will that take", "it will work again tomorrow."),),
    ),
    "complaint": Errand(
        "i want to complain about {whom}|i have a complaint about {whom}|i am not happy with {whom}|"
        "{whom} was very rude|"
        "i am angry about {whom}|{whom} did not help me at all|i waited an hour for {whom}",
        "i am sorry about that. i will tell {whom}.", department,
        "i want to complain|i have a complaint|i am very unhappy|this is terrible service|i am really angry",
        "i am sorry. who is it about?", "{whom}|it is about {whom}|about {whom}", "whom",
    ),
    "order_thing": Errand(
        "i want to order a {color} {thing}|can i buy a {color} {thing}|i would like a {color} {thing}|"
        "send me a {color} {thing}|i need a {color} {thing}|i take the {color} {thing}",
        "okay, one {color} {thing}. anything else?", thing_and_color, repair="color",
        recall=("what did i buy|what did i order|which one did i take", "you ordered a {color} {thing}."),
    ),
    "lost_item": Errand(
        "i lost my {thing}|did you find a {thing}|i left my {thing} in my room|i think my {thing} is at your place|"
        "has anybody found a {thing}|i forgot my {thing}",
        "okay, we will look for your {thing}.", thing, repair="thing",
        follow=(("please call me|call me when you find it|tell me if you find it", "yes, we will call you."),),
        recall=("what did i lose|what are you looking for", "we look for your {thing}."),
    ),
    "spelled_name": Errand(
        "my name is {name} {letters}|my last name is {name} that is {letters}|i spell it {letters}|"
        "it is {name} {letters}|"
        "the name is {letters}|{name} spelled {letters}",
        "okay, {name}, spelled {apart}.", spelled_name,
        "can i spell my name|let me spell my name|you wrote my name wrong|i want to spell my name",
        "please spell your name.", "{letters}|it is {letters}|um {letters}", "",
        recall=("what is my last name|how do you spell my name|spell my name", "{name} is spelled {apart}."),
    ),
    "wake_up": Errand(
        "wake me up at {time}|i need a wake up call at {time}|can you wake me at {time}|call me at {time} tomorrow|"
        "please wake us at {time}|i have to get up at {time}",
        "okay, we wake you at {time}.", clock,
        "i need a wake up call|can you wake me tomorrow|i would like a wake up call",
        "at what time?", "at {time}|{time}|{time} please", "time",
        recall=("when do you wake me|at what time was that", "we wake you at {time}."),
    ),
    "housekeeping": Errand(
        "can i have {thing} in room {room}|please bring {thing} to room {room}|we need {thing} in room {room}|"
        "could i have {thing} in room {room}|send {thing} to room {room}|room {room} needs {thing}",
        "okay, {thing} for room {room}.", room_and_thing, repair="room",
        follow=(("how long will it take|when do you come", "we will be there in ten minutes."),),
        recall=("which room did i say|what did i ask for", "{thing} for room {room}."),
    ),
    "taxi": Errand(
        "i need a taxi to {place} at {time}|call me a taxi to {place} at {time}|order a taxi to {place} for {time}|"
        "can i get a cab to {place} at {time}|we need a car to {place} at {time}|get me a taxi at {time} to {place}",
        "okay, a taxi to {place} at {time}.", taxi,
        "i need a taxi|can you call me a taxi|order me a taxi|i need a cab",
        "where to, and at what time?", "to {place} at {time}|at {time} to {place}|{place} at {time}", "time",
        recall=("when does my taxi come|when is the taxi there", "the taxi to {place} comes at {time}."),
    ),
    "block_card": Errand(
        "block my card it ends with {last}|i lost my card it ends with {last}|my card with {last} was stolen|"
        "please block the card with {last}|stop the card that ends with {last}",
        "okay, the card with {last} is blocked.", card,
        "i lost my card|my card was stolen|block my card|i need to block my card",
        "what are the last four numbers?", "{last}|it is {last}|they are {last}|um {last}", "last",
        (("can i get a new card|when do i get a new one|send me a new one", "you will get a new card in a week."),),
    ),
    "message": Errand(
        "tell {name} that i called|can you leave a message for {name}|please tell {name} to call me|"
        "i have a message for {name}|give {name} a message",
        "okay, i will tell {name}.", name, repair="name",
        recall=("who did i want to reach|for whom was it", "it was for {name}."),
    ),
}  # fmt: skip
ERRANDS |= domains.added()
