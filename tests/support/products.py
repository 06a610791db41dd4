"""Invented products, queries and judgements in English, Spanish and Japanese, for the look-alikes of `tests.support.datasets`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from random import Random
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of product: its name in each language, and its category path with the levels separated by "/"."""

    en: str
    es: str
    ja: str
    category: str

    @property
    def parent(self) -> str:
        """The category above, whose other kinds are near misses."""
        return self.category.rpartition("/")[0]


_KINDS = """
garden hose | manguera de jardín | 散水ホース | Outdoor/Garden/Watering/Hoses
sprinkler | aspersor | スプリンクラー | Outdoor/Garden/Watering/Sprinklers
watering can | regadera | じょうろ | Outdoor/Garden/Watering/Watering Cans
lawn mower | cortacésped | 芝刈り機 | Outdoor/Garden/Tools/Mowers
hedge trimmer | cortasetos | ヘッジトリマー | Outdoor/Garden/Tools/Trimmers
pruning shears | tijeras de podar | 剪定ばさみ | Outdoor/Garden/Tools/Shears
wheelbarrow | carretilla | 一輪車 | Outdoor/Garden/Tools/Wheelbarrows
flower pot | maceta | 植木鉢 | Outdoor/Garden/Planters
patio umbrella | sombrilla de patio | ガーデンパラソル | Outdoor/Patio/Umbrellas
hammock | hamaca | ハンモック | Outdoor/Patio/Hammocks
fire pit | brasero de exterior | 焚き火台 | Outdoor/Patio/Fire Pits
gas grill | barbacoa de gas | ガスグリル | Outdoor/Patio/Grills
bird feeder | comedero para pájaros | 野鳥の餌台 | Outdoor/Wildlife/Feeders
desk lamp | lámpara de escritorio | デスクライト | Lighting/Lamps/Desk Lamps
floor lamp | lámpara de pie | フロアライト | Lighting/Lamps/Floor Lamps
night light | luz nocturna | 常夜灯 | Lighting/Lamps/Night Lights
chandelier | lámpara de araña | シャンデリア | Lighting/Ceiling/Chandeliers
ceiling fan | ventilador de techo | シーリングファン | Lighting/Ceiling/Fans
light bulb | bombilla | 電球 | Lighting/Bulbs
office chair | silla de oficina | オフィスチェア | Furniture/Office Furniture/Chairs
standing desk | escritorio elevable | 昇降デスク | Furniture/Office Furniture/Desks
filing cabinet | archivador | 書類キャビネット | Furniture/Office Furniture/Cabinets
bar stool | taburete de bar | バースツール | Furniture/Kitchen Furniture/Stools
dining table | mesa de comedor | ダイニングテーブル | Furniture/Kitchen Furniture/Tables
coffee table | mesa de centro | ローテーブル | Furniture/Living Room Furniture/Tables
sofa | sofá | ソファ | Furniture/Living Room Furniture/Sofas
bookcase | librería | 本棚 | Furniture/Living Room Furniture/Bookcases
tv stand | mueble para televisor | テレビ台 | Furniture/Living Room Furniture/TV Stands
bunk bed | litera | 二段ベッド | Furniture/Bedroom Furniture/Bunk Beds
nightstand | mesita de noche | ナイトテーブル | Furniture/Bedroom Furniture/Nightstands
wardrobe | armario ropero | 洋服だんす | Furniture/Bedroom Furniture/Wardrobes
area rug | alfombra | ラグ | Décor/Floor/Area Rugs
door mat | felpudo | 玄関マット | Décor/Floor/Door Mats
wall mirror | espejo de pared | ウォールミラー | Décor/Wall/Mirrors
wall clock | reloj de pared | 掛け時計 | Décor/Wall/Clocks
picture frame | marco de fotos | フォトフレーム | Décor/Wall/Frames
curtain rod | barra de cortina | カーテンレール | Décor/Window/Rods
roller blind | estor enrollable | ロールスクリーン | Décor/Window/Blinds
scented candle | vela aromática | アロマキャンドル | Décor/Candles
shower curtain | cortina de ducha | シャワーカーテン | Bed & Bath/Bath/Shower Curtains
bath towel | toalla de baño | バスタオル | Bed & Bath/Bath/Towels
toilet brush | escobilla de baño | トイレブラシ | Bed & Bath/Bath/Brushes
soap dispenser | dispensador de jabón | ソープディスペンサー | Bed & Bath/Bath/Dispensers
pillow case | funda de almohada | 枕カバー | Bed & Bath/Bedding/Pillow Cases
duvet cover | funda nórdica | 掛け布団カバー | Bed & Bath/Bedding/Duvet Covers
mattress topper | sobrecolchón | マットレスパッド | Bed & Bath/Bedding/Toppers
frying pan | sartén | フライパン | Kitchen/Cookware/Pans
stock pot | olla | 寸胴鍋 | Kitchen/Cookware/Pots
baking tray | bandeja de horno | 天板 | Kitchen/Cookware/Trays
kettle | hervidor | ケトル | Kitchen/Small Appliances/Kettles
toaster | tostadora | トースター | Kitchen/Small Appliances/Toasters
blender | batidora de vaso | ミキサー | Kitchen/Small Appliances/Blenders
rice cooker | arrocera | 炊飯器 | Kitchen/Small Appliances/Rice Cookers
kitchen knife | cuchillo de cocina | 包丁 | Kitchen/Cutlery/Knives
chopping board | tabla de cortar | まな板 | Kitchen/Cutlery/Boards
lunch box | fiambrera | 弁当箱 | Kitchen/Storage/Lunch Boxes
water bottle | botella de agua | 水筒 | Kitchen/Storage/Bottles
spice rack | especiero | スパイスラック | Kitchen/Storage/Racks
phone case | funda de móvil | スマホケース | Electronics/Phones/Cases
screen protector | protector de pantalla | 保護フィルム | Electronics/Phones/Screen Protectors
charging cable | cable de carga | 充電ケーブル | Electronics/Phones/Cables
power bank | batería externa | モバイルバッテリー | Electronics/Phones/Batteries
wireless mouse | ratón inalámbrico | ワイヤレスマウス | Electronics/Computers/Mice
keyboard | teclado | キーボード | Electronics/Computers/Keyboards
monitor arm | brazo para monitor | モニターアーム | Electronics/Computers/Mounts
webcam | cámara web | ウェブカメラ | Electronics/Computers/Webcams
headphones | auriculares | ヘッドホン | Electronics/Audio/Headphones
bluetooth speaker | altavoz bluetooth | ブルートゥーススピーカー | Electronics/Audio/Speakers
turntable | tocadiscos | レコードプレーヤー | Electronics/Audio/Turntables
dog bed | cama para perro | 犬用ベッド | Pets/Dogs/Beds
dog leash | correa para perro | 犬用リード | Pets/Dogs/Leashes
cat litter box | arenero para gatos | 猫用トイレ | Pets/Cats/Litter Boxes
scratching post | rascador | 爪とぎポール | Pets/Cats/Scratching Posts
fish tank | acuario | 水槽 | Pets/Fish/Tanks
yoga mat | esterilla de yoga | ヨガマット | Sports/Fitness/Mats
dumbbell | mancuerna | ダンベル | Sports/Fitness/Weights
jump rope | comba | 縄跳び | Sports/Fitness/Ropes
camping tent | tienda de campaña | キャンプテント | Sports/Camping/Tents
sleeping bag | saco de dormir | 寝袋 | Sports/Camping/Sleeping Bags
camping stove | hornillo de camping | キャンプ用コンロ | Sports/Camping/Stoves
bike helmet | casco de bicicleta | 自転車ヘルメット | Sports/Cycling/Helmets
bike lock | candado de bicicleta | 自転車用の鍵 | Sports/Cycling/Locks
swim goggles | gafas de natación | 水泳ゴーグル | Sports/Swimming/Goggles
fishing rod | caña de pescar | 釣り竿 | Sports/Fishing/Rods
rain jacket | chaqueta impermeable | レインジャケット | Clothing/Outerwear/Jackets
winter coat | abrigo de invierno | 冬用コート | Clothing/Outerwear/Coats
running shoes | zapatillas para correr | ランニングシューズ | Clothing/Shoes/Running
sandals | sandalias | サンダル | Clothing/Shoes/Sandals
baseball cap | gorra de béisbol | 野球帽 | Clothing/Accessories/Caps
leather belt | cinturón de cuero | 革ベルト | Clothing/Accessories/Belts
backpack | mochila | リュックサック | Clothing/Bags/Backpacks
suitcase | maleta | スーツケース | Clothing/Bags/Suitcases
cordless drill | taladro inalámbrico | 電動ドリル | Tools/Power Tools/Drills
circular saw | sierra circular | 丸のこ | Tools/Power Tools/Saws
screwdriver set | juego de destornilladores | ドライバーセット | Tools/Hand Tools/Screwdrivers
claw hammer | martillo de carpintero | 金づち | Tools/Hand Tools/Hammers
tape measure | cinta métrica | 巻き尺 | Tools/Hand Tools/Measuring
step ladder | escalera de tijera | 脚立 | Tools/Ladders
building blocks | bloques de construcción | 積み木 | Toys/Construction/Blocks
jigsaw puzzle | rompecabezas | ジグソーパズル | Toys/Games/Puzzles
board game | juego de mesa | ボードゲーム | Toys/Games/Board Games
plush bear | oso de peluche | くまのぬいぐるみ | Toys/Plush
baby stroller | cochecito de bebé | ベビーカー | Baby/Travel/Strollers
car seat | silla de coche para bebé | チャイルドシート | Baby/Travel/Car Seats
"""
KINDS = [Kind(*line.split(" | ")) for line in _KINDS.strip().splitlines()]
LANGUAGES = ("en", "es", "ja")
# Words that queries and titles share, by language: colour, property, use.
ATTRIBUTES = [
    {"en": ["black", "white", "red", "blue", "green", "grey"], "es": ["negro", "blanco", "rojo", "azul", "verde", "gris"],
     "ja": ["黒", "白", "赤", "青", "緑", "グレー"]},
    {"en": ["small", "large", "compact", "foldable", "waterproof", "heavy duty"],
     "es": ["pequeño", "grande", "compacto", "plegable", "resistente al agua", "reforzado"],
     "ja": ["小型", "大型", "コンパクト", "折りたたみ", "防水", "業務用"]},
    {"en": ["for home", "for kids", "for travel", "gift", "cheap", "best"],
     "es": ["para casa", "para niños", "de viaje", "regalo", "barato", "mejor"],
     "ja": ["家庭用", "子供用", "旅行用", "ギフト", "安い", "人気"]},
]  # fmt: skip
BRANDS = ["Novara", "Kestrel", "Almira", "Tundra", "Ostro", "Quill", "Brisa", "Hikari"]
WRONG_GRADES = 0.08


