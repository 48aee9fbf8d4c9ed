#!/usr/bin/python3
"""Writes the seeds of the fuzz targets for auth/ into corpus/<target>/.

The seeds are whole good logins of each kind (the targets draw zeroes for
random bytes, so they can be known beforehand), those with one part wrong, and
what has broken poolers before: a nonce of 64 KiB, huge iteration counts, a
mechanism's name without an end, lengths of every size.
"""

import base64
import hashlib
import hmac
import os

HERE = os.path.dirname(os.path.abspath(__file__))
NONCE = base64.b64encode(bytes(18))
NAME = b"SCRAM-SHA-256"
PLUS = NAME + b"-PLUS"


def u32(value):
    return value.to_bytes(4, "big")


def messages(*bodies):
    return b"".join(len(b).to_bytes(2, "big") + b for b in bodies)


def mac(key, text):
    return hmac.new(key, text, hashlib.sha256).digest()


def keys(salt, iterations, password=b"pencil"):
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, iterations)
    return mac(salted, b"Client Key"), mac(salted, b"Server Key")


def initial(mechanism, text):
    return mechanism + b"\0" + u32(len(text)) + text


def proof(client_key, auth_message):
    signature = mac(hashlib.sha256(client_key).digest(), auth_message)
    return base64.b64encode(bytes(a ^ b for a, b in zip(client_key,
                                                        signature)))


def good_client(flag=b"n", binding=b""):
    """What a client says to fuzz_scram_server's verifier."""
    salt = b"Kuvi7fnbhBhyMiJOoMGpzA=="
    client_key, _ = keys(base64.b64decode(salt), 4096)
    bare = b"n=,r=abc"
    header = flag + b",,"
    server_first = b"r=abc" + NONCE + b",s=" + salt + b",i=4096"
    without_proof = (b"c=" + base64.b64encode(header + binding)
                     + b",r=abc" + NONCE)
    auth_message = b",".join((bare, server_first, without_proof))
    return (header + bare,
            without_proof + b",p=" + proof(client_key, auth_message))


def server_seeds():
    """First byte: method (SCRAM, MD5, PLAIN), 4 * secret, 16 = bound."""
    verifier, plain, md5, nobody, bound = 0, 4, 8, 12, 16
    first, final = good_client()
    yield "good", b"\0" + messages(initial(NAME, first), final)
    yield "good-md5-method", b"\1" + messages(initial(NAME, first), final)
    yield "bad-proof", b"\0" + messages(initial(NAME, first),
                                        final.replace(b"p=", b"p=AAAA")[:-4])
    yield "nobody", bytes([nobody]) + messages(initial(NAME, first), final)
    yield "plain-secret", bytes([plain]) + messages(initial(NAME, first),
                                                    final)
    yield "md5-secret", bytes([md5]) + messages(initial(NAME, first), final)
    header = b"p=tls-server-end-point"
    first, final = good_client(header, bytes(32))
    yield "good-bound", bytes([bound]) + messages(initial(PLUS, first), final)
    yield "bound-unasked", b"\0" + messages(initial(PLUS, first), final)
    first, final = good_client(header, bytes(31) + b"\1")
    yield "bound-elsewhere", bytes([bound]) + messages(initial(PLUS, first),
                                                       final)
    first, final = good_client(b"y")
    yield "flag-y", b"\0" + messages(initial(NAME, first), final)
    yield "downgraded", bytes([bound]) + messages(initial(NAME, first), final)
    yield "extensions", b"\0" + messages(
        initial(NAME, b"n,,n=*,r=abc,x=1,y="), b"c=biws,r=abc,z=,p=")
    yield "mandatory", b"\0" + messages(initial(NAME, b"n,,m=x,n=,r=abc"))
    yield "authzid", b"\0" + messages(initial(NAME, b"n,a=root,n=,r=abc"))
    yield "nonce-64k", (b"\0\xff\xff"
                        + initial(NAME, b"n,,n=,r=" + b"a" * 65536))
    for length in (0, 1, 2, 3, 12, 2**31 - 1, 2**31, 2**32 - 1):
        yield (f"length-{length}", b"\0" + messages(
            NAME + b"\0" + u32(length) + b"n,,n=,r=abc"))
    yield "no-length", b"\0" + messages(NAME + b"\0")
    yield "no-end", b"\0" + messages(NAME)
    yield "empty", b"\0" + messages(b"", b"")
    digits = hashlib.md5(b"aa2372305aa1ff8e526fb1199e6c004f"
                         + bytes(4)).hexdigest().encode()
    yield "md5-good", bytes([1 + md5]) + messages(b"md5" + digits + b"\0")
    yield "md5-of-plain", bytes([1 + plain]) + messages(b"md5" + digits
                                                       + b"\0")
    yield "md5-no-end", bytes([1 + md5]) + messages(b"md5" + digits)
    for name, secret in (("verifier", verifier), ("plain", plain),
                         ("md5", md5), ("nobody", nobody)):
        yield f"password-{name}", bytes([2 + secret]) + messages(b"pencil\0")
    yield "password-wrong", bytes([2 + plain]) + messages(b"pencils\0")
    yield "password-two", bytes([2 + plain]) + messages(b"pencil\0x\0")
    yield "password-empty", bytes([2 + plain]) + messages(b"\0")


