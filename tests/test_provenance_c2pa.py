"""Manifests are signed here with a certificate chain made here, and read back."""

import datetime
import functools
import http.server
import io
import json
import os
import subprocess
import sys
import threading

import pytest
from PIL import Image

from conftest import encoded, picture
from faceauth.errors import ImageError, MissingExtra, UsageError
from faceauth.provenance import LONGEST, claims, clean
from faceauth.provenance import c2pa as credentials
from faceauth.provenance.report import examine

c2pa = pytest.importorskip("c2pa")
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

HOLDS = "signature and hashes hold"
IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
NOW = datetime.datetime.now(datetime.UTC)
PEM = serialization.Encoding.PEM


def named(name, organisation="A Laboratory"):
    pairs = ((NameOID.ORGANIZATION_NAME, organisation), (NameOID.COMMON_NAME, name))
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in pairs])


def certificate(subject, key, issuer, issuer_key, *extensions, authority=False, until=NOW + datetime.timedelta(days=9)):
    """X.509 version 3 as the C2PA specification wants it; of an authority, or of one who signs."""
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    builder = x509.CertificateBuilder(
        issuer, subject, key.public_key(), x509.random_serial_number(), NOW - datetime.timedelta(days=2), until
    )
    for extension, critical in (
        (x509.BasicConstraints(authority, None), True),
        (x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **usage), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False),
        *((extension, False) for extension in extensions),
    ):  # fmt: skip
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hashes.SHA256())


@functools.cache
def authority():
    key = ec.generate_private_key(ec.SECP256R1())
    return certificate(named("The Root"), key, named("The Root"), key, authority=True), key


def signer(name="The Signer", ocsp=None, **changes):
    root, root_key = authority()
    key = ec.generate_private_key(ec.SECP256R1())
    extensions = [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])]
    if ocsp:
        where = x509.UniformResourceIdentifier(ocsp)
        extensions.append(
            x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.OCSP, where)])
        )
    leaf = certificate(named(name), key, root.subject, root_key, *extensions, **changes)
    private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain = leaf.public_bytes(PEM) + root.public_bytes(PEM)
    return c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", chain, private, None))


def signed(
    kind="trainedAlgorithmicMedia",
    program="Adobe Firefly",
    tool=None,
    format="JPEG",
    remote=None,
    embed=True,
    parent=None,
    by=None,
    source=None,
):
    """A picture with a manifest that says it was created so, or that it was made from a parent."""
    action = {"action": "c2pa.opened"} if parent else {"action": "c2pa.created", "digitalSourceType": IPTC + str(kind)}
    action |= {"softwareAgent": {"name": tool}} if tool else {}
    actions = [] if kind is None else [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]
    mime = f"image/{format.lower()}"
    builder = c2pa.Builder(
        json.dumps(
            {"claim_generator_info": [{"name": program, "version": "3"}], "assertions": [] if parent else actions}
        )
    )
    if parent:
        builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
        builder.add_ingredient({"title": "before", "relationship": "parentOf"}, mime, io.BytesIO(parent))
    if remote:
        builder.set_remote_url(remote)
    if not embed:
        builder.set_no_embed()
    source = source or Image.effect_noise((64, 64), 50).convert("RGB")
    out = io.BytesIO()
    builder.sign(by or signer(), mime, io.BytesIO(parent or encoded(source, format)), out)
    return out.getvalue()


def says(data):
    return {e.where: e.says for e in claims(data)}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "GIF"])
def test_a_signed_picture_says_who_signed_and_what_made_it(format):
    found = claims(signed(format=format, tool="DALL-E"))
    assert [(e.where, e.says, e.generator) for e in found] == [
        ("C2PA", HOLDS, None),
        ("C2PA signer", "signed by The Signer, A Laboratory, trust not checked", None),
        ("C2PA claim generator", "Adobe Firefly 3", "firefly"),
        ("C2PA digitalSourceType", "trainedAlgorithmicMedia: made by a generator (c2pa.created with DALL-E)", "dall-e"),
    ]


