"""Users' corrections: stored in a database, moderated, and exported as photos to train on.

database.py    the two tables, in SQLite or PostgreSQL, and the migrations that bring a database up to date
store.py       `FeedbackStore`: corrections added, listed, moderated and deleted
export.py      corrections → a data set
migrations/    the migrations' steps
"""