def good_server(flag=b"n", binding=b"", iterations=b"1"):
    """What a server says that has the salt of fuzz_scram_client's keys."""
    salt = bytes(16)
    _, server_key = keys(salt, 1)
    bare = b"n=,r=" + NONCE
    server_first = (b"r=" + NONCE + b"xyz,s=" + base64.b64encode(salt)
                    + b",i=" + iterations)
    without_proof = (b"c=" + base64.b64encode(flag + b",," + binding)
                     + b",r=" + NONCE + b"xyz")
    signature = mac(server_key, b",".join((bare, server_first,
                                           without_proof)))
    return (u32(11) + server_first,
            u32(12) + b"v=" + base64.b64encode(signature))


def client_seeds():
    """First byte: secret (plain, md5, none, keys), 4 TLS, 8 verified, 16
    bound, 32 local."""
    ok, sasl = u32(0), u32(10) + NAME + b"\0\0"
    both = u32(10) + PLUS + b"\0" + NAME + b"\0\0"
    first, final = good_server()
    yield "good", b"\3" + messages(sasl, first, final, ok)
    yield "echo", b"\3" + messages(
        sasl, first.replace(b"xyz", b"xyzpencil"), final)
    yield "unproved", b"\3" + messages(sasl, first, ok)
    yield "at-once", b"\3" + messages(sasl, ok)
    yield "trust", b"\2" + messages(ok)
    yield "plain-secret", b"\0" + messages(sasl, first, final, ok)
    yield "twice", b"\3" + messages(sasl, first, first)
    yield "error", b"\3" + messages(sasl, first, u32(12) + b"e=other-error")
    yield "short-v", b"\3" + messages(sasl, first, u32(12) + b"v=QQ==")
    yield "plus-in-clear", b"\3" + messages(both)
    first, final = good_server(b"y")
    yield "flag-y", bytes([3 + 4 + 16]) + messages(sasl, first, final, ok)
    first, final = good_server(b"p=tls-server-end-point", bytes(32))
    yield "bound", bytes([3 + 4 + 16]) + messages(both, first, final, ok)
    for count in (b"0", b"-1", b"01", b"1000000", b"1000001", b"4294967296",
                  b"9" * 30, b""):
        first, final = good_server(iterations=count)
        yield ("iterations-" + (count.decode() or "none"),
               b"\3" + messages(sasl, first, final, ok))
    yield "nonce-64k", (b"\3" + messages(sasl) + b"\xff\xff" + u32(11) + b"r="
                        + NONCE + b"a" * 65536 + b",s=QQ==,i=1")
    yield "salt-8k", b"\3" + messages(sasl, u32(11) + b"r=" + NONCE + b"x,s="
                                      + b"QUJD" * 2000 + b",i=1")
    yield "other-nonce", b"\3" + messages(sasl, u32(11) + b"r=x,s=QQ==,i=1")
    yield "same-nonce", b"\3" + messages(sasl, u32(11) + b"r=" + NONCE
                                         + b",s=QQ==,i=1")
    yield "mechanisms-none", b"\3" + messages(u32(10) + b"\0")
    yield "mechanisms-cut", b"\3" + messages(u32(10) + NAME)
    yield "mechanisms-1000", b"\3" + messages(u32(10) + b"X\0" * 1000 + NAME
                                              + b"\0\0")
    for flags in (0, 4, 12, 32, 33, 34, 35):
        yield f"cleartext-{flags}", bytes([flags]) + messages(u32(3), ok)
        yield f"md5-{flags}", bytes([flags]) + messages(u32(5) + b"salt", ok)
    for code in (1, 2, 6, 7, 8, 9, 13, 2**31, 2**32 - 1):
        yield f"code-{code}", b"\0" + messages(u32(code))
    for length in range(4):
        yield f"length-{length}", b"\0" + messages(bytes(length))


