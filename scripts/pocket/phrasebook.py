"""Sentences of front desks, hot lines and small talk in English and Spanish, with values in both.

Each template has one translation in each direction. Knows no grammar beyond the forms of its values.
"""

from __future__ import annotations

from random import Random

import lexicon as lex
import values as val
from bilingual import Pair, contract
from scene import template_held_out

ES_DAYS = ("lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo")
ES_MONTHS = ("enero", "febrero", "marzo", "abril", "mayo", "junio", "julio", "agosto", "septiembre", "octubre",
    "noviembre",
             "diciembre")  # fmt: skip
ES_ONES = lex.split(
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete "
    "dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro veinticinco veintiséis veintisiete "
    "veintiocho veintinueve"
)
ES_TENS = lex.split("cero diez veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa")
ES_HUNDREDS = lex.split(
    "cero ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos novecientos"
)
CITIES = (
    ("paris", "parís"), ("london", "londres"), ("berlin", "berlín"), ("madrid", "madrid"), ("rome", "roma"),
    ("tokyo", "tokio"), ("boston", "boston"), ("lisbon", "lisboa"), ("athens", "atenas"), ("moscow", "moscú"),
    ("new york", "nueva york"), ("barcelona", "barcelona"), ("milan", "milán"), ("geneva", "ginebra"),
    ("vienna", "viena"), ("dublin", "dublín"), ("warsaw", "varsovia"), ("prague", "praga"),
)  # fmt: skip
NAMES = ("anna", "carla", "david", "emma", "maria", "clara", "daniel", "eva", "julia", "laura", "martin", "nora",
    "oscar",
         "paul", "simon", "thomas", "linda", "robert", "sandra", "diana", "max", "felix", "hannah",
         "sofia")  # fmt: skip
ROOMS = (
    ("single", "individual"),
    ("double", "doble"),
    ("family", "familiar"),
    ("quiet", "tranquila"),
    ("big", "grande"),
)
THINGS = (
    ("phone", "el teléfono"), ("lamp", "la lámpara"), ("computer", "el ordenador"), ("door", "la puerta"), ("key",
    "la llave"),
    ("shirt", "la camisa"), ("suitcase", "la maleta"), ("umbrella", "el paraguas"), ("jacket", "la chaqueta"),
    ("bed", "la cama"), ("towel", "la toalla"), ("radio", "la radio"), ("book", "el libro"), ("ring", "el anillo"),
    ("heater", "el calentador"), ("clock", "el reloj"), ("camera", "la cámara"), ("coat", "el abrigo"), ("chair",
    "la silla"),
    ("ticket", "el billete"), ("card", "la tarjeta"), ("bag", "la bolsa"), ("mirror", "el espejo"), ("table",
    "la mesa"),
)  # fmt: skip
FOOD = (
    ("a coffee", "un café"), ("a tea", "un té"), ("a glass of water", "un vaso de agua"), ("a soup", "una sopa"),
    ("a pizza", "una pizza"),
    ("a salad", "una ensalada"), ("a beer", "una cerveza"), ("a sandwich", "un bocadillo"), ("a juice", "un zumo"),
    ("a cake", "un pastel"), ("an apple", "una manzana"), ("a steak", "un filete"),
)  # fmt: skip


