#!/usr/bin/env python3
"""Verify an exported audit log of z4j, CSV or NDJSON, without z4j.

    verify_audit.py FILE --row-keys KEYS       what `z4j-brain audit row-keys` printed
    verify_audit.py FILE --secret-file SECRET  the audit secret itself; may be given again for older ones
    verify_audit.py FILE                       takes Z4J_AUDIT_SECRET from the environment

How a row is proved. The column `body` holds, in base64, the very bytes that were signed when the row was written: the
row's fields as JSON. `row_hmac` is HMAC-SHA256(row key, "z4j-audit-row-v1" 0x00 || body). Every body names the row_hmac of
the row before it, so no row between two others can be taken out, put in or exchanged. Persons' names and addresses are not
signed themselves, so that a person can be forgotten: body holds SHA-256(salt || json) of each such part. The last row of
every file is the entry of the export itself, which says which rows have to be there.

Exit codes: 0 proved; 1 tampered with; 2 wrong arguments; 3 not provable (a key is missing, the file was cut, holds no row,
or can't be read). Needs Python 3.9 and nothing else.
"""
import argparse
import base64
import binascii
import csv
import hashlib
import hmac
import json
import os
import re
import sys

COLUMNS = ("seq id ts actor_kind actor_id actor_label project_id project_label action target_type target_id target_label outcome "
           "details request_id ip user_agent kid prev_row_hmac row_hmac body personal").split()
BODY = ("action actor_id actor_kind actor_personal clock_step details id kid outcome prev_row_hmac project_id project_label "
        "request_id seq target_id target_label target_personal target_type ts v").split()
INTEGERS = ("seq", "clock_step", "erased_by")
LIMIT = 8 << 20  # characters of a record; the largest that z4j writes is below one million
csv.field_size_limit(LIMIT)


class Unreadable(Exception):
    """The file is no export, or was damaged so that its rows can't be told apart."""


class Usage(Exception):
    """Wrong arguments."""


def no_constant(name):
    raise ValueError(name + " is not JSON")


def unique(pairs):
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key stands twice")
    return out


DECODER = json.JSONDecoder(parse_constant=no_constant)
STRICT = json.JSONDecoder(parse_constant=no_constant, object_pairs_hook=unique)


def quoted(text):
    return json.dumps(text, ensure_ascii=False)


def value(text, at, name):
    """Read a JSON value and return it with the place behind it. It must be written as z4j writes it; an object is
    returned as the text that stands there."""
    found, end = DECODER.raw_decode(text, at)
    raw = text[at:end]
    if found is None:
        return None, end
    if name in INTEGERS or name == "v":
        if type(found) is int and str(found) == raw and abs(found) < 1 << 53 and (found or name == "seq"):
            return found, end
    elif type(found) is dict and name == "details":
        return raw, end
    elif type(found) is str and found and quoted(found) == raw:
        return found, end
    raise ValueError("the value of %s is not as it was written" % name)


def members(text, names):
    """Read an object that has exactly these members, in this order, without space."""
    out, at = {}, 0
    for name in names:
        key = ("," if out else "{") + quoted(name) + ":"
        if not text.startswith(key, at):
            raise ValueError("%s is not where it has to be" % name)
        at += len(key)
        if name == "personal":
            out[name], at = ({}, at + 4) if text.startswith("null", at) else parts(text, at)
        elif name == "details" and names is BODY and text[at:at + 1] == '"':
            raise ValueError("details are no object")
        else:
            out[name], at = value(text, at, name)
    if text[at:] != "}" or out.get("seq") is None:
        raise ValueError("it goes on where it has to end")
    return out