def users_seeds():
    verifier = (b"SCRAM-SHA-256$4096:Kuvi7fnbhBhyMiJOoMGpzA==$T+G/dPqKG4f2"
                b"Fmme5CegBdOIuvKS3kW56RmMEMLV3j8=:0uBw2e2nj+2ZcdjmRWALvyDm"
                b"HUJTiHhQd/6W9OTTf5g=")
    yield "plain", b'"anna" "pencil"\n"berta" ""\n'
    yield "md5", b'"anna" "md5aa2372305aa1ff8e526fb1199e6c004f"\n'
    yield "verifier", b'"anna" "' + verifier + b'"\n'
    yield "verifier-cut", b'"anna" "' + verifier[:-3] + b'"\n'
    yield "verifier-long", b'"anna" "' + verifier.replace(
        b"==$", b"A" * 200 + b"==$") + b'"\n'
    yield "quotes", b'"an""na" """pen""cil"""\n'
    yield "comments", b'; one\n\n  ;two\n\t"a" "b" three\r\n'
    yield "again", b'"a" "1"\n"b" "2"\n"a" "3"\n'
    yield "not-closed", b'"a" "b\n"c" "d"\n'
    yield "no-quote", b'a b\n'
    yield "one-quote", b'"'
    yield "nul", b'"a" "b\0c"\n'
    yield "name-nul", b'"a\0b" "c"\n'
    yield "name-128", b'"' + b"a" * 128 + b'" "b"\n'
    yield "secret-64k", b'"a" "' + b"x" * 65535 + b'"\n'
    yield "secret-too-long", b'"a" "' + b"x" * 65536 + b'"\n'


def hba_seeds():
    yield "rules", (b"# comment\nlocal all all trust\n"
                    b"hostssl app,\"my db\" anna 10.0.0.0/8 scram-sha-256\n"
                    b"hostnossl sameuser all 10.1.2.3 255.255.255.255 md5\n"
                    b"host x, y \\\n all ::1/128 password\n"
                    b"host replication anna all reject\n")
    yield "maps", (b"local all all peer map=m\n"
                   b"hostssl all all all cert map=\"n\"\n\0"
                   b"m /^(.*)na$ \\1\nm anna all\nn \"/a(n)\" b\\1b\n")
    yield "map-missing", b"local all all peer map=m\n\0n a b\n"
    yield "map-bad", b"\0m /a( b\n"
    yield "at-file", b"local @names @names trust\n"
    yield "quote", b'local "all all trust\n'
    yield "commas", b"local ,,a all trust\nlocal a,,b all trust\n"
    yield "cut", b"host all all 1.2.3.4"
    yield "bits", b"host all all 1.2.3.4/33 trust\nhost all all ::/129 md5\n"
    yield "unknown", b"hostgssenc all all all gss\nlocal +a /b ldap\n"
    yield "backslashes", b"local all \\\n\\\n\\\n all trust\\"
    yield "words", b"local " + b"a," * 3000 + b"b all trust\n"
    yield "errors", b"x\n" * 5000


def write(target, seeds):
    folder = os.path.join(HERE, "corpus", target)
    os.makedirs(folder, exist_ok=True)
    for name, content in seeds:
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)


write("scram_server", server_seeds())
write("scram_client", client_seeds())
write("users", users_seeds())
write("hba", hba_seeds())
