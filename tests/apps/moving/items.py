"""What the application is there for, whoever knows the users: items with owners, whose ids are the users table's integers.

`python items.py make 12` makes the database with so many users, `python items.py export` prints the users as CSV.
"""

import csv
import os
import sqlite3
import sys
from contextlib import closing
from typing import Annotated, Callable

from fastapi import APIRouter, Depends


def connect() -> sqlite3.Connection:
    connection = sqlite3.connect(os.environ["APP_DATABASE"], timeout=10)
    connection.row_factory = sqlite3.Row
    return connection


def row(sql: str, *values):
    with closing(connect()) as database:
        return database.execute(sql, values).fetchone()


def router(current_user: Callable) -> APIRouter:
    """The routes; `current_user` gives the id of whoever asks."""
    User = Annotated[int, Depends(current_user)]
    routes = APIRouter()

    @routes.get("/")
    def home():
        return {"open": True}

    @routes.get("/me")
    def me(user: User):
        found = row("SELECT id, username FROM users WHERE id = ?", user)
        return dict(found)

    @routes.get("/users/{user_id}/items")
    def items(user_id: int, user: User):
        with closing(connect()) as database:
            found = database.execute("SELECT name FROM items WHERE owner = ?", (user_id,)).fetchall()
        return {"for": user, "items": [item["name"] for item in found]}

    return routes


def make(count: int) -> None:
    from passlib.context import CryptContext

    passwords = CryptContext(schemes=["bcrypt"], bcrypt__rounds=10)
    with closing(connect()) as database, database:
        database.execute(
            "CREATE TABLE users (id INTEGER PRIMARY KEY, username TEXT UNIQUE, email TEXT UNIQUE, hashed_password TEXT, is_active INTEGER)"
        )
        database.execute("CREATE TABLE items (name TEXT, owner INTEGER REFERENCES users)")
        for number in range(count):
            name, identifier = f"user{number}", 100 + 7 * number
            hashed = passwords.hash(f"correct-horse-{number}")
            database.execute("INSERT INTO users VALUES (?, ?, ?, ?, 1)", (identifier, name, f"{name}@example.com", hashed))
            database.execute("INSERT INTO items VALUES (?, ?)", (f"item of {name}", identifier))


def export() -> None:
    columns = ["id", "username", "email", "hashed_password", "is_active"]
    out = csv.writer(sys.stdout)
    out.writerow(columns)
    with closing(connect()) as database:
        out.writerows(database.execute(f"SELECT {', '.join(columns)} FROM users ORDER BY id"))


if __name__ == "__main__":
    make(int(sys.argv[2])) if sys.argv[1] == "make" else export()
