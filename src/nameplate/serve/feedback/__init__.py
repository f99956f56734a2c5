"""Users' corrections: kept in a database, moderated, and exported as photos to train on.

text.py        what users may write
tables.py      the two tables
database.py    SQLite or PostgreSQL, and what becomes of their errors
revisions.py   brings a database to the tables as they are now; its steps are in migrations/
store.py       `FeedbackStore`: corrections kept, listed, judged, deleted
export.py      corrections → a data set
"""
