-- The ratings of a Quepid case (query, docid, rating), with the titles of a catalogue in JSON Lines (id, title).
-- Queries and documents without a rating are left out. A rating of a document that the catalogue lacks is reported as a broken row.
SELECT
    judgements.query AS origin_query,
    catalogue.title AS candidate,
    judgements.rating AS label
FROM read_csv('case_*_judgements.csv') AS judgements
LEFT JOIN read_json('catalogue.jsonl', format = 'newline_delimited', columns = {id: 'VARCHAR', title: 'VARCHAR'}) AS catalogue
    ON judgements.docid = catalogue.id
WHERE judgements.rating IS NOT NULL
