"""English and Spanish words, and a small grammar that makes the same sentence in both. Knows nothing of any domain.

Every word has one translation in each direction, so that a sentence has one translation too. Spanish agrees in gender
and number, has its accents, contracts "de el" and "a el", and puts "a" before people as objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import lexicon as lex
import vocabulary as voc

Pair = tuple[str, str]

# English, Spanish, gender; people are marked "p" behind it.
_NOUNS = """
man hombre mp|woman mujer fp|boy niño mp|girl niña fp|father padre mp|mother madre fp|brother hermano mp|
sister hermana fp|friend amigo mp|doctor médico mp|teacher profesor mp|student estudiante mp|neighbor vecino mp|
waiter camarero mp|cook cocinero mp|driver conductor mp|singer cantante mp|writer escritor mp|farmer granjero mp|
king rey mp|queen reina fp|lawyer abogado mp|nurse enfermera fp|guest invitado mp|son hijo mp|daughter hija fp|
uncle tío mp|aunt tía fp|grandfather abuelo mp|grandmother abuela fp|dog perro m|cat gato m|horse caballo m|
cow vaca f|
bird pájaro m|fish pescado m|mouse ratón m|bear oso m|lion león m|house casa f|car coche m|train tren m|bus autobús m|
street calle f|city ciudad f|village pueblo m|river río m|lake lago m|mountain montaña f|forest bosque m|
garden jardín m|
tree árbol m|flower flor f|table mesa f|chair silla f|door puerta f|window ventana f|room habitación f|
kitchen cocina f|
book libro m|letter carta f|paper papel m|phone teléfono m|picture cuadro m|story historia f|song canción f|
movie película f|game juego m|ball pelota f|shirt camisa f|shoe zapato m|hat sombrero m|coat abrigo m|bag bolsa f|
box caja f|bottle botella f|cup taza f|plate plato m|knife cuchillo m|spoon cuchara f|bread pan m|cheese queso m|
apple manzana f|orange naranja f|cake pastel m|coffee café m|milk leche f|sugar azúcar m|salt sal f|rice arroz m|
soup sopa f|tomato tomate m|onion cebolla f|potato patata f|lemon limón m|strawberry fresa f|chicken pollo m|
egg huevo m|
school escuela f|office oficina f|hospital hospital m|station estación f|airport aeropuerto m|market mercado m|
store tienda f|bank banco m|hotel hotel m|church iglesia f|museum museo m|park parque m|beach playa f|island isla f|
bridge puente m|road carretera f|wall pared f|floor suelo m|roof techo m|bed cama f|lamp lámpara f|clock reloj m|
key llave f|coin moneda f|ticket billete m|map mapa m|ship barco m|plane avión m|bicycle bicicleta f|truck camión m|
engine motor m|machine máquina f|fire fuego m|cloud nube f|rain lluvia f|snow nieve f|wind viento m|storm tormenta f|
sun sol m|moon luna f|star estrella f|sky cielo m|night noche f|summer verano m|winter invierno m|week semana f|
month mes m|year año m|question pregunta f|answer respuesta f|problem problema m|reason razón f|idea idea f|
plan plan m|
dream sueño m|secret secreto m|lesson lección f|number número m|word palabra f|name nombre m|voice voz f|
noise ruido m|
color color m|price precio m|money dinero m|job trabajo m|party fiesta f|journey viaje m|wedding boda f|dinner cena f|
country país m|war guerra f|law ley f|newspaper periódico m|radio radio f|camera cámara f|guitar guitarra f|
piano piano m|bell campana f|sea mar m|tower torre f|castle castillo m|factory fábrica f|library biblioteca f|
theater teatro m|restaurant restaurante m|shirt camisa f|gift regalo m|basket cesta f|blanket manta f|mirror espejo m|
pillow almohada f|towel toalla f|umbrella paraguas m|suitcase maleta f|passport pasaporte m|dress vestido m|
ring anillo m|
order pedido m|package paquete m|bill factura f|account cuenta f|card tarjeta f|computer ordenador m|screen pantalla f
"""
# English, Spanish masculine; the feminine follows.
_ADJECTIVES = """
big grande|small pequeño|old viejo|new nuevo|red rojo|blue azul|green verde|black negro|white blanco|long largo|
short corto|good bueno|bad malo|cold frío|hot caliente|clean limpio|dirty sucio|fast rápido|slow lento|heavy pesado|
light ligero|strong fuerte|weak débil|rich rico|poor pobre|dark oscuro|soft blando|hard duro|sweet dulce|fresh fresco|
strange extraño|simple sencillo|famous famoso|narrow estrecho|wide ancho|modern moderno|happy feliz|sad triste|
quiet tranquilo|pretty bonito|ugly feo|cheap barato|expensive caro|perfect perfecto|terrible terrible|round redondo|
yellow amarillo|brown marrón|different diferente|difficult difícil|easy fácil|important importante|possible posible|
tall alto|low bajo|thin delgado|young joven|brave valiente|intelligent inteligente|free libre|full lleno|empty vacío|
dry seco|wet mojado|safe seguro|dangerous peligroso|interesting interesante|serious serio|warm cálido|private privado
"""
# English base, Spanish infinitive (regular), English past if irregular.
_VERBS = """
buy comprar bought|sell vender sold|take tomar took|carry llevar carried|look_for buscar looked_for|clean limpiar|
wash lavar|paint pintar|fix arreglar|break romper broke|cut cortar|cook cocinar|eat comer ate|drink beber drank|
need necesitar|visit visitar|watch mirar|listen_to escuchar listened_to|write escribir wrote|sing cantar sang|
win ganar won|lose perder lost|hide esconder hid|show mostrar showed|send mandar sent|use usar|leave dejar left|
cross cruzar|change cambiar|count contar|cover cubrir|fill llenar|ask_for pedir asked_for|answer contestar|
accept aceptar|admire admirar|attack atacar|avoid evitar|rent alquilar|burn quemar|celebrate celebrar|
collect recoger|compare comparar|complete completar|copy copiar|create crear|decorate decorar|describe describir|
destroy destruir|draw dibujar drew|enjoy disfrutar|explain explicar|forget olvidar forgot|receive recibir|
open abrir|close cerrar|order encargar|pay pagar paid|prepare preparar|print imprimir|protect proteger|push empujar|
reserve reservar|return devolver|save guardar|share compartir|throw tirar threw|touch tocar|translate traducir|
understand entender understood|wait_for esperar waited_for|study estudiar|check revisar|call llamar|help ayudar|
invite invitar|kiss besar|greet saludar|love amar
"""
# Their other forms are not regular: they are used as infinitives alone.
_INFINITIVE_ONLY = frozenset(
    lex.split(
        "perder mostrar contar cerrar pedir destruir devolver traducir entender cubrir romper recoger proteger"
    )
)
PEOPLE_VERBS = frozenset(
    lex.split("call help invite kiss greet love visit watch listen_to wait_for look_for admire")
)
_PLACES = frozenset(
    lex.split("""house car train bus street city village river lake mountain forest garden room kitchen school office
    hospital station airport market store bank hotel church museum park beach island bridge road tower castle
    factory library theater restaurant country ship plane""")
)
EATEN = frozenset(
    lex.split(
        """bread cheese apple orange cake rice soup tomato onion potato lemon strawberry chicken egg fish"""
    )
)
DRUNK = ("coffee", "milk", "soup")
_ODD = frozenset(("umbrella", "fire", "rain", "snow", "wind", "sun", "moon", "sky", "money", "sugar", "salt",
    "milk", "war",
                  "night", "summer", "winter", "law", "rice", "bread", "coffee", "sea"))  # not counted  # fmt: skip


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun in both languages."""

    en: str
    es: str
    feminine: bool
    person: bool

    def english(self, plural: bool) -> str:
        return voc.plural(self.en) if plural else self.en

    def spanish(self, plural: bool) -> str:
        return es_plural(self.es) if plural else self.es


