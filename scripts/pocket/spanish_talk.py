"""Conversations in Spanish: the agent answers in the language of the caller. A small part of what it can in English."""

from __future__ import annotations

from collections.abc import Callable

import bilingual
import lexicon as lex
import phrasebook as book
from scene import Scene, held_out
from task import Sound, Turn

UNCLEAR = "lo siento, no le he entendido. ¿puede repetirlo?"
SYSTEMS = (
    "You are a helpful assistant.", "", "Answer in the language of the caller.", "Responda en español.",
    "Eres un asistente amable. Habla español.", "You are a voice agent. You speak English and Spanish.",
    "You work at the front desk of Harbor House. Answer in one short sentence.",
)  # fmt: skip
FIXED = {
    "es_greeting": (
        "hola|buenos días|buenas tardes|hola buenos días|buenas noches|hola buenas|oiga",
        "hola, ¿en qué puedo ayudarle?",
    ),
    "es_thanks": ("gracias|muchas gracias|mil gracias|gracias por su ayuda|muy amable gracias", "de nada."),
    "es_goodbye": (
        "adiós|hasta luego|hasta mañana|eso es todo adiós|gracias y adiós|que tenga un buen día",
        "adiós, que tenga un buen día.",
    ),
    "es_how": ("cómo está|cómo está usted|qué tal|cómo le va|qué tal está usted hoy", "estoy muy bien, gracias."),
    "es_who": (
        "quién es usted|cómo se llama usted|con quién hablo|es usted un robot|con quién estoy hablando",
        "soy un asistente de voz.",
    ),
    "es_help": (
        "qué puede hacer|en qué me puede ayudar|ayuda por favor|necesito ayuda|puede ayudarme",
        "puedo reservar mesas y buscar pedidos.",
    ),
    "es_address": (
        "dónde están ustedes|cuál es su dirección|cómo llego al hotel|dónde está el hotel|en qué calle están",
        "estamos cerca de la estación.",
    ),
    "es_human": (
        "quiero hablar con una persona|páseme con una persona|quiero hablar con alguien|con el gerente por favor",
        "de acuerdo, le paso con una persona.",
    ),
    "es_hear": ("me oye|está ahí|me escucha|hola me oye|me puede oír", "sí, le oigo bien."),
    "es_languages": (
        "habla español|habla usted español|puede hablar español|en español por favor|hablan español",
        "sí, hablo español e inglés.",
    ),
    "es_no": ("no|no gracias|nada más|eso es todo|no nada más gracias", "de acuerdo, gracias por llamar."),
    "es_wait": ("un momento por favor|espere|espere un momento|un segundo", "claro, tómese su tiempo."),
}  # fmt: skip
STATUS = (
    "se envió hoy", "llega mañana", "está listo", "se está preparando", "llega el viernes", "se entregó ayer",
    "llega dos días tarde", "está en la cocina", "está en camino", "fue cancelado",
)  # fmt: skip
HOUR_WORDS = {lex.ONES[n]: ("la una" if n == 1 else f"las {book.ES_ONES[n]}") for n in range(1, 13)}
PRICED = {
    "pizza": "la pizza", "salad": "la ensalada", "soup": "la sopa", "burger": "la hamburguesa", "coffee": "el café",
    "tea": "el té", "fish": "el pescado", "chicken": "el pollo", "bread": "el pan", "wine": "el vino",
    "beer": "la cerveza", "umbrella": "el paraguas", "map": "el mapa", "towel": "la toalla", "hat": "el sombrero",
}  # fmt: skip


def _turn(scene: Scene, user: str, reply: str, intent: str, source: str = "", **slots: str) -> Turn:
    return Turn(Sound(user, "es"), reply, intent, slots, None, source, "es")


def fixed(scene: Scene, intent: str) -> list[Turn]:
    phrasings, reply = FIXED[intent]
    return [_turn(scene, scene.pick(phrasings), reply, intent)]


def _any_fixed(scene: Scene) -> list[Turn]:
    return fixed(scene, scene.rng.choice(sorted(FIXED)))


def hours(scene: Scene) -> list[Turn]:
    """One day's opening hours of Harbor House, then another's."""
    days = scene.rng.sample(range(7), 2)
    asks = (
        "a qué hora abren el {day}|cuándo abren el {day}|están abiertos el {day}|hasta qué hora abren el {day}|"
        "qué horario tienen el {day}|abren el {day}",
        "y el {day}|qué pasa el {day}|y el {day} también|no el {day}",
    )
    made = []
    for ask, at in zip(asks, days, strict=True):
        day, known = book.ES_DAYS[at], lex.OPENING.get(lex.DAYS[at])
        reply = f"el {day} está cerrado."
        if known:
            reply = f"el {day} abrimos de {HOUR_WORDS[known[0]]} a {HOUR_WORDS[known[1]]}."
        made.append(_turn(scene, scene.pick(ask, day=day), reply, "es_hours", day=day))
    return made if scene.chance(0.35) else made[:1]


