"""Dialogues with the front desk of Harbor House: fixed phrases, unclear turns, and how turns follow each other."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import frontdesk
import grammar
import lexicon as lex
from frontdesk import LEADS, Scene, Turn

UNCLEAR = "sorry, i did not catch that. could you say it again?"

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "",
    "You are a helpful voice assistant.",
    "You are the voice of the front desk of Harbor House, a small hotel with a restaurant and a shop.",
    "You work at the front desk of Harbor House. Answer in one short sentence.",
    "You are a friendly receptionist. Be brief and polite.",
    "Answer the caller's questions. If you did not understand, say so.",
    "You are a voice agent. Listen to the guest and reply aloud.",
    "Your knowledge cutoff is 2023-10. You are a helpful and friendly AI.",
    "You are a hotel assistant. Use the tools when you need them.",
    "Speak clearly. Keep every answer short.",
    "You are Harbor House.",
)
# Deployments write their own instructions: what they say must not confuse the model.
INSTRUCTION_SENTENCES = (
    "You are the receptionist of {name}.", "You are a voice agent for {name}.", "Your name is {person}.",
    "Be friendly.", "Be concise.", "Answer briefly.", "Keep answers under two sentences.", "Always be polite.",
    "Speak slowly and clearly.", "Help the caller.", "Help customers with their orders and bookings.",
    "You are talking to a user on the phone.", "The user is speaking to you. Reply by voice.",
    "If a tool can answer the question, call it.", "Do not invent facts.", "Never mention that you are a program.",
    "Respond in English.", "Talk like a real person.", "The hotel is at ten river street.", "Use simple words.",
    "Ask again when something is unclear.", "You help guests of a hotel and its restaurant.",
    "Today is {day}.", "You are a test agent.", "Answer the question.", "Listen carefully.",
)  # fmt: skip


def system_prompt(rng: Random) -> str:
    """One of the known prompts, or a few sentences that nobody put together before."""
    if rng.random() < 0.6:
        return rng.choice(SYSTEM_PROMPTS)
    sentences = rng.sample(INSTRUCTION_SENTENCES, rng.randint(1, 4))
    name = f"{rng.choice(lex.CITIES)} {rng.choice(('hotel', 'house', 'inn', 'shop', 'restaurant'))}".title()
    return " ".join(sentences).format(
        name=name, person=rng.choice(lex.NAMES).title(), day=rng.choice(lex.DAYS).title()
    )


FIXED: dict[str, tuple[str, str]] = {
    "greeting": (
        "hello|hi|hi there|hello there|good morning|hey there|good afternoon|good evening|hey|"
        "hello is this harbor house",
        "hello, this is harbor house. how can i help you?",
    ),
    "how_are_you": (
        "how are you|how are you today|how is it going|how are you doing|are you well",
        "i am doing great, thank you for asking.",
    ),
    "identity": (
        "who are you|what is your name|who am i talking to|are you a robot|are you human|"
        "what are you|am i talking to a machine|are you a real person",
        "i am the voice assistant of harbor house.",
    ),
    "capabilities": (
        "what can you do|what can you help me with|how can you help me|help|i need help|"
        "can you help me|what can i ask you",
        "i can book tables, check orders, and answer questions.",
    ),
    "thanks": (
        "thank you|thanks a lot|thank you very much|thanks|many thanks|great thank you|"
        "thank you so much|perfect thanks",
        "you are welcome.",
    ),
    "goodbye": (
        "goodbye|bye bye|see you later|good night|talk to you later|bye|have a nice day|"
        "that is all goodbye|thank you goodbye",
        "goodbye, have a nice day.",
    ),
    "yes": (
        "yes|yes please|sure|that is right|correct|yeah|yes that is correct|okay",
        "great, it is done.",
    ),
    "no": (
        "no|no thanks|that is all|nothing else|no thank you|nope|not now",
        "okay, thank you for calling.",
    ),
    "never_mind": (
        "stop|never mind|forget it|stop it|stop talking|cancel that|be quiet|wait stop|oh never mind|"
        "it does not matter",
        "okay, no problem.",
    ),
    "hear_me": (
        "can you hear me|are you there|is anybody there|do you hear me|hello can you hear me",
        "yes, i can hear you well.",
    ),
    "address": (
        "where are you|what is your address|where can i find you|how do i get there|"
        "where is the hotel|where is harbor house|where is the restaurant",
        "we are at ten river street, near the station.",
    ),
    "parking": (
        "do you have parking|can i park my car|is there parking|where can i park|is parking free|"
        "how much is parking",
        "yes, parking is free for our guests.",
    ),
    "wifi": (
        "do you have wifi|what is the wifi password|is there internet|how do i connect to the wifi|"
        "can i get the wifi password",
        "the wifi is free, and the password is blue harbor.",
    ),
    "breakfast": (
        "when is breakfast|what time is breakfast|is breakfast included|where is breakfast|"
        "do you serve breakfast|until when is breakfast",
        "breakfast is from seven to ten, in the restaurant.",
    ),
    "check_in": (
        "when is check in|what time is check in|when can i check in|how early can i check in",
        "check in is from three in the afternoon.",
    ),
    "check_out": (
        "when is check out|what time is check out|when do i have to leave|when do i have to check out",
        "check out is until eleven in the morning.",
    ),
    "pets": (
        "can i bring my dog|are pets allowed|do you allow dogs|can my cat come with me",
        "yes, small pets are welcome here.",
    ),
    "pool": (
        "do you have a pool|is there a swimming pool|can i swim in the hotel|when is the pool open",
        "the pool is open from eight to eight.",
    ),
    "payment": (
        "do you take credit cards|can i pay by card|do you accept cash|how can i pay",
        "yes, we take cash and all cards.",
    ),
    "human": (
        "can i speak to a person|i want to talk to a human|get me a real person|"
        "connect me to an agent|let me speak to the manager|i want to speak to someone|"
        "give me a human please",
        "okay, i will connect you to a person.",
    ),
    "again": (
        "say that again in other words|i do not understand you|what do you mean|i do not understand",
        "i am sorry. please ask me another way.",
    ),
    "joke": (
        "tell me a joke|do you know a joke|make me laugh|say something funny",
        "why did the robot sleep? its battery was low.",
    ),
}

SMALL_TALK = ("greeting", "how_are_you", "identity", "hear_me")

CLOSING = ("thanks", "goodbye", "no")


def fixed(scene: Scene, intent: str) -> list[Turn]:
    phrasings, reply = FIXED[intent]
    user = scene.pick(phrasings)
    if scene.chance(0.3):
        user = f"{scene.rng.choice(LEADS[:12])} {user}"
    return [Turn(user, reply, intent)]


def name_memory(scene: Scene) -> list[Turn]:
    name = scene.rng.choice(lex.NAMES)
    user = scene.pick(
        "my name is {name}|i am {name}|hello this is {name}|call me {name}|um my name is {name}|"
        "hi my name is {name}|hello i am {name}|good morning my name is {name}",
        name=name,
    )
    turns = [Turn(user, f"nice to meet you, {name}.", "name", {"name": name})]
    if scene.chance(0.75):
        if scene.chance(0.3):
            turns += fixed(scene, scene.rng.choice(sorted(FIXED)))
        user = scene.pick(
            "what is my name|do you remember my name|who am i|do you know my name|tell me my name|"
            "um what is my name",
        )
        turns.append(Turn(user, f"your name is {name}.", "name_memory", {"name": name}))
    elif scene.chance(0.3):
        turns = [Turn("what is my name", "sorry, i do not know your name.", "name_memory")]
    return turns


def unclear(scene: Scene) -> Turn:
    """A turn that must be answered with "i did not catch that": speech out of domain, or no English speech at all."""
    pick = scene.rng.random()
    if pick < 0.55:
        return Turn(grammar.out_of_domain(scene.rng), UNCLEAR, "unclear")
    kind = scene.rng.choice(("noise", "noise", "silence", "babble", "foreign", "foreign"))
    return Turn("", UNCLEAR, "unclear", kind=kind)


MAIN: dict[Callable[[Scene], list[Turn]], float] = {
    frontdesk.hours: 8,
    frontdesk.price: 7,
    frontdesk.room_price: 5,
    frontdesk.room_booking: 4,
    frontdesk.book: 13,
    frontdesk.cancel: 5,
    frontdesk.order: 9,
    frontdesk.weather: 10,
    frontdesk.clock_time: 8,
    frontdesk.repeat: 8,
    frontdesk.spell: 3,
    frontdesk.count: 1.5,
    frontdesk.add: 3,
    name_memory: 4.5,
}

FIXED_WEIGHT = 14.0


def main_turns(scene: Scene) -> list[Turn]:
    weights = [*MAIN.values(), FIXED_WEIGHT]
    maker = scene.rng.choices([*MAIN, None], weights=weights)[0]
    return maker(scene) if maker else fixed(scene, scene.rng.choice(sorted(FIXED)))


def turns(scene: Scene) -> list[Turn]:
    """One to three turns: usually one request, sometimes small talk before or after it, another request, or noise."""
    made = main_turns(scene)
    if scene.chance(0.11):
        made = [unclear(scene), *(made if scene.chance(0.35) else [])]
        if len(made) == 2 and scene.chance(0.4):
            made.reverse()
    elif scene.chance(0.12):
        made = [*fixed(scene, scene.rng.choice(SMALL_TALK)), *made]
    elif scene.chance(0.12):
        made = [*made, *main_turns(scene)]
    if scene.chance(0.1):
        made += fixed(scene, scene.rng.choice(CLOSING))
    return made[:3]


def tool_schemas(rng: Random) -> list[dict[str, Any]] | None:
    """The `tools` of a dialogue, as OpenAI tool objects: none, one or both that we use, sometimes a stranger."""
    if rng.random() < 0.35:
        return None
    city = {"type": "string", "description": rng.choice(("name of the city", "The city", "city name"))}
    required: dict[str, Any] = {"type": "object", "properties": {"city": city}, "required": ["city"]}
    optional: dict[str, Any] = {"type": "object", "properties": {"city": city}}
    empty: dict[str, Any] = {"type": "object", "properties": {}}
    weather_text = rng.choice(
        ("Current weather of a city", "Get the weather in a city", "look up the weather")
    )
    time_text = rng.choice(("Current time", "Get the local time", "look up the time"))
    schemas = [
        ("get_weather", weather_text, required),
        ("get_time", time_text, rng.choice((optional, optional, empty))),
    ]
    if rng.random() < 0.25:
        schemas.pop(rng.randrange(2))
    if rng.random() < 0.25:
        stranger = rng.choice((("end_call", "Hang up the phone"), ("transfer_call", "Connect to a person")))
        schemas.append((*stranger, empty))
    rng.shuffle(schemas)
    return [
        {"type": "function", "function": {"name": name, "description": text, "parameters": parameters}}
        for name, text, parameters in schemas
    ]
