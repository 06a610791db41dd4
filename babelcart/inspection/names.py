"""Usual names of columns, and words that name splits, in many languages."""

from __future__ import annotations

import re
from collections.abc import Mapping

# Column of a row -> usual names, in the form of `babelcart.inspection.roles.plain_name`, the best first.
NAMES: Mapping[str, tuple[str, ...]] = {
    "id": (
        "id", "example_id", "row_id", "judgement_id", "judgment_id", "pair_id", "rating_id", "sample_id", "annotation_id", "uid", "index",
        "_id", "record_id", "line_id", "unnamed_0",
    ),
    "language": (
        "language", "lang", "query_language", "query_lang", "language_code", "lang_code", "locale", "query_locale", "product_locale",
        "user_locale", "shop_locale", "item_locale", "market", "marketplace", "country", "country_code", "site", "region",
    ),
    "origin_query": (
        "origin_query", "query", "search_query", "search_term", "search_terms", "searchterm", "query_text", "querytext",
        "query_string", "keyword", "keywords", "search_keyword", "user_query", "raw_query", "search_phrase", "search_text", "search",
        "request", "q", "term", "phrase", "suchbegriff", "suchanfrage", "requete", "requête", "consulta", "busca", "ricerca", "zapytanie",
        "запрос", "クエリ", "検索語", "查询", "搜索词", "검색어",
    ),
    "qi": (
        "item_title", "product_title", "title", "product_name", "item_name", "productname", "producttitle", "itemtitle", "doc_title",
        "document_title", "offer_title", "listing_title", "sku_name", "titel", "produkttitel", "titulo", "título", "titre", "titolo",
        "tytuł", "название", "商品名", "タイトル", "标题", "商品标题", "상품명", "name", "product", "item", "document", "text", "candidate",
        "produkt", "producto", "produit", "prodotto", "nom", "nombre", "nome",
    ),
    "qc": (
        "category_path", "category_hierarchy", "category", "categories", "category_name", "cat_path", "categorypath", "breadcrumb",
        "breadcrumbs", "taxonomy", "taxonomy_path", "product_category", "item_category", "node_path", "leaf_category", "product_type",
        "kategorie", "categoria", "categoría", "categorie", "catégorie", "kategoria", "категория", "カテゴリ", "カテゴリー", "类目", "分类",
    ),
    "label": (
        "label", "esci_label", "relevance", "relevance_label", "relevancy", "grade", "rating", "judgement", "judgment", "is_relevant",
        "relevant", "median_relevance", "relevance_score", "rel", "gain", "annotation", "gold", "verdict", "relevanz", "bewertung",
        "etiqueta", "relevancia", "relevante", "pertinence", "étiquette", "rilevanza", "rilevante", "etichetta", "ocena", "оценка",
        "метка", "релевантность", "ラベル", "関連性", "标签", "相关性", "target", "class", "score", "clicked", "is_clicked", "purchased",
        "is_purchased",
    ),
    "split": ("split", "set", "subset", "fold", "partition", "dataset", "usage"),
}  # fmt: skip
# Names of titles that also mean other things, such as the name of a person. Of several such columns, the longest texts are the titles.
UNSPECIFIC_TITLES = """
    name product item document text candidate produkt producto produit prodotto nom nombre nome
""".split()  # noqa: SIM905
# Names of labels that also mean other things, such as the score of a search engine or the stars of a product: labels only with few values.
UNSPECIFIC_LABELS = """
    rating bewertung ocena оценка target class score relevance_score clicked is_clicked purchased is_purchased
""".split()  # noqa: SIM905
# Parts of names of columns of labels that are in no list of names.
LABEL_WORDS = re.compile(r"relev|label|grad(?!i)|judg|match|gold|etiq|etich|pertin|bewert|ocen|оцен|метк|релев|标签|相关|判定|ラベル|関連")
LONG_TEXTS = ("description", "product_description", "item_description", "desc", "body", "bullet_point", "product_bullet_point", "features")
SPLIT_WORDS = {
    word: split
    for split, words in {
        "train": """train training trainset entrenamiento entrainement entraînement apprentissage treino treinamento addestramento trening
            eğitim обучение обучающая 訓練 学習 训练 训练集 訓練集 훈련 학습""",
        "dev": """dev development val valid validation entwicklung validierung validación validacion validação validacao validazione
            walidacja doğrulama валидация валидационная 検証 開発 验证 验证集 驗證集 검증""",
        "test": """test testing testset eval evaluation holdout heldout prueba pruebas teste prova testdaten prüfung тест тестовая テスト
            評価 测试 测试集 測試 測試集 테스트 평가""",
    }.items()
    for word in words.split()
}
# A whole word, or Chinese, Japanese and Korean words inside of longer ones, which have no spaces.
SPLIT_PARTS = {word: split for word, split in SPLIT_WORDS.items() if re.fullmatch("[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]+", word)}
# Languages that a column without a known name may have: frequent in shops, and not words such as no, si, is and it.
FREQUENT_LANGUAGES = frozenset(
    "ar bg cs de el en es fa fi fr he hi hr hu ja ko nl pl pt ro ru sk sv th tr uk vi zh".split()  # noqa: SIM905
)