def parts(text, at):
    """Read the personal parts: {"actor":{"salt":…,"json":…},"target":{"erased_by":…}}."""
    out, wrong = {}, ValueError("the personal parts are not as they were written")
    if text.startswith("{}", at):
        return out, at + 2
    while not out or text.startswith(",", at):
        if text[at:at + 1] != ("," if out else "{"):
            raise wrong
        role, at = value(text, at + 1, "role")
        part, begin = {}, ":{"
        for name in ("salt", "json", "erased_by"):
            if text.startswith(begin + quoted(name) + ":", at):
                part[name], at = value(text, at + len(begin + quoted(name) + ":"), name)
                begin = ","
        end = ":{}" if not part else "}"
        if role is None or role in out or None in part.values() or not text.startswith(end, at):
            raise wrong
        if "salt" in part and bytes.fromhex(part["salt"]).hex() != part["salt"]:
            raise wrong
        out[role], at = part, at + len(end)
    if text[at:at + 1] != "}":
        raise wrong
    return out, at + 1


def parse_body(raw):
    """Return what the signed bytes say, None if they are no body of an entry."""
    try:
        body = members(raw.decode("utf-8"), BODY)
    except (ValueError, RecursionError):
        return None
    return body if body["v"] == 1 else None


def plain_lines(file):
    for line in file:
        if "\0" in line:
            raise Unreadable("it has a zero byte")
        yield line


def records(path):
    """Give the records of a file, one dict of COLUMNS each; None stands for an empty cell."""
    number = 0
    try:
        with open(path, encoding="utf-8", newline="") as file:
            first = file.read(1)
        if not first:
            raise Unreadable("it is empty")
        is_csv = first != "{"
        # newline="": or Python would change line ends inside of cells, which were signed as they are
        with open(path, encoding="utf-8", newline="" if is_csv else "\n") as file:
            rows = csv.reader(plain_lines(file), strict=True) if is_csv else file
            if is_csv and next(rows, None) != COLUMNS:
                raise Unreadable("it begins neither with the columns of an export nor with a line of JSON")
            for row in rows:
                number += 1
                yield from_csv(row) if is_csv else members(row[:-1] if row.endswith("\n") else row, COLUMNS)
    except (ValueError, csv.Error, RecursionError) as err:  # UnicodeDecodeError is a ValueError
        raise Unreadable("record %d: %s" % (number, err)) from err


def from_csv(cells):
    if len(cells) != len(COLUMNS):
        raise ValueError("it has %d columns, not %d" % (len(cells), len(COLUMNS)))
    row = {name: cell or None for name, cell in zip(COLUMNS, cells)}
    if not re.fullmatch("-?[1-9][0-9]{0,18}|0", row["seq"] or "", re.ASCII):
        raise ValueError("its seq is no number")
    row["seq"] = int(row["seq"])
    text = row["personal"] or ""
    row["personal"], end = parts(text, 0) if text else ({}, 0)
    if end != len(text):
        raise ValueError("its personal parts can't be read")
    return row


def fields(details):
    """Return an entry's details as a dict; what can't be read says nothing."""
    try:
        return STRICT.decode(details or "{}")
    except (ValueError, RecursionError):
        return {}