def es_plural(word: str) -> str:
    """ "casas", "ciudades", "luces", "trenes", "razones"."""
    if word in ("paraguas",):
        return word
    if word[-1] in "aeiouéáó":
        return word + "s"
    if word.endswith("z"):
        return word[:-1] + "ces"
    if word == "joven":
        return "jóvenes"
    if word.endswith("s") and word not in ("mes", "autobús", "país"):
        return word
    if word[-2] in "áéíóú" and word not in ("país", "débil", "fácil", "azúcar", "árbol", "ángel"):
        plain = word[:-2] + "aeiou"["áéíóú".index(word[-2])] + word[-1]
        return plain + "es"
    return word + "es"


def es_feminine(adjective: str) -> str:
    """Of a masculine adjective in the singular."""
    return adjective[:-1] + "a" if adjective.endswith("o") else adjective


def _split(table: str) -> list[list[str]]:
    return [line.split() for line in table.replace("\n", "").split("|")]


def _words(text: str) -> str:
    return text.replace("_", " ")


NOUNS = list(
    {row[0]: Noun(row[0], row[1], row[2][0] == "f", "p" in row[2]) for row in _split(_NOUNS)}.values()
)
BY_ENGLISH = {noun.en: noun for noun in NOUNS}
ADJECTIVES = {row[0]: row[1] for row in _split(_ADJECTIVES)}
VERBS = {row[0]: (row[1], row[2] if len(row) > 2 else voc.past(row[0])) for row in _split(_VERBS)}
PEOPLE, THINGS = [n for n in NOUNS if n.person], [n for n in NOUNS if not n.person]
PLACES = [noun for noun in NOUNS if noun.en in _PLACES]
DETERMINERS = {
    # English: Spanish masculine, feminine, plural masculine, plural feminine; "" = does not exist
    "the": ("el", "la", "los", "las"), "a": ("un", "una", "", ""), "my": ("mi", "mi", "mis", "mis"),
    "your": ("tu", "tu", "tus", "tus"), "our": ("nuestro", "nuestra", "nuestros", "nuestras"),
    "this": ("este", "esta", "", ""), "these": ("", "", "estos", "estas"), "two": ("", "", "dos", "dos"),
    "three": ("", "", "tres", "tres"), "ten": ("", "", "diez", "diez"), "many": ("", "", "muchos", "muchas"),
    "every": ("cada", "cada", "", ""), "another": ("otro", "otra", "", ""), "some": ("", "", "algunos", "algunas"),
}  # fmt: skip


