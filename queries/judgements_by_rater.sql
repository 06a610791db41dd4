-- The judgements of a Quepid book (query, docid and a column for each rater), with the titles of a catalogue in JSON Lines (id, title).
-- Each rating becomes a row; documents that a rater has not judged are left out.
-- A judgement of a document that the catalogue lacks is reported as a broken row.
WITH ratings AS (
    UNPIVOT (SELECT * FROM read_csv('book_*_export.csv'))
    ON COLUMNS(* EXCLUDE (query, docid))
    INTO NAME rater VALUE rating
)

SELECT
    concat_ws(':', ratings.query, ratings.docid, ratings.rater) AS id,
    ratings.query AS origin_query,
    catalogue.title AS candidate,
    ratings.rating AS label
FROM ratings
LEFT JOIN read_json('catalogue.jsonl', format = 'newline_delimited', columns = {id: 'VARCHAR', title: 'VARCHAR'}) AS catalogue
    ON ratings.docid = catalogue.id