def es_number(value: int) -> str:
    """0..9999 in Spanish words."""
    if value < 30:
        return ES_ONES[value]
    if value < 100:
        return ES_TENS[value // 10] + (f" y {ES_ONES[value % 10]}" if value % 10 else "")
    if value == 100:
        return "cien"
    if value < 1000:
        return ES_HUNDREDS[value // 100] + (f" {es_number(value % 100)}" if value % 100 else "")
    thousands = "mil" if value < 2000 else f"{es_number(value // 1000)} mil"
    return thousands + (f" {es_number(value % 1000)}" if value % 1000 else "")


def es_before(value: int) -> str:
    """The same before a masculine noun: "un", "veintiún", "treinta y un"."""
    said = es_number(value)
    if said.endswith("veintiuno"):
        return said[:-4] + "ún"
    return said[:-1] if said.endswith("uno") else said


def clock(rng: Random) -> Pair:
    """A time of day: "seven thirty", "las siete y media"."""
    hour = rng.randint(1, 12)
    es_hour = "la una" if hour == 1 else f"las {ES_ONES[hour]}"
    minutes = rng.choice(
        (("", ""), ("", ""), (" thirty", " y media"), (" fifteen", " y cuarto"), (" ten", " y diez"))
    )
    return lex.ONES[hour] + minutes[0], es_hour + minutes[1]


def _value(rng: Random, slot: str) -> Pair:
    """A value in both languages."""
    if slot == "day":
        at = rng.randrange(7)
        return lex.DAYS[at], ES_DAYS[at]
    if slot == "month":
        at = rng.randrange(12)
        return val.MONTHS[at], ES_MONTHS[at]
    if slot in ("n", "count"):
        value = rng.randint(2, 12) if slot == "n" else rng.randint(2, 99)
        return lex.number_words(value), es_before(value)
    if slot == "big":
        value = rng.randint(2, 9999)
        return lex.number_words(value), es_before(value)
    if slot == "digits":
        digits = [rng.randrange(10) for _ in range(rng.randint(3, 6))]
        return " ".join(lex.ONES[d] for d in digits), " ".join(ES_ONES[d] for d in digits)
    if slot == "time":
        return clock(rng)
    if slot == "name":
        name = rng.choice(NAMES)
        return name, name
    return rng.choice({"city": CITIES, "room": ROOMS, "thing": THINGS, "food": FOOD}[slot])


TEMPLATES: tuple[Pair, ...] = tuple(
    tuple(line.split(" = "))  # type: ignore[misc]
    for line in """
i want to book a table for {n} people on {day} at {time} = quiero reservar una mesa para {n} personas el {day} a {time}
a table for {n} people on {day} please = una mesa para {n} personas el {day} por favor
i need a {room} room for {n} nights = necesito una habitación {room} para {n} noches
do you have a {room} room for {day}? = tienen una habitación {room} para el {day}?
how much is a {room} room? = cuánto cuesta una habitación {room}?
the room costs {count} dollars = la habitación cuesta {count} dólares
the bill is {big} dollars = la cuenta es de {big} dólares
i would like {food} please = quisiera {food} por favor
can i have {food}? = me puede traer {food}?
where is my order? = dónde está mi pedido?
my order number is {digits} = mi número de pedido es {digits}
my phone number is {digits} = mi número de teléfono es {digits}
order {digits} arrives on {day} = el pedido {digits} llega el {day}
your order is on the way = su pedido está en camino
my name is {name} = me llamo {name}
this is {name} speaking = habla {name}
what is your name? = cómo se llama usted?
when do you open on {day}? = cuándo abren el {day}?
we are open from {time} to {time2} = estamos abiertos desde {time} hasta {time2}
we are closed on {day} = cerramos el {day}
the train to {city} leaves at {time} = el tren a {city} sale a {time}
the plane from {city} arrives at {time} = el avión de {city} llega a {time}
a ticket to {city} please = un billete a {city} por favor
i am going to {city} on {day} = voy a {city} el {day}
what is the weather like in {city}? = qué tiempo hace en {city}?
it is raining in {city} = está lloviendo en {city}
it is very cold in {city} = hace mucho frío en {city}
it is sunny today = hoy hace sol
i live in {city} = vivo en {city}
i was born in {city} = nací en {city}
my birthday is in {month} = mi cumpleaños es en {month}
the course begins in {month} = el curso empieza en {month}
the {thing} does not work = {thing} no funciona
the {thing} is broken = {thing} está estropeado
i lost the {thing} = he perdido {thing}
i want to return the {thing} = quiero devolver {thing}
where can i buy the {thing}? = dónde puedo comprar {thing}?
how much does the {thing} cost? = cuánto cuesta {thing}?
please bring me the {thing} = por favor tráigame {thing}
the {thing} costs {count} euros = {thing} cuesta {count} euros
i forgot the {thing} in the room = olvidé {thing} en la habitación
i forgot my password = he olvidado mi contraseña
i can not log in = no puedo entrar en mi cuenta
i want my money back = quiero que me devuelvan el dinero
please send me the invoice for {month} = por favor envíeme la factura de {month}
i want to cancel my subscription = quiero cancelar mi suscripción
i have an appointment on {day} at {time} = tengo una cita el {day} a {time}
can i come on {day}? = puedo venir el {day}?
the doctor is not here today = el médico no está hoy
please call me at {time} = por favor llámeme a {time}
wake me up at {time} please = despiérteme a {time} por favor
breakfast is from {time} to {time2} = el desayuno es desde {time} hasta {time2}
is breakfast included? = el desayuno está incluido?
the pool opens at {time} = la piscina abre a {time}
do you have wifi? = tienen wifi?
can i pay by card? = puedo pagar con tarjeta?
can i bring my dog? = puedo traer a mi perro?
where is the station? = dónde está la estación?
where is the bathroom? = dónde está el baño?
turn left and then right = gire a la izquierda y luego a la derecha
it is near the station = está cerca de la estación
it is on the second floor = está en el segundo piso
i do not understand you = no le entiendo
please speak more slowly = por favor hable más despacio
can you repeat that please? = puede repetirlo por favor?
can you help me? = puede ayudarme?
i need a doctor = necesito un médico
i need a taxi at {time} = necesito un taxi a {time}
i want to speak to the manager = quiero hablar con el gerente
one moment please = un momento por favor
good morning = buenos días
good afternoon = buenas tardes
good night = buenas noches
good morning my name is {name} = buenos días me llamo {name}
thank you very much = muchas gracias
thank you {name} = gracias {name}
you are welcome = de nada
see you tomorrow = hasta mañana
see you on {day} = hasta el {day}
how are you today? = cómo está usted hoy?
i am very well thank you = estoy muy bien gracias
i am very tired today = hoy estoy muy cansado
i am hungry = tengo hambre
i am thirsty = tengo sed
i am {count} years old = tengo {count} años
we have {count} guests today = hoy tenemos {count} invitados
there are {count} chairs in the room = hay {count} sillas en la sala
he bought {count} books = compró {count} libros
it takes {n} days = tarda {n} días
it takes about {n} hours = tarda unas {n} horas
what time is it? = qué hora es?
today is {day} = hoy es {day}
tomorrow is {day} = mañana es {day}
it is late and i have to go = es tarde y tengo que irme
i like music = me gusta la música
i do not like coffee = no me gusta el café
i like {city} very much = me gusta mucho {city}
my brother lives in {city} = mi hermano vive en {city}
my sister works in {city} = mi hermana trabaja en {city}
{name} is not at home = {name} no está en casa
{name} called at {time} = {name} llamó a {time}
{name} does not come on {day} = {name} no viene el {day}
tell {name} that i am here = dígale a {name} que estoy aquí
the meeting is on {day} at {time} = la reunión es el {day} a {time}
the store closes at {time} = la tienda cierra a {time}
they arrive in {city} at {time} = llegan a {city} a {time}
the address is {count} river street = la dirección es calle del río {count}
the code is {digits} = el código es {digits}
my room is {digits} = mi habitación es {digits}
the internet is very slow = el internet va muy lento
the package did not arrive = el paquete no llegó
i am waiting for a letter = estoy esperando una carta
everything was very good = todo estuvo muy bien
this is not my coat = este no es mi abrigo
i am sorry for the mistake = siento el error
no problem = no hay problema
""".strip().splitlines()
)  # fmt: skip
BROKEN_FEMININE = "{thing} está estropeado"


def phrase(rng: Random, *, held: bool = False) -> tuple[str, str, bool]:
    """A sentence in English and in Spanish, and whether its template is held out (only if `held`)."""
    chosen = HELD if held else KEPT
    en, es = rng.choice(chosen)
    values: dict[str, Pair] = {}
    for slot in (
        "day",
        "month",
        "n",
        "count",
        "big",
        "digits",
        "time",
        "time2",
        "name",
        "city",
        "room",
        "thing",
        "food",
    ):
        if f"{{{slot}}}" in en or f"{{{slot}}}" in es:
            values[slot] = _value(rng, slot.removesuffix("2"))
    if es == BROKEN_FEMININE and values["thing"][1].startswith("la "):
        es = es.replace("estropeado", "estropeada")
    spanish = es.format(**{slot: pair[1] for slot, pair in values.items()})
    english = en.format(**{slot: pair[0] for slot, pair in values.items()})
    spanish = _feminine(spanish)
    return english, contract(spanish), held


def _feminine(spanish: str) -> str:
    """One before a feminine noun: "veintiuna sillas"."""
    for noun in ("sillas", "noches", "personas", "horas"):
        spanish = spanish.replace(f"veintiún {noun}", f"veintiuna {noun}").replace(
            f" un {noun}", f" una {noun}"
        )
    return spanish


KEPT = tuple(pair for pair in TEMPLATES if not template_held_out(pair[0]))
HELD = tuple(pair for pair in TEMPLATES if template_held_out(pair[0]))
