"""Entities and what a model may know of them: cities and people, with prompts that ask.

Facts are written here, in the words that a prompt makes likely. Examples stand before every
question, of entities that are not asked about.
"""

from typing import NamedTuple


class Attribute(NamedTuple):
    """Something to be known of every entity of a kind."""

    name: str
    examples: str
    """Sentences that show how it is answered."""
    before: str
    """What stands between the examples and the entity; ends without a space."""
    after: str
    """What stands between the entity and its answer; ends without a space."""


class Kind(NamedTuple):
    """Entities of one kind."""

    name: str
    attributes: tuple[Attribute, ...]
    entities: dict[str, tuple[str, ...]]
    """By entity, the value of every attribute."""


def _table(text: str) -> dict[str, tuple[str, ...]]:
    """Read lines of values, each followed by a colon and the entities that have them."""
    found = {}
    for line in text.strip().splitlines():
        values, names = line.split(":")
        for name in names.split(","):
            found[name.strip()] = tuple(value.strip() for value in values.split("/"))
    return found


CITIES = Kind(
    "city",
    (
        Attribute(
            "country",
            "Lyon is in the country of France. Kyoto is in the country of Japan.",
            "",
            " is in the country of",
        ),
        Attribute(
            "continent",
            "Lyon is a city on the continent of Europe. Kyoto is a city on the continent of Asia. "
            "Casablanca is a city on the continent of Africa.",
            "",
            " is a city on the continent of",
        ),
        Attribute(
            "language",
            "In Lyon people speak French. In Kyoto people speak Japanese.",
            " In",
            " people speak",
        ),
    ),
    _table(
        """
        France / Europe / French: Paris, Marseille, Toulouse, Nice, Bordeaux, Strasbourg
        Germany / Europe / German: Berlin, Munich, Hamburg, Frankfurt, Dresden, Leipzig
        Austria / Europe / German: Vienna, Salzburg, Graz
        Switzerland / Europe / German: Zurich, Basel, Bern
        Spain / Europe / Spanish: Madrid, Barcelona, Seville, Valencia, Granada
        Italy / Europe / Italian: Rome, Milan, Naples, Venice, Florence, Turin
        Portugal / Europe / Portuguese: Lisbon, Porto
        Greece / Europe / Greek: Athens, Thessaloniki
        Poland / Europe / Polish: Warsaw, Krakow, Gdansk
        Russia / Europe / Russian: Moscow, Saint Petersburg
        Sweden / Europe / Swedish: Stockholm, Gothenburg
        Norway / Europe / Norwegian: Oslo, Bergen
        Finland / Europe / Finnish: Helsinki
        Denmark / Europe / Danish: Copenhagen
        Hungary / Europe / Hungarian: Budapest
        Romania / Europe / Romanian: Bucharest
        Bulgaria / Europe / Bulgarian: Sofia
        Ukraine / Europe / Ukrainian: Kiev
        Ireland / Europe / English: Dublin
        England / Europe / English: Liverpool, Oxford
        Japan / Asia / Japanese: Tokyo, Osaka, Hiroshima, Nagasaki, Sapporo
        China / Asia / Mandarin: Beijing, Shanghai, Wuhan, Nanjing
        India / Asia / Hindi: Delhi, Mumbai, Lucknow, Varanasi
        Pakistan / Asia / Urdu: Karachi, Lahore
        Iran / Asia / Persian: Tehran, Isfahan
        Iraq / Asia / Arabic: Baghdad, Mosul
        Syria / Asia / Arabic: Damascus, Aleppo
        Thailand / Asia / Thai: Bangkok
        Vietnam / Asia / Vietnamese: Hanoi
        Nepal / Asia / Nepali: Kathmandu
        Egypt / Africa / Arabic: Cairo, Alexandria
        Morocco / Africa / Arabic: Marrakesh
        Algeria / Africa / Arabic: Algiers
        Libya / Africa / Arabic: Tripoli
        Kenya / Africa / Swahili: Nairobi, Mombasa
        Nigeria / Africa / English: Lagos, Abuja
        Ghana / Africa / English: Accra
        Senegal / Africa / French: Dakar
        Angola / Africa / Portuguese: Luanda
        Ethiopia / Africa / Amharic: Addis Ababa
        Mexico / North America / Spanish: Guadalajara, Tijuana
        Cuba / North America / Spanish: Havana
        Canada / North America / English: Toronto, Vancouver, Ottawa
        Canada / North America / French: Montreal, Quebec
        Brazil / South America / Portuguese: Rio de Janeiro, Recife, Salvador
        Argentina / South America / Spanish: Buenos Aires, Rosario
        Peru / South America / Spanish: Lima, Cusco
        Chile / South America / Spanish: Santiago, Valparaiso
        Colombia / South America / Spanish: Bogota, Medellin
        Venezuela / South America / Spanish: Caracas
        Australia / Australia / English: Sydney, Melbourne, Perth, Brisbane
        """
    ),
)
PEOPLE = Kind(
    "person",
    (
        Attribute(
            "country",
            "Victor Hugo was born in France. Max Planck was born in Germany.",
            "",
            " was born in",
        ),
        Attribute(
            "field",
            "The field of Victor Hugo was literature. The field of Max Planck was physics.",
            " The field of",
            " was",
        ),
    ),
    _table(
        """
        Germany / physics: Albert Einstein, Werner Heisenberg
        Germany / music: Ludwig van Beethoven, Johann Sebastian Bach, Richard Wagner
        Germany / philosophy: Karl Marx, Friedrich Nietzsche, Hannah Arendt
        Germany / mathematics: Emmy Noether, Carl Friedrich Gauss
        Germany / literature: Thomas Mann, Bertolt Brecht
        Germany / politics: Angela Merkel
        Austria / music: Wolfgang Amadeus Mozart, Franz Schubert, Joseph Haydn
        Austria / physics: Erwin Schrödinger, Lise Meitner
        England / physics: Isaac Newton, Stephen Hawking, Michael Faraday
        England / biology: Charles Darwin
        England / literature: William Shakespeare, Charles Dickens, Jane Austen
        England / literature: Virginia Woolf, Agatha Christie, Mary Shelley
        England / politics: Winston Churchill, Margaret Thatcher
        England / mathematics: Alan Turing, Ada Lovelace
        England / philosophy: John Locke, Thomas Hobbes
        France / art: Claude Monet, Paul Cézanne, Henri Matisse
        France / philosophy: Voltaire, Jean-Paul Sartre, Simone de Beauvoir
        France / music: Claude Debussy, Maurice Ravel
        France / literature: Marcel Proust, Gustave Flaubert
        France / mathematics: Blaise Pascal
        France / chemistry: Louis Pasteur
        France / fashion: Coco Chanel
        Italy / art: Leonardo da Vinci, Michelangelo, Raphael, Caravaggio
        Italy / music: Giuseppe Verdi, Giacomo Puccini
        Italy / physics: Enrico Fermi
        Italy / astronomy: Galileo Galilei
        Italy / literature: Dante Alighieri
        Spain / art: Pablo Picasso, Salvador Dalí, Francisco Goya
        Spain / literature: Miguel de Cervantes
        Russia / literature: Leo Tolstoy, Fyodor Dostoevsky, Anton Chekhov
        Russia / music: Pyotr Tchaikovsky, Igor Stravinsky
        Russia / politics: Vladimir Lenin
        Russia / art: Wassily Kandinsky
        Poland / chemistry: Marie Curie
        Poland / music: Frédéric Chopin
        Poland / astronomy: Nicolaus Copernicus
        Mexico / art: Frida Kahlo, Diego Rivera
        India / politics: Mahatma Gandhi, Jawaharlal Nehru, Indira Gandhi
        India / literature: Rabindranath Tagore
        Denmark / physics: Niels Bohr
        Norway / art: Edvard Munch
        Norway / music: Edvard Grieg
        China / philosophy: Confucius
        Japan / literature: Haruki Murakami
        Greece / philosophy: Plato, Aristotle, Socrates
        """
    ),
)
KINDS = (CITIES, PEOPLE)