@pytest.mark.parametrize(("kind", "words"), [
    ("digitalCapture", "taken with a camera"), ("compositeWithTrainedAlgorithmicMedia", "parts of it made by a generator"),
    ("somethingNew", "another origin"),
])  # fmt: skip
def test_the_origin_is_said_in_words(kind, words):
    data = signed(kind, program="A Camera")
    assert says(data)["C2PA digitalSourceType"] == f"{kind}: {words} (c2pa.created)"
    assert not any(e.generator for e in claims(data))


def test_a_picture_changed_after_it_was_signed_is_broken():
    data = bytearray(signed())
    data[-40] ^= 1  # in the last scan
    assert says(bytes(data))["C2PA"] == "broken: the file was changed after it was signed (assertion.dataHash.mismatch)"


def test_a_manifest_changed_after_it_was_signed_is_broken():
    data = signed()
    changed = data.replace(b"trainedAlgorithmicMedia", b"trainedAlgorithmicmedia")
    assert changed != data
    assert "changed after it was signed (assertion.hashedURI.mismatch)" in says(changed)["C2PA"]


def test_a_manifest_of_another_picture_is_broken():
    one, other = signed(format="PNG"), encoded(picture())
    start = one.index(b"caBX") - 4
    chunk = one[start : start + 12 + int.from_bytes(one[start : start + 4], "big")]
    assert says(other[:33] + chunk + other[33:])["C2PA"].startswith("broken: the file was changed after it was signed")


@pytest.fixture(scope="module")
def expired():
    """Signed while the certificate was good, for a few more seconds, and without a time stamp."""
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=4)
    data = signed(by=signer(until=until))
    threading.Event().wait(max(0, (until - datetime.datetime.now(datetime.UTC)).total_seconds()) + 1.5)
    return data


def test_an_expired_certificate_is_not_called_a_change(expired):
    assert says(expired)["C2PA"] == HOLDS + (
        "; the certificate has expired, and no time stamp says that it had not when it signed"
    )
    changed = bytearray(expired)
    changed[-40] ^= 1
    assert "changed after it was signed" in says(bytes(changed))["C2PA"]


def test_an_edited_picture_says_what_the_one_before_said():
    found = claims(signed(program="An Editor", parent=signed(program="ChatGPT")))
    assert [(e.says, e.generator) for e in found if e.where == "C2PA claim generator"] == [
        ("An Editor 3", None),
        ("ChatGPT 3", "openai"),
    ]
    assert "trainedAlgorithmicMedia" in str(found[-1])
    assert found[0].says == HOLDS


def test_a_picture_without_a_manifest_says_nothing():
    assert claims(encoded(picture(), "JPEG")) == ()
    assert credentials.read(encoded(picture(), "JPEG", comment=credentials.MARK)) is None


def test_without_the_library_nothing_is_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    monkeypatch.setattr(credentials, "_library", credentials._library.__wrapped__)
    data = signed()
    assert [e.where for e in claims(data)] == ["C2PA"]
    with pytest.raises(MissingExtra):
        credentials.read(data)


def test_hostile_names_are_short_and_printable():
    for evidence in claims(signed(program="A\x1b[31m\u202e\n" + "x" * 3000, by=signer("Adobe\n\x07trusted"))):
        assert evidence.says.isprintable()
        assert len(evidence.says) <= LONGEST


def segment(body):
    """A JPEG with this in its APP11."""
    data = encoded(picture(), "JPEG")
    return data[:2] + b"\xff\xeb" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]


@pytest.mark.parametrize("data", [
    segment(b"JP\0\1\0\0\0\1\0\0\x01\0jumb\0\0\0\x1fjumdc2pa" + bytes(range(200))),
    segment(b"JP\0\1\0\0\0\1\xff\xff\xff\xffjumb\xff\xff\xff\xffjumdc2pa\0\x11\0\x10"),
    segment(b"JP\0\1\0\0\0\1" + b"\0\0\x08\0jumb\0\0\0\x1djumdc2pa" * 2000), credentials.MARK,
])  # fmt: skip
def test_garbage_is_a_line_at_most(data):
    found = claims(data)
    assert len(found) <= 1
    assert all(e.where == "C2PA" and "cannot be read" in e.says for e in found)