def contract(spanish: str) -> str:
    """ "de el" -> "del", "a el" -> "al"."""
    said = f" {spanish} ".replace(" de el ", " del ").replace(" a el ", " al ")
    return said.strip()


def noun_phrase(rng: Random, nouns: list[Noun], *, plural: bool | None = None) -> tuple[str, str, Noun, bool]:
    """ "the red car", "el coche rojo", the noun and whether it is in the plural."""
    noun = rng.choice(nouns)
    many = rng.random() < 0.25 if plural is None else plural
    if noun.en in _ODD:
        many = False
    forms = [
        (en, es[2 * many + noun.feminine]) for en, es in DETERMINERS.items() if es[2 * many + noun.feminine]
    ]
    weights = [6 if en == "the" else 3 if en in ("a", "my") else 1 for en, _ in forms]
    en, es = rng.choices(forms, weights)[0]
    if noun.en in _ODD and en in ("a", "another", "every"):
        en, es = "the", DETERMINERS["the"][noun.feminine]
    english, spanish = noun.english(many), noun.spanish(many)
    if rng.random() < 0.4:
        en_adjective, es_adjective = rng.choice(list(ADJECTIVES.items()))
        english = f"{en_adjective} {english}"
        es_adjective = es_feminine(es_adjective) if noun.feminine else es_adjective
        spanish = f"{spanish} {es_plural(es_adjective) if many else es_adjective}"
    if en == "a" and english[0] in "aeiou":
        en = "an"
    return f"{en} {english}", f"{es} {spanish}", noun, many


def preterite(infinitive: str, *, first: bool) -> str:
    """ "compré", "compró", "comí", "comió", "busqué", "pagué", "crucé"."""
    stem, kind = infinitive[:-2], infinitive[-2:]
    if kind != "ar":
        return stem + ("í" if first else "ió")
    if first:
        stem = stem[:-1] + "qu" if stem.endswith("c") else stem + "u" if stem.endswith("g") else stem
        stem = stem[:-1] + "c" if stem.endswith("z") else stem
    return stem + ("é" if first else "ó")


def preterite_they(infinitive: str) -> str:
    """ "compraron", "comieron"."""
    return infinitive[:-2] + ("aron" if infinitive.endswith("ar") else "ieron")


def _object(rng: Random, verb: str) -> Pair:
    """Who or what it is done to."""
    if verb in PEOPLE_VERBS and rng.random() < 0.6:
        en, es, _, _ = noun_phrase(rng, PEOPLE)
        return en, f"a {es}"
    nouns = THINGS
    if verb in ("eat", "cook"):
        nouns = [BY_ENGLISH[name] for name in sorted(EATEN)]
    elif verb == "drink":
        nouns = [BY_ENGLISH[name] for name in DRUNK]
    if verb in ("call", "help", "invite", "kiss", "greet", "love"):
        en, es, _, _ = noun_phrase(rng, PEOPLE)
        return en, f"a {es}"
    en, es, _, _ = noun_phrase(rng, nouns)
    return en, es


def _verb(rng: Random, *, finite: bool) -> tuple[str, str, str]:
    """English base, Spanish infinitive, English past."""
    names = [name for name, (es, _) in VERBS.items() if not finite or es not in _INFINITIVE_ONLY]
    name = rng.choice(names)
    return name, VERBS[name][0], VERBS[name][1]


