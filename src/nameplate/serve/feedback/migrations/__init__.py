"""The steps that bring a database to the newest version of its tables; `database.migrate` runs them."""