def test_a_damaged_manifest_never_holds_and_never_raises():
    data = signed()
    start = data.index(credentials.MARK)
    for end in range(start, start + 3000, 97):
        first = next(iter(claims(data[:end])), None)
        assert first is None or first.says != HOLDS
    for at in range(start + 8, start + 1500, 31):
        assert all(e.says.isprintable() for e in claims(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]))


@pytest.mark.parametrize("store", [
    {}, {"active_manifest": "a", "manifests": {}}, {"active_manifest": "a", "manifests": {"a": []}},
    {"active_manifest": "a", "manifests": {"a": {"assertions": [{"label": "c2pa.actions", "data": 3}]}}},
    {"active_manifest": [], "manifests": {}},
])  # fmt: skip
def test_a_store_of_another_shape_cannot_be_read(store, monkeypatch):
    monkeypatch.setattr(c2pa.Reader, "json", lambda _: json.dumps(store))
    with pytest.raises(ImageError, match="cannot be read"):
        credentials.read(signed())


def test_a_manifest_that_is_its_own_parent_comes_to_an_end():
    own = {"ingredients": [{"relationship": "parentOf", "active_manifest": "a"}]}
    assert len(list(credentials._lineage({"active_manifest": "a", "manifests": {"a": own}}))) == credentials.MOST


@pytest.fixture
def server():
    """Where it listens, and who asked for what."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}/manifest.c2pa", asked
        listening.shutdown()


def read_online(data, **settings):
    with c2pa.Context.from_dict({"verify": settings}) as context:
        try:
            c2pa.Reader(None, io.BytesIO(data), context=context).close()
        except c2pa.C2paError:
            return


@pytest.mark.parametrize("embed", [True, False])
def test_a_manifest_that_lies_elsewhere_is_not_fetched(server, embed):
    """The library by itself would: then this test could not tell."""
    url, asked = server
    data = signed(remote=url, embed=embed)
    assert b"provenance" in data
    if not embed:
        read_online(data)
        assert asked.pop(0) == "/manifest.c2pa"
        data += credentials.MARK  # so that the library is asked at all
    found = claims(data)
    assert found[-1].says == clean(f"credentials lie elsewhere and were not fetched: {url}")
    assert (found[0].says == HOLDS) == embed
    assert len(found) == (5 if embed else 1)
    assert asked == []


def test_no_revocation_is_asked_for(server):
    url, asked = server
    data = signed(by=signer(ocsp=url))
    read_online(data, ocsp_fetch=True)
    assert asked
    asked.clear()
    assert says(data)["C2PA"] == HOLDS
    assert asked == []


def test_the_settings_allow_no_host_at_all(monkeypatch):
    given = []
    monkeypatch.setattr(c2pa.Context, "from_dict", lambda settings: given.append(settings) or c2pa.Context())
    assert claims(signed())
    assert given == [credentials.OFFLINE]
    assert given[0]["core"]["allowed_network_hosts"] == []
    assert given[0]["verify"]["remote_manifest_fetch"] is False
    assert given[0]["verify"]["ocsp_fetch"] is False


def test_the_native_library_is_not_taken_from_the_working_folder(tmp_path):
    """A file beside the pictures that is named like it, as the package's own loader would take it."""
    name = credentials._LIBRARY.get(sys.platform, "libc2pa_c.so")
    (tmp_path / name).write_bytes(b"not a library")
    code = (
        "import ctypes; loaded = []; real = ctypes.CDLL\n"
        "ctypes.CDLL = lambda path, *a, **k: loaded.append(path) or real(path, *a, **k)\n"
        "from faceauth.provenance import c2pa as credentials; import os\n"
        "print(credentials._library().__name__, os.environ.get('C2PA_LIBRARY_NAME'), any(os.getcwd() in str(p) for p in loaded), len(loaded))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, env=os.environ
    )
    assert run.stdout.split() == ["c2pa", "None", "False", "2"]