@dataclass(frozen=True)
class Product:
    """A product of one language's shop. Shops number their products from 100000, so that several share an id."""

    product_id: int
    title: str
    description: str
    category: str  # levels separated by "/"


@dataclass(frozen=True)
class Judgement:
    """A query, a product and its grade: 3 for the kind that the query names, 2 for a similar kind, 1 for another one.

    The share `WRONG_GRADES` of the grades is wrong.
    """

    query_id: int
    query: str
    product: Product
    grade: int
    language: str


class _Shop:
    """The products of one language. Most are judged for several queries, as in real judgement lists."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.size = 0
        self.products: dict[Kind, list[Product]] = defaultdict(list)

    def choose(self, random: Random, kind: Kind, taken: set[int]) -> Product:
        """Return a product of a kind that is not in `taken`: one of the shop, or a new one."""
        known = [product for product in self.products[kind][-8:] if product.product_id not in taken]
        if known and random.random() < 0.6:
            return random.choice(known)
        title = _title(random, kind, self.language)
        description = f"{title}. {random.choice(BRANDS)} quality, 100 % tested; size 5/8 in. x {random.randint(2, 99)} ft."
        product = Product(100_000 + self.size, title, description, kind.category)
        self.size += 1
        self.products[kind].append(product)
        return product


def judgements(rows: int, languages: tuple[str, ...] = ("en",), seed: int = 0) -> list[Judgement]:
    """Invented judgements: four products for each query, of which two match it."""
    random = Random(seed)
    shops = {language: _Shop(language) for language in languages}
    judged: list[Judgement] = []
    queries: set[tuple[str, str]] = set()
    while len(judged) < rows:
        language = random.choices(languages, weights=[3, *[1] * (len(languages) - 1)])[0]
        kind = random.choice(KINDS)
        query = _query(random, kind, language)
        if (language, query) in queries:
            continue
        queries.add((language, query))
        others = [other for other in KINDS if other is not kind]
        near = [other for other in others if other.parent == kind.parent] or [other for other in others if _top(other) == _top(kind)]
        taken: set[int] = set()
        for judged_kind, grade in ((kind, 3), (kind, 3), (random.choice(near), 2), (random.choice(others), 1)):
            product = shops[language].choose(random, judged_kind, taken)
            taken.add(product.product_id)
            shown = random.choice([other for other in (1, 2, 3) if other != grade]) if random.random() < WRONG_GRADES else grade
            judged.append(Judgement(len(queries), query, product, shown, language))
    return judged[:rows]


def _top(kind: Kind) -> str:
    return kind.category.split("/")[0]


def _name(kind: Kind, language: str) -> str:
    return kind[LANGUAGES.index(language)]


def _query(random: Random, kind: Kind, language: str) -> str:
    words = [random.choice(attributes[language]) for attributes in random.sample(ATTRIBUTES, random.randint(1, 2))]
    if random.random() < 0.3:
        words.append(f'{random.randint(2, 99)}"' if language == "en" else f"{random.randint(5, 250)} cm")
    parts = [_name(kind, language), *words]
    return " ".join(parts if language == "es" else reversed(parts))


def _title(random: Random, kind: Kind, language: str) -> str:
    colour, size, use = (random.choice(attributes[language]) for attributes in ATTRIBUTES)
    brand, name = random.choice(BRANDS), _name(kind, language)
    if language == "en":
        return f'{brand} {size} {name} {colour}, {random.randint(2, 99)}" {use}'
    return f"{brand} {name} {size} {colour} {random.randint(5, 250)} cm {use}"