class Verifier:
    """Walks over the rows in order and collects what they prove."""

    def __init__(self, keys):
        self.keys, self.kids = keys, {}  # kid: row key; kid: (introduced, retired) by numbers of entries
        self.faults, self.unprovable, self.notes = [], [], []
        self.fault_count, self.checked, self.erased = 0, 0, {}
        self.next, self.prev = 1, None
        self.linked = self.whole = False  # prev is known; the rows begin with the first of the log
        self.sparse = self.any_key = True  # rows are left out on purpose; nothing says when keys signed
        self.exported = None

    def fault(self, seq, why):
        self.fault_count += 1
        if len(self.faults) < 20:
            self.faults.append((seq, why))

    def lack(self, why):
        if why not in self.unprovable and len(self.unprovable) < 1000:
            self.unprovable.append(why)

    def begin(self, last):
        """Take from the last record what has to be in the file."""
        body = parse_body(decoded(last)) if last else None
        if not body or body["action"] != "audit.exported":
            return
        says = fields(body["details"])
        first, end = says.get("first") or 0, says.get("last") or 0
        kids = [k for k in says.get("kids") or [] if type(k) is dict]
        kids = {k.get("kid"): (k.get("introduced", 0), k.get("retired", 0)) for k in kids}
        if not all(type(number) is int for times in kids.values() for number in times):
            return
        if not (type(first) is int and type(end) is int and 0 <= first <= end < last["seq"] and (first > 0) == (end > 0)):
            return
        self.exported = {"seq": last["seq"], "first": first, "last": end, "kids": kids, "follows": says.get("prev_row_hmac"),
                         "contiguous": says.get("contiguous") is True and first > 0}
        self.any_key = False
        if not self.exported["contiguous"]:
            self.kids = kids
            return
        self.sparse, self.whole, self.linked = False, first == 1, True
        self.next, self.prev = first, self.exported["follows"]
        for kid, (introduced, retired) in kids.items():
            if introduced < first:  # the others are met
                self.kids[kid] = (introduced, retired if retired < first else 0)

    def row(self, r):
        self.checked += 1
        seq = r["seq"]
        if seq < self.next:
            return self.fault(seq, "its number is one that was before, or none")
        if seq > self.next:
            self.linked = False
            if not self.sparse:
                self.fault(self.next, "rows %d to %d are missing" % (self.next, seq - 1))
        raw = decoded(r)
        body = parse_body(raw)
        if body is None:
            self.fault(seq, "its body is none of an entry")
            return self.follow(r)
        known = self.signed(r, raw, body)
        if self.linked and body["prev_row_hmac"] != self.prev:
            self.fault(seq, "it was signed as the one that follows another row than the one before it")
        self.key_entry(seq, body)
        introduced, retired = self.kids.get(body["kid"], (seq + 1, 0))
        if not self.any_key and (seq < introduced or retired and seq > retired):
            self.fault(seq, "it is signed with key %s, which could not sign then" % body["kid"])
        if not known:
            self.lack("cannot check rows signed with key %s: it was not given" % body["kid"])
        self.personal(r, body)
        if body["action"] == "audit.erased" and (not known or self.proves(r, raw, body)):
            self.erased_entry(seq, fields(body["details"]))
        self.follow(r)

    def follow(self, r):
        self.next, self.prev, self.linked = r["seq"] + 1, r["row_hmac"], True

    def proves(self, r, raw, body):
        sign = hmac.new(self.keys[body["kid"]], b"z4j-audit-row-v1\0" + raw, hashlib.sha256).hexdigest()
        return hmac.compare_digest(sign.encode(), (r["row_hmac"] or "").encode())

    def signed(self, r, raw, body):
        """Check the signature, and that the columns say what was signed. Return whether the key is known."""
        known = body["kid"] in self.keys
        if known and not self.proves(r, raw, body):
            self.fault(r["seq"], "its bytes are not those that were signed")
        elif r["seq"] == 1 and body["action"] != "system.installed":
            self.fault(1, "the first row is not system.installed")
        else:
            label = read_label(r, "target")
            for name in BODY:
                shown = label if name == "target_label" and label and body[name] is None else body.get(name)
                if name in r and r[name] != shown:
                    self.fault(r["seq"], "column %s is not what was signed" % name)
                    break
        return known

    def key_entry(self, seq, body):
        action, says = body["action"], fields(body["details"])
        kid = says.get("kid")
        if action not in ("system.installed", "audit.key_introduced", "audit.key_adopted", "audit.key_retired"):
            return
        if action == "system.installed" and seq != 1:
            return
        if not kid:
            return self.fault(seq, "it names no key")
        if action == "audit.key_retired":
            introduced, retired = self.kids.get(kid, (0, 1))
            if not retired:
                self.kids[kid] = (introduced, seq)
            return
        if kid != body["kid"]:
            return self.fault(seq, "it introduces another key than the one that signed it")
        if action == "audit.key_introduced":
            self.proof(seq, says.get("previous_kid"), kid, body["prev_row_hmac"], says.get("proof"))
        elif action == "audit.key_adopted":
            self.lack("not provable across row %d: key %s was adopted without proof of an older one" % (seq, kid))
        self.kids.setdefault(kid, (seq, 0))

    def proof(self, seq, old, kid, prev, proof):
        """Whoever introduced a key knew one that signed then."""
        introduced, retired = self.kids.get(old, (0, 0))
        if not introduced and not self.any_key or retired and retired < seq:
            self.fault(seq, "key %s is introduced by one that could not sign" % kid)
        elif old not in self.keys:
            self.lack("the introduction of key %s can't be proved: key %s was not given" % (kid, old))
        else:
            message = b"z4j-audit-rotate-v1\0" + (old + kid + (prev or "")).encode()
            if hmac.new(self.keys[old], message, hashlib.sha256).hexdigest() != proof:
                self.fault(seq, "the introduction of key %s is not proved by key %s" % (kid, old))

    def personal(self, r, body):
        """Check the parts about persons, and the columns that come from them."""
        seq, found = r["seq"], r["personal"]
        for role in ("actor", "target"):
            part, want = found.get(role), body[role + "_personal"]
            if part is None:
                if want:
                    self.fault(seq, "the personal part of the %s is gone, and nothing says that it was erased" % role)
            elif part.get("erased_by"):
                if not want or part["erased_by"] <= seq or "json" in part or "salt" in part:
                    self.fault(seq, "what is left of the personal part of the %s is not what an erasure leaves" % role)
                    continue
                entry = self.erased.setdefault(part["erased_by"], [0, hashlib.sha256(), False])
                entry[0] += 1
                entry[1].update(("%d %s\n" % (seq, role)).encode())
            elif len(part.get("salt", "")) != 32 or digest(part) != want:
                self.fault(seq, "the personal part of the %s is not what was signed" % role)
        if set(found) - {"actor", "target"}:
            self.fault(seq, "it has a personal part of nobody")

    def shown(self, r):
        for column, key in (("actor_label", "label"), ("ip", "ip"), ("user_agent", "user_agent")):
            if r[column] != read_label(r, "actor", key):
                self.fault(r["seq"], "column %s is not what the personal part says" % column)
        label = read_label(r, "target")
        if label and r["target_label"] != label:
            self.fault(r["seq"], "column target_label is not what the personal part says")

    def erased_entry(self, seq, says):
        entry = self.erased.setdefault(seq, [0, hashlib.sha256(), False])
        entry[2] = True
        if entry[0] == says.get("count") and entry[1].hexdigest() == says.get("sha256"):
            return
        if not self.whole and type(says.get("count")) is int and entry[0] < says["count"]:
            self.notes.append("erased by entry %d: %d parts, of which %d are in this file" % (seq, says["count"], entry[0]))
            return
        self.fault(seq, "other personal parts are gone than the ones that were erased")

    def closing(self, r):
        """Check the last record, which stands outside of the rows that it speaks of."""
        e, raw, body = self.exported, decoded(r), parse_body(decoded(r))
        if e["contiguous"] and self.next <= e["last"]:
            self.fault(self.next, "rows %d to %d are missing, which the last record says are in the file" % (self.next, e["last"]))
        if body is None:
            return self.fault(r["seq"], "its body is none of an entry")
        if not self.signed(r, raw, body):
            self.lack("key %s, with which the last record is signed, was not given" % body["kid"])
        if e["contiguous"] and self.linked and r["seq"] == self.next and body["prev_row_hmac"] != self.prev:
            self.fault(r["seq"], "it was signed as the one that follows another row than the one before it")
        introduced, retired = e["kids"].get(body["kid"], (r["seq"], 0))
        if introduced >= r["seq"] or retired:
            self.fault(r["seq"], "it is signed with a key that it does not name as one that signs")
        self.personal(r, body)
        self.shown(r)

    def finish(self):
        for seq, (count, _, met) in sorted(self.erased.items()):
            if met:
                continue
            if self.sparse or seq >= self.next:
                self.notes.append("%d personal parts were erased by entry %d, not in this file" % (count, seq))
            else:
                self.fault(seq, "personal parts are gone, and it is no entry that erased them")
        if self.exported is None:
            self.lack("the file does not end with its audit.exported: it was cut")
        elif self.exported["contiguous"] and self.checked != self.exported["last"] - self.exported["first"] + 1:
            self.lack("other rows are in the file than it says")
        if not self.checked:
            self.lack("there is no row")