def test_it_stands_beside_the_score_and_changes_nothing(detector, tmp_path):
    (tmp_path / "plain.png").write_bytes(encoded(picture()))
    (tmp_path / "signed.png").write_bytes(signed(format="PNG", source=picture()))
    one, other = detector.detect([tmp_path / "signed.png", tmp_path / "plain.png"])
    assert one.faces == other.faces
    assert [e.generator for e in one.evidence if e.where == "C2PA claim generator"] == ["firefly"]
    assert other.evidence == ()


def pem(certificate):
    return certificate.public_bytes(PEM).decode()


@pytest.fixture
def anchors(tmp_path):
    """A trust list of the authority made here, as a file."""
    path = tmp_path / "anchors.pem"
    path.write_text(pem(authority()[0]))
    return path


@functools.cache
def stranger():
    """An authority that is on nobody's list."""
    key = ec.generate_private_key(ec.SECP256R1())
    return certificate(named("Another Root"), key, named("Another Root"), key, authority=True), key


def states(data, trust):
    found = credentials.read(data, trust)
    return found.state, found.trusted


def test_a_signer_on_the_trust_list_is_trusted_and_another_is_not(anchors):
    trust = credentials.TrustList.read(anchors)
    other = credentials.TrustList(pem(stranger()[0]))
    data = signed()
    assert states(data, trust) == ("trusted", "yes")
    assert states(data, other) == ("valid", "no")
    assert states(data, None) == ("valid", "not checked")
    lines = {e.where: e.says for e in claims(data, trust)}
    assert lines["C2PA signer"] == "signed by The Signer, A Laboratory, on the trust list"
    assert {e.where: e.says for e in claims(data, other)}["C2PA signer"].endswith(", not on the trust list")
    assert {e.where: e.says for e in claims(data)}["C2PA signer"].endswith(", trust not checked")


def test_a_trust_list_mends_no_broken_signature(anchors):
    trust = credentials.TrustList.read(anchors)
    data = bytearray(signed())
    data[-40] ^= 1
    assert states(bytes(data), trust)[0] == "broken"


def test_an_expired_certificate_stays_expired_with_a_trust_list(expired, anchors):
    found = credentials.read(expired, credentials.TrustList.read(anchors))
    assert found.state == "expired"
    assert not found.good_now
    assert found.signed_at == ""


def test_validity_issuer_actions_and_ingredients_are_told():
    found = credentials.read(signed(program="An Editor", parent=signed(program="ChatGPT", tool="DALL-E")))
    assert found.issuer == "The Root, A Laboratory"
    assert found.valid_from < NOW.isoformat() < found.valid_until
    assert found.good_now
    assert found.actions == ("c2pa.opened", "c2pa.created with DALL-E")
    assert found.ingredients == ("before (parentOf, with a manifest of its own)",)


def test_nothing_is_fetched_with_a_trust_list_either(server, anchors):
    url, asked = server
    trust = credentials.TrustList.read(anchors)
    data = signed(by=signer(ocsp=url), remote=url)
    assert states(data, trust) == ("trusted", "yes")
    assert asked == []


