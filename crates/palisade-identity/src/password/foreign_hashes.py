"""Makes foreign_hashes.tsv, whose first lines say how."""
import sys, importlib.metadata as md
out=[]
PW=["correct horse battery", "Zoë 🔑 pässwörd", "x"*80]
def add(source, name, pw, h): out.append((source, name, pw, h))
from passlib.hash import bcrypt, bcrypt_sha256, argon2, pbkdf2_sha256, pbkdf2_sha1, pbkdf2_sha512, scrypt
import warnings; warnings.filterwarnings("ignore")
for pw in PW:
    add("passlib","bcrypt",pw,bcrypt.using(rounds=4).hash(pw))
    add("passlib","bcrypt 2a",pw,bcrypt.using(rounds=4,ident="2a").hash(pw))
    add("passlib","bcrypt 2y",pw,bcrypt.using(rounds=4,ident="2y").hash(pw))
    add("passlib","bcrypt_sha256",pw,bcrypt_sha256.using(rounds=4).hash(pw))
    add("passlib","bcrypt_sha256 version 1",pw,bcrypt_sha256.using(rounds=4,version=1).hash(pw))
    add("passlib","argon2",pw,argon2.using(memory_cost=256,time_cost=1,parallelism=2).hash(pw))
    add("passlib","argon2i",pw,argon2.using(type="I",memory_cost=256,time_cost=1,parallelism=1).hash(pw))
    add("passlib","pbkdf2_sha256",pw,pbkdf2_sha256.using(rounds=29000//29).hash(pw))
    add("passlib","pbkdf2_sha512",pw,pbkdf2_sha512.using(rounds=1000).hash(pw))
    add("passlib","pbkdf2_sha1",pw,pbkdf2_sha1.using(rounds=1000).hash(pw))
import django
from django.conf import settings
settings.configure(PASSWORD_HASHERS=["django.contrib.auth.hashers."+x for x in ("PBKDF2PasswordHasher","PBKDF2SHA1PasswordHasher","Argon2PasswordHasher","BCryptSHA256PasswordHasher","BCryptPasswordHasher","ScryptPasswordHasher")])
django.setup()
from django.contrib.auth import hashers as H
class B(H.BCryptPasswordHasher): rounds=4
class BS(H.BCryptSHA256PasswordHasher): rounds=4
class A(H.Argon2PasswordHasher): memory_cost=256; time_cost=1; parallelism=2
class S(H.ScryptPasswordHasher): work_factor=2**10
class P(H.PBKDF2PasswordHasher): iterations=1000
class P1(H.PBKDF2SHA1PasswordHasher): iterations=1000
for pw in PW:
    for n,c in (("bcrypt",B),("bcrypt_sha256",BS),("argon2",A),("scrypt",S),("pbkdf2_sha256",P),("pbkdf2_sha1",P1)):
        h=c(); add("Django",n,pw,h.encode(pw,h.salt()))
from werkzeug.security import generate_password_hash as G
for pw in PW:
    for m in ("scrypt:1024:8:1","pbkdf2:sha256:1000","pbkdf2:sha512:1000","pbkdf2:sha1:1000"):
        add("Werkzeug",m,pw,G(pw,method=m))
from fastapi_users.password import PasswordHelper
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from pwdlib.hashers.bcrypt import BcryptHasher
add("fastapi-users","default",PW[0],PasswordHelper().hash(PW[0]))
for pw in PW:
    add("fastapi-users","argon2",pw,PasswordHelper(PasswordHash((Argon2Hasher(memory_cost=256,time_cost=1,parallelism=2),))).hash(pw))
for pw in PW[:2]:
    add("fastapi-users","bcrypt",pw,PasswordHelper(PasswordHash((BcryptHasher(rounds=4),))).hash(pw))
# what the libraries' own defaults look like, to hold the ceilings against
add("Django","pbkdf2_sha256 default",PW[0],H.PBKDF2PasswordHasher().encode(PW[0],"saltsaltsaltsaltsalt22"))
add("Django","argon2 default",PW[0],H.Argon2PasswordHasher().encode(PW[0],"saltsaltsaltsaltsalt22"))
add("Django","scrypt default",PW[0],H.ScryptPasswordHasher().encode(PW[0],"saltsaltsaltsaltsalt22"))
add("Werkzeug","default",PW[0],G(PW[0]))
add("passlib","bcrypt default",PW[0],bcrypt.hash(PW[0]))
add("passlib","argon2 default",PW[0],argon2.hash(PW[0]))
vers=" ".join(f"{p}=={md.version(p)}" for p in ("passlib","bcrypt","argon2-cffi","Django","Werkzeug","fastapi-users","pwdlib"))
print("# Hashes made by the libraries themselves: source, scheme, password, hash, with tabs between.")
print(f"# python3 -m venv v && v/bin/pip install {vers} && v/bin/python foreign_hashes.py > foreign_hashes.tsv")
for r in out: print("\t".join(r))