def decoded(r):
    """Return the bytes that were signed; what is no base64 is no body either."""
    text = r["body"] or ""
    try:
        raw = base64.b64decode(text, validate=True)
        return raw if base64.b64encode(raw).decode() == text else text.encode()
    except (binascii.Error, ValueError):
        return text.encode()


def digest(part):
    return hashlib.sha256(bytes.fromhex(part.get("salt", "")) + part.get("json", "").encode()).hexdigest()


def read_label(r, role, key="label"):
    said = fields(r["personal"].get(role, {}).get("json"))
    text = said.get(key) if type(said) is dict else None
    return text if type(text) is str and text else None


def derive(secret, info, length):
    """HKDF-SHA256 with an empty salt (RFC 5869), one block."""
    prk = hmac.new(b"\0" * 32, secret, hashlib.sha256).digest()
    return hmac.new(prk, info + b"\x01", hashlib.sha256).digest()[:length]


def read_keys(args):
    keys, secrets = {}, []
    for path in args.secret_file:
        with open(path, "rb") as file:
            secrets.append(file.read())
    if not args.secret_file and not args.row_keys and os.environ.get("Z4J_AUDIT_SECRET"):
        secrets.append(os.fsencode(os.environ["Z4J_AUDIT_SECRET"]))
    for secret in secrets:
        secret = secret.rstrip(b"\r\n")
        if len(secret) < 32:
            raise Usage("an audit secret has at least 32 bytes")
        keys[derive(secret, b"z4j-audit-kid", 8).hex()] = derive(secret, b"z4j-audit-row", 32)
    for path in args.row_keys:
        with open(path, encoding="utf-8") as file:
            for kid, key in re.findall(r"\b([0-9a-f]{16})\b.*?\b([0-9a-f]{64})\b", file.read(), re.DOTALL):
                keys[kid] = bytes.fromhex(key)
    if not keys:
        raise Usage("give --row-keys or --secret-file: without a key nothing can be proved")
    return keys