@pytest.mark.parametrize("text", ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_trust_list_that_is_none_is_refused_with_its_name(tmp_path, text):
    (tmp_path / "list.pem").write_text(text)
    with pytest.raises(UsageError, match=r"list\.pem.* holds no certificates") as caught:
        credentials.TrustList.read(tmp_path / "list.pem")
    assert "PEM" in caught.value.hint
    with pytest.raises(UsageError, match="cannot be read"):
        credentials.TrustList.read(tmp_path / "none.pem")


def test_usages_are_object_identifiers(anchors, tmp_path):
    usages = tmp_path / "store.cfg"
    usages.write_text("# a comment\n1.3.6.1.5.5.7.3.36\n")
    assert states(signed(), credentials.TrustList.read(anchors, usages)) == ("trusted", "yes")
    usages.write_text("email")
    with pytest.raises(UsageError, match="'email' is none"):
        credentials.TrustList.read(anchors, usages)


def test_a_signer_for_a_usage_of_its_own_is_trusted_only_where_that_is_allowed():
    """An extended key usage that the specification does not name."""
    own = "1.3.6.1.4.1.99999.7\n"
    root, root_key = authority()
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.ExtendedKeyUsage([x509.ObjectIdentifier(own.strip())])
    leaf = certificate(named("Own"), key, root.subject, root_key, usage)
    private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    info = c2pa.C2paSignerInfo(b"es256", leaf.public_bytes(PEM) + root.public_bytes(PEM), private, None)
    context = c2pa.Context.from_dict({"trust": {"trust_config": own}, "verify": {"verify_after_sign": False}})
    action = {"action": "c2pa.created", "digitalSourceType": IPTC + "digitalCapture"}
    assertions = [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]
    builder = c2pa.Builder(json.dumps({"claim_generator_info": [{"name": "x"}], "assertions": assertions}), context)
    out = io.BytesIO()
    builder.sign(c2pa.Signer.from_info(info), "image/jpeg", io.BytesIO(encoded(picture(), "JPEG")), out)
    assert states(out.getvalue(), credentials.TrustList(pem(root))) == ("broken", "no")
    assert states(out.getvalue(), credentials.TrustList(pem(root), own)) == ("trusted", "yes")


def test_a_time_stamp_is_told_with_whether_the_certificate_was_good_then(monkeypatch):
    """The library's account of one; making a time stamp would need an authority that answers."""
    data = signed()
    report = {f.where: f.text for f in examine(data).findings}
    assert report["C2PA validity"] == "no time stamp: when it was signed is not known; certificate good now: yes"
    said = json.loads(c2pa.Reader.json(reader := c2pa.Reader("image/jpeg", io.BytesIO(data))))
    reader.close()
    said["manifests"][said["active_manifest"]]["signature_info"]["time"] = "2026-01-02T03:04:05+00:00"
    monkeypatch.setattr(c2pa.Reader, "json", lambda _: json.dumps(said))
    report = {f.where: f.text for f in examine(data).findings}
    assert report["C2PA validity"] == (
        "time stamp of 2026-01-02T03:04:05+00:00; certificate good when it was signed: yes; now: yes"
    )


def test_the_ingredients_shown_are_bounded():
    many = [{"title": f"n{n}", "relationship": "componentOf"} for n in range(10_000)]
    assert len(list(credentials._ingredients({"ingredients": many}))) == credentials.MOST_INGREDIENTS


def test_a_chain_of_ingredients_is_followed_a_few_steps(monkeypatch):
    """Each made from the one before; 30 deep, which an attacker could make thousands."""
    manifests = {
        f"m{n}": {
            "claim_generator_info": [{"name": f"p{n}"}],
            "ingredients": [{"relationship": "parentOf", "active_manifest": f"m{n + 1}"}],
        }
        for n in range(30)
    }
    store = {"active_manifest": "m0", "manifests": manifests, "validation_state": "Valid"}
    monkeypatch.setattr(c2pa.Reader, "json", lambda _: json.dumps(store))
    assert credentials.read(signed()).generators == ("p0", "p1", "p2", "p3")


def test_json_nested_without_end_or_too_long_cannot_be_read(monkeypatch):
    monkeypatch.setattr(c2pa.Reader, "json", lambda _: '{"a":' * 100_000)
    with pytest.raises(ImageError, match="cannot be read"):
        credentials.read(signed())
    monkeypatch.setattr(c2pa.Reader, "json", lambda _: " " * 100)
    monkeypatch.setattr(credentials, "MOST_JSON", 99)
    with pytest.raises(ImageError, match="too large"):
        credentials.read(signed())