def order(scene: Scene) -> list[Turn]:
    digits = [scene.rng.randrange(10) for _ in range(4)]
    number = " ".join(book.ES_ONES[digit] for digit in digits)
    user = scene.pick(
        "dónde está mi pedido {n}|cuándo llega el pedido {n}|mi pedido es el {n}|busque el pedido {n}|"
        "qué pasa con el pedido {n}|el número de mi pedido es {n}",
        n=number,
    )
    return [_turn(scene, user, f"el pedido {number} {STATUS[digits[-1]]}.", "es_order", number=number)]


def table(scene: Scene) -> list[Turn]:
    """A table, and a change of it."""

    def draw() -> dict[str, str]:
        return {
            "n": book.es_number(scene.rng.randint(2, 12)),
            "day": scene.rng.choice(book.ES_DAYS),
            "time": book.clock(scene.rng)[1],
        }

    slots = draw()
    user = scene.pick(
        "quiero una mesa para {n} el {day} a {time}|una mesa para {n} el {day} a {time} por favor|"
        "quisiera reservar una mesa para {n} el {day} a {time}|puede reservarme una mesa para {n} el {day} a {time}|"
        "necesito una mesa el {day} a {time} para {n}",
        **slots,
    )
    reply = "de acuerdo, una mesa para {n} el {day} a {time}."
    turns = [_turn(scene, user, reply.format(**slots), "es_table", **slots)]
    if scene.chance(0.4):
        name = scene.rng.choice(sorted(slots))
        slots = slots | {name: draw()[name]}
        phrasing = {"n": "no para {n}|somos {n}|mejor para {n}", "day": "no el {day}|mejor el {day}|dije el {day}",
                    "time": "no a {time}|mejor a {time}|dije a {time}"}[name]  # fmt: skip
        user = scene.pick(phrasing, **slots)
        turns.append(_turn(scene, user, reply.format(**slots), "es_table_repair", "history", **slots))
    return turns


def name(scene: Scene) -> list[Turn]:
    who = scene.rng.choice(book.NAMES)
    user = scene.pick("me llamo {w}|soy {w}|mi nombre es {w}|hola soy {w}|buenos días me llamo {w}", w=who)
    turns = [_turn(scene, user, f"mucho gusto, {who}.", "es_name", name=who)]
    if scene.chance(0.7):
        user = scene.pick("cómo me llamo|cuál es mi nombre|sabe cómo me llamo|recuerda mi nombre")
        turns.append(_turn(scene, user, f"usted se llama {who}.", "es_name_memory", "history", name=who))
    return turns


def price(scene: Scene) -> list[Turn]:
    item, thing = scene.rng.choice(sorted(PRICED.items()))
    user = scene.pick(
        "cuánto cuesta {x}|qué precio tiene {x}|cuánto vale {x}|cuánto es {x}|dígame cuánto cuesta {x}",
        x=thing,
    )
    cost = lex.PRICES[item]
    dollars = f"{book.es_before(cost)} {'dólar' if cost == 1 else 'dólares'}"
    return [_turn(scene, user, f"{thing} cuesta {dollars}.", "es_price", item=thing)]


def add(scene: Scene) -> list[Turn]:
    a, b = scene.rng.randint(0, 15), scene.rng.randint(0, 15)
    left, right, total = (book.es_number(value) for value in (a, b, a + b))
    user = scene.pick("cuánto es {a} más {b}|{a} más {b}|dígame cuánto es {a} más {b}", a=left, b=right)
    return [_turn(scene, user, f"{left} más {right} {'es' if a + b == 1 else 'son'} {total}.", "es_sum")]


def repeat(scene: Scene) -> list[Turn]:
    said = ""
    while not said or len(said) > 60 or held_out(said) or said.endswith("?"):
        said = bilingual.sentence(scene.rng)[1]
    user = scene.pick("repita {x}|diga {x}|repita por favor {x}|puede decir {x}", x=said)
    return [_turn(scene, user, f"{said}.", "es_repeat", phrase=said)]


def unclear(scene: Scene) -> list[Turn]:
    return [_turn(scene, bilingual.sentence(scene.rng)[1].strip("?"), UNCLEAR, "es_unclear")]


MAKERS: dict[Callable[[Scene], list[Turn]], float] = {
    _any_fixed: 7, hours: 3, order: 3, table: 4, name: 3, price: 3, add: 1, repeat: 3, unclear: 2,
}  # fmt: skip


def talk(scene: Scene) -> list[Turn]:
    """One to three turns in Spanish."""
    turns = scene.rng.choices([*MAKERS], [*MAKERS.values()])[0](scene)
    if scene.chance(0.15):
        turns = [*fixed(scene, "es_greeting"), *turns]
    if scene.chance(0.12):
        turns = [*turns, *fixed(scene, scene.rng.choice(("es_thanks", "es_goodbye", "es_no")))]
    return turns