def verify(path, keys):
    last = None
    for last in records(path):
        pass
    v = Verifier(keys)
    v.begin(last)
    closed = False
    for r in records(path):
        e = v.exported
        if closed:
            v.fault(r["seq"], "it stands behind the record that is the last")
        elif e and r["seq"] == e["seq"]:
            closed = True
            v.closing(r)
        elif e and not e["first"] <= r["seq"] <= e["last"]:
            v.fault(r["seq"], "it is none of the rows %d to %d, which the last record says are in the file" % (e["first"], e["last"]))
        else:
            v.row(r)
            v.shown(r)
    v.finish()
    return v


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="Exit codes: 0 proved; 1 tampered with; 2 wrong arguments; 3 not provable.")
    parser.add_argument("file")
    parser.add_argument("--row-keys", metavar="KEYS", action="append", default=[], help="file with what `z4j-brain audit row-keys` printed")
    parser.add_argument("--secret-file", metavar="SECRET", action="append", default=[], help="file with an audit secret")
    args = parser.parse_args()
    try:
        v = verify(args.file, read_keys(args))
    except (OSError, Usage) as err:
        print("verify_audit.py:", err, file=sys.stderr)
        return 2
    except Unreadable as err:
        print("not provable: %s is not readable as an export of the audit log: %s" % (args.file, err))
        return 3
    for note in v.notes[:20]:
        print("note:", note)
    for seq, why in v.faults:
        print("row %d: %s" % (seq, why))
    if v.fault_count:
        print("tampered with: %d faults" % v.fault_count)
        return 1
    if v.unprovable:
        print("not provable: " + "; ".join(v.unprovable[:20]))
        return 3
    e = v.exported
    if not e["contiguous"]:
        print("%d rows authentic; nothing is said about those between" % v.checked)
    elif e["first"] == 1:
        print("complete from 1 to %d, from the beginning of the log" % e["last"])
    else:
        print("complete from %d to %d, follows row_hmac %s" % (e["first"], e["last"], e["follows"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