def _past(rng: Random) -> Pair:
    base, infinitive, past = _verb(rng, finite=True)
    en_object, es_object = _object(rng, base)
    pick = rng.random()
    if pick < 0.5:
        en, es, _, many = noun_phrase(rng, PEOPLE)
        verb = preterite_they(infinitive) if many else preterite(infinitive, first=False)
    elif pick < 0.75:
        en, es, verb = "i", "", preterite(infinitive, first=True)
    else:
        en, es = rng.choice((("he", "él"), ("she", "ella"), ("they", "ellos"), ("nobody", "nadie")))
        verb = preterite_they(infinitive) if en == "they" else preterite(infinitive, first=False)
    return f"{en} {_words(past)} {en_object}", f"{es} {verb} {es_object}"


WISHES = (
    ("i want to", "quiero"), ("i can", "puedo"), ("i have to", "tengo que"), ("we want to", "queremos"),
    ("we can not", "no podemos"), ("we have to", "tenemos que"), ("she wants to", "ella quiere"),
    ("he can not", "él no puede"), ("they want to", "ellos quieren"), ("i do not want to", "no quiero"),
    ("he has to", "él tiene que"), ("i am going to", "voy a"), ("they are going to", "ellos van a"),
    ("nobody wants to", "nadie quiere"), ("i would like to", "me gustaría"), ("it is easy to", "es fácil"),
    ("it is important to", "es importante"), ("you have to", "tienes que"),
)  # fmt: skip
ASKS = (
    ("can you", "puedes"), ("do you want to", "quieres"), ("when can we", "cuándo podemos"),
    ("why does he want to", "por qué quiere él"), ("where can i", "dónde puedo"), ("how can i", "cómo puedo"),
)  # fmt: skip
STATES = frozenset(lex.split("dirty clean full empty wet dry cold hot fresh sad happy"))  # "estar", not "ser"
WHERE = (("in", "en"), ("near", "cerca de"), ("behind", "detrás de"), ("in front of", "delante de"), ("far from",
    "lejos de"),
         ("next to", "al lado de"))  # fmt: skip


def _wish(rng: Random) -> Pair:
    base, infinitive, _ = _verb(rng, finite=False)
    (en, es), (en_object, es_object) = rng.choice(WISHES), _object(rng, base)
    return f"{en} {_words(base)} {en_object}", f"{es} {infinitive} {es_object}"


def _question(rng: Random) -> Pair:
    if rng.random() < 0.3:
        en, es, _, many = noun_phrase(rng, NOUNS)
        return f"where {'are' if many else 'is'} {en}?", f"dónde {'están' if many else 'está'} {es}?"
    base, infinitive, _ = _verb(rng, finite=False)
    (en, es), (en_object, es_object) = rng.choice(ASKS), _object(rng, base)
    return f"{en} {_words(base)} {en_object}?", f"{es} {infinitive} {es_object}?"


def _is(rng: Random) -> Pair:
    en, es, noun, many = noun_phrase(rng, NOUNS)
    adjective, spanish = rng.choice(list(ADJECTIVES.items()))
    spanish = es_feminine(spanish) if noun.feminine else spanish
    spanish = es_plural(spanish) if many else spanish
    negated = rng.random() < 0.25
    verb, ser = ("are", "son") if many else ("is", "es")
    if adjective in STATES:
        ser = "están" if many else "está"
    return (
        f"{en} {verb}{' not' if negated else ''} {adjective}",
        f"{es} {'no ' if negated else ''}{ser} {spanish}",
    )


def _place(rng: Random) -> Pair:
    en, es, _, many = noun_phrase(rng, NOUNS)
    en_place, es_place, _, _ = noun_phrase(rng, PLACES, plural=False)
    near, spanish = rng.choice(WHERE)
    return (
        f"{en} {'are' if many else 'is'} {near} {en_place}",
        f"{es} {'están' if many else 'está'} {spanish} {es_place}",
    )


def sentence(rng: Random) -> Pair:
    """A sentence in English and Spanish: lower case, "?" behind a question, else no mark."""
    kinds = (_past, _past, _wish, _wish, _question, _is, _place)
    en, es = rng.choice(kinds)(rng)
    if not en.endswith("?") and rng.random() < 0.25:
        joint, spanish = rng.choice(
            (("and", "y"), ("but", "pero"), ("because", "porque"), ("when", "cuando"))
        )
        kind = _past if joint == "when" else rng.choice((_past, _wish, _is, _place))
        en_more, es_more = kind(rng)
        en, es = f"{en} {joint} {en_more}", f"{es} {spanish} {es_more}"
    return en, contract(" ".join(es.split()))
